"""A deadline that passes, or a shutdown that begins, while money is being settled: what there is to tell is told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app.core.budget import Op, Reserve, Result, Settle
from app.gateway.calls import Stop
from app.http.wire import WireDownstream
from tests.gateway.live import PRICE, Live, model, policy, until
from tests.upstream import ScriptedUpstream
from tests.upstream_script import HANG, Gate, Script, words

CAPS = {"task": {"max_cost_usd": 0.1}}
GOOD = Script.of(words("One two three."))
LONG = Script.of(words(" ".join(["word"] * 400)))


def stopped_while_it_settles(live: Live, why: Stop) -> None:
    """Every call under way is told so as soon as the ledger is asked to end a hold."""
    stopped_when_asked(live, Settle, why)


def stopped_when_asked(live: Live, verb: type[Reserve | Settle], why: Stop) -> None:
    """Every call under way is told so as soon as the ledger is asked for this."""
    budgets, apply = live.services.ledger.budgets, live.services.ledger.budgets.apply

    def stopping(op: Op) -> asyncio.Future[Result]:
        if isinstance(op, verb):
            for call in live.services.calls.under_way():
                call.waits.stop(why)
        return apply(op)

    budgets.apply = stopping  # type: ignore[method-assign]


def has_begun(live: Live) -> bool:
    """Whether a client has got the head of its answer."""
    calls: list[Any] = live.services.calls.under_way()
    return any(call.started for call in calls)


@pytest.mark.parametrize("why", [Stop.LATE, Stop.SHUTDOWN])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_whole_answer_is_told(tmp_path: Path, upstream: ScriptedUpstream, why: Stop, stream: bool) -> None:
    upstream.source = GOOD
    async with Live(tmp_path, policy({"a": upstream}, caps=CAPS)) as live:
        stopped_while_it_settles(live, why)
        answer = await live.chat(task="t1", stream=stream)
        assert answer.status == 200
        assert ("One two three." in answer.text and answer.done) if stream else b"One two three." in answer.body
        assert [a["outcome"] for a in await live.attempts(answer)] == ["completed"]


@pytest.mark.parametrize("why", [Stop.LATE, Stop.SHUTDOWN])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_cut_is_told(tmp_path: Path, upstream: ScriptedUpstream, why: Stop, stream: bool) -> None:
    upstream.source = LONG
    async with Live(tmp_path, policy({"a": upstream}, caps=CAPS)) as live:
        stopped_while_it_settles(live, why)
        answer = await live.chat(task="t1", stream=stream, max_cost_usd=0.0001)
        assert answer.error_code == "budget_exceeded"


@pytest.mark.parametrize("stream", [True, False])
async def test_the_next_candidate_has_its_own_time(tmp_path: Path, upstream: ScriptedUpstream, stream: bool) -> None:
    upstream.source = Script.failure(500)
    with ScriptedUpstream(GOOD) as second:
        async with Live(tmp_path, policy({"a": upstream, "b": second}, caps=CAPS)) as live:
            stopped_while_it_settles(live, Stop.LATE)
            answer = await live.chat(model="auto", task="t1", stream=stream)
            assert answer.status == 200
            assert answer.headers["x-bursar-model"] == "b"
            assert [a["outcome"] for a in await live.attempts(answer)][-1] == "completed"
            assert len(second.requests) == 1


@pytest.mark.parametrize("why", [Stop.LATE, Stop.SHUTDOWN])
async def test_an_embedding_is_told_and_paid_for_once(tmp_path: Path, upstream: ScriptedUpstream, why: Stop) -> None:
    models = {name: model("a", embeddings=True) for name in ("a", "b")}
    async with Live(tmp_path, policy(dict.fromkeys(models, upstream), models=models, caps=CAPS)) as live:
        stopped_while_it_settles(live, why)
        answer = await live.chat(model="auto", path="/v1/embeddings", messages=None, input="some words", task="t1")
        assert answer.status == 200
        assert [a["outcome"] for a in await live.attempts(answer)] == ["completed"]
        assert (await live.balance("task:t1")).spent_nano == upstream.bill(PRICE) > 0


async def test_what_was_read_as_the_wait_ended_is_sent(
    tmp_path: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client is slow just then, so that it has to be waited for; it is metered, and so it is the client's."""
    gate = Gate()
    upstream.source = Script.of(words("One two three four five."), gate=gate)
    async with Live(tmp_path, policy({"a": upstream}, caps=CAPS)) as live:
        push, loop = WireDownstream.push, asyncio.get_running_loop()
        refused: list[bytes] = []

        def slow(self: WireDownstream, data: bytes) -> bool:
            if refused:
                return push(self, data)
            refused.append(data)
            for call in live.services.calls.under_way():
                loop.call_soon(call.waits.stop, Stop.LATE)
            return False

        monkeypatch.setattr(WireDownstream, "push", slow)
        asking = asyncio.ensure_future(live.chat(task="t1", stream=True))
        gate.release(1)
        await until(lambda: has_begun(live))
        gate.release(1)
        answer = await asking
        assert answer.error is not None
        assert len(refused) == 1
        assert refused[0] in answer.body


async def test_an_embedding_whose_time_ran_out_before_it_was_sent_is_paid_for(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    """That the time of what came before it has passed does not say that it was not sent."""
    upstream.source = Script(opening=[HANG])
    models = {"a": model("a", embeddings=True, budgets={"max_cost_usd": 0, "hard_timeout_secs": 0.3})}
    async with Live(tmp_path, policy({"a": upstream}, models=models, caps=CAPS)) as live:
        stopped_when_asked(live, Reserve, Stop.LATE)
        answer = await live.chat(model="a", path="/v1/embeddings", messages=None, input="some words", task="t1")
        assert answer.status == 504
        assert len(upstream.requests) == 1
        assert (await live.balance("task:t1")).spent_nano > 0


@pytest.mark.parametrize("why", [Stop.LATE, Stop.SHUTDOWN])
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_whose_storing_is_stopped_goes_out(
    tmp_path: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, why: Stop, stream: bool
) -> None:
    upstream.source = GOOD
    kept = {"stored_responses": {"ttl_secs": 3600, "max_mb": 64}}
    async with Live(tmp_path, policy({"a": upstream}, **kept)) as live:
        loop = asyncio.get_running_loop()

        async def put(*_: object) -> bool:
            for call in live.services.calls.under_way():
                loop.call_soon(call.waits.stop, why)
            await asyncio.Event().wait()
            return True

        monkeypatch.setattr(live.services.responses, "put", put)
        answer = await live.chat(path="/v1/responses", messages=None, input="Hi", stream=stream)
        assert answer.status == 200
        assert b"One two three." in answer.body
