"""Routes that are not hot: who asks, whose things may be seen, how much is asked for, and the answer as JSON."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from app.core.errors import BadRequest, Forbidden
from app.core.policy import Key
from app.gateway.services import Services
from app.http.auth import KeyRing
from app.http.hot import key_name


def caller(services: Services, request: Request, *, judging: bool = False) -> Key | None:
    """Whose key came with the request; None where the policy sets no keys. Raises Unauthorized or Forbidden."""
    return KeyRing(services.view.policy).authenticate(request.headers, judging=judging)


def is_operator(key: Key | None) -> bool:
    """True for admin keys, and for anyone on this machine where the policy sets no keys."""
    return key is None or key.admin


def may_see(key: Key | None, owner: str) -> bool:
    """True for a key's own records, and for operators."""
    return is_operator(key) or key_name(key) == owner


def named_owner(request: Request, key: Key | None) -> str | None:
    """Whose things the query names: those of `?key=`, else the caller's own; an operator's "own" are all (None)."""
    return request.query_params.get("key", None if is_operator(key) else key_name(key))


def asked_owner(request: Request, key: Key | None) -> str | None:
    """The same where the caller may see them. Raises Forbidden."""
    owner = named_owner(request, key)
    if owner is not None and not may_see(key, owner):
        raise Forbidden("This key may look at its own calls only.", param="key")
    return owner


def asked_limit(request: Request, otherwise: int, most: int) -> int:
    """How much the query asks for at the most, from 1. Raises BadRequest."""
    text = request.query_params.get("limit", str(otherwise))
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
        raise BadRequest(f"limit must be a whole number from 1 to {most}.", param="limit")
    return int(text)


def as_json(value: object) -> Response:
    """A value as the answer."""
    return Response(msgspec.json.encode(value), media_type="application/json")
