"""Routes that are not hot: what their handlers are called with, and which of them answers."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from app.http.routes import Routes


async def ask(routes: Routes, method: str, path: str, **headers: str) -> tuple[int, str]:
    """Status and body of an answer."""
    transport = httpx.ASGITransport(Starlette(routes=routes.added))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        answer = await client.request(method, path, headers=headers)
        return answer.status_code, answer.text


def things() -> Routes:
    """One route by name, one before it, one below all."""
    routes = Routes("/v1")

    @routes.get("/things/first")
    async def first(_: Request) -> Response:
        return PlainTextResponse("the first")

    @routes.get("/things/{name}")
    async def one(request: Request, name: str) -> Response:
        return PlainTextResponse(f"{request.method} {name}")

    @routes.of("/rest/{of}/{path:path}", "PUT", "DELETE")
    async def rest(request: Request, of: str, path: str) -> Response:
        return PlainTextResponse(f"{request.method} {of} {path}")

    return routes


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("GET", "/v1/things/a%20b", "GET a b"),
        ("GET", "/v1/things/first", "the first"),
        ("PUT", "/v1/rest/a/b/c", "PUT a b/c"),
        ("DELETE", "/v1/rest/a/", "DELETE a "),
    ],
)
async def test_the_paths_parts_are_arguments_and_the_first_route_added_answers(
    method: str, path: str, said: str
) -> None:
    assert await ask(things(), method, path) == (200, said)


async def test_other_methods_and_paths_are_not_taken() -> None:
    assert (await ask(things(), "POST", "/v1/things/a"))[0] == 405
    assert (await ask(things(), "GET", "/things/a"))[0] == 404


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete"])
async def test_a_check_refuses_before_the_handler_runs(method: str) -> None:
    served: list[str] = []

    def check(request: Request) -> None:
        if "x-key" not in request.headers:
            raise HTTPException(403)

    routes = Routes(check=check)

    @getattr(routes, method)("/x")  # type: ignore[untyped-decorator]
    async def x(request: Request) -> Response:
        served.append(request.method)
        return PlainTextResponse("served")

    assert (await ask(routes, method, "/x"))[0] == 403
    assert served == []
    assert await ask(routes, method, "/x", **{"x-key": "k"}) == (200, "served")
    assert served == [method.upper()]
