"""Messages' `fallbacks`: a turn is charged at the price of the model that answered it, and of each that declined after
it had begun; what is held is enough for the dearest."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.live import Answer, Live, policy, read
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script

HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
ASKED, CHEAP, DEAR = "claude-asked-x", "claude-cheap-x", "claude-dear-x"
RATES = {"m": (10, 50), "cheap": (5, 25), "dear": (20, 80)}
"""Thousandths of a dollar for 1,000 tokens: thousands of nano-dollars a token."""


def spec_of(upstream: ScriptedUpstream, **more: Any) -> dict[str, Any]:
    models = {
        name: {"upstream_model": upstream_model, "pricing": {"input_per_1k": given / 1000, "output_per_1k": out / 1000}}
        for (name, (given, out)), upstream_model in zip(RATES.items(), (ASKED, CHEAP, DEAR), strict=True)
    }
    made = policy({"m": upstream}, models=models, providers={"m": {"dialect": "anthropic"}}, **more)
    for model in made["models"].values():
        model["provider"] = "m"
    return made


def cost(name: str, given: int, output: int) -> int:
    return 1000 * (given * RATES[name][0] + output * RATES[name][1])


def iteration(model: str, given: int, output: int, kind: str = "message") -> dict[str, Any]:
    return {"type": kind, "model": model, "input_tokens": given, "output_tokens": output}


def answered(*iterations: dict[str, Any]) -> dict[str, Any]:
    """A reply whose turn went through these."""
    usage = {
        "input_tokens": sum(one["input_tokens"] for one in iterations),
        "output_tokens": sum(one["output_tokens"] for one in iterations),
        "iterations": list(iterations),
    }
    hops = [
        {"type": "fallback", "from": {"model": one["model"]}, "to": {"model": two["model"]},
         "trigger": {"type": "refusal", "category": "cyber"}}
        for one, two in itertools.pairwise(iterations)
    ]  # fmt: skip
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": iterations[-1]["model"],
        "stop_reason": "end_turn", "content": [*hops, {"type": "text", "text": "Well."}], "usage": usage,
    }  # fmt: skip


def streamed(reply: dict[str, Any]) -> Script:
    """The same as a stream, as far as the gateway looks at it."""
    opening = {**reply, "content": [], "stop_reason": None, "usage": {"input_tokens": 100, "output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": opening}]
    for place, block in enumerate(reply["content"]):
        begun = {**block, "text": ""} if block["type"] == "text" else block
        events.append({"type": "content_block_start", "index": place, "content_block": begun})
        if block["type"] == "text":
            delta = {"type": "text_delta", "text": block["text"]}
            events.append({"type": "content_block_delta", "index": place, "delta": delta})
        events.append({"type": "content_block_stop", "index": place})
    done = {"stop_reason": "end_turn", "stop_sequence": None}
    events += [{"type": "message_delta", "delta": done, "usage": reply["usage"]}, {"type": "message_stop"}]
    wire = b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)
    return Script(body=wire, headers={"content-type": "text/event-stream"})


async def ask(live: Live, *, fallbacks: Any, stream: bool = False, **more: Any) -> Answer:
    asked = {"model": "m", "messages": HI, "max_tokens": 50, "fallbacks": fallbacks, "stream": stream, **more}
    headers = {"x-bursar-task-id": "t", "anthropic-beta": "server-side-fallback-2026-07-01"}
    async with live.client.session.post(live.url + "/v1/messages", json=asked, headers=headers) as response:
        return await read(response)


BOTH = [{"model": CHEAP}, {"model": DEAR}]
TURNS: dict[str, tuple[list[dict[str, Any]], int]] = {
    "nobody declines": ([iteration(ASKED, 100, 20)], cost("m", 100, 20)),
    "before a word": (
        [iteration(ASKED, 100, 0), iteration(CHEAP, 100, 20, "fallback_message")], cost("cheap", 100, 20)
    ),
    "after some words": (
        [iteration(ASKED, 100, 7), iteration(DEAR, 110, 20, "fallback_message")],
        cost("m", 100, 7) + cost("dear", 110, 20),
    ),
    "again": (
        [iteration(ASKED, 100, 7), iteration(CHEAP, 100, 3), iteration(DEAR, 110, 20, "fallback_message")],
        cost("m", 100, 7) + cost("cheap", 100, 3) + cost("dear", 110, 20),
    ),
    "routed at once": ([iteration(CHEAP, 100, 20, "fallback_message")], cost("cheap", 100, 20)),
    "a dated name": ([iteration(f"{DEAR}-20260615", 100, 20, "fallback_message")], cost("dear", 100, 20)),
}  # fmt: skip


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("fallbacks", [BOTH, "default"], ids=["named", "default"])
@pytest.mark.parametrize("capped", [True, False])
async def test_each_model_is_charged_at_its_own_price(
    upstream: ScriptedUpstream, tmp_path: Path, turn: str, stream: bool, fallbacks: Any, capped: bool
) -> None:
    iterations, charged = TURNS[turn]
    reply = answered(*iterations)
    plain = Script(body=json.dumps(reply).encode(), headers={"content-type": "application/json"})
    upstream.source = lambda request: streamed(reply) if request.body.get("stream") else plain
    async with Live(tmp_path, spec_of(upstream, **({"caps": {"task": {"max_cost_usd": 1}}} if capped else {}))) as live:
        answer = await ask(live, fallbacks=fallbacks, stream=stream)
        assert answer.status == 200, answer.body
        assert upstream.requests[-1].body["fallbacks"] == fallbacks
        assert round((await live.task("t"))["spent_usd"] * 10**9) == charged
        (attempt,) = await live.attempts(answer)
        assert attempt["provenance"] == "metered"
        # The dearest may have answered.
        assert attempt["budget"]["held_usd"] * 10**9 >= (0 if stream or capped else cost("dear", 10, 50))


async def test_a_model_that_nobody_knows_is_refused_under_a_cap_and_else_an_estimate(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    reply = answered(iteration("claude-new-x", 100, 20, "fallback_message"))
    upstream.source = Script(body=json.dumps(reply).encode(), headers={"content-type": "application/json"})
    named, before = [{"model": "claude-new-x"}], len(upstream.requests)
    async with Live(tmp_path, spec_of(upstream, caps={"task": {"max_cost_usd": 1}})) as live:
        answer = await ask(live, fallbacks=named)
        assert (answer.status, answer.headers["x-should-retry"]) == (402, "false")
        assert b"claude-new-x" in answer.body
        assert len(upstream.requests) == before
        assert await live.held() == {}
    async with Live(tmp_path, spec_of(upstream)) as live:
        answer = await ask(live, fallbacks=named)
        (attempt,) = await live.attempts(answer)
        assert (attempt["provenance"], round(attempt["cost_usd"] * 10**9)) == ("estimated", cost("m", 100, 20))


async def test_the_clamp_is_that_of_the_dearest_and_binds_all(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    reply = answered(iteration(ASKED, 10, 2))
    upstream.source = lambda _: streamed(reply)
    async with Live(tmp_path, spec_of(upstream)) as live:
        named = [{"model": CHEAP}, {"model": DEAR, "max_tokens": 900}]
        answer = await ask(live, fallbacks=named, stream=True, max_tokens=30, max_cost_usd=0.01)
        assert answer.status == 200, answer.body
        sent = upstream.requests[-1].body
        (attempt,) = await live.attempts(answer)
        clamp = attempt["clamp_tokens"]
        assert clamp * RATES["dear"][1] * 1000 < 10_000_000 < (clamp + 40) * RATES["dear"][1] * 1000
        assert sent["fallbacks"] == [{"model": CHEAP}, {"model": DEAR, "max_tokens": clamp}]
        assert sent["max_tokens"] == min(30, clamp)


@pytest.mark.parametrize(
    ("fallbacks", "param"),
    [([{"model": CHEAP, "max_tokens": 0}], "fallbacks[0].max_tokens"), ([{}], "fallbacks"), (7, "fallbacks")],
)
async def test_fallbacks_that_are_none_are_refused(
    upstream: ScriptedUpstream, tmp_path: Path, fallbacks: Any, param: str
) -> None:
    async with Live(tmp_path, spec_of(upstream)) as live:
        answer = await ask(live, fallbacks=fallbacks)
        assert answer.status == 400
        assert param in answer.json["error"]["message"]


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(
    ("asked", "served", "factor"), [("fast", "standard", 1), (None, "fast", 6), ("fast", "fast", 6)]
)
async def test_each_is_charged_in_the_tier_in_which_it_was_served(
    upstream: ScriptedUpstream,
    tmp_path: Path,
    turn: str,
    stream: bool,
    asked: str | None,
    served: str,
    factor: int,
) -> None:
    """Which is one for all of the turn; a model without a price of its own there stays at the one asked for."""
    iterations, charged = TURNS[turn]
    reply = answered(*iterations)
    reply["usage"]["speed"] = served
    plain = Script(body=json.dumps(reply).encode(), headers={"content-type": "application/json"})
    upstream.source = lambda request: streamed(reply) if request.body.get("stream") else plain
    spec = spec_of(upstream, caps={"task": {"max_cost_usd": 1}})
    for model in spec["models"].values():
        model["pricing"]["service_tiers"] = {"fast": 6}
    async with Live(tmp_path, spec) as live:
        answer = await ask(live, fallbacks=BOTH, stream=stream, **({"speed": asked} if asked else {}))
        assert answer.status == 200, answer.body
        assert round((await live.task("t"))["spent_usd"] * 10**9) == factor * charged
        (attempt,) = await live.attempts(answer)
        assert attempt["provenance"] == "metered"
