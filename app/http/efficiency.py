"""`GET /v1/efficiency`: how fast and how cheap runs succeed, by model, harness, kind of work, key or day."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from app.core.efficiency import GROUPS
from app.core.errors import BadRequest
from app.core.since import since_s
from app.gateway.services import Services
from app.http.asking import asked_owner, caller
from app.http.routes import Routes

SINCE = "7d"
ROUND_S = 5
"""A moment is rounded down to whole steps of this, so that those who ask again ask the same."""
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


class Commands(Protocol):
    """Commands beside the gateway (`app/aside.py`)."""

    def ask(self, *arguments: str) -> Awaitable[bytes]:
        """What `bursar ARGUMENTS` prints. Raises TracesDown."""


def serve_efficiency(api: Routes, services: Services, aside: Commands) -> None:
    """Add the route."""

    @api.get("/v1/efficiency")
    async def efficiency(request: Request) -> Response:
        key = caller(services, request)
        owner = asked_owner(request, key)
        asked = ["efficiency", "--json", "--by", _by(request), "--since", asked_since(request)]
        if owner is not None:
            asked.append(f"--key={owner}")
        if _judged(request):
            asked.append("--judged")
        return Response(await aside.ask(*asked), media_type="application/json")


def _by(request: Request) -> str:
    names = [name.strip() for name in request.query_params.get("by", "model").split(",")]
    if any(name not in GROUPS for name in names):
        raise BadRequest(f"by must be one of {', '.join(GROUPS)}, or several with commas.", param="by")
    return ",".join(dict.fromkeys(names))


def asked_since(request: Request) -> str:
    """Since when, in Unix time, as the query says. Raises BadRequest."""
    now_s = time.time()
    try:
        begin_s = since_s(request.query_params.get("since", SINCE), now_s)
    except ValueError as error:
        raise BadRequest(f"since {error}.", param="since") from None
    return str(int(begin_s // ROUND_S * ROUND_S))


def _judged(request: Request) -> bool:
    found = _FLAGS.get(request.query_params.get("judged", "false"))
    if found is None:
        raise BadRequest("judged must be true or false.", param="judged")
    return found
