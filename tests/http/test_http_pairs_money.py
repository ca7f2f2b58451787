"""What a call costs between any two dialects: to the nano-dollar what its provider bills, and where it is cut never
less, and no more than a metering step above.

A far gateway in front of a scripted model gives it each dialect, as in `test_http_dialects`; requests are raw, so that
a stream can be let go piece by piece.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.core.tokens import pieces
from tests.agents.stage import PATHS
from tests.gateway.live import OUTPUT_NANO, PRICE, Answer, Live, policy, read, usd
from tests.http.test_http_harder import ROUTES, asked
from tests.readers import done_reading
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Gate, ListPrice, Piece, Script, hidden, reasoning, text, tool, words

CACHED = ListPrice("0.001", "0.002", "0.0001")
PRICING = {
    "pricing": {"input_per_1k": 0.001, "output_per_1k": 0.002, "cache_read_per_1k": 0.0001, "tiers": [
        {"above_tokens": 200_000, "input_per_1k": 0.004, "output_per_1k": 0.008, "cache_read_per_1k": 0.0004},
    ]},
}  # fmt: skip
LONG = ListPrice("0.004", "0.008", "0.0004")
INPUT = 12
CAP_NANO = INPUT * 1_000 + 120 * OUTPUT_NANO
ARRAY = "array"
"""Gemini's other form of a stream."""
CLIENTS = (*ROUTES, ARRAY)
STEP_NANO = OUTPUT_NANO
"""One piece of what the model says when it is let go piece by piece."""


@pytest.fixture
async def near(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[Live]:
    for part in ("far", "near"):
        (tmp_path / part).mkdir()
    async with Live(tmp_path / "far", policy({"m": upstream}, models={"m": PRICING})) as far:
        urls = {name: far.url + path for name, path in PATHS.items()}
        providers = {name: {"dialect": name, "base_url": url} for name, url in urls.items()}
        models = {name: {"upstream_model": "m", **PRICING} for name in urls}
        async with Live(tmp_path / "near", policy(urls, providers=providers, models=models)) as live:
            yield live


def request(client: str, model: str, *, stream: bool = True, tools: int = 0) -> tuple[str, dict[str, Any]]:
    """The path and the body of a client's request to this model."""
    if client in ("gemini", ARRAY):
        verb = "streamGenerateContent" + ("" if client == ARRAY else "?alt=sse") if stream else "generateContent"
        return f"/v1beta/models/{model}:{verb}", asked("gemini", tools)
    return ROUTES[client], {**asked(client, tools), "model": model, "stream": stream}


async def spent(live: Live) -> int:
    spent_usd: float = (await live.task("t"))["spent_usd"]
    return round(spent_usd * 10**9)


THOUGHTFUL = [reasoning("hm "), reasoning("so"), hidden(9), *words("One two three four.")]
CALLING = [text("See. "), tool(id="c1", name="tool_0"), tool('{"city": "Bern"}'), tool(id="c2", name="tool_0", index=1),
           tool('{"city": "Biel"}', index=1)]  # fmt: skip


@pytest.mark.parametrize("said", [THOUGHTFUL, CALLING], ids=["thoughts", "calls"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("model", PATHS)
async def test_what_was_cached_and_thought_costs_what_its_provider_bills(
    near: Live, upstream: ScriptedUpstream, client: str, model: str, stream: bool, said: list[Piece]
) -> None:
    upstream.source = Script.of(said, input_tokens=1_000, cached_tokens=700)
    path, body = request(client, model, stream=stream, tools=1)
    async with near.client.session.post(near.url + path, json=body, headers={"x-bursar-task-id": "t"}) as response:
        answer = await read(response)
    assert answer.status == 200, answer.body
    (received,) = upstream.requests
    assert received.tokens.output == sum(getattr(piece, "tokens", 0) for piece in said)
    assert await spent(near) == upstream.bill(CACHED) < upstream.bill(PRICE)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("model", PATHS)
async def test_a_million_tokens_cost_what_their_tier_says(
    near: Live, upstream: ScriptedUpstream, client: str, model: str
) -> None:
    upstream.source = Script.of(THOUGHTFUL, input_tokens=1_000_000, cached_tokens=400_000)
    path, body = request(client, model)
    async with near.client.session.post(near.url + path, json=body, headers={"x-bursar-task-id": "t"}) as response:
        assert (await read(response)).status == 200
    assert await spent(near) == upstream.bill(LONG)


async def in_step(live: Live, gate: Gate, path: str, body: dict[str, Any], marks: list[bytes]) -> Answer:
    """A stream of which a piece is let go when both gateways are done with the one before it, and have not cut it."""
    said, at = b"", 0
    gate.release()
    headers = {"x-bursar-task-id": "t", "x-bursar-task-max-cost-usd": f"{usd(CAP_NANO):.9f}"}
    async with live.client.session.post(live.url + path, json=body, headers=headers) as response:
        async for part in response.content.iter_any():
            said += part
            if at < len(marks) and marks[at] in said:
                at += 1
                for _ in "two gateways":
                    await done_reading()
                if len(live.services.calls):
                    gate.release()
        return Answer(response.status, {name.lower(): value for name, value in response.headers.items()}, said)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("model", PATHS)
async def test_a_cut_costs_no_less_than_is_billed_and_a_step_more_at_most(
    near: Live, upstream: ScriptedUpstream, client: str, model: str
) -> None:
    gate = Gate()
    said = [f"w{number}." for number in range(100, 400)]
    assert {pieces(f"{word} ") for word in said} == {1}
    upstream.source = Script.of(
        [text(f"{word} ") for word in said], gate=gate, role_chunk=False, obeys_limit=False, input_tokens=INPUT
    )
    path, body = request(client, model)
    answer = await in_step(near, gate, path, body, [word.encode() for word in said])
    await upstream.until(lambda u: u.requests[0].client_gone)
    gate.open()
    assert b"out of budget" in answer.body
    settled, billed = await spent(near), upstream.bill(PRICE)
    counted = (await near.client.decision(answer.request_id))["usage"]
    guessed_nano = (counted["input_tokens"] - INPUT) * 1_000  # no usage has come: the input leans high
    assert billed <= settled <= billed + guessed_nano + STEP_NANO
    assert abs(settled - CAP_NANO) <= STEP_NANO
    assert (await near.task("t"))["cost_killed_at_usd"] == pytest.approx(usd(settled))
    if client == ARRAY:
        *_, last = json.loads(answer.body)
        assert last["error"]["status"] == "FAILED_PRECONDITION"
