"""Routes that are not hot, as they are added: plain ones of Starlette's, for no handler here has a body or a query that
FastAPI would check. Reading fifty signatures for that took a third of a gateway's start.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
H = TypeVar("H", bound=Callable[..., Awaitable[Response]])


class Routes:
    """Routes below a prefix, in the order in which they are tried; `check` may refuse a request to any of them.

    @routes.get("/v1/things/{name}")
    async def thing(request: Request, name: str) -> Response: ...
    """

    def __init__(self, prefix: str = "", check: Callable[[Request], object] | None = None) -> None:
        self.added: list[Route] = []
        self._prefix = prefix
        self._check = check

    def get(self, path: str) -> Callable[[H], H]:
        """What answers GET."""
        return self.of(path, "GET")

    def post(self, path: str) -> Callable[[H], H]:
        """What answers POST."""
        return self.of(path, "POST")

    def put(self, path: str) -> Callable[[H], H]:
        """What answers PUT."""
        return self.of(path, "PUT")

    def patch(self, path: str) -> Callable[[H], H]:
        """What answers PATCH."""
        return self.of(path, "PATCH")

    def delete(self, path: str) -> Callable[[H], H]:
        """What answers DELETE."""
        return self.of(path, "DELETE")

    def of(self, path: str, *methods: str) -> Callable[[H], H]:
        """What answers these methods."""

        def add(handler: H) -> H:
            self.added.append(Route(self._prefix + path, self._endpoint(handler), methods=methods))
            return handler

        return add

    def methods_at(self, scope: Scope) -> list[str]:
        """What all routes together take at the path of this request, each once, in the order of METHODS."""
        here = [route for route in self.added if route.matches(scope)[0] != Match.NONE]
        return [method for method in METHODS if any(method in (route.methods or ()) for route in here)]

    def _endpoint(self, handler: Callable[..., Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        check = self._check

        async def endpoint(request: Request) -> Response:
            if check is not None:
                check(request)
            arguments: dict[str, Any] = request.path_params
            return await handler(request, **arguments)

        return endpoint
