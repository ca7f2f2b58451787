"""What every ledger must do, whichever store keeps it: one suite, run once per backend.

A backend subclasses `LedgerContract` in its own test file and supplies one fixture:

    class TestMyLedger(LedgerContract):
        @pytest.fixture
        def make_store(self, tmp_path) -> MakeStore: ...

`make_store(lease_s=...)` is an async context manager that opens one more connected store (as a
further gateway process would) on the data of this test and closes it on leaving. The data starts
empty. `lease_s` shortens OWNER_LEASE_S, so that a lease can run out within a test.
"""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.book import Book
from app.core.budget import Advance, Balance, Claim, Denied, Granted, Lost, Moved, Op, Reserve, Settle, Settled
from app.core.money import MAX_NANO
from app.stores.budgets import Expired, LedgerUnavailable
from tests.stores.cut_contract import CutContract
from tests.stores.ledger_tools import (
    ODD_NAMES,
    SHORT_LEASE_S,
    MakeStore,
    advance,
    amended,
    assert_same_balances,
    balance,
    beat_until_expired,
    by_call,
    denied,
    examples,
    fresh,
    granted,
    ops,
    placed,
    reserve,
    stream_call,
    watch,
)
from tests.stores.task_contract import TaskContract
from tests.stores.user_contract import UserContract


class LedgerContract(TaskContract, UserContract, CutContract):
    """The suite. Every test opens its stores through `make_store` alone."""

    async def test_a_grant_is_held_and_settling_refunds_the_rest(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store() as store:
            assert await store.balances([scope]) == [None]
            assert await granted(store, reserve(store, "c", Claim(scope, 100), need=30)) == Granted(
                30, 70, scope, step=1
            )
            assert await store.balances([scope]) == [Balance(0, 30, 1, 100, running=1)]
            assert await store.apply(Settle("c", 12)) == Settled(12, 18, 88, scope)
            assert await store.balances([scope]) == [Balance(12, 0, 1, 100)]

    async def test_balances_answer_in_the_order_asked(self, make_store: MakeStore) -> None:
        p = fresh()
        async with make_store() as store:
            await granted(store, reserve(store, "c", Claim(p + "x", 9), Claim(p + "y"), need=4))
            x, y = Balance(0, 4, 1, 9, running=1), Balance(0, 4, 1, running=1)
            assert await store.balances([p + "y", p + "none", p + "x", p + "y"]) == [y, None, x, y]
            assert await store.balances([]) == []

    async def test_verbs_applied_in_one_tick_take_effect_in_order(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store() as store:
            futures = [
                store.apply(reserve(store, "c", Claim(scope, 100), need=20)),
                store.apply(advance("c", 15, need=20)),
                store.apply(Settle("c", 18)),
                store.apply(Settle("c", 18)),
            ]
            assert await asyncio.gather(*futures) == [
                Granted(20, 80, scope, step=1),
                Granted(20, 65, scope, step=1),
                Settled(18, 17, 82, scope),
                Lost("c"),
            ]

    async def test_reserving_twice_under_one_call_holds_once(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store() as store:
            first = await granted(store, reserve(store, "c", Claim(scope, 100), need=30))
            assert await granted(store, reserve(store, "c", Claim(scope, 100), need=60)) == first
            assert await balance(store, scope) == Balance(0, 30, 1, 100, running=1)

    async def test_a_hold_ends_exactly_once(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store() as store:
            await granted(store, reserve(store, "c", Claim(scope, 100), need=30))
            results = await asyncio.gather(*(store.apply(Settle("c", 7)) for _ in range(5)))
            assert sorted(type(result).__name__ for result in results) == ["Lost"] * 4 + ["Settled"]
            assert await store.apply(advance("c", 9)) == Lost("c")
            assert (await balance(store, scope)).spent_nano == 7

    async def test_recorded_spending_never_falls_while_the_call_runs(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store() as store:
            await granted(store, reserve(store, "c", Claim(scope, 100), need=10))
            await granted(store, advance("c", 25))
            await granted(store, advance("c", 5))
            assert await balance(store, scope) == Balance(25, 10, 1, 100, running=1)
            assert await store.apply(Settle("c", 20)) == Settled(20, 15, 80, scope)

    async def test_a_denial_in_one_scope_holds_nothing_in_any(self, make_store: MakeStore) -> None:
        p = fresh()
        async with make_store() as store:
            op = reserve(store, "c", Claim(p + "wide", 1000), Claim(p + "tight", 5), need=10)
            assert await denied(store, op) == Denied(p + "tight", 5, 0, 0, contended=False, killed=False)
            held = [b.held_nano for b in await store.balances([p + "wide", p + "tight"]) if b]
            assert held in ([0, 0], [])
            assert await store.apply(Settle("c", 1)) == Lost("c")

    async def test_a_denial_says_whether_waiting_helps(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store() as store:
            await granted(store, reserve(store, "one", Claim(scope, 100), need=95))
            contended = await denied(store, reserve(store, "two", Claim(scope, 100), need=10))
            assert contended == Denied(scope, 100, 0, 95, contended=True, killed=False)
            await store.apply(Settle("one", 95))
            spent = await denied(store, reserve(store, "two", Claim(scope, 100), need=10))
            assert spent == Denied(scope, 100, 95, 0, contended=False, killed=False)

    async def test_a_share_leaves_room_for_others(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store() as store:
            first = await granted(store, reserve(store, "1", Claim(scope, 100), need=5, want=90, share=4))
            second = await granted(store, reserve(store, "2", Claim(scope, 100), need=5, want=90, share=4))
            assert (first.held_nano, second.held_nano) == (25, 18)

    async def test_a_call_that_goes_on_gets_what_it_needs_beyond_its_share(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store() as store:
            await granted(store, reserve(store, "1", Claim(scope, 100)))
            for spent, need, held in ((10, 20, 22), (20, 40, 40), (50, 60, 50)):
                found = await granted(store, Advance("1", spent, need, 90, 0, 4))
                assert found.held_nano == held, "a quarter of what is left, its need, or all of it"

    async def test_all_holds_may_be_bound_to_a_share_of_what_is_not_spent(self, make_store: MakeStore) -> None:
        p = fresh()
        capped, free = Claim(p + "a", 100), Claim(p + "free")
        async with make_store() as store:

            def asked(number: int, need: int, *, held_share: int = 4) -> Reserve:
                return reserve(store, f"{p}{number}", free, capped, need=need, held_share=held_share)

            await granted(store, asked(0, 20))
            await store.apply(Settle(p + "0", 20))
            full = await denied(store, asked(1, 21))
            assert (full.scope, full.contended, full.killed) == (p + "a", False, False), "a quarter of 80 is 20"
            await granted(store, asked(2, 15))
            assert (await denied(store, asked(3, 6))).contended, "with what others hold"
            await granted(store, asked(4, 5))
            await granted(store, asked(5, 6, held_share=0))
            short = await denied(store, asked(6, 55))
            assert (short.scope, short.contended) == (p + "a", True), "a cap is told of before a share"
            found = await balance(store, p + "a")
            assert (found.spent_nano, found.held_nano, found.running) == (20, 26, 3)

    async def test_a_scope_without_a_limit_only_counts(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store() as store:
            assert await granted(store, reserve(store, "c", Claim(scope), need=10**12)) == Granted(
                10**12, None, None, step=1
            )
            assert await store.apply(Settle("c", 3)) == Settled(3, 10**12 - 3, None, None)
            assert await balance(store, scope) == Balance(3, 0, 1)

    async def test_a_clients_own_limit_lowers_and_never_raises(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store() as store:
            low = await granted(store, reserve(store, "1", Claim(scope, 100, 40), need=1, want=500))
            assert low.held_nano == 40
            await store.apply(Settle("1", 0))
            high = await granted(store, reserve(store, "2", Claim(scope, 100, 4000), need=1, want=500))
            assert high.held_nano == 100
            await store.apply(Settle("2", 0))
            await granted(store, reserve(store, "3", Claim(scope, 100, 30), need=1))
            await store.apply(Settle("3", 0))
            remembered = await granted(store, reserve(store, "4", Claim(scope, 100), need=1, want=500))
            assert remembered.held_nano == 30

    async def test_a_killed_scope_stays_shut_until_its_limit_is_raised(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store() as store:
            await granted(store, reserve(store, "1", Claim(scope, 100), need=50))
            await granted(store, reserve(store, "2", Claim(scope, 100), need=50))
            await store.apply(Settle("1", 40, (scope,)))
            shut = await denied(store, reserve(store, "3", Claim(scope, 100), need=1))
            assert shut == Denied(scope, 100, 40, 50, contended=False, killed=True)
            assert (await granted(store, advance("2", 5))).held_nano == 0
            await store.apply(Settle("2", 20, (scope,)))
            first = await balance(store, scope)
            assert (first.killed_at_nano, first.spent_nano) == (40, 60)
            await granted(store, reserve(store, "4", Claim(scope, 101), need=1))
            await store.apply(Settle("4", 1))
            assert (await balance(store, scope)).killed_at_nano == 40

    async def test_the_largest_amounts_are_exact(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store() as store:
            grant = await granted(store, reserve(store, "c", Claim(scope, MAX_NANO), need=MAX_NANO - 1))
            assert grant == Granted(MAX_NANO - 1, 1, scope, step=1)
            assert await store.apply(Settle("c", MAX_NANO - 2)) == Settled(MAX_NANO - 2, 1, 2, scope)
            assert await balance(store, scope) == Balance(MAX_NANO - 2, 0, 1, MAX_NANO)

    @pytest.mark.parametrize("name", ODD_NAMES)
    async def test_any_name_will_do(self, make_store: MakeStore, name: str) -> None:
        async with make_store() as store:
            call_id = f"call {name}"
            await granted(store, reserve(store, call_id, Claim(name, 100), Claim("global:total"), need=5))
            await granted(store, advance(call_id, 3))
            assert await store.apply(Settle(call_id, 4, (name,))) == Settled(4, 9, 96, name)
            found = await balance(store, name)
            assert (found.spent_nano, found.killed_at_nano) == (4, 4)
            assert await store.scopes(name, 10) == [(name, found)]

    async def test_calls_are_numbered_by_their_first_scope(self, make_store: MakeStore) -> None:
        task, key = Claim(f"task:{fresh()}", None), Claim(fresh(), 100)
        async with make_store() as store:
            for step in (1, 2, 3):
                assert (await granted(store, reserve(store, f"c{step}", task, key))).step == step
            assert (await granted(store, reserve(store, "other", key, task))).step == 4
            assert (await granted(store, advance("c1", 1))).step == 4
            assert (await granted(store, reserve(store, "lone", Claim(fresh(), None)))).step == 1

    async def test_a_name_that_cannot_be_stored_fails_alone(self, make_store: MakeStore) -> None:
        p = fresh()
        async with make_store() as store:
            good = store.apply(reserve(store, "1", Claim(p + "good", 100), need=5))
            with pytest.raises(ValueError):
                await store.apply(reserve(store, "2", Claim(p + "\ud800", 100), Claim(p + "good", 100), need=5))
            after = store.apply(reserve(store, "3", Claim(p + "good", 100), need=5))
            assert (await good, await after) == (
                Granted(5, 95, p + "good", step=1),
                Granted(5, 90, p + "good", step=2),
            )
            assert (await balance(store, p + "good")).held_nano == 10

    async def test_scopes_are_listed_by_prefix_the_latest_first(self, make_store: MakeStore) -> None:
        p = fresh()
        names = [p + "%_a", p + "%_b", p + "%x", p + "*"]
        async with make_store() as store:
            for index, name in enumerate([*names, names[0]]):
                await granted(store, reserve(store, str(index), Claim(name, 100), need=1))
                await asyncio.sleep(0.005)  # recency is kept in milliseconds
            listed = await store.scopes(p, 10)
            assert [name for name, _ in listed] == [names[0], names[3], names[2], names[1]]
            assert listed[0][1] == Balance(0, 2, 2, 100, running=2)
            assert [name for name, _ in await store.scopes(p + "%_", 10)] == [names[0], names[1]]
            assert [name for name, _ in await store.scopes(p + "*", 10)] == [names[3]]
            assert [name for name, _ in await store.scopes(p, 2)] == [names[0], names[3]]
            assert await store.scopes(p + "absent", 10) == []

    async def test_two_stores_share_one_purse(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store() as one, make_store() as two:
            assert one.owner != two.owner
            for turn in range(6):
                store, other = (one, two) if turn % 2 else (two, one)
                await granted(store, reserve(store, str(turn), Claim(scope, 100), need=10))
                assert await balance(other, scope) == await balance(store, scope)
                if turn % 3 == 0:
                    await store.apply(Settle(str(turn), 5))
            assert await balance(one, scope) == Balance(10, 40, 6, 100, running=4)
            await denied(two, reserve(two, "x", Claim(scope, 100), need=51))

    async def test_a_cancelled_wait_does_not_undo_the_verb(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store() as store:
            await granted(store, reserve(store, "c", Claim(scope, 100), need=30))
            future = store.apply(Settle("c", 21))
            other = store.apply(reserve(store, "d", Claim(scope, 100), need=1))
            future.cancel()
            assert isinstance(await other, Granted)
            assert await balance(store, scope) == Balance(21, 1, 2, 100, running=1)

    async def test_the_living_keep_their_holds(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store(lease_s=SHORT_LEASE_S) as one, make_store() as two:
            await granted(one, reserve(one, "c", Claim(scope, 100), need=30))
            until = time.monotonic() + 2.5 * SHORT_LEASE_S
            while time.monotonic() < until:
                assert await one.beat() == []
                assert await two.beat() == []
                await asyncio.sleep(SHORT_LEASE_S / 10)
            assert isinstance(await one.apply(Settle("c", 1)), Settled)

    async def test_the_holds_of_a_silent_owner_expire_charged_by_their_risk(self, make_store: MakeStore) -> None:
        p = fresh()
        t, g = p + "t", p + "g"
        async with make_store(lease_s=SHORT_LEASE_S) as silent, make_store() as survivor:
            await granted(silent, reserve(silent, "risky", Claim(t, 1000), Claim(g), need=100, risk=7))
            await granted(silent, advance("risky", 40, need=100, risk=9))
            await granted(silent, reserve(silent, "small", Claim(t, 1000), need=3, risk=50))
            await granted(survivor, reserve(survivor, "mine", Claim(t, 1000), need=20, risk=5))
            expired = await beat_until_expired(survivor, 2)
            assert sorted(expired, key=by_call) == [
                Expired("risky", silent.owner, (t, g), 49),
                Expired("small", silent.owner, (t,), 3),
            ]
            assert await survivor.beat() == []
            assert await survivor.balances([t, g]) == [Balance(52, 20, 3, 1000, running=1), Balance(49, 0, 1)]
            assert await silent.apply(advance("risky", 60)) == Lost("risky")
            assert await silent.apply(Settle("small", 3)) == Settled(3, 0, 928, t, lapsed=True)

    async def test_an_owner_tells_its_holds_and_ends_those_that_nobody_will_settle(self, make_store: MakeStore) -> None:
        p = fresh()
        t, g = p + "t", p + "g"
        async with make_store() as one, make_store() as two:
            assert await one.held() == []
            await granted(one, reserve(one, p + "a", Claim(t, 1000), Claim(g), need=100, risk=7))
            await granted(one, advance(p + "a", 40, need=100, risk=9))
            await granted(one, reserve(one, p + "b", Claim(t, 1000), need=3, risk=50))
            await granted(two, reserve(two, p + "c", Claim(t, 1000), need=20, risk=5))
            assert (sorted(await one.held()), await two.held()) == ([p + "a", p + "b"], [p + "c"])
            assert await one.abandon([]) == []
            ended = await one.abandon([p + "a", p + "c", p + "never"])
            assert ended == [Expired(p + "a", one.owner, (t, g), 49)], "another's is not its to end"
            assert await one.abandon([p + "a"]) == []
            assert (await one.held(), await two.held()) == ([p + "b"], [p + "c"])
            assert await one.balances([t, g]) == [Balance(49, 23, 3, 1000, running=2), Balance(49, 0, 1)]
            assert await one.apply(Settle(p + "a", 45)) == Settled(45, 4, 932, t, lapsed=True)
            assert isinstance(await one.apply(Settle(p + "b", 3)), Settled)
            assert isinstance(await two.apply(Settle(p + "c", 3)), Settled)
            assert await one.held() == await two.held() == []

    async def test_an_owner_taken_for_dead_comes_back(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store(lease_s=SHORT_LEASE_S) as silent, make_store() as survivor:
            await granted(silent, reserve(silent, "old", Claim(scope, 100), need=10, risk=4))
            await beat_until_expired(survivor, 1)
            assert await silent.beat() == []
            await granted(silent, reserve(silent, "new", Claim(scope, 100), need=10, risk=4))
            assert await survivor.beat() == []
            assert await silent.apply(Settle("new", 5)) == Settled(5, 5, 91, scope)

    async def test_a_store_opened_later_ends_the_holds_of_the_dead(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store(lease_s=SHORT_LEASE_S) as silent:
            await granted(silent, reserve(silent, "c", Claim(scope, 100), need=10, risk=4))
            await asyncio.sleep(1.5 * SHORT_LEASE_S)
            async with make_store() as later:
                assert await balance(later, scope) == Balance(4, 0, 1, 100)

    async def test_closing_finishes_what_was_applied(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store() as store:
            futures = [store.apply(reserve(store, str(i), Claim(scope, 100), need=1)) for i in range(5)]
            futures += [store.apply(Settle(str(i), 1)) for i in range(5)]
        assert all(future.done() for future in futures)
        async with make_store() as later:
            assert await balance(later, scope) == Balance(5, 0, 5, 100)
            assert await later.beat() == []

    async def test_holds_left_by_a_closed_store_expire(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store() as survivor:
            async with make_store(lease_s=SHORT_LEASE_S) as leaver:
                await granted(leaver, reserve(leaver, "c", Claim(scope, 100), need=10, risk=4))
            expired = await beat_until_expired(survivor, 1)
            assert expired == [Expired("c", leaver.owner, (scope,), 4)]
            assert await balance(survivor, scope) == Balance(4, 0, 1, 100)

    async def test_a_closed_store_is_unavailable(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store() as store:
            pass
        with pytest.raises(LedgerUnavailable):
            await store.apply(reserve(store, "c", Claim(scope, 100)))
        with pytest.raises(LedgerUnavailable):
            await store.balances([scope])

    @examples
    @given(batches=st.lists(st.lists(ops(), min_size=1, max_size=8), max_size=8))
    async def test_the_store_is_the_book(self, make_store: MakeStore, batches: list[list[Op]]) -> None:
        prefix, book = fresh(), Book()
        async with make_store() as store:
            for batch in batches:
                verbs = [placed(op, prefix, store.owner) for op in batch]
                results = await asyncio.gather(*(store.apply(op) for op in verbs))
                assert results == [book.apply(op) for op in verbs]
                await assert_same_balances(store, book, prefix)

    @examples
    @given(turns=st.lists(st.tuples(st.booleans(), ops()), max_size=30))
    async def test_two_stores_are_one_book(self, make_store: MakeStore, turns: list[tuple[bool, Op]]) -> None:
        prefix, book = fresh(), Book()
        async with make_store() as one, make_store() as two:
            for first, op in turns:
                store = one if first else two
                verb = placed(op, prefix, store.owner)
                assert await store.apply(verb) == book.apply(verb)
            await assert_same_balances(one, book, prefix)
            await assert_same_balances(two, book, prefix)

    async def test_a_call_whose_reservation_was_not_answered_is_charged_once(self, make_store: MakeStore) -> None:
        p = fresh()
        claims = (Claim(p + "t", 100), Claim(p + "g"))
        async with make_store() as one, make_store() as two:
            for call, cost in ((p + "never made", 30), (p + "made", 20)):
                if call == p + "made":
                    await granted(one, reserve(one, call, *claims, need=50))
                killed = (p + "t",) if cost == 20 else ()
                debt = Settle(call, cost, killed, 7, claims=claims, now_ms=5)
                left = 70 if cost == 30 else 50
                assert await one.apply(debt) == Settled(cost, 30 if cost == 20 else 0, left, p + "t")
                assert await two.apply(debt) == Settled(cost, 0, left, p + "t"), "sent again, and by anybody"
                assert await one.apply(reserve(one, call, *claims)) == Lost(call), "made too late"
            found = await balance(two, p + "t")
            assert (found.spent_nano, found.held_nano, found.calls, found.running) == (50, 0, 2, 0)
            assert (found.tokens, found.began_ms, found.killed_at_nano) == (14, 5, 50)
            assert [cut.scope for cut in await one.cuts(10) if cut.scope.startswith(p)] == [p + "t"]
            assert await one.apply(Settle(p + "refused", 0, claims=())) == Settled(0, 0, None, None)
            assert await two.apply(reserve(two, p + "refused", *claims)) == Lost(p + "refused")
            assert await one.held() == await two.held() == []

    async def test_a_debt_of_a_task_below_others_is_charged_in_all_of_them(self, make_store: MakeStore) -> None:
        p = fresh()
        async with make_store() as store:
            await amended(store, p + "child", parent=p + "root")
            child, root, key = Claim(p + "child"), Claim(p + "root"), Claim(p + "key", 50)
            assert await store.apply(Settle(p + "c", 9, claims=(child, key))) == Moved(p + "child", (p + "root",))
            assert await balance(store, p + "key") == Balance(limit_nano=50)
            assert isinstance(await store.apply(Settle(p + "c", 9, claims=(child, root, key))), Settled)
            assert [b and b.spent_nano for b in await store.balances([p + "child", p + "root"])] == [9, 9]

    @settings(examples, max_examples=8)
    @given(verbs=st.lists(ops(), min_size=1, max_size=25), late=st.lists(ops(), max_size=12))
    async def test_expiring_is_the_books(self, make_store: MakeStore, verbs: list[Op], late: list[Op]) -> None:
        prefix, book = fresh(), Book()
        async with make_store() as survivor:
            async with make_store(lease_s=SHORT_LEASE_S) as dead:
                for op in (placed(op, prefix, dead.owner) for op in verbs):
                    assert await dead.apply(op) == book.apply(op)
            abandoned = {call_id: hold.scopes for call_id, hold in book.holds.items()}
            expired = await beat_until_expired(survivor, len(abandoned))
            wanted = [
                Expired(call_id, dead.owner, scopes, book.expire(call_id) or 0) for call_id, scopes in abandoned.items()
            ]
            assert sorted(expired, key=by_call) == sorted(wanted, key=by_call)
            await assert_same_balances(survivor, book, prefix)
            for op in (placed(op, prefix, survivor.owner) for op in late):
                assert await survivor.apply(op) == book.apply(op)
            await assert_same_balances(survivor, book, prefix)
            for call_id in list(book.holds):  # else they expire in the next example
                assert isinstance(await survivor.apply(Settle(call_id, 0)), Settled)

    async def test_200_calls_never_pass_the_cap_and_use_it(self, make_store: MakeStore) -> None:
        scope, cap, chunk = fresh() + "t", 100_000, 70
        seen: list[Balance] = []
        async with make_store() as one, make_store() as two:
            watcher = asyncio.ensure_future(watch(one, scope, seen))
            charges = await asyncio.gather(
                *(stream_call((one, two)[i % 2], f"c{i}", Claim(scope, cap), chunk, chunks=20) for i in range(200))
            )
            watcher.cancel()
            after = await balance(two, scope)
            assert (after.held_nano, after.spent_nano) == (0, sum(charges))
            assert 0.9 * cap <= after.spent_nano <= cap
            assert seen
            assert max(b.spent_nano + b.held_nano for b in seen) <= cap
