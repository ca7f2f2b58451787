"""What every ledger must do for a task besides its money; a part of `ledger_contract.LedgerContract`."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.amend import Amended
from app.core.budget import (
    Claim,
    Granted,
    Moved,
    Settle,
    Settled,
)
from app.core.terms import MAX_BELOW, MAX_DEPTH, TaskCaps, Terms
from app.stores.budgets import Budgets
from tests.stores.ledger_tools import (
    SHORT_LEASE_S,
    MakeStore,
    advance,
    amended,
    balance,
    beat_until_expired,
    denied,
    examples,
    fresh,
    granted,
    patiently,
    reserve,
)


class TaskContract:
    """What a task is besides its money."""

    async def test_calls_are_counted_and_capped(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store() as store:
            for call in ("1", "2"):
                await granted(store, reserve(store, call, Claim(scope, caps=TaskCaps(calls=2))))
            no = await denied(store, reserve(store, "3", Claim(scope, caps=TaskCaps(calls=2))))
            assert (no.reason, no.limit, no.used, no.contended, no.killed) == ("calls", 2, 2, False, False)
            await granted(store, reserve(store, "3", Claim(scope, caps=TaskCaps(calls=3))))

    async def test_no_more_run_at_a_time_than_may(self, make_store: MakeStore) -> None:
        p = fresh()
        task, key = Claim(p + "t", 1000), Claim(p + "key", caps=TaskCaps(parallel=2))
        async with make_store() as one, make_store() as two:
            await granted(one, reserve(one, "1", task, key))
            await granted(two, reserve(two, "2", task, key))
            no = await denied(two, reserve(two, "3", task, key))
            assert (no.scope, no.reason, no.limit, no.used) == (p + "key", "parallel", 2, 2)
            assert (no.contended, no.killed) == (True, False)
            assert [b and (b.running, b.calls, b.held_nano) for b in await one.balances([p + "t", p + "key"])] == [
                (2, 2, 20)
            ] * 2
            await granted(one, advance("1", 7))
            await one.apply(Settle("1", 7))
            await granted(two, reserve(two, "3", task, key))
            assert (await denied(two, reserve(two, "4", Claim(p + "t", 20), key))).reason == "budget", "told first"
            await amended(one, p + "t", max_parallel=3, by_client=True)
            await granted(two, reserve(two, "4", task))
            assert (await denied(two, reserve(two, "5", task))).scope == p + "t"
            owed = await two.apply(Settle("5", 3, claims=(task, key)))  # it has run, whatever the limits
            assert isinstance(owed, Settled)
            await asyncio.gather(*(two.apply(Settle(call, 0)) for call in "2345"))
            assert [b and b.running for b in await one.balances([p + "t", p + "key"])] == [0, 0]

    async def test_the_calls_of_a_dead_process_run_no_more(self, make_store: MakeStore) -> None:
        claim = Claim(fresh() + "t", caps=TaskCaps(parallel=1))
        async with make_store(lease_s=SHORT_LEASE_S) as silent, make_store() as survivor:
            await granted(silent, reserve(silent, "c", claim, risk=4))
            assert (await denied(survivor, reserve(survivor, "d", claim))).reason == "parallel"
            await beat_until_expired(survivor, 1)
            await granted(survivor, reserve(survivor, "d", claim))
            assert (await balance(survivor, claim.scope)).running == 1

    @settings(examples, max_examples=12)
    @given(most=st.integers(1, 4), calls=st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=24))
    async def test_whoever_asks_at_once_never_more_run_than_may_and_none_is_left(
        self, make_store: MakeStore, most: int, calls: list[tuple[bool, int]]
    ) -> None:
        scope, running, highest = fresh() + "t", 0, 0

        async def call(store: Budgets, name: str, turns: int) -> None:
            nonlocal running, highest
            result = await patiently(store, reserve(store, name, Claim(scope, caps=TaskCaps(parallel=most))), 10_000)
            assert isinstance(result, Granted), "each gets its turn"
            running += 1
            highest = max(highest, running)
            for turn in range(turns):
                await store.apply(advance(name, turn))
            running -= 1
            await store.apply(Settle(name, turns))

        async with make_store() as one, make_store() as two:
            await asyncio.gather(*(call((one, two)[s], f"{scope}{i}", n) for i, (s, n) in enumerate(calls)))
            assert highest <= most
            if calls:
                after = await balance(two, scope)
                assert (after.running, after.calls, after.held_nano) == (0, len(calls), 0)

    async def test_tokens_are_counted_at_the_end_and_what_is_left_is_told(self, make_store: MakeStore) -> None:
        scope, limit = fresh() + "t", TaskCaps(tokens=100, own_tokens=80)
        async with make_store() as store:
            grant = await granted(store, reserve(store, "1", Claim(scope, caps=limit), need_tokens=30))
            assert (grant.tokens_left, grant.ms_left) == (80, None)
            await store.apply(Settle("1", 5, (), 60))
            assert (await balance(store, scope)).tokens == 60
            grant = await granted(store, reserve(store, "2", Claim(scope), need_tokens=20))
            assert grant.tokens_left == 20, "the policy has no limit now; the client's is remembered"
            no = await denied(store, reserve(store, "3", Claim(scope, caps=limit), need_tokens=21))
            assert (no.reason, no.limit, no.used) == ("tokens", 80, 60)
            await store.apply(Settle("2", 5, (), 20))
            assert (await denied(store, reserve(store, "3", Claim(scope, caps=limit)))).reason == "tokens"

    async def test_limits_at_the_entry_bind_nobody_who_has_begun(self, make_store: MakeStore) -> None:
        scope, limit = fresh() + "t", TaskCaps(calls=3, tokens=100, at_entry=True)
        async with make_store() as store:
            for call in ("1", "2"):
                grant = await granted(store, reserve(store, call, Claim(scope, caps=limit), need_tokens=40))
                assert grant.tokens_left is None
            assert (await balance(store, scope)).tokens == 80, "counted as they begin"
            await store.apply(Settle("1", 5, (), 59, 40))
            assert (await balance(store, scope)).tokens == 99, "and made good at the end"
            await granted(store, reserve(store, "3", Claim(scope, caps=limit), need_tokens=1))
            no = await denied(store, reserve(store, "4", Claim(scope, caps=limit)))
            assert (no.reason, no.limit, no.used, no.contended, no.killed) == ("calls", 3, 3, False, False)
            more = TaskCaps(calls=9, tokens=100, at_entry=True)
            no = await denied(store, reserve(store, "4", Claim(scope, caps=more)))
            assert (no.reason, no.limit, no.used) == ("tokens", 100, 100)
            await store.apply(Settle("2", 0, (), 0, 40))
            assert (await balance(store, scope)).tokens == 60, "of what came to nothing nothing is counted"
            assert (await granted(store, advance("3", 7))).held_nano == 10, "a call under way goes on"
            assert (await balance(store, scope)).terms == Terms(calls=9, tokens=100, at_entry=True)
            await granted(store, reserve(store, "4", Claim(scope)))
            assert (await balance(store, scope)).terms is None

    async def test_minutes_and_hours_are_counted_and_not_listed(self, make_store: MakeStore) -> None:
        owner, task = f"key:k{fresh()[5:-1]}", fresh() + "job:minute:2026-11-30T17:44"
        windows = [f"{owner}:minute:2026-11-30T17:44", f"{owner}:hour:2026-11-30T17", f"{owner}:day:2026-11-30"]
        async with make_store() as store:
            await granted(store, reserve(store, "1", *map(Claim, windows), Claim(task)))
            await store.apply(Settle("1", 7, (), 3))
            assert [(await balance(store, scope)).spent_nano for scope in (*windows, task)] == [7, 7, 7, 7]
            assert [name for name, _ in await store.scopes(owner, 9)] == windows[2:]
            assert [name for name, _ in await store.scopes(task, 9)] == [task]

    async def test_the_clock_runs_from_the_first_call(self, make_store: MakeStore) -> None:
        scope, limit = fresh() + "t", TaskCaps(ms=1000)
        begin = 1_700_000_000_000
        async with make_store() as store:
            await amended(store, scope, max_calls=9)
            assert (await balance(store, scope)).began_ms == 0
            first = await granted(store, reserve(store, "1", Claim(scope, caps=limit), now_ms=begin))
            later = await granted(store, reserve(store, "2", Claim(scope, caps=limit), now_ms=begin + 400))
            assert (first.ms_left, later.ms_left) == (1000, 600)
            no = await denied(store, reserve(store, "3", Claim(scope, caps=limit), now_ms=begin + 1000))
            assert (no.reason, no.limit, no.used) == ("time", 1000, 1000)
            assert (await balance(store, scope)).began_ms == begin

    @pytest.mark.parametrize("state", ["frozen", "closed"])
    async def test_a_frozen_or_closed_task_takes_no_call_until_it_is_open(
        self, make_store: MakeStore, state: str
    ) -> None:
        scope = fresh() + "t"
        async with make_store() as store:
            await granted(store, reserve(store, "1", Claim(scope, 100)))
            for _ in range(2):
                assert (await amended(store, scope, state=state)).refused is None
            assert (await denied(store, reserve(store, "2", Claim(scope, 100)))).reason == state
            assert (await granted(store, advance("1", 10))).held_nano == 10, "a call under way goes on"
            await store.apply(Settle("1", 10))
            await amended(store, scope, state="open")
            await granted(store, reserve(store, "2", Claim(scope, 100)))

    async def test_a_raised_limit_stands_in_the_policys_place(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        limit = Claim(scope, 100, 60, TaskCaps(calls=2, tokens=10, ms=10, own_calls=1))
        async with make_store() as store:
            await granted(store, reserve(store, "1", limit, need=60))
            await store.apply(Settle("1", 60, (scope,), 10))
            assert (await denied(store, reserve(store, "2", limit))).killed
            raised = await amended(store, scope, max_nano=500, max_calls=7, max_tokens=50, max_ms=99)
            assert raised == Amended(scope, None, ())
            again = msgspec.structs.replace(limit, own_limit_nano=None, caps=TaskCaps(calls=2, tokens=10, ms=10))
            grant = await granted(store, reserve(store, "2", again, need=40))
            assert (grant.remaining_nano, grant.tokens_left, grant.ms_left) == (400, 40, 99)
            found = await balance(store, scope)
            assert (found.killed_at_nano, found.spent_nano, found.limit_nano) == (60, 60, 500)
            assert found.terms is not None
            assert (found.terms.max_calls, found.terms.calls) == (7, 2)

    async def test_a_task_can_be_amended_before_it_begins(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store() as store:
            await amended(store, scope, max_nano=40)
            assert (await balance(store, scope)).terms == Terms(set_nano=40)
            grant = await granted(store, reserve(store, "1", Claim(scope, 10), need=1, want=500))
            assert grant.held_nano == 40
            assert [name for name, _ in await store.scopes(scope, 5)] == [scope]

    async def test_a_client_may_tighten_and_nothing_else(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        mine = {"by_client": True, "policy_nano": 100, "caps": TaskCaps(calls=5)}
        async with make_store() as store:
            assert (await amended(store, scope, **mine, max_nano=101, state="frozen")).refused == "raises"
            assert (await amended(store, scope, **mine, max_calls=6, state="frozen")).refused == "raises"
            assert (await balance(store, scope)).terms == Terms(calls=5), "all or nothing"
            lower = await amended(store, scope, **mine, max_nano=50, max_calls=2, max_tokens=9)
            assert lower.refused is None
            found = await balance(store, scope)
            assert (found.limit_nano, found.own_limit_nano) == (100, 50)
            assert found.terms == Terms(calls=5, own_calls=2, own_tokens=9)
            await amended(store, scope, by_client=True, state="frozen")
            assert (await amended(store, scope, by_client=True, state="open")).refused == "reopens"
            await amended(store, scope, by_client=True, state="closed")
            assert (await amended(store, scope, by_client=True, state="frozen")).refused == "reopens"

    async def test_a_call_below_claims_on_all_above(self, make_store: MakeStore) -> None:
        p = fresh()
        root, child, leaf = p + "root", p + "child", p + "leaf"
        async with make_store() as one, make_store() as two:
            assert (await amended(one, child, parent=root)).above == (root,)
            assert (await amended(two, leaf, parent=child)).above == (child, root)
            assert await two.apply(reserve(two, "1", Claim(leaf))) == Moved(leaf, (child, root))
            assert await two.apply(reserve(two, "1", Claim(leaf), Claim(child))) == Moved(leaf, (child, root))
            claims = (Claim(leaf), Claim(child), Claim(root, 100, None, TaskCaps(tokens=50)))
            assert (await granted(two, reserve(two, "1", *claims, need=60))).tokens_left == 50
            await two.apply(Settle("1", 60, (), 7))
            assert [(b.spent_nano, b.tokens, b.calls) for b in await one.balances([leaf, child, root]) if b] == [
                (60, 7, 1)
            ] * 3
            no = await denied(one, reserve(one, "2", *claims, need=60))
            assert (no.scope, no.reason) == (root, "budget")
            await amended(one, child, state="frozen")
            assert (await denied(one, reserve(one, "2", *claims))).scope == child

    async def test_the_first_parent_stays_and_no_ring_is_closed(self, make_store: MakeStore) -> None:
        p = fresh()
        a, b, c = p + "a", p + "b", p + "c"
        async with make_store() as store:
            assert (await amended(store, a, parent=a)).refused == "cycle"
            await amended(store, b, parent=a)
            assert await amended(store, b, parent=a) == Amended(b, None, (a,))
            assert await amended(store, b, parent=c) == Amended(b, "has_parent", (a,))
            assert (await amended(store, a, parent=b)).refused == "cycle"
            assert (await amended(store, a, parent=c)).refused == "has_children"
            assert (await balance(store, a)).terms == Terms(below=(b,))

    async def test_trees_have_a_depth_and_long_families_are_cut_in_the_telling(self, make_store: MakeStore) -> None:
        p = fresh()
        async with make_store() as store:
            for depth in range(1, MAX_DEPTH):
                assert (await amended(store, f"{p}{depth}", parent=f"{p}{depth - 1}")).refused is None
            assert (await amended(store, f"{p}more", parent=f"{p}{MAX_DEPTH - 1}")).refused == "depth"
            await asyncio.gather(*(amended(store, f"{p}x{i}", parent=f"{p}root") for i in range(MAX_BELOW + 2)))
            root = await balance(store, p + "root")
            assert root.terms is not None
            assert len(root.terms.below) == MAX_BELOW

    async def test_what_is_spent_already_is_never_refused(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        claim = Claim(scope, 100, 5, TaskCaps(calls=0, tokens=0))
        async with make_store() as store:
            await amended(store, scope, state="closed")
            assert isinstance(await store.apply(Settle("1", 400, (), 9, 4, (claim,), 7)), Settled)
            found = await balance(store, scope)
            assert (found.spent_nano, found.limit_nano, found.own_limit_nano, found.tokens) == (400, 100, 5, 9)
            assert (found.calls, found.held_nano, found.running, found.began_ms) == (1, 0, 0, 7)
            assert (await denied(store, reserve(store, "2", claim))).reason == "closed"
