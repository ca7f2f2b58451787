"""A client that leaves, at every await of a call: the upstream is stopped, the call settles once, and never for less
than what the provider has billed."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.core.budget import Settle
from app.gateway.calls import Stop
from tests.gateway.live import OUTPUT_NANO, PRICE, PROMPT, Live, model, policy, until, usd
from tests.gateway.test_worlds import keep_records
from tests.upstream import ScriptedUpstream
from tests.upstream_script import HANG, Gate, Script, Wait, error_event, hidden, text, words

PIECES = 4_000
"""More than the buffers of a connection take."""
UNREAD_BYTES = 30_000
STORY = words(" ".join(f"w{n}" for n in range(400)))
ROOMY = {"task": {"max_cost_usd": 0.1}}
STOP_S = 20.0
"""A tenth of a second does where the machine is idle; any deadline of the policy would take longer than this."""


class Settlements:
    """Counts how often each call is settled in the ledger."""

    def __init__(self, live: Live) -> None:
        self.seen: dict[str, int] = {}
        budgets, apply = live.services.ledger.budgets, live.services.ledger.budgets.apply

        def counting(op: Any) -> Any:
            if isinstance(op, Settle):
                self.seen[op.call_id] = self.seen.get(op.call_id, 0) + 1
            return apply(op)

        budgets.apply = counting  # type: ignore[method-assign]

    def each_once(self, calls: int) -> None:
        assert list(self.seen.values()) == [1] * calls


async def leave(live: Live, upstream: ScriptedUpstream, ready: Any, **asked: Any) -> None:
    """Ask, leave when `ready` holds, and see that the upstream is told."""
    asking = asyncio.ensure_future(live.chat(task="t1", **asked))
    await until(ready)
    asking.cancel()
    await asyncio.wait([asking])
    await live.idle(STOP_S)
    if upstream.requests and upstream.requests[-1].state != "answered":
        await upstream.until(lambda u: u.requests[-1].state != "open", STOP_S)


async def check(live: Live, upstream: ScriptedUpstream, settlements: Settlements, calls: int = 1) -> int:
    """Settled once, not below the bill; what was settled."""
    settlements.each_once(calls)
    balance = await live.balance("task:t1")
    assert balance.held_nano == 0
    assert balance.spent_nano >= upstream.bill(PRICE)
    assert not balance.exhausted
    return balance.spent_nano


@pytest.mark.parametrize("stream", [True, False])
async def test_before_the_upstream_has_answered(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None, stream: bool
) -> None:
    upstream.source = Script(opening=[HANG])
    async with Live(tmp_path, policy({"a": upstream}, caps=ROOMY), ledger_url) as live:
        settlements = Settlements(live)
        await leave(live, upstream, lambda: upstream.requests, stream=stream)
        await check(live, upstream, settlements)


async def test_before_the_first_event(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(HANG)
    async with Live(tmp_path, policy({"a": upstream}, caps=ROOMY)) as live:
        settlements = Settlements(live)
        await leave(live, upstream, lambda: upstream.requests and upstream.requests[0].tokens.input, stream=True)
        await check(live, upstream, settlements)


@pytest.mark.parametrize("asked", [{"stream": True}, {"stream": False}], ids=["stream", "folded"])
async def test_in_mid_stream(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None, asked: dict[str, Any]
) -> None:
    gate = Gate()
    upstream.source = Script.of(STORY, gate=gate)
    gate.release(30)
    async with Live(tmp_path, policy({"a": upstream}, caps=ROOMY), ledger_url) as live:
        settlements = Settlements(live)
        await leave(live, upstream, lambda: upstream.requests and upstream.requests[0].deltas_sent == 30, **asked)
        assert upstream.requests[0].stream
        spent = await check(live, upstream, settlements)
        assert spent < 40 * OUTPUT_NANO + 100_000


async def test_in_mid_stream_at_full_speed(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(STORY, delay_s=0.002)
    async with Live(tmp_path, policy({"a": upstream}, caps=ROOMY)) as live:
        settlements = Settlements(live)
        await leave(live, upstream, lambda: upstream.requests and upstream.requests[0].deltas_sent >= 30, stream=True)
        await check(live, upstream, settlements)


async def test_during_a_plain_call(tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None) -> None:
    """Nobody sees what a plain call generates until it is whole: all that it may have cost is charged."""
    gate = Gate()
    upstream.source = Script.of(STORY, gate=gate)
    gate.release(50)
    async with Live(tmp_path, policy({"a": upstream}, caps=ROOMY), ledger_url) as live:
        settlements = Settlements(live)
        await leave(
            live, upstream, lambda: upstream.requests and upstream.requests[0].tokens.output == 50, max_tokens=100
        )
        assert not upstream.requests[0].stream
        spent = await check(live, upstream, settlements)
        assert spent >= 100 * OUTPUT_NANO


async def test_while_it_waits_for_money(tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None) -> None:
    """The second call waits for what the first one holds; it has asked nobody yet, so it costs nothing."""
    gate = Gate()
    upstream.source = Script.of(STORY, gate=gate)
    caps, hidden_costs = {"task": {"max_cost_usd": usd(300_000)}}, {"a": {"hidden_reasoning": True}}
    async with Live(tmp_path, policy({"a": upstream}, caps=caps, models=hidden_costs), ledger_url) as live:
        first = asyncio.ensure_future(live.chat(task="t1", max_tokens=135))
        await until(lambda: upstream.requests)
        settlements = Settlements(live)
        await leave_unasked(live)
        assert len(upstream.requests) == 1
        assert settlements.seen == {}
        gate.open()
        assert (await first).status == 200
        assert (await live.balance("task:t1")).spent_nano == upstream.bill(PRICE)


async def leave_unasked(live: Live) -> None:
    asking = asyncio.ensure_future(live.chat(task="t1", stream=True))
    await until(lambda: len(live.services.calls) == 2)
    await asyncio.sleep(0.1)
    asking.cancel()
    await until(lambda: len(live.services.calls) == 1, STOP_S)


async def test_while_it_waits_to_try_again(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.failure(500)
    retries = {"auto": {"retries": {"attempts": 3, "base_secs": 60, "max_wait_secs": 60}}}
    async with Live(tmp_path, policy({"a": upstream}, caps=ROOMY, routes=retries)) as live:
        settlements = Settlements(live)
        await leave(live, upstream, lambda: upstream.requests and settlements.seen, model="auto")
        assert len(upstream.requests) == 1
        assert (await live.balance("task:t1")).spent_nano == 0
        settlements.each_once(1)


@pytest.mark.parametrize("stays", [False, True], ids=["leaves", "stays"])
async def test_a_client_that_does_not_read(tmp_path: Path, upstream: ScriptedUpstream, stays: bool) -> None:
    """Its stream fills its own buffers, then the gateway's. What has come by then has been billed, read or not."""
    gate = Gate()
    upstream.source = Script.of([text("yyyyyyy " * 1000, tokens=1000)] * PIECES, gate=gate)
    deadlines = {"a": {"deadlines": {"write_secs": 600 if not stays else 2}}}
    caps = {"task": {"max_cost_usd": 100}}
    async with Live(tmp_path, policy({"a": upstream}, caps=caps, providers=deadlines)) as live:
        settlements, records = Settlements(live), keep_records([live])
        body = json.dumps({"model": "a", "messages": PROMPT, "stream": True}).encode()
        host, port = live.url.removeprefix("http://").split(":")
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await asyncio.to_thread(client.connect, (host, int(port)))
            client.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                b"x-bursar-task-id: t1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
            )
            for sent in range(1, PIECES):  # one by one: what the kernel held between the two would be seen by nobody
                gate.release()
                await upstream.until(partial(has_sent, pieces=sent))
                if live.held_up and live.unread_bytes > UNREAD_BYTES:
                    break
            assert upstream.requests[0].state == "open"
            if stays:
                await upstream.until(lambda u: u.requests[0].state != "open")
        await live.idle(STOP_S)
        await upstream.until(lambda u: u.requests[0].state != "open")
        await check(live, upstream, settlements)
        assert [record["outcome"] for record in records] == ["client_gone"]
        assert live.services.health.of("a").failures == 0, "it is not its provider's fault"


def has_sent(upstream: ScriptedUpstream, pieces: int) -> bool:
    return bool(upstream.requests) and upstream.requests[0].deltas_sent == pieces


@pytest.mark.parametrize("kind", ["bills_after_cancel", "hidden_reasoning"])
async def test_what_cannot_be_seen_is_charged_in_full(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None, kind: str
) -> None:
    """The provider goes on billing, or has billed what it never shows: the conservative figure is booked."""
    gate = Gate()
    upstream.source = Script.of(
        words("One two three."), hidden(30), Wait(gate), STORY, bills_after_cancel=kind != "hidden_reasoning"
    )
    more: dict[str, Any] = {"caps": ROOMY}
    if kind == "bills_after_cancel":
        more["providers"] = {"a": {"bills_after_cancel": True}}
    else:
        more["models"] = {"a": model("a", hidden_reasoning=True)}
    async with Live(tmp_path, policy({"a": upstream}, **more), ledger_url) as live:
        settlements = Settlements(live)
        ready = lambda: upstream.requests and upstream.requests[0].tokens.reasoning == 30  # noqa: E731
        await leave(live, upstream, ready, stream=True, max_tokens=200)
        spent = await check(live, upstream, settlements)
        assert spent >= 200 * OUTPUT_NANO


@pytest.mark.parametrize("kind", ["bills_after_cancel", "hidden_reasoning"])
@pytest.mark.parametrize("after", [0, 3])
async def test_an_error_of_the_provider_ends_what_it_bills(
    tmp_path: Path, upstream: ScriptedUpstream, kind: str, after: int
) -> None:
    """Nothing was cancelled, so nothing goes on: what came is charged. What was generated unseen may be billed."""
    upstream.source = Script.of(words("One two three.")[:after], error_event())
    more: dict[str, Any] = {"caps": ROOMY}
    if kind == "bills_after_cancel":
        more["providers"] = {"a": {"bills_after_cancel": True}}
    else:
        more["models"] = {"a": model("a", hidden_reasoning=True)}
    async with Live(tmp_path, policy({"a": upstream}, **more)) as live:
        answer = await live.chat(task="t1", stream=True, max_tokens=200)
        assert answer.error is not None
        spent_nano = (await live.balance("task:t1")).spent_nano
        if not after:
            assert spent_nano == 0
        elif kind == "hidden_reasoning":
            assert spent_nano >= 200 * OUTPUT_NANO
        else:
            assert upstream.bill(PRICE) <= spent_nano < 100 * OUTPUT_NANO


async def test_what_an_sdk_sends_again_is_another_call_and_neither_is_charged_twice(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    """It gave up on the first one (`x-stainless-retry-count`), which its provider has billed so far."""
    upstream.source = [Script.of(words("One two"), HANG), Script.of(words("One two three."))]
    async with Live(tmp_path, policy({"a": upstream}, caps=ROOMY)) as live:
        settlements = Settlements(live)
        await leave(live, upstream, lambda: upstream.requests and upstream.requests[0].deltas_sent == 2, stream=True)
        first = await check(live, upstream, settlements)
        again = await live.chat(task="t1", stream=True, headers={"x-stainless-retry-count": "1"})
        assert again.done
        second = upstream.requests[1].tokens.bill(PRICE)
        assert await check(live, upstream, settlements, calls=2) == first + second


async def test_after_the_answer_it_changes_nothing(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words("One two three."))
    async with Live(tmp_path, policy({"a": upstream}, caps=ROOMY)) as live:
        settlements = Settlements(live)
        async with live.client.open(task="t1", stream=True) as response:
            await response.read()
        await live.idle()
        assert await check(live, upstream, settlements) == upstream.bill(PRICE)
        assert live.services.metrics is not None


async def test_what_has_come_before_it_left_is_metered(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """The gateway hears of the client first, and of what its provider has sent by then right after."""
    gate = Gate()
    upstream.source = Script.of(STORY, gate=gate)
    async with Live(tmp_path, policy({"a": upstream}, caps=ROOMY)) as live:
        gate.release(1)
        async with live.client.open(task="t1", stream=True) as response:
            await response.content.readany()
            (call,) = live.services.calls.under_way()
            gate.release(100)
            while upstream.requests[0].deltas_sent < 101:
                time.sleep(0.001)  # the gateway, in this thread, hears nothing
            call.waits.stop(Stop.CLIENT_GONE)
            await live.idle()
            spent = (await live.balance("task:t1")).spent_nano
        assert spent >= 101 * OUTPUT_NANO
