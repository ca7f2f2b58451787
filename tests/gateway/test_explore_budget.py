"""The budget for exploring is one for all who share a ledger: workers on SQLite, gateways on Redis."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from app.gateway.explore_budget import SHARE, SharedBudget
from app.gateway.ledger import Ledger
from app.gateway.metrics import Metrics
from app.stores.budgets import OWNER_LEASE_S, Budgets, LedgerUnavailable
from app.stores.budgets_redis import RedisBudgets
from app.stores.budgets_sqlite import SqliteBudgets
from tests.stores.ledger_tools import SHORT_LEASE_S, beat_until_expired
from tests.upstream import PATIENCE_S

TODAY = dt.date(2026, 11, 29)
SCOPE = f"explore:auto:day:{TODAY}"
DAY = 100_000
Open = Callable[..., AbstractAsyncContextManager[Budgets]]


@pytest.fixture
def opened(ledger_url: str | None, tmp_path: Path) -> Open:
    """Opens one more worker's connection to the same ledger."""
    namespace = uuid.uuid4().hex

    @asynccontextmanager
    async def open_one(lease_s: float = OWNER_LEASE_S) -> AsyncIterator[Budgets]:
        store: Budgets = (
            SqliteBudgets(tmp_path / "ledger.db", lease_s=lease_s)
            if ledger_url is None
            else RedisBudgets(ledger_url, namespace=namespace, lease_s=lease_s)
        )
        await store.start()
        try:
            yield store
        finally:
            await store.close()

    return open_one


def budget_of(store: Budgets) -> SharedBudget:
    return SharedBudget(Ledger(store, Metrics()))


async def explore(
    budget: SharedBudget, nano: int, *, route: str = "auto", day: dt.date = TODAY, day_nano: int = DAY
) -> bool:
    """One call that may explore, and is asked a second time where the process had no lease yet."""
    if not budget.allows(route, day_nano, nano, day):
        await budget.renew()
        if not budget.allows(route, day_nano, nano, day):
            return False
    budget.spend(route, nano)
    return True


async def balance(store: Budgets, scope: str = SCOPE) -> tuple[int, int]:
    (found,) = await store.balances([scope])
    return (0, 0) if found is None else (found.spent_nano, found.held_nano)


async def test_nothing_is_explored_before_the_ledger_has_answered(opened: Open) -> None:
    async with opened() as store:
        budget = budget_of(store)
        assert not budget.allows("auto", DAY, 1_000, TODAY)
        await budget.renew()
        assert budget.allows("auto", DAY, 1_000, TODAY)
        assert await balance(store) == (0, DAY // SHARE)


@pytest.mark.parametrize("seed", range(4))
async def test_two_workers_together_spend_the_days_budget_and_no_more(opened: Open, seed: int) -> None:
    dice = random.Random(seed)
    async with opened() as one, opened() as other:
        workers = [budget_of(one), budget_of(other)]
        spent = refused = 0
        while refused < 40:
            worker, nano = dice.choice(workers), dice.randint(1, 3_000)
            if await explore(worker, nano):
                given_back = dice.choice((0, nano // 2))
                worker.spend("auto", -given_back)
                spent += nano - given_back
            else:
                refused += 1
            assert spent <= DAY
        assert spent > 0.9 * DAY
        for worker in workers:
            await worker.close()
        assert await balance(one) == await balance(other) == (spent, 0)


async def test_one_worker_gets_what_another_gave_back(opened: Open) -> None:
    async with opened() as one, opened() as other:
        first, second = budget_of(one), budget_of(other)
        assert await explore(first, 80_000)
        assert not await explore(second, 30_000)
        first.spend("auto", -70_000)
        await first.close()
        third = budget_of(other)
        assert await explore(third, 30_000)


async def test_calls_that_come_while_a_lease_is_asked_for_do_not_have_it_given_back(opened: Open) -> None:
    async with opened() as store:
        budget = budget_of(store)

        async def calls() -> None:
            while True:
                budget.allows("auto", DAY, 1_000, TODAY)
                await asyncio.sleep(0)

        calling = asyncio.create_task(calls())
        await asyncio.sleep(0)
        await asyncio.wait_for(budget.renew(), 10)
        calling.cancel()
        assert budget.allows("auto", DAY, 1_000, TODAY)
        (found,) = await store.balances([SCOPE])
        assert found is not None
        assert found.calls == 1


async def test_a_budget_that_was_raised_is_asked_of_at_once_and_a_lowered_one_binds_at_once(opened: Open) -> None:
    async with opened() as store:
        budget = budget_of(store)
        assert await explore(budget, DAY)
        assert not await explore(budget, 1)
        assert await explore(budget, 500, day_nano=2 * DAY)
        assert not await explore(budget, 500, day_nano=DAY // 2), "not on what was leased under the one before"
        assert await balance(store) == (DAY + 500, 0)
        assert await explore(budget, 500, day_nano=2 * DAY)


async def test_a_refusal_is_of_its_day_alone(opened: Open) -> None:
    async with opened() as store:
        budget, tomorrow = budget_of(store), TODAY + dt.timedelta(days=1)
        assert await explore(budget, DAY)
        assert not await explore(budget, 1)
        assert await explore(budget, 1, day=tomorrow)


async def test_what_is_left_is_there_for_smaller_calls_when_a_larger_one_is_refused(opened: Open) -> None:
    async with opened() as store:
        budget = budget_of(store)
        assert await explore(budget, DAY - 3_000)
        assert not await explore(budget, 5_000)
        assert [await explore(budget, 1_000) for _ in range(4)] == [True, True, True, False]
        assert await balance(store) == (DAY, 0)


async def test_a_process_that_does_not_explore_gives_its_part_back(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.gateway.explore_budget.IDLE_S", 0.05)
    async with opened() as one, opened() as other, asyncio.TaskGroup() as group:
        idle, busy = budget_of(one), budget_of(other)
        assert await explore(idle, 1_000)
        keeping = group.create_task(idle.keep())
        async with asyncio.timeout(PATIENCE_S):
            while await balance(one) != (1_000, 0):
                await asyncio.sleep(0.01)
        assert await explore(busy, DAY - 1_000)
        keeping.cancel()


async def test_what_a_call_costs_beyond_what_was_expected_counts_when_its_lease_is_gone(opened: Open) -> None:
    async with opened() as store:
        budget = budget_of(store)
        assert await explore(budget, 1_000)
        await budget.close()
        budget.spend("auto", 500)
        budget.spend("auto", -100)
        assert await explore(budget, 2_000)
        await budget.close()
        assert await balance(store) == (3_500, 0)


async def test_it_asks_beside_the_calls(opened: Open) -> None:
    async with opened() as store, asyncio.TaskGroup() as group:
        budget = budget_of(store)
        keeping = group.create_task(budget.keep())
        async with asyncio.timeout(PATIENCE_S):
            while not budget.allows("auto", DAY, 1_000, TODAY):
                await asyncio.sleep(0.01)
        keeping.cancel()
        assert await balance(store) == (0, DAY // SHARE)


async def test_each_day_and_each_route_has_its_own(opened: Open) -> None:
    async with opened() as store:
        budget = budget_of(store)
        assert await explore(budget, DAY)
        assert not await explore(budget, DAY)
        assert await explore(budget, DAY, route="other")
    async with opened() as store:
        budget, tomorrow = budget_of(store), TODAY + dt.timedelta(days=1)
        assert not await explore(budget, 1)
        assert await explore(budget_of(store), DAY, day=tomorrow)
        assert (await balance(store))[0] == DAY


async def test_what_is_left_of_a_lease_at_midnight_is_not_the_next_days(opened: Open) -> None:
    async with opened() as store:
        budget, tomorrow = budget_of(store), TODAY + dt.timedelta(days=1)
        assert await explore(budget, 10)
        assert budget.allows("auto", DAY, 10, TODAY)
        assert not budget.allows("auto", DAY, 10, tomorrow)
        await budget.renew()
        assert budget.allows("auto", DAY, 10, tomorrow)
        assert (await balance(store))[0] == 10


async def test_a_call_dearer_than_a_whole_day_asks_for_nothing(opened: Open) -> None:
    async with opened() as store:
        assert not await explore(budget_of(store), DAY + 1)
        assert await store.balances([SCOPE]) == [None]


async def test_what_a_killed_worker_held_is_spent(opened: Open) -> None:
    async with opened() as living:
        async with opened(SHORT_LEASE_S) as killed:
            assert await explore(budget_of(killed), 500)
            (gone,) = await beat_until_expired(living, 1)
            assert (gone.scopes, gone.charged_nano) == ((SCOPE,), DAY // SHARE)
        assert await balance(living) == (DAY // SHARE, 0)


async def test_where_the_ledger_is_away_nothing_is_explored(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened() as store:
        budget = budget_of(store)

        def away(_: object) -> None:
            raise LedgerUnavailable("gone")

        monkeypatch.setattr(store, "apply", away)
        assert not await explore(budget, 1_000)
        monkeypatch.undo()
        assert not await explore(budget, 1_000), "it is asked again only after a while"
        assert await balance(store) == (0, 0)
