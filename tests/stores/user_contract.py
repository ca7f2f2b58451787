"""What every ledger must do for end users: a part of `ledger_contract`."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from app.core.book import Book
from app.core.budget import Balance, Claim, Denied, Granted, Op, Result, Settle
from app.core.caps import Windows
from app.gateway.limits import user_claims, window_claims
from app.stores.budgets import Budgets
from tests.stores.ledger_tools import MakeStore, balance, denied, examples, fresh, granted, reserve

MOMENT = "2026-11-20T10:30"
NOBODY, USERS = "", ("ann", "bob", "eve")

amounts = st.integers(0, 40)
calls = st.tuples(st.sampled_from([NOBODY, *USERS]), amounts, amounts, st.booleans())
"""For which user a call is, what it needs, what it costs, and whether it is still under way when the next begins."""
caps = st.builds(Windows, *[st.none() | st.integers(0, 90)] * 4)


def claims_of(key: str, user: str, of_users: Windows, of_key: Windows) -> tuple[Claim, ...]:
    """As a call's limits have them."""
    of_user = () if user == NOBODY else user_claims(key, user, of_users, MOMENT)
    return (*of_user, *window_claims(f"key:{key}", of_key, MOMENT))


def fresh_key() -> str:
    """The name of a key that no other test or example uses."""
    return fresh().split(":")[1]


class UserContract:
    """See `LedgerContract`."""

    @examples
    @given(script=st.lists(calls, min_size=1, max_size=14), of_users=caps, of_key=caps)
    async def test_no_user_passes_its_caps_and_the_keys_spending_is_all_of_theirs(
        self, make_store: MakeStore, script: list[tuple[str, int, int, bool]], of_users: Windows, of_key: Windows
    ) -> None:
        key, book = fresh_key(), Book()
        charged = Counter[str]()
        async with make_store() as one, make_store() as two:

            async def apply(store: Budgets, op: Op) -> Result:
                result = await store.apply(op)
                assert result == book.apply(op), "the reference says the same"
                return result

            async def settle(user: str, op: Settle) -> None:
                await apply(two, op)
                charged[user] += op.cost_nano

            under_way: list[tuple[str, Settle]] = []
            for number, (user, need, cost, goes_on) in enumerate(script):
                claims = claims_of(key, user, of_users, of_key)
                op = reserve((one, two)[number % 2], f"{key} {number}", *claims, need=need)
                result = await apply((one, two)[number % 2], op)
                if isinstance(result, Denied):
                    assert result.scope in [claim.scope for claim in claims]
                    continue
                assert isinstance(result, Granted)
                under_way.append((user, Settle(op.call_id, min(cost, result.held_nano))))
                if not goes_on:
                    await settle(*under_way.pop())
            for ended in under_way:
                await settle(*ended)
            for user in USERS:
                named = user_claims(key, user, of_users, MOMENT)
                for claim, found in zip(named, await one.balances([c.scope for c in named]), strict=True):
                    spent = 0 if found is None else found.spent_nano
                    assert spent == charged[user]
                    assert claim.limit_nano is None or spent <= claim.limit_nano
                    assert found is None or (found.held_nano, found.running) == (0, 0)
            (total,) = await one.balances([f"key:{key}:total"])
            assert (0 if total is None else total.spent_nano) == charged.total()

    async def test_one_users_spending_leaves_the_others_theirs(self, make_store: MakeStore) -> None:
        key, of_users, of_key = fresh_key(), Windows(day_nano=10), Windows(day_nano=25)
        ann, bob, eve = (claims_of(key, user, of_users, of_key) for user in USERS)
        async with make_store() as store:
            await granted(store, reserve(store, f"{key}1", *ann, need=10))
            stopped = await denied(store, reserve(store, f"{key}2", *ann, need=1))
            assert (stopped.scope, stopped.contended) == (f"user:{key}:ann:day:2026-11-20", True)
            await store.apply(Settle(f"{key}1", 10))
            stopped = await denied(store, reserve(store, f"{key}3", *ann, need=1))
            assert (stopped.scope, stopped.contended) == (f"user:{key}:ann:day:2026-11-20", False)
            await granted(store, reserve(store, f"{key}4", *bob, need=10))
            assert (await denied(store, reserve(store, f"{key}5", *eve, need=6))).scope == f"key:{key}:day:2026-11-20"
            assert await store.balances([f"user:{key}:eve:total"]) in ([None], [Balance()]), "nothing was taken"

    async def test_a_crowd_of_one_user_never_passes_its_cap(self, make_store: MakeStore) -> None:
        key, cap = fresh_key(), 1_000
        claims = claims_of(key, "ann", Windows(month_nano=cap), Windows())
        async with make_store() as one, make_store() as two:

            async def call(number: int) -> int:
                store = (one, two)[number % 2]
                result = await store.apply(reserve(store, f"{key} {number}", *claims, need=30))
                if isinstance(result, Granted):
                    await store.apply(Settle(f"{key} {number}", 30))
                return isinstance(result, Granted)

            served = sum(await asyncio.gather(*map(call, range(100))))
            month = await balance(one, f"user:{key}:ann:month:2026-11")
            assert (month.spent_nano, month.held_nano) == (served * 30, 0)
            assert 0 < month.spent_nano <= cap

    async def test_users_are_without_number_and_in_no_list(self, make_store: MakeStore) -> None:
        key = fresh_key()
        async with make_store() as store:
            op = reserve(store, f"{key}1", *claims_of(key, "ann", Windows(hour_nano=9), Windows()), need=1)
            await granted(store, op)
            assert await store.scopes("user:", 10) == []
            listed = {name for name, _ in await store.scopes("", 1_000)}
            assert f"key:{key}:total" in listed
            assert not [name for name in listed if name.startswith("user:")]
            assert (await balance(store, f"user:{key}:ann:total")).running == 1
