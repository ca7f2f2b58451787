"""The ledger's server dies: nothing may be spent, or a bounded allowance; not in silence, and nothing is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.amend import Amend
from app.core.budget import Op, Result, Settle
from app.stores.budgets import LedgerUnavailable
from tests.gateway.live import OUTPUT_NANO, PRICE, Live, policy, until, usd
from tests.redis_server import RedisServer
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Gate, Script, words

CAPS = {"task": {"max_cost_usd": 0.01}}
OPEN = {"on_failure": "open", "open_allowance_usd": usd(200 * OUTPUT_NANO), "contention_wait_secs": 1}


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.main.HEARTBEAT_S", 0.2)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server that keeps its data through a crash."""
    with RedisServer(("appendonly", "yes"), ("appendfsync", "always")) as running:
        yield running


def live_on(folder: Path, upstream: ScriptedUpstream, server: RedisServer, **fields: Any) -> Live:
    return Live(folder, policy({"a": upstream}, **{"caps": CAPS, **fields}), server.url)


async def back(live: Live, server: RedisServer) -> None:
    """The server is back, and all that was owed to it is written."""
    server.start()

    async def paid() -> bool:
        return live.services.ledger.up and not await live.client.metric("bursar_ledger_owed_settlements")

    await until(paid)


async def test_closed_refuses_and_says_so(tmp_path: Path, upstream: ScriptedUpstream, server: RedisServer) -> None:
    upstream.source = Script.of(words("One two three."))
    async with live_on(tmp_path, upstream, server) as live:
        assert (await live.chat(task="t1")).status == 200
        before = (await live.balance("task:t1")).spent_nano
        assert await live.client.status("/readyz") == 200
        server.kill()
        for stream in (True, False):
            answer = await live.chat(task="t1", stream=stream)
            assert (answer.status, answer.error_code) == (503, "ledger_unavailable")
        assert len(upstream.requests) == 1
        assert await live.client.status("/readyz") == 503
        assert await live.client.status("/healthz") == 200
        assert await live.client.metric("bursar_ledger_up") == 0
        assert await live.client.metric("bursar_ledger_errors_total") >= 2
        assert await live.client.status("/v1/tasks/t1") == 503
        await back(live, server)
        assert await live.client.status("/readyz") == 200
        assert (await live.balance("task:t1")).spent_nano == before
        assert (await live.chat(task="t1")).status == 200


async def test_a_settlement_that_the_ledger_missed_is_written_once(
    tmp_path: Path, upstream: ScriptedUpstream, server: RedisServer
) -> None:
    gate = Gate()
    upstream.source = Script.of(words("One two three."), gate=gate)
    async with live_on(tmp_path, upstream, server) as live:
        asking = asyncio.ensure_future(live.chat(task="t1", max_tokens=10))
        await upstream.until(lambda u: u.requests)
        server.kill()
        gate.open()
        answer = await asking
        assert answer.status == 200
        assert await live.client.metric("bursar_ledger_owed_settlements") == 1
        await back(live, server)
        balance = await live.balance("task:t1")
        assert (balance.spent_nano, balance.held_nano) == (upstream.bill(PRICE), 0)


async def test_a_stream_goes_on_with_what_it_holds_and_then_ends_honestly(
    tmp_path: Path, upstream: ScriptedUpstream, server: RedisServer
) -> None:
    """Not a cut: no cap was reached, and the task is not closed."""
    gate = Gate()
    upstream.source = Script.of(words(" ".join(["word"] * 400)), gate=gate, delay_s=0.002)
    gate.release(5)
    async with live_on(tmp_path, upstream, server) as live, live.client.open(task="t1", stream=True) as response:
        await upstream.until(lambda u: u.requests[0].deltas_sent == 5)
        server.kill()
        gate.open()
        body = (await response.read()).decode()
        assert '"code":"ledger_unavailable"' in body
        assert "[DONE]" not in body
        assert 'finish_reason":"' not in body
        await upstream.until(lambda u: u.requests[0].client_gone)
        await live.idle()
        await back(live, server)
        balance = await live.balance("task:t1")
        assert balance.spent_nano >= 5 * OUTPUT_NANO
        assert not balance.exhausted
        assert balance.held_nano == 0


async def test_what_is_owed_for_a_model_that_was_passed_over_ends_no_other_hold(
    tmp_path: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the ledger knows that a cap binds: then `a`, which has no price, gives back what it held, and `b` is asked.
    What `a` gives back is written while `b` answers."""
    gate = Gate()
    upstream.source = Script.of(words("One two three."), gate=gate)
    both = policy({"a": "http://127.0.0.1:1/v1", "b": upstream}, models={"a": {"pricing": None}})
    async with Live(tmp_path, both) as live:
        budgets = live.services.ledger.budgets
        await budgets.apply(Amend("amended", "task:-:t1", max_nano=10**9))
        apply, unheard = budgets.apply, [Settle]

        def applied(op: Op) -> asyncio.Future[Result]:
            if type(op) not in unheard:
                return apply(op)
            unheard.clear()
            failed: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
            failed.set_exception(LedgerUnavailable("away"))
            return failed

        monkeypatch.setattr(budgets, "apply", applied)
        asking = asyncio.ensure_future(live.chat(model="auto", task="t1", max_tokens=10))
        await upstream.until(lambda u: u.requests)
        assert not unheard

        async def paid() -> bool:
            return not await live.client.metric("bursar_ledger_owed_settlements")

        await until(paid)
        gate.open()
        assert (await asking).status == 200
        balance = await live.balance("task:t1")
        assert (balance.spent_nano, balance.held_nano) == (upstream.bill(PRICE), 0)


@pytest.mark.parametrize("stream", [True, False])
async def test_open_serves_up_to_its_allowance(
    tmp_path: Path, upstream: ScriptedUpstream, server: RedisServer, stream: bool
) -> None:
    upstream.source = Script.of(words("One two three."))
    async with live_on(tmp_path, upstream, server, ledger=OPEN) as live:
        await live.chat(task="t1")
        server.kill()
        statuses = [(await live.chat(task="t1", stream=stream, max_tokens=20)).status for _ in range(50)]
        served = statuses.count(200)
        assert 10 < served < 50
        assert statuses == [200] * served + [503] * (50 - served)
        assert await live.client.metric("bursar_ledger_open_calls_total") == served
        assert await live.client.status("/readyz") == 503
        await back(live, server)
        balance = await live.balance("task:t1")
        assert (balance.spent_nano, balance.held_nano) == (upstream.bill(PRICE), 0)
        assert balance.limit_nano == 10_000_000
        # The allowance is there again.
        server.kill()
        assert (await live.chat(task="t1", stream=stream, max_tokens=20)).status == 200
        await back(live, server)
        assert (await live.balance("task:t1")).spent_nano == upstream.bill(PRICE)


async def test_the_allowance_bounds_calls_at_once_too(
    tmp_path: Path, upstream: ScriptedUpstream, server: RedisServer
) -> None:
    gate = Gate()
    upstream.source = Script.of(words(" ".join(["word"] * 100)), gate=gate, delay_s=0.005)
    async with live_on(tmp_path, upstream, server, ledger=OPEN) as live:
        server.kill()
        asking = [asyncio.ensure_future(live.chat(task=f"t{n}", stream=True)) for n in range(30)]
        await until(lambda: len(upstream.requests) + sum(a.done() for a in asking) == 30)
        gate.open()
        answers = await asyncio.gather(*asking)
        assert {a.status for a in answers} == {200, 503}
        assert upstream.bill(PRICE) <= 200 * OUTPUT_NANO + len(upstream.requests) * 5 * OUTPUT_NANO
        await live.idle()
        await back(live, server)
        spent = sum(b.spent_nano for b in (await live.balances()).values() if b.limit_nano == 10_000_000)
        assert spent >= upstream.bill(PRICE)


async def test_what_an_open_call_cost_is_charged_even_past_a_clients_own_cap(
    tmp_path: Path, upstream: ScriptedUpstream, server: RedisServer
) -> None:
    """The cap cannot be asked while the ledger is away; the debt is written all the same, and the cap stays."""
    upstream.source = Script.of(words("One two three."))
    own = {"x-bursar-task-max-cost-usd": str(usd(60_000))}
    async with live_on(tmp_path, upstream, server, ledger=OPEN) as live:
        assert (await live.chat(task="t1", headers=own)).status == 200
        server.kill()
        for _ in range(3):
            assert (await live.chat(task="t1", stream=True, max_tokens=20)).status == 200
        await back(live, server)
        balance = await live.balance("task:t1")
        assert (balance.spent_nano, balance.held_nano) == (upstream.bill(PRICE), 0)
        assert balance.own_limit_nano == 60_000
        assert balance.limit_nano == 10_000_000
        assert (await live.chat(task="t1")).status == 402


async def test_a_reservation_made_in_the_moment_of_death_is_given_back(
    tmp_path: Path, upstream: ScriptedUpstream, server: RedisServer
) -> None:
    """The server hangs: it carries out, later, what the gateway has given up on."""
    async with live_on(tmp_path, upstream, server) as live:
        await live.chat(task="t1")
        spent = (await live.balance("task:t1")).spent_nano
        server.pause()
        try:
            answer = await live.chat(task="t1")
            assert (answer.status, answer.error_code) == (503, "ledger_unavailable")
        finally:
            server.resume()

        async def given_back() -> bool:
            return live.services.ledger.up and await live.held() == {}

        await until(given_back)
        assert (await live.balance("task:t1")).spent_nano == spent
