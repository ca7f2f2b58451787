"""Owned calls: waits that can be stopped, running costs that are written, and a shutdown that settles."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from app.gateway.calls import Calls, Stop, Stopped, Waits
from tests.gateway.live import PRICE, Live, policy, until
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Gate, Script, words

Body = Callable[["Call"], Awaitable[None]]


class Call:
    """A runner whose body is given."""

    def __init__(self, body: Body) -> None:
        self.waits = Waits()
        self.flushed = 0
        self.quiet_until_s = float("inf")
        self._body = body

    async def run(self) -> None:
        await self._body(self)

    def flush(self) -> None:
        self.flushed += 1

    async def show_life(self, now_s: float) -> None:
        raise AssertionError("nobody waits")


def spawned(body: Body) -> tuple[Calls, Call]:
    calls, call = Calls(), Call(body)
    calls.spawn(call)
    return calls, call


async def ended(calls: Calls) -> None:
    await until(lambda: not len(calls))


async def test_a_wait_is_stopped_and_money_verbs_are_not() -> None:
    seen: list[str] = []
    settling = asyncio.Event()

    async def body(call: Call) -> None:
        try:
            await call.waits.io(asyncio.Event().wait())
        except Stopped:
            seen.append("stopped")
        call.waits.stop(Stop.SHUTDOWN)  # while it settles: nothing happens
        await settling.wait()
        seen.append("settled")

    calls, call = spawned(body)
    await asyncio.sleep(0)
    call.waits.stop(Stop.CLIENT_GONE)
    await until(lambda: seen)
    settling.set()
    await ended(calls)
    assert seen == ["stopped", "settled"]
    assert call.waits.stopped is Stop.CLIENT_GONE


async def test_a_stop_before_the_wait_prevents_it() -> None:
    begun: list[str] = []

    async def io() -> None:
        begun.append("io")

    async def body(call: Call) -> None:
        call.waits.stop(Stop.CLIENT_GONE)
        with pytest.raises(Stopped):
            await call.waits.io(io())

    calls, _ = spawned(body)
    await ended(calls)
    assert begun == []


async def test_a_passed_deadline_can_be_cleared_and_a_gone_client_cannot() -> None:
    waits = Waits()
    waits.stop(Stop.LATE)
    waits.clear_late()
    assert waits.stopped is None
    waits.stop(Stop.LATE)
    waits.stop(Stop.CLIENT_GONE)
    waits.clear_late()
    waits.stop(Stop.LATE)
    assert waits.stopped is Stop.CLIENT_GONE
    assert waits.is_over()


async def test_two_stops_at_once_are_one() -> None:
    stopped: list[Stop | None] = []

    async def body(call: Call) -> None:
        with pytest.raises(Stopped):
            await call.waits.io(asyncio.Event().wait())
        stopped.append(call.waits.stopped)
        await asyncio.sleep(0)  # a second cancellation would land here

    calls, call = spawned(body)
    await asyncio.sleep(0)
    call.waits.stop(Stop.LATE)
    call.waits.stop(Stop.CLIENT_GONE)
    await ended(calls)
    assert stopped == [Stop.CLIENT_GONE]


async def test_the_watcher_stops_late_waits_and_has_costs_written() -> None:
    async def body(call: Call) -> None:
        call.waits.deadline_s = asyncio.get_running_loop().time() + 0.3
        with pytest.raises(Stopped):
            await call.waits.io(asyncio.Event().wait())

    calls, call = spawned(body)
    watching = asyncio.ensure_future(calls.watch())
    await ended(calls)
    watching.cancel()
    assert call.waits.stopped is Stop.LATE
    assert call.flushed >= 1


async def test_a_shutdown_lets_calls_finish(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.source = Script.of(words("One two three."), gate=gate)
    gate.release()
    async with Live(tmp_path, policy({"a": upstream})) as live:
        asking = asyncio.ensure_future(live.chat(task="t1", stream=True))
        await until(lambda: upstream.requests and upstream.requests[0].deltas_sent)
        draining = asyncio.ensure_future(live.services.calls.drain(5))
        await asyncio.sleep(0)
        refused = await live.chat(stream=True)
        assert (refused.status, refused.error_code) == (503, "shutting_down")
        gate.open()
        answer = await asking
        assert (answer.text, answer.done) == ("One two three.", True)
        await draining


@pytest.mark.parametrize("stream", [True, False])
async def test_a_shutdown_that_cannot_wait_ends_calls_honestly_and_settles(
    tmp_path: Path, upstream: ScriptedUpstream, stream: bool
) -> None:
    gate = Gate()
    upstream.source = Script.of(words("One two three."), gate=gate)
    gate.release()
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_cost_usd": 1}})) as live:
        asking = asyncio.ensure_future(live.chat(task="t1", stream=stream))
        await until(lambda: upstream.requests and upstream.requests[0].deltas_sent)
        if stream:
            await until(lambda: any(call.started for call in running(live)))
        draining = asyncio.ensure_future(live.services.calls.drain(0.05))
        await until(lambda: upstream.requests[0].client_gone)
        await draining
        assert (await live.balance("task:t1")).spent_nano >= upstream.bill(PRICE)
        answer = await asking
        assert answer.error is not None
        if stream:
            assert not answer.done
        else:
            assert (answer.status, answer.error_code) == (503, "shutting_down")


def running(live: Live) -> list[Any]:
    return list(live.services.calls._running.values())
