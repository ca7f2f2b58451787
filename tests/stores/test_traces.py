"""Records of finished calls, over both stores; then what only the SQLite file can get wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.stores import traces as module
from app.stores.traces import SqliteTraces, Traces
from app.stores.traces_redis import RedisTraces
from tests.redis_server import shared_server


def record(number: int, **more: Any) -> dict[str, Any]:
    return {"request_id": f"req_{number}", "key": "k", "cost_usd": number / 1000, "attempts": [], **more}


@pytest.fixture(params=["sqlite", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Traces]:
    made: Traces
    if request.param == "sqlite":
        made = SqliteTraces(tmp_path / "sub" / "traces.sqlite")
    else:
        made = RedisTraces(shared_server().url, namespace=f"t{time.time_ns()}")
    await made.start()
    yield made
    await made.close()


async def flushed(store: Traces) -> None:
    """Wait until nothing waits to be written."""
    assert isinstance(store, SqliteTraces | RedisTraces)
    async with asyncio.timeout(10):
        while store._pending:
            await asyncio.sleep(0.01)


class TestEveryStore:
    async def test_a_record_can_be_read_at_once_and_later(self, store: Traces) -> None:
        store.append("req_1", "k", record(1))
        assert await store.get("req_1") == record(1)
        await flushed(store)
        assert await store.get("req_1") == record(1)

    async def test_an_unknown_one_is_none(self, store: Traces) -> None:
        assert await store.get("req_nothing") is None
        assert await store.get("") is None
        assert await store.get("x' OR 1=1 --") is None

    async def test_what_msgspec_can_encode_comes_back_as_json(self, store: Traces) -> None:
        given = record(1, error="quote ' \" \n é 😀", price=msgspec.Raw(b'{"input":1.5}'), unknown=None)
        store.append("req_1", "k", given)
        await flushed(store)
        assert await store.get("req_1") == msgspec.json.decode(msgspec.json.encode(given))

    async def test_many_and_in_bursts(self, store: Traces) -> None:
        for burst in range(3):
            for number in range(burst * 300, burst * 300 + 300):
                store.append(f"req_{number}", "k", record(number))
            await asyncio.sleep(0)
        await flushed(store)
        for number in (0, 299, 300, 899):
            assert await store.get(f"req_{number}") == record(number)

    async def test_beyond_what_may_wait_new_ones_are_dropped_and_counted(
        self, store: SqliteTraces | RedisTraces, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MAX_PENDING", 5)
        for number in range(8):
            store.append(f"req_{number}", "k", record(number))
        assert store.dropped == 3
        assert await store.get("req_4") == record(4)
        assert await store.get("req_7") is None

    async def test_one_that_cannot_be_encoded_does_not_stop_the_rest(self, store: SqliteTraces | RedisTraces) -> None:
        store.append("req_1", "k", record(1, broken=object()))
        await flushed(store)
        store.append("req_2", "k", record(2))
        await flushed(store)
        assert await store.get("req_2") == record(2)
        assert await store.get("req_1") is None
        assert store.dropped == 1

    async def test_closing_twice_is_once(self, store: Traces) -> None:
        store.append("req_1", "k", record(1))
        await store.close()
        await store.close()


def rows(path: Path) -> dict[str, dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return {name: msgspec.json.decode(body) for name, body in db.execute("SELECT request_id, body FROM traces")}


async def written(path: Path, count: int) -> None:
    async with asyncio.timeout(10):
        while len(rows(path)) < count:
            await asyncio.sleep(0.01)


class TestSqlite:
    async def test_closing_writes_what_waits(self, tmp_path: Path) -> None:
        path = tmp_path / "traces.sqlite"
        store = SqliteTraces(path)
        await store.start()
        store.append("req_1", "k", record(1))
        await store.close()
        assert rows(path) == {"req_1": record(1)}
        assert path.stat().st_mode & 0o077 == 0

    async def test_two_workers_share_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "traces.sqlite"
        one, other = SqliteTraces(path), SqliteTraces(path)
        await asyncio.gather(one.start(), other.start())
        one.append("req_1", "k", record(1))
        other.append("req_2", "k", record(2))
        # Neither is written yet: reading waits for the flush of whoever has it.
        assert await other.get("req_1") == record(1)
        assert await one.get("req_2") == record(2)
        await asyncio.gather(one.close(), other.close())

    async def test_a_failed_write_loses_its_batch_and_no_other(self, tmp_path: Path) -> None:
        path = tmp_path / "traces.sqlite"
        store = SqliteTraces(path)
        await store.start()
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("CREATE TRIGGER full BEFORE INSERT ON traces BEGIN SELECT RAISE(FAIL, 'disk full'); END")
            store.append("req_1", "k", record(1))
            async with asyncio.timeout(10):
                while store.dropped == 0:
                    await asyncio.sleep(0.01)
            db.execute("DROP TRIGGER full")
        store.append("req_2", "k", record(2))
        await written(path, 1)
        await store.close()
        assert rows(path) == {"req_2": record(2)}

    async def test_old_ones_and_too_many_are_removed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "traces.sqlite"
        monkeypatch.setattr(module, "PRUNE_EVERY", 10)
        monkeypatch.setattr(module, "KEEP_ROWS", 6)
        store = SqliteTraces(path)
        await store.start()
        long_ago_ms = int((time.time() - 8 * 86_400) * 1000)
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("INSERT INTO traces VALUES ('req_old', ?, 'k', '{}')", (long_ago_ms,))
            db.commit()
        for number in range(10):
            store.append(f"req_{number}", "k", record(number))
        await store.close()
        kept = rows(path)
        assert len(kept) == 6
        assert "req_old" not in kept

    async def test_a_file_from_before_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "traces.sqlite"
        first = SqliteTraces(path)
        await first.start()
        first.append("req_1", "k", record(1))
        await first.close()
        os.chmod(path, 0o600)
        second = SqliteTraces(path)
        await second.start()
        assert await second.get("req_1") == record(1)
        await second.close()
