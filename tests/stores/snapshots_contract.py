"""What every store of snapshots keeps, whoever keeps it."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from app.stores import snapshots
from app.stores.snapshots import Head, NoSnapshot, Overtaken, Snapshot, Snapshots, Trial

MADE = Snapshot(0, 1_000.5, "abc", parent=0, labels=50, models=3, trial=Trial(40, 0.5, 0.52, 0.01))


async def published(store: Snapshots, count: int, keep: int = 10) -> list[Snapshot]:
    return [await store.publish(MADE, f"body {n}".encode(), head=await store.head(), keep=keep) for n in range(count)]


class SnapshotsContract:
    """Subclasses have a fixture `store`, started."""

    async def test_at_first_there_is_nothing(self, store: Snapshots) -> None:
        assert await store.head() == Head()
        assert await store.told() == []
        assert await store.load() == (Head(), None)
        with pytest.raises(NoSnapshot):
            await store.body(1)
        with pytest.raises(NoSnapshot):
            await store.rollback(None)

    async def test_the_latest_published_is_in_force(self, store: Snapshots) -> None:
        first, second = await published(store, 2)
        assert first.number < second.number
        assert await store.told() == [second, first]
        assert await store.body(second.number) == b"body 1"
        assert await store.head() == Head(current=second.number, moves=2)
        assert second == msgspec.structs.replace(MADE, number=second.number)

    async def test_a_refused_one_is_told_and_changes_nothing(self, store: Snapshots) -> None:
        (first,) = await published(store, 1)
        refused = msgspec.structs.replace(MADE, status="refused", why="worse")
        told = await store.publish(refused, None, head=await store.head(), keep=3)
        assert await store.head() == Head(current=first.number, moves=2)
        assert [(one.status, one.why) for one in await store.told()] == [("refused", "worse"), ("published", "")]
        with pytest.raises(NoSnapshot):
            await store.body(told.number)

    async def test_the_last_few_are_kept(self, store: Snapshots, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(snapshots, "KEEP_TOLD", 6)
        for module in ("snapshots_sqlite", "snapshots_redis"):
            monkeypatch.setattr(f"app.stores.{module}.KEEP_TOLD", 6)
        made = await published(store, 9, keep=3)
        for one in made[:-3]:
            with pytest.raises(NoSnapshot):
                await store.body(one.number)
        assert [await store.body(one.number) for one in made[-3:]] == [b"body 6", b"body 7", b"body 8"]
        assert [one.number for one in await store.told()] == [one.number for one in reversed(made[-6:])]

    async def test_one_that_is_still_to_judge_is_spared(self, store: Snapshots) -> None:
        first, second = await published(store, 2)
        await store.publish(MADE, b"body 2", head=await store.head(), keep=1, spared=first.number)
        assert await store.body(first.number) == b"body 0"
        with pytest.raises(NoSnapshot):
            await store.body(second.number)
        assert (await store.rollback(first.number)).current == first.number

    async def test_rolling_back_goes_one_back_or_to_a_number(self, store: Snapshots) -> None:
        first, second, third = await published(store, 3)
        assert await store.rollback(None) == Head(current=second.number, moves=4, rollbacks=1)
        assert [one.status for one in await store.told()] == ["rolled_back", "published", "published"]
        assert (await store.rollback(first.number)).current == first.number
        assert [one.status for one in await store.told()] == ["rolled_back", "rolled_back", "published"]
        assert (await store.rollback(third.number)).current == third.number
        assert [one.status for one in await store.told()] == ["published", "rolled_back", "published"]
        assert (await store.rollback(None)).current == first.number
        assert (await store.rollback(0)).current == 0
        assert [one.status for one in await store.told()] == ["rolled_back"] * 3
        assert (await store.rollback(second.number)).current == second.number
        with pytest.raises(NoSnapshot):
            await store.rollback(77)

    async def test_one_before_all_that_are_kept_is_the_weights_alone(self, store: Snapshots) -> None:
        await published(store, 1)
        assert (await store.rollback(None)).current == 0

    async def test_the_state_is_whose_saved_it_last(self, store: Snapshots) -> None:
        head, _ = await store.load()
        saved = await store.save(b"one", head=head)
        assert saved.epoch == head.epoch + 1
        assert await store.load() == (saved, b"one")
        with pytest.raises(Overtaken):
            await store.save(b"late", head=head)
        with pytest.raises(Overtaken):
            await store.publish(MADE, b"late", head=head, keep=3)
        assert (await store.load())[1] == b"one"
        assert await store.told() == []

    async def test_a_state_is_saved_with_the_snapshot_that_it_knows_of_or_not_at_all(self, store: Snapshots) -> None:
        await published(store, 1)
        head = await store.head()
        made = await store.publish(MADE, b"body", head=head, keep=3, state=lambda number: f"knows {number}".encode())
        now, state = await store.load()
        assert (now.current, now.epoch, state) == (made.number, head.epoch + 1, f"knows {made.number}".encode())
        with pytest.raises(Overtaken):
            await store.publish(MADE, b"late", head=head, keep=3, state=lambda _: b"late")
        assert await store.load() == (now, state)
        assert len(await store.told()) == 2

    async def test_a_rollback_overtakes_the_learner(self, store: Snapshots) -> None:
        await published(store, 1)
        before = await store.head()
        await store.rollback(None)
        with pytest.raises(Overtaken):
            await store.publish(MADE, b"again", head=before, keep=3)
        with pytest.raises(Overtaken):
            await store.save(b"state", head=before)
        await store.publish(MADE, b"again", head=await store.head(), keep=3)

    async def test_an_entry_of_another_version_is_told_as_such_and_hinders_nothing(self, store: Snapshots) -> None:
        (first,) = await published(store, 1)
        odd = msgspec.structs.replace(MADE, status="of next year")
        other = await store.publish(odd, b"other", head=await store.head(), keep=3)
        (third,) = await published(store, 1)
        told = await store.told()
        assert [(one.number, one.status) for one in told] == [
            (third.number, "published"), (other.number, "unreadable"), (first.number, "published"),
        ]  # fmt: skip
        assert "another version" in told[1].why
        assert (await store.rollback(None)).current == first.number
        assert (await store.told())[1] == told[1]

    async def test_states_that_were_set_aside_are_the_last_few(self, store: Snapshots) -> None:
        assert await store.aside() == []
        for state in (b"1", b"2", b"3", b"2", b"4"):
            await store.set_aside(state)
        assert await store.aside() == [b"4", b"2", b"3"]
        assert await store.load() == (Head(), None)

    async def test_the_salt_is_made_once(self, store: Snapshots) -> None:
        salt = await store.salt()
        assert (len(salt), await store.salt()) == (32, salt)
        assert await store.head() == Head()

    async def test_one_leads_until_its_time_is_over(self, store: Snapshots) -> None:
        assert await store.lead("one", 0.15)
        assert not await store.lead("other", 0.15)
        assert await store.lead("one", 0.15)
        for _ in range(100):
            if await store.lead("other", 60):
                break
            await asyncio.sleep(0.02)
        assert not await store.lead("one", 60)
        assert await store.lead("other", 0)
        assert await store.lead("one", 60)
