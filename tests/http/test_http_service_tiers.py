"""Another tier of a provider's service has another price: charged by it, refused under a cap where nobody knows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dialects.test_errors import RETRIED
from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, Live, policy, read
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, words

SAID = words("One two three.")
PLAIN_NANO = 20 * INPUT_NANO + len(SAID) * OUTPUT_NANO
CAPPED = {"caps": {"task": {"max_cost_usd": 1}}}


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        running.source = Script.of(SAID, input_tokens=20)
        yield running


def spec_of(upstream: ScriptedUpstream, factors: dict[str, float], **more: Any) -> dict[str, Any]:
    pricing = {"input_per_1k": 0.001, "output_per_1k": 0.002, "service_tiers": factors}
    return policy({"m": upstream}, models={"m": {"pricing": pricing}}, **more)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("tier", "factor"), [("priority", 2.0), ("flex", 0.5), ("default", 1.0), ("auto", 1.0), (None, 1.0)]
)
async def test_it_is_charged_at_its_own_price(
    upstream: ScriptedUpstream, tmp_path: Path, stream: bool, tier: str | None, factor: float
) -> None:
    async with Live(tmp_path, spec_of(upstream, {"priority": 2, "flex": 0.5}, **CAPPED)) as live:
        answer = await live.chat(model="m", stream=stream, task="t", service_tier=tier)
        assert answer.status == 200, answer.body
        assert upstream.requests[-1].body["service_tier"] == tier
        assert round((await live.task("t"))["spent_usd"] * 10**9) == factor * PLAIN_NANO


CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
USED = {"input_tokens": 20, "output_tokens": 3}


def replies(tier: str | None) -> dict[str, tuple[dict[str, Any], bytes, bytes]]:
    """What a client of each dialect asks, and what its provider answers, whole and as a stream."""
    said = {"role": "assistant", "content": "Hi."}
    chat = {"id": "x", "created": 1, "model": "m", "service_tier": tier}
    usage = {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23}
    response = {
        "id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "m",
        "service_tier": tier,
        "output": [{"id": "msg_1", "type": "message", "status": "completed", "role": "assistant",
                    "content": [{"type": "output_text", "text": "Hi.", "annotations": []}]}],
        "usage": USED,
    }  # fmt: skip
    ends = {"type": "response.completed", "sequence_number": 1, "response": response}
    delta = {"type": "response.output_text.delta", "sequence_number": 0, "delta": "Hi."}
    return {
        CHAT: (
            {"messages": [{"role": "user", "content": "Hi"}]},
            body({**chat, "choices": [{"index": 0, "message": said, "finish_reason": "stop"}], "usage": usage}),
            sse({**chat, "choices": [{"index": 0, "delta": said, "finish_reason": "stop"}]},
                {**chat, "choices": [], "usage": usage}) + b"data: [DONE]\n\n",
        ),
        RESPONSES: ({"input": "Hi"}, body(response), sse(delta, ends)),
    }  # fmt: skip


def body(reply: dict[str, Any]) -> bytes:
    return json.dumps(reply).encode()


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + body(event) + b"\n\n" for event in events)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize(
    ("asked", "served", "factor"),
    [
        ("priority", "default", 1.0),
        ("priority", "priority", 2.0),
        ("auto", "priority", 2.0),
        (None, "flex", 0.5),
        ("flex", None, 0.5),
        ("flex", "auto", 0.5),
        (None, "scale", 1.0),
    ],
)
async def test_it_is_charged_as_it_was_served(
    tmp_path: Path, path: str, stream: bool, asked: str | None, served: str | None, factor: float
) -> None:
    """A provider may serve in another tier than was asked for, and bills that one."""
    wish, whole, streamed = replies(served)[path]
    kind = "text/event-stream" if stream else "application/json"
    script = Script(body=streamed if stream else whole, headers={"content-type": kind})
    with ScriptedUpstream(script) as provider:
        world = spec_of(provider, {"priority": 2, "flex": 0.5}, **CAPPED)
        world["providers"]["m"]["also"] = ["openai_responses"]
        async with Live(tmp_path, world) as live:
            asking = {"model": "m", "service_tier": asked, "stream": stream, "metadata": {"task_id": "t"}, **wish}
            async with live.client.session.post(live.url + path, json=asking) as response:
                assert (await read(response)).status == 200
            spent_nano = round((await live.task("t"))["spent_usd"] * 10**9)
    assert spent_nano == factor * (20 * INPUT_NANO + 3 * OUTPUT_NANO)


async def test_without_a_price_it_is_refused_under_a_cap(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    before = len(upstream.requests)
    async with Live(tmp_path, spec_of(upstream, {"flex": 0.5}, **CAPPED)) as live:
        answer = await live.chat(model="m", stream=True, service_tier="priority")
        assert (answer.status, answer.error_code) == (400, "unpriced_tool")
        assert answer.error is not None
        assert "pricing.service_tiers.priority" in answer.error["message"]
        assert not RETRIED.search(answer.error["message"])
        assert len(upstream.requests) == before


async def test_without_a_price_and_a_cap_the_cost_is_unknown(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async with Live(tmp_path, spec_of(upstream, {})) as live:
        answer = await live.chat(model="auto", task="t", service_tier="priority")
        record = await live.client.decision(answer.request_id)
        assert (record["cost_usd"], record["provenance"]) == (None, "unknown")
        assert record["attempts"][0]["unpriced_tools"] == ["service tier priority"]
        assert record["decision"]["asked"]["service_tier"] == "priority"


async def test_what_another_dialect_drops_has_the_plain_price(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """`speed` is Anthropic's; the provider that is asked here speaks chat."""
    async with Live(tmp_path, spec_of(upstream, {}, **CAPPED)) as live:
        asked = {
            "model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}], "speed": "fast",
        }  # fmt: skip
        headers = {"x-bursar-task-id": "t"}
        async with live.client.session.post(live.url + "/v1/messages", json=asked, headers=headers) as response:
            answer = await read(response)
        assert answer.status == 200, answer.body
        assert "speed" not in upstream.requests[-1].body
        assert round((await live.task("t"))["spent_usd"] * 10**9) == PLAIN_NANO
