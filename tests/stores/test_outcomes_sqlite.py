"""Feedback in SQLite: the contract, several processes' worth of writers, and what is forgotten."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.stores import outcomes, outcomes_sqlite
from app.stores.outcomes import Outcomes, OutcomesUnavailable
from app.stores.outcomes_sqlite import SqliteOutcomes
from tests.stores.outcomes_contract import WORD, OutcomesContract


class TestSqlite(OutcomesContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Outcomes]:
        store = SqliteOutcomes(tmp_path / "new" / "outcomes.sqlite")
        await store.start()
        yield store
        await store.close()


async def test_what_was_said_is_there_after_a_restart_and_for_nobody_else_to_read(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.sqlite"
    store = SqliteOutcomes(path)
    await store.start()
    now = replace(WORD, said_s=2e9)
    await store.put(now)
    again = SqliteOutcomes(path)  # while the first is open: a killed process closes nothing
    await again.start()
    assert await again.about([WORD.thing]) == [now]
    assert path.stat().st_mode & 0o077 == 0
    # Nor does a power cut lose it, once it was answered: FULL.
    assert await again._file.ask(lambda: again._file.open().execute("PRAGMA synchronous").fetchone()) == (2,)
    await again.close()
    await store.close()


async def test_two_stores_write_one_file(tmp_path: Path) -> None:
    stores = [SqliteOutcomes(tmp_path / "outcomes.sqlite") for _ in range(2)]
    for store in stores:
        await store.start()
    words = [replace(WORD, thing=f"req_{number}") for number in range(40)]
    await asyncio.gather(*(stores[number % 2].put(word) for number, word in enumerate(words)))
    read = [word for _, word in await stores[0].since(0, 100)]
    assert sorted(word.thing for word in read) == sorted(word.thing for word in words)
    for store in stores:
        await store.close()


async def test_old_words_go_and_a_talkative_keys_own_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "MAX_WORDS", 3)
    monkeypatch.setattr(outcomes_sqlite, "PRUNE_EVERY", 10)
    store = SqliteOutcomes(tmp_path / "outcomes.sqlite")
    await store.start()
    now_s = 2e9
    await store.put(replace(WORD, thing="req_old", by="carol", said_s=now_s - outcomes.KEEP_DAYS * 86_400 - 1))
    await store.put(replace(WORD, thing="req_bob", by="bob", said_s=now_s))
    for number in range(8):
        await store.put(replace(WORD, thing=f"req_{number}", said_s=now_s), repeat_key=f"k{number}")
    assert [word.thing for _, word in await store.since(0, 100)] == ["req_bob", "req_4", "req_5", "req_6", "req_7"]
    await store.close()


async def test_a_store_that_is_newer_says_so(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.sqlite"
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(OutcomesUnavailable, match="newer"):
        await SqliteOutcomes(path).start()


def test_a_words_repr_holds_no_comment() -> None:
    assert "my password" not in repr(replace(WORD, comment="my password"))
