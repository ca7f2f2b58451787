"""Deadlines: an upstream that hangs costs a second, not a minute; each ends in a fallback or an honest error."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.live import OUTPUT_NANO, PRICE, PROMPT, Live, policy, read, until
from tests.upstream import ScriptedUpstream
from tests.upstream_script import HANG, Gate, Pause, Script, words

CAPS = {"task": {"max_cost_usd": 0.1}}
GOOD = Script.of(words("One two three."))
HANGS = {
    "no head": Script(opening=[HANG]),
    "no event": Script.of(HANG),
}
HARD = {"a": {"budgets": {"max_cost_usd": 0, "hard_timeout_secs": 1}}}
SOONER_S = 20.0
"""Much longer than the deadlines set here, much shorter than those that hold where none is set."""
TTFT = {"a": {"deadlines": {"ttft_secs": 0.3}}}


@pytest.mark.parametrize("how", HANGS)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_hanging_upstream_meets_the_hard_timeout_and_the_next_one_answers(
    tmp_path: Path, upstream: ScriptedUpstream, how: str, stream: bool
) -> None:
    upstream.source = HANGS[how]
    with ScriptedUpstream(GOOD) as second:
        async with Live(tmp_path, policy({"a": upstream, "b": second}, caps=CAPS, models=HARD)) as live:
            async with asyncio.timeout(SOONER_S):
                answer = await live.chat(model="auto", task="t1", stream=stream, max_tokens=50)
            assert answer.status == 200
            assert answer.headers["x-bursar-model"] == "b"
            await upstream.until(lambda u: u.requests[0].client_gone)
            assert [a["outcome"] for a in await live.attempts(answer)] == ["timeout", "completed"]
            assert (await live.balance("task:t1")).spent_nano >= upstream.bill(PRICE) + second.bill(PRICE)


async def test_without_a_fallback_it_is_504(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = HANGS["no head"]
    async with Live(tmp_path, policy({"a": upstream}, caps=CAPS, models=HARD)) as live:
        answer = await live.chat(model="auto", task="t1", stream=True)
        assert (answer.status, answer.error_code) == (504, "upstream_timeout")


async def test_a_first_event_that_does_not_come_is_not_waited_for_as_long(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.source = HANGS["no event"]
    with ScriptedUpstream(GOOD) as second:
        rules = policy({"a": upstream, "b": second}, caps=CAPS, providers=TTFT)
        async with Live(tmp_path, rules) as live:
            async with asyncio.timeout(SOONER_S):
                answer = await live.chat(model="auto", task="t1", stream=True)
            assert answer.headers["x-bursar-model"] == "b"


ENDLESS: dict[str, tuple[Script, dict[str, Any]]] = {
    "idle": (Script.of(words("One two"), HANG), {"providers": {"a": {"deadlines": {"idle_secs": 0.3}}}}),
    "hard": (Script.of(words(" ".join(["w"] * 1000)), delay_s=0.01), {"models": HARD}),
}


@pytest.mark.parametrize("how", ENDLESS)
async def test_a_deadline_in_mid_stream_is_an_error_in_the_stream(
    tmp_path: Path, upstream: ScriptedUpstream, how: str
) -> None:
    upstream.source, more = ENDLESS[how]
    async with Live(tmp_path, policy({"a": upstream}, caps=CAPS, **more)) as live:
        async with asyncio.timeout(SOONER_S):
            answer = await live.chat(task="t1", stream=True)
        assert answer.status == 200
        assert answer.error is not None
        assert answer.finishes == []
        assert not answer.done
        await upstream.until(lambda u: u.requests[0].client_gone)
        record = await live.client.decision(answer.request_id)
        assert record["outcome"] == "timeout"
        spent = (await live.balance("task:t1")).spent_nano
        assert upstream.bill(PRICE) - 3 * OUTPUT_NANO <= spent


GEMINI: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"model": "a", "messages": PROMPT}),
    "text": ("/v1/completions", {"model": "a", "prompt": "hi"}),
    "responses": ("/v1/responses", {"model": "a", "input": "hi", "store": False}),
    "messages": ("/v1/messages", {"model": "a", "messages": PROMPT, "max_tokens": 200_000}),
    "gemini": ("/v1beta/models/a:generateContent", GEMINI),
}
OF_CHAT = {"type": "server_error", "code": "upstream_timeout"}
OF_GOOGLE = {"code": 504, "status": "DEADLINE_EXCEEDED"}
TOLD: dict[str, dict[str, Any]] = {
    "chat": OF_CHAT,
    "text": OF_CHAT,
    "responses": OF_CHAT,
    "messages": {"type": "timeout_error"},
    "gemini": OF_GOOGLE,
}


@pytest.mark.parametrize("how", ENDLESS)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "folded"])
@pytest.mark.parametrize("dialect", ASKED)
async def test_each_dialect_tells_that_a_deadline_passed(
    tmp_path: Path, upstream: ScriptedUpstream, dialect: str, stream: bool, how: str
) -> None:
    upstream.source, more = ENDLESS[how]
    path, body = ASKED[dialect]
    if dialect == "gemini":
        path = path.replace(":generateContent", ":streamGenerateContent?alt=sse") if stream else path
    else:
        body = {**body, "stream": stream}
    async with Live(tmp_path, policy({"a": upstream}, caps=CAPS, **more)) as live:
        async with asyncio.timeout(SOONER_S), live.client.session.post(live.url + path, json=body) as response:
            answer = await read(response)
        assert upstream.requests[0].body["stream"], "a reply that cannot be seen would be waited for as long"
        assert answer.status == (200 if stream else 504)
        last = answer.body.decode().rstrip().split("\n\n")[-1].split("data: ")[-1]
        told = json.loads(last)["error"]
        assert TOLD[dialect].items() <= told.items()
        if dialect == "responses" and stream:
            assert json.loads(last)["response"]["error"] == {"code": "server_error", "message": told["message"]}
        record = await live.client.decision(answer.headers["x-bursar-request-id"])
        assert (record["outcome"], [a["outcome"] for a in record["attempts"]]) == ("timeout", ["timeout"])
        assert await live.client.metric("bursar_errors_total", 'label="timeout"') == (0 if stream else 1)


async def test_a_slow_stream_is_no_idle_one(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """It lasts longer than the deadline between two reads, which no pause of it comes near."""
    pieces = [piece for word in words("One two three four five") for piece in (word, Pause(0.5))]
    upstream.source = Script.of(*pieces)
    deadlines = {"a": {"deadlines": {"idle_secs": 2, "ttft_secs": 2}}}
    async with Live(tmp_path, policy({"a": upstream}, providers=deadlines)) as live:
        answer = await live.chat(stream=True)
        assert (answer.text, answer.error) == ("One two three four five", None)


async def test_slower_than_expected_only_warns(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(Pause(0.15), words("One"))
    slow = {"a": {"budgets": {"max_cost_usd": 0, "expected_ttft_secs": 0.1, "expected_ttf_solution_secs": 0.1}}}
    async with Live(tmp_path, policy({"a": upstream}, models=slow)) as live:
        assert (await live.chat(stream=True)).text == "One"
        await live.idle()
        kinds = ("ttft", "ttf_solution")
        assert [await live.client.metric("bursar_slow_total", f'kind="{kind}"') for kind in kinds] == [1, 1]


@pytest.mark.parametrize(("ttft_s", "solution_s", "kinds"), [(600, 0.1, [0, 1]), (600, 600, [0, 0])])
async def test_each_expectation_warns_for_itself(
    tmp_path: Path, upstream: ScriptedUpstream, ttft_s: float, solution_s: float, kinds: list[int]
) -> None:
    upstream.source = Script.of(words("One"), Pause(0.15), words(" two"))
    expected = {"expected_ttft_secs": ttft_s, "expected_ttf_solution_secs": solution_s}
    slow = {"a": {"budgets": {"max_cost_usd": 0, **expected}}}
    async with Live(tmp_path, policy({"a": upstream}, models=slow)) as live:
        await live.chat(stream=True)
        await live.idle()
        named = ("ttft", "ttf_solution")
        assert [await live.client.metric("bursar_slow_total", f'kind="{kind}"') for kind in named] == kinds


async def test_a_call_that_hangs_is_warned_about_while_it_does(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.source = Script.of(words("One"), gate=gate)
    slow = {"a": {"budgets": {"max_cost_usd": 0, "expected_ttft_secs": 0.05, "expected_ttf_solution_secs": 0.05}}}
    async with Live(tmp_path, policy({"a": upstream}, models=slow)) as live:
        asked = asyncio.create_task(live.chat(stream=True))

        async def warned() -> bool:
            return await live.client.metric("bursar_slow_total") == 2

        await until(warned)
        assert not asked.done()
        gate.open()
        assert (await asked).text == "One"
        await live.idle()
        assert await warned()
