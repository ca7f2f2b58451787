"""What the suites of ledgers share: verbs made short, and random ones for the properties."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from app.core.amend import Amend, Amended
from app.core.book import Book
from app.core.budget import Advance, Balance, Claim, Denied, Granted, Op, Reserve, Result, Settle, Settled
from app.core.terms import TaskCaps
from app.stores.budgets import OWNER_LEASE_S, Budgets, Expired

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
    held_share: int = 0,
) -> Reserve:
    """A Reserve of this store's owner; wants what it needs unless told otherwise."""
    wanted = need if want is None else want
    return Reserve(call_id, store.owner, claims, need, wanted, risk, share, now_ms, need_tokens, held_share=held_share)


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
caps = st.none() | st.builds(TaskCaps, few, few, few, few, few, few, st.booleans(), few, few)
claims = st.builds(Claim, scope_names, limits, limits, caps)
claim_lists = st.lists(claims, unique_by=lambda claim: claim.scope).map(tuple)
states = st.sampled_from([None, None, "open", "frozen", "closed"])
amendments = st.builds(
    Amend,
    *(st.just("amendment"), scope_names, limits, few, few, few, states),
    parent=st.none() | scope_names,
    by_client=st.booleans(),
    policy_nano=limits,
    caps=caps,
    max_parallel=few,
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
        unsure = draw(st.none() | st.none() | claim_lists)
        now_ms = 0 if unsure is None else draw(st.integers(0, 9))
        return Settle(call_id, draw(amounts), killed, draw(st.integers(0, 5)), draw(st.integers(0, 3)), unsure, now_ms)
    need, want, risk, share = draw(wishes())
    if kind == "advance":
        return Advance(call_id, draw(amounts), need, want, risk, share, draw(st.booleans()))
    claimed, now_ms, need_tokens = draw(claim_lists.filter(bool)), draw(st.integers(0, 9)), draw(st.integers(0, 3))
    held_share = draw(st.sampled_from([0, 0, 1, 3]))
    return Reserve(call_id, "", claimed, need, want, risk, share, now_ms, need_tokens, held_share)


def placed(op: Op, prefix: str, owner: str) -> Op:
    """The same verb with the names of one example and a real owner."""

    def at(claim: Claim) -> Claim:
        return msgspec.structs.replace(claim, scope=prefix + claim.scope)

    op = msgspec.structs.replace(op, call_id=prefix + op.call_id)
    if isinstance(op, Reserve):
        return msgspec.structs.replace(op, owner=owner, claims=tuple(map(at, op.claims)))
    if isinstance(op, Settle):
        killed = tuple(prefix + scope for scope in op.killed_scopes)
        return msgspec.structs.replace(op, killed_scopes=killed, claims=op.claims and tuple(map(at, op.claims)))
    if isinstance(op, Amend):
        return msgspec.structs.replace(op, scope=prefix + op.scope, parent=op.parent and prefix + op.parent)
    return op


async def assert_same_balances(store: Budgets, book: Book, prefix: str) -> None:
    """The store's balances are those of the reference, None included."""
    scopes = [prefix + name for name in ("a", "a|model:m", "key:day", "global")]
    assert await store.balances(scopes) == [book.balances.get(scope) for scope in scopes]


def by_call(expired: Expired) -> str:
    """The sort key of a report whose order is free."""
    return expired.call_id
