"""Errors in Messages' shape.

Source: https://platform.claude.com/docs/en/api/errors (types and their statuses). The texts are the gateway's own
(shared WIRE.md: clients match them).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from app.core.errors import BursarError, ContextTooLong, ThreadsNotHeld, Unpriced, UpstreamRejected, UpstreamTooLong
from app.core.raw import UNREADABLE
from app.dialects.base import in_own_words

_encode, _decode = msgspec.json.encode, msgspec.json.decode
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_OWN_NAMES = {"stop": "stop_sequences"}
_KNOWN_TYPES = frozenset((*_TYPES.values(), "api_error"))
TOO_LONG = "prompt is too long"
"""By these words Claude Code knows that it has to compact the conversation."""
_KNOWN_AS_TOO_LONG = re.compile(f"{TOO_LONG}|exceed context limit")
"""Anthropic's own words for it."""


def error_reply(error: BursarError) -> tuple[int, bytes]:
    """Status and body of an error before the first byte."""
    return error.upstream_status if isinstance(error, UpstreamRejected) else _status(error), error_body(error)


def _status(error: BursarError) -> int:
    """An unknown price is a matter of billing: Claude Code sends a 400 six times, a 402 once (shared WIRE.md)."""
    return 402 if isinstance(error, Unpriced) else error.status


def error_body(error: BursarError) -> bytes:
    """`{"type": "error", "error": {"type", "message"}}`, the same before a stream and within it; `details` beside the
    message where clients decide by it (https://platform.claude.com/docs/en/build-with-claude/message-threads)."""
    status, (_, message) = _status(error), in_own_words(error, _OWN_NAMES)
    details: object = None
    kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    if isinstance(error, UpstreamRejected):
        kind = _TYPES.get(error.upstream_status, "invalid_request_error")
        told = error_object(error.body) or _inner(error.body)
        if told is not None:
            message, kind = told[0], told[1] if told[1] in _KNOWN_TYPES else kind
            details = _details(error.body)
        if isinstance(error, UpstreamTooLong) and _KNOWN_AS_TOO_LONG.search(message) is None:
            message = f"{TOO_LONG}: {message}"
    elif isinstance(error, ContextTooLong):
        message = f"{TOO_LONG}: {message}"
    elif isinstance(error, ThreadsNotHeld):
        details = {"error_code": error.code}
    said = {"type": kind, "message": message}
    return _encode({"type": "error", "error": said if details is None else {**said, "details": details}})


def error_object(body: bytes) -> tuple[str, str] | None:
    """The message and type of an upstream's error reply; None where it has another shape."""
    found = _object(body).get("error")
    return _message_and_kind(found) if isinstance(found, dict) else None


def _inner(body: bytes) -> tuple[str, str] | None:
    """The same of an error object without its frame, of whatever dialect."""
    return _message_and_kind(_object(body))


def _details(body: bytes) -> dict[str, Any] | None:
    """What Anthropic says for programs."""
    found = _object(body)
    told = found.get("error", found)
    details = told.get("details") if isinstance(told, dict) else None
    return details if isinstance(details, dict) else None


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = _decode(body)
    except UNREADABLE:
        return {}
    return found if isinstance(found, dict) else {}


def _message_and_kind(error: dict[str, Any]) -> tuple[str, str] | None:
    message, kind = error.get("message"), error.get("type")
    return (message, kind if isinstance(kind, str) else "") if isinstance(message, str) else None
