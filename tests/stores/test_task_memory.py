"""What gateways know in common of tasks, over both stores: one count for all of them, the last word on a thing."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.stores import task_memory_sqlite
from app.stores.task_memory import MemoryUnavailable, TaskMemory
from app.stores.task_memory_redis import RedisTaskMemory
from app.stores.task_memory_sqlite import SqliteTaskMemory
from tests.redis_server import RedisServer, shared_server
from tests.upstream import PATIENCE_S

Make = Callable[[], TaskMemory]
steps = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([b"a", b"b", b"\x00\xff"])), max_size=25)


@pytest.fixture(params=["sqlite", "redis"])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Make]:
    """Gateways that share one store."""
    made: list[TaskMemory] = []
    namespace = f"t{secrets.token_hex(6)}"

    def one() -> TaskMemory:
        if request.param == "sqlite":
            made.append(SqliteTaskMemory(tmp_path / "data" / "tasks.sqlite"))
        else:
            made.append(RedisTaskMemory(shared_server().url, namespace=namespace))
        return made[-1]

    yield one
    for memory in made:
        await memory.close()


async def test_whoever_counts_there_is_one_count(make: Make) -> None:
    gateways = [make() for _ in range(4)]
    found = await asyncio.gather(*(gateway.count(b"x", 60) for gateway in gateways for _ in range(5)))
    assert sorted(found) == list(range(1, 21))
    assert await gateways[0].count(b"y", 60) == 1


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_any_interleaving_counts_as_one_process_would(tmp_path: Path, store: str) -> None:
    @settings(max_examples=20, deadline=None)
    @given(steps)
    def holds(told: list[tuple[int, bytes]]) -> None:
        async def run() -> None:
            fresh = secrets.token_hex(6)
            gateways: list[TaskMemory] = [
                SqliteTaskMemory(tmp_path / f"{fresh}.sqlite")
                if store == "sqlite"
                else RedisTaskMemory(shared_server().url, namespace=fresh)
                for _ in range(3)
            ]
            seen: dict[bytes, int] = {}
            for who, name in told:
                seen[name] = seen.get(name, 0) + 1
                assert await gateways[who].count(name, 60) == seen[name]
            for gateway in gateways:
                await gateway.close()

        asyncio.run(run())

    holds()


async def test_the_last_word_is_known_to_all(make: Make) -> None:
    one, two = make(), make()
    assert await two.word(b"loop") is None
    await one.note(b"loop", "gr\u00f6\u00dfer/model", 60)
    assert await one.word(b"loop") == "gr\u00f6\u00dfer/model"
    assert await two.word(b"loop") == "gr\u00f6\u00dfer/model"
    await two.note(b"loop", "other", 60)
    assert await two.word(b"loop") == "other"
    assert await one.word(b"loop") == "other"
    assert await one.word(b"another") is None


async def test_of_several_names_the_first_that_is_known_counts(make: Make) -> None:
    one, two = make(), make()
    await one.note(b"a", "1", 60)
    await two.note(b"c", "3", 60)
    assert await two.word(b"a", b"c") == "1"
    assert await two.word(b"b", b"c", b"a") == "3"
    assert await two.word(b"b", b"d") is None


async def test_what_is_old_is_forgotten(make: Make) -> None:
    memory = make()
    await memory.note(b"loop", "m", 0.001)
    async with asyncio.timeout(PATIENCE_S):
        while await memory.word(b"loop") is not None:
            await asyncio.sleep(0.002)
    assert await memory.count(b"x", 0.001) == 1
    async with asyncio.timeout(PATIENCE_S):
        while await memory.count(b"x", 0.001) != 1:
            await asyncio.sleep(0.002)


async def test_a_file_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_memory_sqlite, "FORGET_EVERY", 10)
    memory = SqliteTaskMemory(tmp_path / "tasks.sqlite")
    for number in range(30):
        await memory.count(b"%d" % number, -1.0)
    (left,) = memory._file.open().execute("SELECT count(*) FROM counts").fetchone()
    assert left < 11
    await memory.close()


async def test_who_never_asks_pays_nothing(tmp_path: Path) -> None:
    memory = SqliteTaskMemory(tmp_path / "data" / "tasks.sqlite")
    await memory.close()
    assert not (tmp_path / "data").exists()


async def test_the_file_is_private(tmp_path: Path) -> None:
    memory = SqliteTaskMemory(tmp_path / "data" / "tasks.sqlite")
    await memory.count(b"x", 60)
    await memory.close()
    assert os.stat(tmp_path / "data" / "tasks.sqlite").st_mode & 0o077 == 0


async def test_a_store_that_is_away_says_so(tmp_path: Path) -> None:
    (tmp_path / "in the way").write_text("")
    memory: TaskMemory = SqliteTaskMemory(tmp_path / "in the way" / "tasks.sqlite")
    with pytest.raises(MemoryUnavailable):
        await memory.count(b"x", 60)
    with pytest.raises(MemoryUnavailable):
        await memory.note(b"loop", "m", 60)
    with pytest.raises(MemoryUnavailable):
        await memory.word(b"loop")
    await memory.close()
    with RedisServer() as server:
        memory = RedisTaskMemory(server.url)
        server.kill()
        with pytest.raises(MemoryUnavailable):
            await memory.count(b"x", 60)
        with pytest.raises(MemoryUnavailable):
            await memory.note(b"loop", "m", 60)
        await memory.close()
