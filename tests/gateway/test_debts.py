"""What a call has cost that the ledger's store did not hear of: charged once, whatever is lost and whoever lapses."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.amend import Amend
from app.core.budget import Balance, Claim, Op, Reserve, Result, Settle
from app.core.errors import LedgerDown
from app.core.policy import LedgerRules
from app.gateway.ledger import Ledger
from app.gateway.metrics import Metrics
from app.stores.budgets import OWNER_LEASE_S, Budgets, LedgerUnavailable
from app.stores.budgets_redis import RedisBudgets
from app.stores.budgets_sqlite import SqliteBudgets
from tests.gateway.live import until
from tests.gateway.test_ghosts import Forgetful
from tests.stores.ledger_tools import SHORT_LEASE_S, balance, beat_until_expired

OPEN = LedgerRules(on_failure="open", open_allowance_nano=10**6)
CLOSED = LedgerRules()
RISK = 50


@pytest.fixture
async def stores(tmp_path: Path, ledger_url: str | None) -> AsyncIterator[tuple[Budgets, Budgets]]:
    """Two processes' ways to one ledger: the first one's lease soon lapses."""
    name = f"debts{secrets.token_hex(6)}"

    def made(lease_s: float = OWNER_LEASE_S) -> Budgets:
        if ledger_url is None:
            return SqliteBudgets(tmp_path / "ledger.sqlite", lease_s=lease_s)
        return RedisBudgets(ledger_url, namespace=name, lease_s=lease_s)

    async with AsyncExitStack() as stack:
        found = made(SHORT_LEASE_S), made()
        for store in found:
            await store.start()
            stack.push_async_callback(store.close)
        yield found


def deafened(store: Budgets) -> Callable[[type[Op]], None]:
    """From when it is called with a verb on: one such verb is carried out, and its answer is lost."""
    apply, lost = store.apply, list[type[Op]]()

    def applied(op: Op) -> asyncio.Future[Result]:
        written = apply(op)
        if type(op) not in lost:
            return written
        lost.remove(type(op))
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        written.add_done_callback(lambda _: answer.set_exception(LedgerUnavailable("the answer is lost")))
        return answer

    store.apply = applied  # type: ignore[method-assign]
    return lost.append


async def begun(ledger: Ledger, op: Reserve, rules: LedgerRules) -> None:
    await ledger.reserve(op, rules, wait=False, stopped=lambda: False)


@pytest.mark.parametrize("lapses", [False, True])
async def test_a_debt_is_charged_once_whatever_its_lost_answers_and_its_lease_did(
    stores: tuple[Budgets, Budgets], lapses: bool
) -> None:
    store, survivor = stores
    lose, ledger = deafened(store), Ledger(store, Metrics())
    op = Reserve("c", store.owner, (Claim("task:k:t", 1000),), 100, 100, 50)
    lose(Reserve)
    await begun(ledger, op, OPEN)
    await ledger.settle(op, Settle("c", 70, tokens=5))
    if lapses:
        await beat_until_expired(survivor, 1)
    for _ in range(2):
        lose(Settle)
        await ledger.pay_owed()
        assert len(ledger._owed) == 1
    await ledger.pay_owed()
    assert not ledger._owed
    found = await balance(survivor, "task:k:t")
    assert (found.spent_nano, found.held_nano, found.running, found.tokens, found.calls) == (70, 0, 0, 5, 1)
    assert await ledger.end_ghosts() == 0


async def test_a_debt_of_a_task_that_hangs_below_another_is_charged_in_both(stores: tuple[Budgets, Budgets]) -> None:
    store, _ = stores
    ledger, op = Ledger(store, Metrics()), Reserve("c", store.owner, (Claim("task:k:child"),), 100, 100, 50)
    apply = store.apply

    def unheard(_: Op) -> asyncio.Future[Result]:
        raise LedgerUnavailable("never sent")

    store.apply = unheard  # type: ignore[assignment]
    await begun(ledger, op, OPEN)
    store.apply = apply  # type: ignore[method-assign]
    await apply(Amend("hang", "task:k:child", parent="task:k:root"))
    await ledger.settle(op, Settle("c", 70))
    await ledger.pay_owed()
    assert [(await balance(store, name)).spent_nano for name in ("task:k:child", "task:k:root")] == [70, 70]


async def test_a_call_that_was_refused_for_want_of_an_answer_costs_nothing_after_its_lease(
    stores: tuple[Budgets, Budgets],
) -> None:
    store, survivor = stores
    lose, ledger = deafened(store), Ledger(store, Metrics())
    lose(Reserve)
    with pytest.raises(LedgerDown):
        await begun(ledger, Reserve("c", store.owner, (Claim("task:k:t", 1000),), 100, 100, 50), CLOSED)
    await beat_until_expired(survivor, 1)
    await ledger.pay_owed()
    found = await balance(survivor, "task:k:t")
    assert (found.spent_nano, found.held_nano, found.running) == (0, 0, 0)


@pytest.mark.parametrize("cost_nano", [30, 70])
async def test_what_a_lapsed_lease_charged_is_made_good_when_its_call_settles(
    stores: tuple[Budgets, Budgets], cost_nano: int
) -> None:
    store, survivor = stores
    ledger, op = Ledger(store, Metrics()), Reserve("c", store.owner, (Claim("task:k:t", 1000),), 100, 100, 50)
    await begun(ledger, op, CLOSED)
    await beat_until_expired(survivor, 1)
    assert (await balance(survivor, "task:k:t")).spent_nano == 50
    await ledger.settle(op, Settle("c", cost_nano, tokens=5))
    found = await balance(survivor, "task:k:t")
    assert (found.spent_nano, found.held_nano, found.running, found.tokens) == (cost_nano, 0, 0, 5)


class Faltering(Forgetful):
    """One whose answers get lost: of verbs that it has carried out, and of others."""

    def __init__(self) -> None:
        super().__init__()
        self.next: list[str] = []
        self.late: list[Op] = []

    def apply(self, op: Op) -> asyncio.Future[Result]:
        what = self.next.pop() if self.next else "answers"
        if what == "answers":
            return super().apply(op)
        if what == "carries out":
            super().apply(op)
        if what == "carries out later":
            self.late.append(op)
        lost: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        lost.set_exception(LedgerUnavailable("the answer is lost"))
        return lost

    def lapse(self) -> None:
        """As another process ends the holds of one that was silent for too long."""
        for call_id in list(self.book.holds):
            self.book.expire(call_id)


ANSWERS = st.lists(
    st.sampled_from(["answers", "answers", "carries out", "carries out later", "hears nothing"]), max_size=6
)


@st.composite
def turns(draw: st.DrawFn, *more: str) -> tuple[Any, ...]:
    """What happens next: a call begins or ends, debts are paid, a lease lapses, verbs arrive late; and `more`."""
    kind = draw(st.sampled_from(["begin", "begin", "end", "end", "pay", "sweep", "lapse", "arrive", *more]))
    return kind, draw(ANSWERS), draw(st.integers(0, 5)), draw(st.integers(0, 150)), draw(st.booleans())


async def play(turns: list[Any]) -> tuple[Faltering, dict[str, int]]:
    """Let all of it happen, then end what is under way and give each verb its answer: the store, and what each call
    has cost (0: it was refused)."""
    store = Faltering()
    ledger, live, costs = Ledger(store, Metrics()), dict[int, Reserve](), dict[str, int]()

    def arrive() -> None:
        late, store.late = store.late, []
        for verb in late:
            store.book.apply(verb)

    for kind, store.next, which, cost_nano, opens in turns:
        if kind == "begin" and which not in live:
            op = Reserve(f"call {len(costs)}", store.owner, (Claim("s"),), 100, 100, RISK)
            costs[op.call_id] = 0
            with contextlib.suppress(LedgerDown):
                await begun(ledger, op, OPEN if opens else CLOSED)
                live[which] = op
        elif kind == "end" and which in live:
            op = live.pop(which)
            costs[op.call_id] = cost_nano
            await ledger.settle(op, Settle(op.call_id, cost_nano))
        elif kind == "pay":
            await ledger.pay_owed()
        elif kind == "sweep":
            with contextlib.suppress(LedgerUnavailable):
                await ledger.end_ghosts()
        elif kind == "lapse":
            store.lapse()
        elif kind == "arrive":
            arrive()
        elif kind == "save":
            store.save()
        elif kind == "fail over":
            store.fail_over()
    store.next = []
    for op in live.values():
        costs[op.call_id] = 7
        await ledger.settle(op, Settle(op.call_id, 7))
    arrive()
    await ledger.catch_up()
    return store, costs


@given(st.lists(turns(), max_size=40))
async def test_whatever_is_lost_comes_late_or_lapses_each_call_is_charged_once(turns: list[Any]) -> None:
    store, costs = await play(turns)
    found = store.book.balances.get("s", Balance())
    assert (found.spent_nano, found.held_nano, found.running) == (sum(costs.values()), 0, 0)
    assert not store.book.holds


@given(st.lists(turns("save", "fail over"), max_size=40))
async def test_whatever_a_failover_forgets_no_call_is_charged_twice(turns: list[Any]) -> None:
    """What was forgotten is lost; what is found again costs what the call did, or what it risked."""
    store, costs = await play(turns)
    found = store.book.balances.get("s", Balance())
    assert found.spent_nano <= sum(max(cost_nano, RISK) for cost_nano in costs.values())
    assert (found.held_nano, found.running, store.book.holds) == (0, 0, {})


async def test_a_reservation_that_was_carried_out_too_late_charges_nothing_again() -> None:
    """Its call ran on the open allowance, and has been paid for by then."""
    store = Faltering()
    ledger, op = Ledger(store, Metrics()), Reserve("late", store.owner, (Claim("s"),), 100, 100, 50)
    store.next = ["carries out later"]
    await ledger.reserve(op, OPEN, wait=False, stopped=lambda: False)
    await ledger.settle(op, Settle("late", 70))
    await ledger.pay_owed()
    assert store.book.balances["s"].spent_nano == 70
    store.book.apply(store.late.pop())
    assert await ledger.end_ghosts() == 0
    assert (store.book.balances["s"].spent_nano, store.book.holds) == (70, {})


@pytest.mark.parametrize("verb", ["reserve", "hold"])
async def test_a_reservation_that_is_cancelled_costs_nothing(verb: str) -> None:
    """The store carries it out all the same: nothing was sent, so nothing was at risk."""
    store = Forgetful()
    ledger, op = Ledger(store, Metrics()), Reserve("gone", store.owner, (Claim("s"),), 100, 100, 50)
    apply, answer = store.apply, asyncio.get_running_loop().create_future()

    def slow(op: Op) -> asyncio.Future[Result]:
        apply(op)
        return answer

    store.apply = slow  # type: ignore[method-assign]
    waiting = ledger.hold(op) if verb == "hold" else ledger.reserve(op, CLOSED, wait=False, stopped=lambda: False)
    asking = asyncio.ensure_future(waiting)
    await until(lambda: store.book.holds)
    asking.cancel()
    await asyncio.wait([asking])
    store.apply = apply  # type: ignore[method-assign]
    await ledger.catch_up()
    assert (store.book.balances["s"].spent_nano, store.book.holds) == (0, {})
    assert not ledger._alive.calls
