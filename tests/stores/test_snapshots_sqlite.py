"""Snapshots in SQLite: the contract, and what several processes see."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.stores.snapshots import Snapshots, SnapshotsUnavailable
from app.stores.snapshots_sqlite import SqliteSnapshots
from tests.stores.snapshots_contract import SnapshotsContract, published


class TestSqlite(SnapshotsContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Snapshots]:
        store = SqliteSnapshots(tmp_path / "snapshots.sqlite")
        await store.start()
        yield store
        await store.close()


async def test_what_one_wrote_another_reads_and_finds_again(tmp_path: Path) -> None:
    path = tmp_path / "data" / "snapshots.sqlite"
    one, other = SqliteSnapshots(path), SqliteSnapshots(path)
    for store in (one, other):
        await store.start()
    (made,) = await published(one, 1)
    await one.save(b"state", head=await one.head())
    assert await other.body(made.number) == b"body 0"
    for store in (one, other):
        await store.close()
    again = SqliteSnapshots(path)
    await again.start()
    assert (await again.load())[1] == b"state"
    assert (path.stat().st_mode & 0o777, await again.told()) == (0o600, [made])
    await again.close()


async def test_a_clock_that_was_set_back_locks_no_learner_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteSnapshots(tmp_path / "snapshots.sqlite")
    await store.start()
    clock = [10_000_000.0]
    monkeypatch.setattr("app.stores.snapshots_sqlite.time.time", lambda: clock[0])
    assert await store.lead("killed", 10.0)
    clock[0] -= 86_400.0
    assert await store.lead("other", 10.0)
    assert not await store.lead("third", 10.0)
    await store.close()


async def test_a_store_that_is_newer_says_so(tmp_path: Path) -> None:
    path = tmp_path / "snapshots.sqlite"
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(SnapshotsUnavailable, match="newer"):
        await SqliteSnapshots(path).start()


async def test_a_state_that_is_set_aside_is_kept_once(tmp_path: Path) -> None:
    path, state = tmp_path / "snapshots.sqlite", bytes(1_000_000)
    store = SqliteSnapshots(path)
    await store.start()
    for _ in range(2):
        await store.set_aside(state)
    assert await store.aside() == [state]
    await store.close()
    assert path.stat().st_size < 1.5 * len(state)
