"""What every ledger must tell of tasks that were cut: a part of `ledger_contract`."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from app.core.budget import Balance, Claim, Settle
from app.stores.budgets import Budgets
from tests.stores.ledger_tools import MakeStore, examples, fresh, granted, reserve, serial

ALL = 10_000


async def cut(store: Budgets, scope: str, limit: int = 10, *, at: str | None = None) -> None:
    """A call of this task ends at its cap."""
    call_id = f"cut {next(serial)}"
    await granted(store, reserve(store, call_id, Claim(scope, limit), need=1))
    await store.apply(Settle(call_id, 1, (at or scope,)))


async def mine(store: Budgets, prefix: str) -> list[str]:
    """What is in the list of this test's or example's."""
    return [one.scope for one in await store.cuts(ALL) if one.scope.startswith(prefix)]


class CutContract:
    """See `LedgerContract`."""

    async def test_what_was_cut_is_told_until_it_is_noted(self, make_store: MakeStore) -> None:
        p = fresh()
        async with make_store() as one, make_store() as two:
            assert await mine(one, p) == []
            await granted(one, reserve(one, f"{p}ends well", Claim(p + "well", 10), need=1))
            await one.apply(Settle(f"{p}ends well", 1))
            for name in ("b", "a", "c|model:m"):
                await cut(one, p + name)
                await asyncio.sleep(0.002)
            assert await mine(two, p) == [p + "b", p + "a", p + "c|model:m"], "the earliest first"
            found = {each.scope: each for each in await two.cuts(ALL)}
            assert found[p + "b"].balance == Balance(1, 0, 1, 10, killed_at_nano=1, killed_limit_nano=10)
            await two.note_cuts([found[p + "b"], found[p + "c|model:m"]])
            await two.note_cuts([found[p + "b"]])
            assert await mine(one, p) == [p + "a"]

    async def test_a_task_that_is_cut_again_while_it_is_noted_stays(self, make_store: MakeStore) -> None:
        p = fresh()
        async with make_store() as store:
            await cut(store, p + "t", 10)
            before = [one for one in await store.cuts(ALL) if one.scope == p + "t"]
            await asyncio.sleep(0.002)
            await cut(store, p + "t", 20)
            assert await mine(store, p) == [p + "t"], "once"
            await store.note_cuts(before)
            assert await mine(store, p) == [p + "t"]

    async def test_what_a_call_did_not_draw_on_is_not_cut_by_it(self, make_store: MakeStore) -> None:
        p = fresh()
        async with make_store() as store:
            await cut(store, p + "t", at=p + "another")
            await store.apply(Settle("no call of that name", 1, (p + "t",)))
            assert await mine(store, p) == []

    async def test_no_more_are_told_than_are_asked_for(self, make_store: MakeStore) -> None:
        p = fresh()
        async with make_store() as store:
            await asyncio.gather(*(cut(store, f"{p}{number}") for number in range(7)))
            told: Counter[str] = Counter()
            while some := await store.cuts(3):
                assert len(some) <= 3
                told.update(one.scope for one in some)
                await store.note_cuts(some)
            assert {name: count for name, count in told.items() if name.startswith(p)} == {
                f"{p}{number}": 1 for number in range(7)
            }

    @examples
    @given(script=st.lists(st.tuples(st.sampled_from(["cut", "end", "note"]), st.sampled_from("abc")), max_size=12))
    async def test_every_cut_is_told(self, make_store: MakeStore, script: list[tuple[str, str]]) -> None:
        p, waiting = fresh(), set[str]()
        async with make_store() as one, make_store() as two:
            for number, (what, name) in enumerate(script):
                store = (one, two)[number % 2]
                if what == "cut":
                    await cut(store, p + name, 10 + number)  # its cap is raised each time, or it would be denied
                    waiting.add(p + name)
                elif what == "end":
                    await granted(store, reserve(store, f"{p}{number}", Claim(p + name, 10 + number), need=1))
                    await store.apply(Settle(f"{p}{number}", 1))
                else:
                    await store.note_cuts([each for each in await store.cuts(ALL) if each.scope == p + name])
                    waiting.discard(p + name)
                assert set(await mine(one, p)) == waiting
