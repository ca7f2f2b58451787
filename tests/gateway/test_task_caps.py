"""A task's caps besides dollars: calls, tokens, time, repeats, and all that hangs below it."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.gateway.purse import Purse
from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, PRICE, Answer, Live, policy, usd
from tests.gateway.test_client_gone import has_sent
from tests.gateway.test_cut import CALL
from tests.readers import done_reading
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Gate, Script, text, words

LONG = words(" ".join(f"w{n}" for n in range(400)))
FREE = {"a": {"pricing": {"input_per_1k": 0, "output_per_1k": 0}}}
NOW_AND_AGAIN = re.compile(r"\d|try again|rate limit|time(d )?out|token|too many|overloaded|server error")


def capped(upstream: ScriptedUpstream, **task: Any) -> dict[str, Any]:
    """A policy with these caps on tasks, its model being free."""
    return policy({"a": upstream}, caps={"task": task}, models=FREE)


def assert_stopped(answer: Answer, reason: str) -> None:
    """A denial under the contract of a cap in dollars, for another reason."""
    assert answer.status == 402
    assert answer.error is not None
    assert (answer.error["type"], answer.error["code"]) == ("insufficient_quota", "budget_exceeded")
    assert not NOW_AND_AGAIN.search(answer.error["message"])
    assert (answer.headers["x-bursar-scope"], answer.headers["x-bursar-reason"]) == ("task", reason)
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers


async def change(live: Live, task: str, **terms: Any) -> None:
    async with live.client.session.patch(f"{live.url}/v1/tasks/{task}", json=terms) as reply:
        assert reply.status == 200, await reply.text()


async def outcome_of(live: Live, answer: Answer) -> str:
    record = await live.client.decision(answer.request_id)
    return str(record["outcome"])


async def test_calls_are_capped(tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None) -> None:
    async with Live(tmp_path, capped(upstream, max_calls=2), ledger_url) as live:
        for _ in range(2):
            assert (await live.chat(task="t")).status == 200
        no = await live.chat(task="t", stream=True)
        assert_stopped(no, "calls")
        assert (no.headers["x-bursar-limit"], no.headers["x-bursar-used"]) == ("2", "2")
        assert await outcome_of(live, no) == "step_exhausted"
        assert (await live.chat(task="other")).status == 200
        assert len(upstream.requests) == 3


async def test_a_client_lowers_and_is_remembered(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    async with Live(tmp_path, capped(upstream, max_calls=2)) as live:
        assert (await live.chat(task="t", headers={"x-bursar-task-max-calls": "1"})).status == 200
        assert_stopped(await live.chat(task="t"), "calls")
        for _ in range(2):
            assert (await live.chat(task="u", headers={"x-bursar-task-max-calls": "9"})).status == 200
        assert_stopped(await live.chat(task="u", headers={"x-bursar-task-max-calls": "9"}), "calls")


async def test_a_free_model_is_clamped_to_the_tokens_that_are_left(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None
) -> None:
    upstream.source = Script.of(LONG)
    async with Live(tmp_path, capped(upstream, max_tokens=100), ledger_url) as live:
        answer = await live.chat(task="t", stream=True)
        clamp = upstream.requests[0].body["max_tokens"]
        assert 0 < clamp < 100
        assert answer.error_code == "budget_exceeded"
        assert answer.done
        record = await live.client.decision(answer.request_id)
        assert (record["outcome"], record["cut"]["by"], record["cut"]["reason"]) == ("thrash_killed", "clamp", "tokens")
        balance = await live.balance("task:t")
        assert clamp < balance.tokens <= 100
        assert balance.killed_at_nano is None
        no = await live.chat(task="t")
        assert_stopped(no, "tokens")
        assert await outcome_of(live, no) == "thrash_killed"
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("tail", [LONG, (*words("so then"), *CALL)], ids=["text", "tool"])
async def test_a_stream_that_passes_the_clamp_is_cut_by_the_meter(
    tmp_path: Path, upstream: ScriptedUpstream, tail: Any
) -> None:
    upstream.source = Script.of(tail, obeys_limit=False, delay_s=0.0005)
    async with Live(tmp_path, capped(upstream, max_tokens=100)) as live:
        answer = await live.chat(task="t", stream=True, headers={"x-bursar-on-cut": "error"})
        assert answer.error_code == "budget_exceeded"
        assert answer.finishes == []
        record = await live.client.decision(answer.request_id)
        assert (record["outcome"], record["cut"]["by"]) == ("thrash_killed", "meter")
        assert 100 < (await live.balance("task:t")).tokens <= 100 + 60
        assert_stopped(await live.chat(task="t"), "tokens")


async def test_a_lone_call_has_the_tasks_tokens_for_itself(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(LONG)
    async with Live(tmp_path, capped(upstream, max_tokens=100)) as live:
        for _ in range(2):
            answer = await live.chat(stream=True)
            assert answer.error_code == "budget_exceeded"
        assert_stopped(await live.chat(headers={"x-bursar-task-max-tokens": "3"}), "tokens")


async def test_a_stream_is_cut_when_the_tasks_time_is_over(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None
) -> None:
    gate = Gate()
    gate.release(3)
    upstream.source = Script.of(LONG, gate=gate)
    async with Live(tmp_path, capped(upstream, max_seconds=0.4), ledger_url) as live:
        answer = await live.chat(task="t", stream=True)
        assert answer.error_code == "budget_exceeded"
        assert answer.done
        record = await live.client.decision(answer.request_id)
        assert (record["outcome"], record["cut"]["by"]) == ("task_timeout", "clock")
        late = await live.chat(task="t")
        assert_stopped(late, "time")
        assert await outcome_of(live, late) == "task_timeout"
        assert await live.client.metric("bursar_circuit_state") == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_a_provider_that_is_silent_until_the_time_is_over(
    tmp_path: Path, upstream: ScriptedUpstream, stream: bool
) -> None:
    upstream.source = Script.of(LONG, gate=Gate())
    async with Live(tmp_path, capped(upstream, max_seconds=0.3)) as live:
        answer = await live.chat(task="t", stream=stream)
        assert_stopped(answer, "time")
        assert await outcome_of(live, answer) == "task_timeout"


async def test_the_same_request_again_and_again_is_refused(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    def step(number: int) -> list[dict[str, Any]]:
        call = {"id": f"call_{number}", "type": "function", "function": {"name": "ls", "arguments": "{}"}}
        return [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call_{number}", "content": "nothing"},
        ]

    async with Live(tmp_path, capped(upstream, max_repeats=2)) as live:
        talk: list[dict[str, Any]] = [{"role": "user", "content": "What is there?"}]
        answers = []
        for number in range(5):
            answers.append(await live.chat(task="t", messages=talk))
            talk += step(number)
        assert [answer.status for answer in answers] == [200, 200, 200, 200, 402]
        assert_stopped(answers[-1], "repeats")
        assert await outcome_of(live, answers[-1]) == "thrash_killed"
        assert (await live.chat(task="u", messages=talk)).status == 200
        again = await live.chat(task="t", messages=talk, headers={"x-stainless-retry-count": "1"})
        assert again.status == 200, "an SDK's own retry is not counted"


async def test_a_cap_on_a_root_binds_all_below(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None
) -> None:
    upstream.source = Script.of(words("one two three four five"))
    caps = {"task": {"max_cost_usd": usd(100 * OUTPUT_NANO), "max_calls": 4}}
    async with Live(tmp_path, policy({"a": upstream}, caps=caps), ledger_url) as live:
        child = {"x-bursar-parent-task-id": "root"}
        assert (await live.chat(task="child", headers=child)).status == 200
        assert (await live.chat(task="leaf", headers={"x-bursar-parent-task-id": "child"})).status == 200
        assert (await live.chat(task="leaf")).status == 200, "named once"
        assert (await live.chat(task="root")).status == 200
        spent = [(await live.balance(f"task:{task}")).spent_nano for task in ("root", "child", "leaf")]
        one = spent[2] // 2
        assert spent == [4 * one, 3 * one, 2 * one]
        for task in ("root", "child", "leaf"):
            assert_stopped(await live.chat(task=task), "calls")
        found = await live.client.task("child")
        assert (found["parent"], found["root"], found["children"]) == ("root", "root", ["leaf"])
        assert found["limits"]["max_calls"] == {"binding": 4, "policy": 4}
        record = await live.client.decision((await live.chat(task="leaf")).request_id)
        assert record["denials"][0]["reason"] == "calls"


async def test_another_process_learns_of_the_family_by_being_told(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None
) -> None:
    async with Live(tmp_path, capped(upstream, max_calls=2), ledger_url) as live:
        assert (await live.chat(task="leaf", headers={"x-parent-session-id": "root"})).status == 200
        live.services.ledger._above.clear()
        assert (await live.chat(task="leaf")).status == 200
        assert (await live.balance("task:root")).calls == 2
        assert_stopped(await live.chat(task="root"), "calls")


async def test_a_root_that_is_cut_stops_all_below(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(LONG, obeys_limit=False, delay_s=0.0005)
    caps = {"task": {"max_cost_usd": usd(150 * OUTPUT_NANO)}}
    async with Live(tmp_path, policy({"a": upstream}, caps=caps)) as live:
        child = {"x-bursar-parent-task-id": "root", "x-bursar-task-max-cost-usd": "5"}
        first = await live.chat(task="one", stream=True, headers=child)
        assert first.error_code == "budget_exceeded"
        no = await live.chat(task="two", headers=child)
        assert no.status == 402
        assert len(upstream.requests) == 1
        assert (await live.client.task("root"))["exhausted"] or (await live.client.task("one"))["exhausted"]


async def test_a_tree_that_is_frozen_lets_what_runs_end_and_nothing_begin(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None
) -> None:
    gate = Gate()
    upstream.source = Script.of(words("one two three four five"), gate=gate)
    child = {"x-bursar-parent-task-id": "root"}
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_calls": 9}}), ledger_url) as live:
        gate.release(2)
        async with live.client.open(task="child", stream=True, headers=child) as reply:
            said = await reply.content.readany()
            await change(live, "root", state="frozen")
            assert_stopped(await live.chat(task="child"), "frozen")
            await change(live, "child", state="open", max_calls=99)
            assert_stopped(await live.chat(task="child"), "frozen")
            gate.open()
            said += await reply.read()
        assert said.endswith(b"data: [DONE]\n\n")
        assert b'"finish_reason":"stop"' in said
        await live.idle()
        for task in ("root", "child"):
            assert (await live.balance(f"task:{task}")).spent_nano == upstream.bill(PRICE)
        await change(live, "root", state="open")
        assert (await live.chat(task="child")).status == 200
        assert len(upstream.requests) == 2


async def test_a_cap_that_is_raised_too_late_for_a_stream_opens_the_task_all_the_same(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream was told that there is no more, and is cut by that before it hears of the raise."""
    gate = Gate()
    said = [text(f"w{number} ") for number in range(200)]
    upstream.source = [Script.of(said, gate=gate, obeys_limit=False, role_chunk=False), Script.of(words("one two"))]
    low = {"x-bursar-task-max-cost-usd": f"{usd(20 * INPUT_NANO + 60 * OUTPUT_NANO):.9f}"}
    async with Live(tmp_path, policy({"a": upstream}), ledger_url) as live:
        asking = asyncio.ensure_future(live.chat(task="t", stream=True, headers=low))
        await upstream.until(lambda u: u.requests)
        running: list[Any] = live.services.calls.under_way()
        (call,) = running
        for sent in range(1, len(said)):
            gate.release()
            await upstream.until(partial(has_sent, pieces=sent))
            await done_reading()
            if call.purse._dry:
                break
        deaf, flush = call.purse, Purse.flush
        monkeypatch.setattr(Purse, "flush", lambda purse: None if purse is deaf else flush(purse))
        await change(live, "t", max_cost_usd=1)
        gate.open()
        assert (await asking).error_code == "budget_exceeded"
        assert (await live.chat(task="t", stream=True)).finishes == ["stop"]
