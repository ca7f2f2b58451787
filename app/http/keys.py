"""Keys over HTTP, for admins: `POST`, `GET` and `DELETE /v1/keys`. They stand in a file of the policy like all others,
so the policy stays the one truth; the operator allows it by BURSAR_POLICY_EDIT=1 and an empty file of that name.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from app.core.errors import BadRequest, Conflict, Forbidden, NotFound
from app.core.policy import Key
from app.gateway.services import Services
from app.http.asking import caller, is_operator
from app.http.bodies import bounded_body, read_json
from app.http.routes import Routes
from app.stores.keys import new_key
from app.stores.policies import Policies, StaleEdit
from app.stores.policy_keys import FILE, NotOurs, keys_in, text_of, with_key, without_key
from app.stores.policy_yaml import PolicyError

MAX_BODY_BYTES = 64 * 1024
NOT_ALLOWED = (
    f"Keys are not made over HTTP here: the operator sets BURSAR_POLICY_EDIT=1 and puts an empty file {FILE} into the"
    " policy's folder."
)
UNKEYED = "The policy has no keys, so anybody here is an operator: an admin's key has to be in it first."
BY_HAND = "An admin's key is ended by hand: without the last one, anybody here would be an operator."
ELSEWHERE = f"That key stands in another file of the policy than {FILE}, and is taken out there."

log = structlog.get_logger()


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of a POST: a key's line of the policy, without what is made here."""

    name: str
    team: str | None = None
    routes: list[str] | None = None
    caps: dict[str, Any] | None = None
    user_caps: dict[str, Any] | None = None
    expires: str | None = None


_new_key = msgspec.json.Decoder(NewKey)


def serve_keys(api: Routes, services: Services, policies: Policies, *, editable: bool) -> None:
    """Add the routes."""

    def admin(request: Request) -> Key:
        """Whose key asks. Raises Forbidden, or Conflict where the policy has none."""
        key = caller(services, request)
        if key is None:
            raise Conflict(UNKEYED)
        if not is_operator(key):
            raise Forbidden("Only admin keys may list, make or delete keys.")
        return key

    def ours() -> str:
        """The file that is written. Raises Forbidden."""
        file = str(policies.path / FILE)
        if not editable or all(source.file != file for source in policies.sources):
            raise Forbidden(NOT_ALLOWED)
        return file

    @api.get("/v1/keys")
    async def keys(request: Request) -> Response:
        admin(request)
        made = _made_here(policies)
        named = policies.current.named_keys().values()
        return _unkept({"object": "list", "data": [_shown(key, made=key.name in made) for key in named]})

    @api.post("/v1/keys")
    async def make(request: Request) -> Response:
        asking, file = admin(request), ours()
        asked = new_key_of(await bounded_body(request, MAX_BODY_BYTES))
        secret, sha256 = new_key()
        line = {"name": asked.name, "sha256": sha256, **msgspec.to_builtins(asked)}

        def added(data: bytes) -> bytes:
            if asked.name in policies.current.named_keys():
                raise Conflict("There is a key of that name.", param="name")
            return with_key(data, line)

        await _edit(policies, file, added)
        log.info("a key was made over HTTP", name=asked.name, by=asking.name)
        made = _shown(policies.current.named_keys()[asked.name], made=True)
        return _unkept({**made, "key": secret}, 201)

    @api.delete("/v1/keys/{name}")
    async def delete(request: Request, name: str) -> Response:
        asking, file = admin(request), ours()

        def removed(data: bytes) -> bytes:
            left, key = without_key(data, name), policies.current.named_keys().get(name)
            if left is not None and not (key and key.admin):
                return left
            if key is None:
                raise NotFound("There is no such key.")
            raise Conflict(ELSEWHERE if left is None else BY_HAND)

        await _edit(policies, file, removed)
        log.info("a key was deleted over HTTP", name=name, by=asking.name)
        return _unkept({"object": "key.deleted", "name": name, "deleted": True})


def new_key_of(body: bytes) -> NewKey:
    """A POST's body. Raises BadRequest."""
    asked = read_json(_new_key, body, {})
    # As it will stand in the file, for JSON can hide it: there the gateway's own environment would take its place.
    if b"${" in text_of([msgspec.to_builtins(asked)]):
        raise BadRequest("A key holds no ${VARIABLES}.")
    return asked


async def _edit(policies: Policies, file: str, change: Any) -> None:
    """Raises BadRequest naming what is wrong with a key, or Conflict."""
    try:
        await policies.edit(file, change)
    except PolicyError as error:
        problem = error.problems[0]
        place = problem.where.split(".", 2)
        param = place[2] if len(place) == 3 and place[0] == "keys" else None
        raise BadRequest(f"The policy does not take it: {problem.message}.", param=param) from None
    except StaleEdit:
        raise Conflict("The policy's files hold an edit that is not in force; nothing was written.") from None
    except NotOurs as error:
        raise Conflict(f"The file {FILE} is not written: {error}.") from None
    except OSError as error:
        raise Conflict(f"The file {FILE} cannot be written: {error.strerror or type(error).__name__}.") from None


def _made_here(policies: Policies) -> set[str]:
    data = next((source.data for source in policies.sources if Path(source.file).name == FILE), b"")
    try:
        return {str(key.get("name")) for key in keys_in(data)}
    except NotOurs:
        return set()


def _shown(key: Key, *, made: bool) -> dict[str, Any]:
    """A key as it is told, without its secret and its hash."""
    expires = None if key.expires_s is None else dt.datetime.fromtimestamp(key.expires_s, dt.UTC).isoformat()
    return {
        "object": "key",
        "name": key.name,
        "team": key.team,
        "routes": key.routes,
        "admin": key.admin,
        "judges": key.judges,
        "probes": key.probes,
        "expires": expires,
        "over_http": made,
    }


def _unkept(value: object, status: int = 200) -> Response:
    headers = {"cache-control": "no-store"}
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")
