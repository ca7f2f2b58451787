"""Holds that no limit can refuse are written while the upstream is asked: nothing is lost when that write fails."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from app.core.budget import Advance, Balance, Book, Claim, Granted, Op, Reserve, Result, Settle
from app.core.policy import LedgerRules
from app.gateway.ledger import Ledger
from app.gateway.metrics import Metrics
from app.stores.budgets import Expired, LedgerUnavailable

CLAIMS = (Claim("key:k:total"), Claim("global:total"))
CLOSED = LedgerRules()
ON_LEDGER = Reserve("c1", "o", CLAIMS, 10, 100, 50)


class FailingBudgets:
    """A book behind a disk: verbs of one tick are one transaction, which fails where it is told to. `at_once` False:
    the transaction waits for `answer`."""

    owner = "o"
    embedded = True

    def __init__(self, fails: Sequence[bool] = ()) -> None:
        self.book = Book()
        self.applied: list[Op] = []
        self.at_once = True
        self._fails = itertools.chain(fails, itertools.repeat(False))
        self._batch: list[tuple[Op, asyncio.Future[Result]]] = []

    def apply(self, op: Op) -> asyncio.Future[Result]:
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        if not self._batch and self.at_once:
            asyncio.get_running_loop().call_soon(self.answer)
        self.applied.append(op)
        self._batch.append((op, future))
        return future

    def answer(self) -> None:
        """Carry out what waits, or fail all of it."""
        batch, self._batch = self._batch, []
        fails = next(self._fails)
        for op, future in batch:
            if fails:
                future.set_exception(LedgerUnavailable("disk full"))
            else:
                future.set_result(self.book.apply(op))

    async def balances(self, scopes: Sequence[str]) -> list[Balance | None]:
        return [self.book.balances.get(scope) for scope in scopes]

    async def start(self) -> None: ...
    async def close(self) -> None: ...
    async def beat(self) -> list[Expired]:
        return []

    async def scopes(self, prefix: str, limit: int) -> list[tuple[str, Balance]]:
        return []


def never() -> bool:
    return False


async def ticks() -> None:
    """Time for an answer and the callbacks on it."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_it_does_not_wait_for_the_store() -> None:
    budgets = FailingBudgets()
    budgets.at_once = False
    ledger = Ledger(budgets, Metrics())
    granted = await asyncio.wait_for(ledger.reserve(ON_LEDGER, CLOSED, wait=False, stopped=never), 5)
    assert granted == Granted(100, None, None)
    assert budgets.applied == [ON_LEDGER]


async def test_a_settlement_waits_for_the_hold_it_ends() -> None:
    budgets = FailingBudgets()
    budgets.at_once = False
    ledger = Ledger(budgets, Metrics())
    await ledger.reserve(ON_LEDGER, CLOSED, wait=False, stopped=never)
    settling = asyncio.ensure_future(ledger.settle(ON_LEDGER, Settle("c1", 7)))
    await ticks()
    assert len(budgets.applied) == 1
    budgets.answer()
    budgets.at_once = True
    assert await settling is not None
    assert budgets.book.balances["global:total"].spent_nano == 7


async def test_a_limit_or_a_task_makes_it_wait() -> None:
    limited = Reserve("c1", "o", (Claim("key:k:day:2026-01-01", 5), *CLAIMS), 1, 1, 1)
    own = Reserve("c1", "o", (Claim("global:total", None, 5),), 1, 1, 1)
    task = Reserve("c1", "o", (Claim("task:k:t"), *CLAIMS), 1, 1, 1)
    assert not limited.unlimited
    assert not own.unlimited
    assert not task.unlimited
    assert ON_LEDGER.unlimited


async def test_after_a_failure_the_next_call_waits_for_its_answer() -> None:
    budgets = FailingBudgets([True])
    ledger = Ledger(budgets, Metrics())
    await ledger.reserve(ON_LEDGER, CLOSED, wait=False, stopped=never)
    await ticks()
    assert not ledger.up
    assert await ledger.settle(ON_LEDGER, Settle("c1", 7)) is None
    budgets.at_once = False
    second = asyncio.ensure_future(
        ledger.reserve(Reserve("c2", "o", CLAIMS, 1, 1, 1), CLOSED, wait=False, stopped=never)
    )
    await ticks()
    assert not second.done()
    budgets.answer()
    assert isinstance(await second, Granted)


async def test_a_stream_whose_hold_failed_gets_no_more_where_the_policy_is_closed() -> None:
    budgets = FailingBudgets([True])
    ledger = Ledger(budgets, Metrics())
    await ledger.reserve(ON_LEDGER, CLOSED, wait=False, stopped=never)
    await ticks()
    (answer,) = await asyncio.gather(ledger.advance(Advance("c1", 60, 10, 100, 50)), return_exceptions=True)
    assert isinstance(answer, LedgerUnavailable)


@given(fails=st.lists(st.booleans(), max_size=6), late=st.booleans(), cost=st.integers(0, 500))
def test_whatever_fails_the_cost_is_charged_once(fails: list[bool], late: bool, cost: int) -> None:
    """Property: after the store has come back, spent is the cost, and nothing is held."""

    async def run() -> None:
        budgets = FailingBudgets(fails)
        ledger = Ledger(budgets, Metrics())
        await ledger.reserve(ON_LEDGER, CLOSED, wait=False, stopped=never)
        if late:
            await ticks()
        await ledger.settle(ON_LEDGER, Settle("c1", cost))
        for _ in range(len(fails) + 1):
            await ledger.pay_owed()
        assert ledger.up
        for claim in CLAIMS:
            balance = budgets.book.balances[claim.scope]
            assert (balance.spent_nano, balance.held_nano) == (cost, 0)
        assert not budgets.book.holds

    asyncio.run(run())
