"""The official Node SDKs and the AI SDK, unmodified, each in its own dialect, against the gateway.

Answers stream and whole, tools, structured output, the SDK's own exception for each refusal, and what shared WIRE.md
promises: a cut and a denial end in one call.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests import node_sdk
from tests.http.live import LiveGateway, sha256
from tests.upstream import ScriptedUpstream
from tests.upstream_reply import Received
from tests.upstream_script import ListPrice, Script, text, tool, words

KEY = "sk-bursar-node"
PRICE = ListPrice("0.001", "0.002")
SAID = "One two three four."
CITY = {"name": "Ghent", "people": 270000}
FINISHES = {
    "openai-chat": ("stop", "tool_calls"),
    "openai-responses": ("completed", "completed"),
    "anthropic": ("end_turn", "tool_use"),
    "google": ("STOP", "STOP"),
    "ai-chat": ("stop", "tool-calls"),
    "ai-responses": ("stop", "tool-calls"),
}
UNAUTHORIZED = {"google": "ApiError", "ai-chat": "APICallError", "ai-responses": "APICallError"}


def answer(received: Received) -> Script:
    """What the prompt, which is a mode's name, asks for."""
    said = received.body["messages"][-1]["content"]
    mode = said if isinstance(said, str) else said[-1]["text"]
    if mode == "tools":
        return Script.of(tool(id="call_a", name="look"), tool('{"what":'), tool('"up"}'), input_tokens=12)
    if mode == "json":
        return Script.of(text('{"name": "Ghent",'), text(' "people": 270000}'))
    if mode == "cut":
        return Script.of(words("w " * 2000), input_tokens=12, obeys_limit=False, delay_s=0.001)
    return Script.of(words(SAID), input_tokens=12)


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(answer) as live:
        yield live


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    try:
        node_sdk.installed()
    except node_sdk.NodeUnavailable as error:
        pytest.skip(str(error))
    policy = f"""
version: 1
providers: {{a: {{base_url: "{upstream.url}"}}}}
models: {{m: {{provider: a, pricing: {{input_per_1k: 0.001, output_per_1k: 0.002}}, budgets: {{max_cost_usd: 0}}}}}}
routes: {{auto: {{candidates: [m]}}}}
keys: [{{name: node, sha256: {sha256(KEY)}}}]
"""
    with LiveGateway(policy, tmp_path_factory.mktemp("node")) as live:
        yield live


@dataclass
class Ran:
    """All calls of one SDK, made in one process: what each gave, and what of it reached the upstream."""

    sdk: str
    seen: dict[str, dict[str, Any]]
    requests: list[Received]
    bill_nano: int
    spent_nano: int


CAP = {"X-Bursar-Task-Id": "cut", "X-Bursar-Task-Max-Cost-Usd": "0.000212"}
CALLS: dict[str, dict[str, Any]] = {
    **{mode: {"mode": mode, "headers": {"X-Bursar-Task-Id": "work"}} for mode in ("plain", "stream", "tools", "json")},
    **{mode: {"mode": mode, "headers": CAP} for mode in ("cut", "denied", "denied-stream")},
    "unknown": {"mode": "plain", "model": "nothing"},
    "wrong": {"mode": "plain", "key": "sk-other"},
}


@pytest.fixture(scope="module", params=FINISHES)
def ran(request: pytest.FixtureRequest, gateway: LiveGateway, upstream: ScriptedUpstream) -> Ran:
    sdk, base = str(request.param), gateway.url.removesuffix("/v1")
    upstream.requests.clear()
    asked = []
    for call in CALLS.values():
        headers = dict(call.get("headers", {}))
        if "X-Bursar-Task-Id" in headers:
            headers["X-Bursar-Task-Id"] += f"-{sdk}"
        asked.append({"model": "m", "key": KEY, **call, "headers": headers})
    seen = dict(zip(CALLS, node_sdk.calls(base, sdk, asked), strict=True))
    requests = list(upstream.requests)
    bill_nano = sum(received.tokens.bill(PRICE) for received in requests[:4])
    task = gateway.ask("GET", f"/v1/tasks/work-{sdk}", headers={"authorization": f"Bearer {KEY}"}).json
    return Ran(sdk, seen, requests, bill_nano, round(task["spent_usd"] * 10**9))


def test_answers_stream_and_whole(ran: Ran) -> None:
    for mode in ("plain", "stream"):
        seen = ran.seen[mode]
        assert (seen["error"], seen["text"], seen["finish"]) == (None, SAID, FINISHES[ran.sdk][0])
        assert (seen["tokens"], seen["sent"]) == ([12, 4], 1)
    assert ran.spent_nano == ran.bill_nano


def test_tools_and_structured_output(ran: Ran) -> None:
    tools, shaped = ran.seen["tools"], ran.seen["json"]
    assert (tools["error"], tools["calls"], tools["finish"]) == (None, [["look", {"what": "up"}]], FINISHES[ran.sdk][1])
    assert (shaped["error"], shaped["object"]) == (None, CITY)
    wanted = ran.requests[3].body["response_format"]
    assert (wanted["type"], set(wanted["json_schema"]["schema"]["properties"])) == ("json_schema", set(CITY))


def test_a_cut_and_all_that_follows_are_one_call_each(ran: Ran) -> None:
    assert ran.seen["cut"]["text"].startswith("w w")
    for mode in ("cut", "denied", "denied-stream"):
        seen = ran.seen[mode]
        assert "out of budget" in seen["error"]["message"], seen
        assert seen["sent"] == 1
    for mode in ("denied", "denied-stream"):
        error = ran.seen[mode]["error"]
        assert (error["status"], error["own"]) == (400 if "responses" in ran.sdk else 402, True)
    assert len(ran.requests) == 5, "four that worked and one that was cut"


def test_refusals_are_the_sdks_own_exceptions(ran: Ran) -> None:
    for name, status in (("unknown", 404), ("wrong", 401)):
        seen = ran.seen[name]
        assert (seen["error"]["status"], seen["error"]["own"], seen["sent"]) == (status, True, 1)
    assert ran.seen["wrong"]["error"]["name"] == UNAUTHORIZED.get(ran.sdk, "AuthenticationError")
