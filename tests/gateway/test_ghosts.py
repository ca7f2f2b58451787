"""A failover of the ledger's server forgets settlements: their holds are found, and end as their calls were settled."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from app.core.book import Book
from app.core.budget import Balance, Claim, Op, Reserve, Result, Settle
from app.core.money import MAX_NANO, nano_from_usd
from app.core.policy import LedgerRules
from app.gateway.ledger import Ledger
from app.gateway.metrics import Metrics
from app.stores.budgets import Cut, Expired
from app.stores.budgets_sqlite import SqliteBudgets
from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, Answer, Live, policy, until, usd
from tests.redis_server import RedisServer
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Gate, Script, words

USAGE: dict[str, Any] = {"stream_options": {"include_usage": True}}
FORGOTTEN = "bursar_settlements_forgotten_total"


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.main.HEARTBEAT_S", 0.1)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server that knows after a crash what it knew when it was last told to save."""
    with RedisServer() as running:
        yield running


def fail_over(server: RedisServer) -> None:
    """To a replica that knows nothing since the last save."""
    server.kill()
    server.start()


async def ghosts_ended(live: Live, times: int) -> None:
    async def ended() -> bool:
        return await live.client.metric(FORGOTTEN) == times

    await until(ended)


def two_gated(upstream: ScriptedUpstream) -> tuple[Gate, Gate]:
    """Two replies to come, each behind a gate of its own."""
    gate, other = Gate(), Gate()
    scripts = iter([Script.of(words("One two three."), gate=gate), Script.of(words("Four five."), gate=other)])
    upstream.source = lambda _: next(scripts)
    return gate, other


async def two_asked(live: Live, upstream: ScriptedUpstream) -> tuple[asyncio.Task[Answer], asyncio.Task[Answer]]:
    """Two streams of one task, both under way."""
    first = asyncio.create_task(live.chat(task="t1", stream=True, **USAGE))
    await until(lambda: len(upstream.requests) == 1)
    second = asyncio.create_task(live.chat(task="t1", stream=True, **USAGE))
    await until(lambda: len(upstream.requests) == 2)
    return first, second


async def test_a_forgotten_settlement_is_made_again(
    tmp_path: Path, upstream: ScriptedUpstream, server: RedisServer
) -> None:
    gate, other = two_gated(upstream)
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_cost_usd": 0.01}}), server.url) as live:
        asked, under_way = await two_asked(live, upstream)
        assert server.command("SAVE") == b"+OK\r\n"
        gate.open()
        first = await asked
        assert first.done
        fail_over(server)
        await ghosts_ended(live, 1)
        balance = await live.balance("task:t1")
        assert balance.running == 1, "the call under way keeps its hold"
        assert balance.held_nano > 0
        other.open()
        assert (await under_way).done
        await live.idle()
        told_nano = sum(nano_from_usd(str(answer.usage["cost"])) for answer in (first, await under_way) if answer.usage)
        balance = await live.balance("task:t1")
        assert told_nano > 0
        assert (balance.spent_nano, balance.held_nano, balance.calls) == (told_nano, 0, 2)


async def test_a_task_that_was_cut_stays_cut(tmp_path: Path, upstream: ScriptedUpstream, server: RedisServer) -> None:
    gate = Gate()
    upstream.source = Script.of(words("a story " * 100), gate=gate, delay_s=0.001)
    cap_nano = 100 * INPUT_NANO + 20 * OUTPUT_NANO
    async with Live(
        tmp_path, policy({"a": upstream}, caps={"task": {"max_cost_usd": usd(cap_nano)}}), server.url
    ) as live:
        asked = asyncio.create_task(live.chat(task="t1", stream=True))
        await until(lambda: len(upstream.requests) == 1)
        assert server.command("SAVE") == b"+OK\r\n"
        gate.open()
        assert (await asked).error_code == "budget_exceeded"
        before = await live.balance("task:t1")
        fail_over(server)
        await ghosts_ended(live, 1)
        assert await live.balance("task:t1") == before
        assert (await live.chat(task="t1", stream=True)).status == 402
        assert len(upstream.requests) == 1


async def test_one_that_is_not_remembered_is_charged_as_a_dead_process_s(
    tmp_path: Path, upstream: ScriptedUpstream, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.gateway.ghosts.REMEMBERED", 0)
    gate = Gate()
    upstream.source = Script.of(words("One two three."), gate=gate)
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_cost_usd": 0.01}}), server.url) as live:
        asked = asyncio.create_task(live.chat(task="t1", stream=True))
        await until(lambda: len(upstream.requests) == 1)
        assert server.command("SAVE") == b"+OK\r\n"
        held_nano = (await live.balance("task:t1")).held_nano
        gate.open()
        await asked
        charged_nano = (await live.balance("task:t1")).spent_nano
        fail_over(server)
        await ghosts_ended(live, 1)
        balance = await live.balance("task:t1")
        assert (balance.held_nano, balance.running) == (0, 0)
        assert charged_nano <= balance.spent_nano <= held_nano


class Forgetful:
    """A ledger's store that can go back to what it was."""

    def __init__(self) -> None:
        self.owner, self.task_retention_s = "me", 1.0
        self.book = self.saved = Book()
        self.save()

    def save(self) -> None:
        self.saved = copy.deepcopy(self.book)

    def fail_over(self) -> None:
        self.book = copy.deepcopy(self.saved)

    async def start(self) -> None: ...

    def apply(self, op: Op) -> asyncio.Future[Result]:
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        answer.set_result(self.book.apply(op))
        return answer

    async def balances(self, scopes: Sequence[str]) -> list[Balance | None]:
        return [self.book.balances.get(scope) for scope in scopes]

    async def scopes(self, prefix: str, limit: int) -> list[tuple[str, Balance]]:
        return list(self.book.balances.items())

    async def beat(self) -> list[Expired]:
        return []

    async def held(self) -> list[str]:
        return [hold.call_id for hold in self.book.holds.values() if hold.owner == self.owner]

    async def cuts(self, most: int) -> list[Cut]:
        return []

    async def note_cuts(self, cuts: Sequence[Cut]) -> None:
        assert not cuts

    async def abandon(self, call_ids: Sequence[str]) -> list[Expired]:
        held = [call_id for call_id in call_ids if call_id in self.book.holds]
        return [Expired(call_id, self.owner, (), self.book.expire(call_id) or 0) for call_id in held]

    async def close(self) -> None: ...


async def test_a_call_that_comes_and_goes_while_the_ledger_is_asked_is_no_ghost() -> None:
    store, metrics = Forgetful(), Metrics()
    ledger, op = Ledger(store, metrics), Reserve("quick", "me", (Claim("s"),), 100, 100, 50)

    async def held() -> list[str]:
        await ledger.reserve(op, LedgerRules(), wait=False, stopped=lambda: False)
        found = await Forgetful.held(store)
        await ledger.settle(op, Settle("quick", 7))
        return found

    store.held = held  # type: ignore[method-assign]
    assert await ledger.end_ghosts() == 0
    assert metrics.registry.get_sample_value(FORGOTTEN) == 0, "nothing was forgotten, and nobody is told so"
    assert store.book.balances["s"].spent_nano == 7


async def test_a_name_without_a_hold_is_forgotten(
    tmp_path: Path, upstream: ScriptedUpstream, server: RedisServer
) -> None:
    """As a server leaves it that has thrown out what it had no room for: else it is looked into for ever."""
    upstream.source = Script.of(words("One two three."))
    async with Live(tmp_path, policy({"a": upstream}), server.url) as live:
        assert (await live.chat(stream=True)).done
        await live.idle()
        budgets = live.services.ledger.budgets
        (settled,) = live.services.ledger._alive._settled
        names = f"{{{live.namespace}}}:o:{budgets.owner}"
        assert server.command("SADD", names, settled.call_id) == b":1\r\n"
        await until(lambda: server.command("SCARD", names) == b":0\r\n")
        assert await live.client.metric(FORGOTTEN) == 0


async def test_what_is_owed_does_not_push_out_what_is_remembered(
    tmp_path: Path, upstream: ScriptedUpstream, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage leaves many settlements owed: what was settled before it is made again first."""
    monkeypatch.setattr("app.gateway.ghosts.REMEMBERED", 1)
    gate, other = two_gated(upstream)
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_cost_usd": 0.01}}), server.url) as live:
        asked, to_be_owed = await two_asked(live, upstream)
        assert server.command("SAVE") == b"+OK\r\n"
        gate.open()
        assert (await asked).done
        server.kill()
        other.open()
        assert (await to_be_owed).done
        assert len(live.services.ledger._owed) == 1
        server.start()
        await ghosts_ended(live, 1)
        await until(lambda: not live.services.ledger._owed)
        told_nano = sum(nano_from_usd(str(a.usage["cost"])) for a in (await asked, await to_be_owed) if a.usage)
        balance = await live.balance("task:t1")
        assert (balance.spent_nano, balance.held_nano) == (told_nano, 0)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 5)),
        st.tuples(st.just("settle"), st.integers(0, 5), st.integers(0, 150)),
        st.tuples(st.sampled_from(["save", "fail_over", "sweep"])),
    ),
    max_size=40,
)


@given(STEPS)
async def test_whatever_is_forgotten_no_hold_outlives_its_call_and_none_is_charged_twice(steps: list[Any]) -> None:
    store = Forgetful()
    stranger = Reserve("stranger", "another", (Claim("s"),), 7, 7, 7)
    store.book.apply(stranger)
    store.save()
    ledger, live, costs = Ledger(store, Metrics()), dict[int, Reserve](), dict[str, int]()
    begun = 0
    for kind, *values in steps:
        if kind == "save":
            store.save()
        elif kind == "fail_over":
            store.fail_over()
        elif kind == "sweep":
            await ledger.end_ghosts()
        elif kind == "reserve" and values[0] not in live:
            begun += 1
            op = Reserve(f"call {begun}", store.owner, (Claim("s"),), 100, 100, 50)
            await ledger.reserve(op, LedgerRules(), wait=False, stopped=lambda: False)
            live[values[0]] = op
        elif kind == "settle" and values[0] in live:
            op = live.pop(values[0])
            costs[op.call_id] = values[1]
            await ledger.settle(op, Settle(op.call_id, values[1]))
    before = store.book.balances["s"].spent_nano
    restored = [call_id for call_id in await store.held() if call_id in costs]
    assert await ledger.end_ghosts() == len(restored)
    assert await ledger.end_ghosts() == 0
    balance, names = store.book.balances["s"], {op.call_id for op in live.values()}
    assert store.book.holds.keys() - {"stranger"} <= names, "calls under way have holds, and nobody else here"
    assert "stranger" in store.book.holds
    assert balance.spent_nano == before + sum(costs[call_id] for call_id in restored) <= sum(costs.values())
    assert balance.held_nano == sum(hold.held_nano for hold in store.book.holds.values())
    assert balance.running == len(store.book.holds)


CLOSED = LedgerRules()


async def test_a_charge_beyond_what_a_ledger_can_hold_is_the_most_that_it_can(tmp_path: Path) -> None:
    store = SqliteBudgets(tmp_path / "ledger.sqlite")
    await store.start()
    ledger, op = Ledger(store, Metrics()), Reserve("huge", store.owner, (Claim("s"),), 100, 100, 50)
    await ledger.reserve(op, CLOSED, wait=False, stopped=lambda: False)
    with capture_logs() as said:
        await ledger.settle(op, Settle("huge", 2**70))
    (balance,) = await store.balances(["s"])
    assert balance is not None
    assert (balance.spent_nano, balance.held_nano) == (MAX_NANO, 0)
    assert [line["call_id"] for line in said if line["log_level"] == "error"] == ["huge"]
    await store.close()
