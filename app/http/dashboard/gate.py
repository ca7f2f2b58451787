"""Who may ask the dashboard's data, and how it is answered."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from app.core.errors import Forbidden
from app.core.policy import Key
from app.gateway.services import Services
from app.http.asking import caller, is_operator
from app.http.dashboard.assets import GUARDED, MOUNT
from app.http.routes import Routes

API = f"{MOUNT}/api"


@dataclass(frozen=True, slots=True)
class Gate:
    """Lets operators through: admin keys, and anyone on this machine where the policy sets no keys."""

    services: Services

    def operator(self, request: Request) -> Key | None:
        """Who asks. Raises Unauthorized, or Forbidden for keys that are no admin's and for pages of other sites."""
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Forbidden("The dashboard's data is for its own page.")
        key = caller(self.services, request)
        if not is_operator(key):
            raise Forbidden("The dashboard needs an admin key.")
        return key

    def routes(self) -> Routes:
        """Routes below API that answer operators only."""
        return Routes(API, check=self.operator)


def as_json(value: object) -> Response:
    """A value of the page's."""
    return raw_json(msgspec.json.encode(value))


def raw_json(body: bytes) -> Response:
    """JSON that nobody keeps."""
    return Response(body, headers={**GUARDED, "cache-control": "no-store"}, media_type="application/json")
