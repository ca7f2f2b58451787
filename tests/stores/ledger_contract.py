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
import itertools
import time
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.amend import Amend, Amended
from app.core.budget import (
    Advance,
    Balance,
    Book,
    Claim,
    Denied,
    Granted,
    Lost,
    Moved,
    Op,
    Reserve,
    Result,
    Settle,
    Settled,
)
from app.core.money import MAX_NANO
from app.core.terms import MAX_BELOW, MAX_DEPTH, TaskCaps, Terms
from app.stores.budgets import OWNER_LEASE_S, Budgets, Expired, LedgerUnavailable

SHORT_LEASE_S = 0.15
ODD_NAMES = (
    "task:k:plain",
    "task:k:with space|model:a/b",
    "task:k:100%_[a-z]*?",
    "task:k:{tag}}{",
    "task:k:quote'\"\\",
    "task:k:zeile\nzwei",
    "task:k:Größe-漢字-🜚",
    "task:k:" + "x" * 500,
)

serial = itertools.count()
examples = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,  # each example opens its own store and uses names of its own
        HealthCheck.differing_executors,  # the suite is inherited on purpose
        HealthCheck.too_slow,
    ],
)


class MakeStore(Protocol):
    """Opens one more store on the data of this test."""

    def __call__(self, *, lease_s: float = OWNER_LEASE_S) -> AbstractAsyncContextManager[Budgets]: ...


def fresh() -> str:
    """A prefix for scopes and calls that no other test or example uses."""
    return f"task:k{next(serial)}:"


def reserve(
    store: Budgets,
    call_id: str,
    *claims: Claim,
    need: int = 10,
    want: int | None = None,
    risk: int = 0,
    share: int = 1,
    now_ms: int = 0,
    need_tokens: int = 0,
) -> Reserve:
    """A Reserve of this store's owner; wants what it needs unless told otherwise."""
    wanted = need if want is None else want
    return Reserve(call_id, store.owner, claims, need, wanted, risk, share, now_ms, need_tokens)


def advance(call_id: str, spent: int, *, need: int = 10, want: int | None = None, risk: int = 0) -> Advance:
    """An Advance that wants what it needs unless told otherwise."""
    return Advance(call_id, spent, need, need if want is None else want, risk)


async def balance(store: Budgets, scope: str) -> Balance:
    """The balance of a scope that must be there."""
    (found,) = await store.balances([scope])
    assert found is not None, scope
    return found


async def granted(store: Budgets, op: Op) -> Granted:
    """The grant that this verb must get."""
    result = await store.apply(op)
    assert isinstance(result, Granted), result
    return result


async def amended(store: Budgets, scope: str, **changes: Any) -> Amended:
    """The answer to an amendment of a task."""
    result = await store.apply(Amend(f"amend {next(serial)}", scope, **changes))
    assert isinstance(result, Amended), result
    return result


async def denied(store: Budgets, op: Op) -> Denied:
    """The denial that this verb must get."""
    result = await store.apply(op)
    assert isinstance(result, Denied), result
    return result


async def beat_until_expired(store: Budgets, wanted: int, timeout_s: float = 5.0) -> list[Expired]:
    """Beat until `wanted` holds have been reported as expired: a lease runs out by the clock alone."""
    expired: list[Expired] = []
    until = time.monotonic() + timeout_s
    while len(expired) < wanted:
        assert time.monotonic() < until, f"only {expired} expired"
        await asyncio.sleep(SHORT_LEASE_S / 10)
        expired += await store.beat()
    return expired


async def stream_call(store: Budgets, call_id: str, claim: Claim, chunk: int, chunks: int) -> int:
    """One streaming call as the gateway runs it; what it was charged.

    It spends `chunk` only while its hold covers that, waits a bounded while where others hold the
    room, and stops at the cap.
    """
    result = await patiently(store, reserve(store, call_id, claim, need=chunk, want=8 * chunk, risk=chunk, share=8))
    if isinstance(result, Denied):
        return 0
    assert isinstance(result, Granted)
    spent, held = 0, result.held_nano
    while spent < chunk * chunks:
        if held < chunk:
            result = await patiently(store, Advance(call_id, spent, chunk, 8 * chunk, chunk, 8))
            assert isinstance(result, Granted)
            held = result.held_nano
            if held < chunk:
                break
        spent, held = spent + chunk, held - chunk
    settled = await store.apply(Settle(call_id, spent))
    assert isinstance(settled, Settled)
    return settled.charged_nano


async def patiently(store: Budgets, op: Reserve | Advance, patience: int = 100) -> Result:
    """The verb, again and again while only other calls' holds stand in its way."""
    for _ in range(patience):
        result = await store.apply(op)
        if not isinstance(result, Granted | Denied) or not result.contended:
            break
        await asyncio.sleep(0)
    return result


async def watch(store: Budgets, scope: str, seen: list[Balance]) -> None:
    """Keep the balances of a scope that others are drawing on, until cancelled."""
    while True:
        seen += [found for found in await store.balances([scope]) if found is not None]


amounts = st.integers(0, 60)
limits = st.none() | amounts
scope_names = st.sampled_from(["a", "a|model:m", "key:day", "global"])
call_names = st.sampled_from(["c1", "c2", "c3", "c4"])


@st.composite
def wishes(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """need <= want, a risk and a share."""
    need, more = draw(amounts), draw(amounts)
    return need, need + more, draw(amounts), draw(st.sampled_from([1, 1, 2, 5]))


few = st.none() | st.integers(0, 6)
caps = st.none() | st.builds(TaskCaps, few, few, few, few, few, few)
claims = st.builds(Claim, scope_names, limits, limits, caps)
states = st.sampled_from([None, None, "open", "frozen", "closed"])
amendments = st.builds(
    Amend,
    *(st.just("amendment"), scope_names, limits, few, few, few, states),
    parent=st.none() | scope_names,
    by_client=st.booleans(),
    policy_nano=limits,
    caps=caps,
)


@st.composite
def ops(draw: st.DrawFn) -> Op:
    """Any verb on a few calls and scopes; many hit a call that is not there, on purpose."""
    kind = draw(st.sampled_from(["reserve", "reserve", "advance", "settle", "amend"]))
    call_id = draw(call_names)
    if kind == "amend":
        return draw(amendments)
    if kind == "settle":
        killed = tuple(draw(st.lists(scope_names, max_size=2, unique=True)))
        return Settle(call_id, draw(amounts), killed, draw(st.integers(0, 5)))
    need, want, risk, share = draw(wishes())
    if kind == "advance":
        return Advance(call_id, draw(amounts), need, want, risk, share)
    claimed = tuple(draw(st.lists(claims, min_size=1, unique_by=lambda claim: claim.scope)))
    now_ms, need_tokens, forced = draw(st.integers(0, 9)), draw(st.integers(0, 3)), draw(st.integers(0, 9)) == 0
    return Reserve(call_id, "", claimed, need, want, risk, share, now_ms, need_tokens, forced)


def placed(op: Op, prefix: str, owner: str) -> Op:
    """The same verb with the names of one example and a real owner."""

    def at(claim: Claim) -> Claim:
        return msgspec.structs.replace(claim, scope=prefix + claim.scope)

    op = msgspec.structs.replace(op, call_id=prefix + op.call_id)
    if isinstance(op, Reserve):
        return msgspec.structs.replace(op, owner=owner, claims=tuple(map(at, op.claims)))
    if isinstance(op, Settle):
        return msgspec.structs.replace(op, killed_scopes=tuple(prefix + scope for scope in op.killed_scopes))
    if isinstance(op, Amend):
        return msgspec.structs.replace(op, scope=prefix + op.scope, parent=op.parent and prefix + op.parent)
    return op


async def assert_same_balances(store: Budgets, book: Book, prefix: str) -> None:
    """The store's balances are those of the reference, None included."""
    scopes = [prefix + name for name in ("a", "a|model:m", "key:day", "global")]
    assert await store.balances(scopes) == [book.balances.get(scope) for scope in scopes]


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
            await granted(store, msgspec.structs.replace(reserve(store, "1", claim, need=0), forced=True))
            await store.apply(Settle("1", 400, (), 9))
            found = await balance(store, scope)
            assert (found.spent_nano, found.limit_nano, found.own_limit_nano, found.tokens) == (400, 100, 5, 9)
            assert (await denied(store, reserve(store, "2", claim))).reason == "closed"


class LedgerContract(TaskContract):
    """The suite. Every test opens its stores through `make_store` alone."""

    async def test_a_grant_is_held_and_settling_refunds_the_rest(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store() as store:
            assert await store.balances([scope]) == [None]
            assert await granted(store, reserve(store, "c", Claim(scope, 100), need=30)) == Granted(30, 70, scope)
            assert await store.balances([scope]) == [Balance(0, 30, 1, 100)]
            assert await store.apply(Settle("c", 12)) == Settled(12, 18, 88, scope)
            assert await store.balances([scope]) == [Balance(12, 0, 1, 100)]

    async def test_balances_answer_in_the_order_asked(self, make_store: MakeStore) -> None:
        p = fresh()
        async with make_store() as store:
            await granted(store, reserve(store, "c", Claim(p + "x", 9), Claim(p + "y"), need=4))
            x, y = Balance(0, 4, 1, 9), Balance(0, 4, 1)
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
                Granted(20, 80, scope),
                Granted(20, 65, scope),
                Settled(18, 17, 82, scope),
                Lost("c"),
            ]

    async def test_reserving_twice_under_one_call_holds_once(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store() as store:
            first = await granted(store, reserve(store, "c", Claim(scope, 100), need=30))
            assert await granted(store, reserve(store, "c", Claim(scope, 100), need=60)) == first
            assert await balance(store, scope) == Balance(0, 30, 1, 100)

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
            assert await balance(store, scope) == Balance(25, 10, 1, 100)
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

    async def test_a_scope_without_a_limit_only_counts(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store() as store:
            assert await granted(store, reserve(store, "c", Claim(scope), need=10**12)) == Granted(10**12, None, None)
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
            assert grant == Granted(MAX_NANO - 1, 1, scope)
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

    async def test_a_name_that_cannot_be_stored_fails_alone(self, make_store: MakeStore) -> None:
        p = fresh()
        async with make_store() as store:
            good = store.apply(reserve(store, "1", Claim(p + "good", 100), need=5))
            with pytest.raises(ValueError):
                await store.apply(reserve(store, "2", Claim(p + "\ud800", 100), Claim(p + "good", 100), need=5))
            after = store.apply(reserve(store, "3", Claim(p + "good", 100), need=5))
            assert (await good, await after) == (Granted(5, 95, p + "good"), Granted(5, 90, p + "good"))
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
            assert listed[0][1] == Balance(0, 2, 2, 100)
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
            assert await balance(one, scope) == Balance(10, 40, 6, 100)
            await denied(two, reserve(two, "x", Claim(scope, 100), need=51))

    async def test_a_cancelled_wait_does_not_undo_the_verb(self, make_store: MakeStore) -> None:
        scope = fresh() + "t"
        async with make_store() as store:
            await granted(store, reserve(store, "c", Claim(scope, 100), need=30))
            future = store.apply(Settle("c", 21))
            other = store.apply(reserve(store, "d", Claim(scope, 100), need=1))
            future.cancel()
            assert isinstance(await other, Granted)
            assert await balance(store, scope) == Balance(21, 1, 2, 100)

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
            assert await survivor.balances([t, g]) == [Balance(52, 20, 3, 1000), Balance(49, 0, 1)]
            assert await silent.apply(advance("risky", 60)) == Lost("risky")
            assert await silent.apply(Settle("small", 3)) == Lost("small")

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

    @settings(examples, max_examples=8)
    @given(verbs=st.lists(ops(), min_size=1, max_size=25))
    async def test_expiring_is_the_books(self, make_store: MakeStore, verbs: list[Op]) -> None:
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


def by_call(expired: Expired) -> str:
    """The sort key of a report whose order is free."""
    return expired.call_id
