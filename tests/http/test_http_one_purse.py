"""There is one way to money: no route of the gateway reaches a provider once a cap is used up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from app.core.errors import BudgetExceeded
from app.http.count import CountRoute
from tests.http.live import SAY, LiveGateway
from tests.upstream import ScriptedUpstream

PARTS = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "/v1/chat/completions": ("/v1/chat/completions", {"model": "m", "messages": SAY}),
    "/v1/completions": ("/v1/completions", {"model": "m", "prompt": "hi"}),
    "/v1/responses": ("/v1/responses", {"model": "m", "input": "hi"}),
    "/v1/messages": ("/v1/messages", {"model": "m", "messages": SAY, "max_tokens": 50}),
    ":generateContent": ("/v1beta/models/m:generateContent", PARTS),
    ":streamGenerateContent": ("/v1beta/models/m:streamGenerateContent", PARTS),
    "/v1/embeddings": ("/v1/embeddings", {"model": "m", "input": "hi"}),
}
"""A request for each route that spends."""
NANO = "0.000000001"
CAPS = {"global": f"{{total: {{max_cost_usd: {NANO}}}}}", "task": f"{{max_cost_usd: {NANO}}}"}
CAPS["request"] = CAPS["task"]


@pytest.fixture(scope="module", params=CAPS)
def spent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A gateway that may spend a nano-dollar, and the provider that must not be asked."""
    with ScriptedUpstream() as upstream:
        policy = f"""
version: 1
providers: {{p: {{base_url: "{upstream.url}"}}}}
models: {{m: {{provider: p, pricing: {{input_per_1k: 0.001, output_per_1k: 0.002}}}}}}
routes: {{auto: {{candidates: [m]}}}}
caps: {{{request.param}: {CAPS[request.param]}}}
"""
        with LiveGateway(policy, tmp_path_factory.mktemp("spent")) as gateway:
            yield gateway, upstream


def test_every_route_is_known_here(spent: Any) -> None:
    """A new one is asked about below, or counts tokens only, for which nobody pays."""
    gateway, _ = spent
    routes = gateway.gateway.front._hot
    assert {name for name, route in routes.items() if not isinstance(route, CountRoute)} == set(ASKED)


@pytest.mark.parametrize("task", ["", "/t/some-task"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", ASKED)
def test_no_route_spends_past_a_cap(spent: Any, route: str, stream: bool, task: str) -> None:
    gateway, upstream = spent
    path, body = ASKED[route]
    streams = {"stream": True} if stream and path.startswith("/v1/") and route != "/v1/embeddings" else {}
    answer = gateway.ask("POST", task + path, {**body, **streams})
    assert answer.status == (400 if route == "/v1/responses" else BudgetExceeded.status)
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers
    assert answer.headers["x-bursar-limit-usd"] == NANO
    assert not upstream.requests
