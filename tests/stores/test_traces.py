"""Records of finished calls, over both stores; then what only files can get wrong."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from app.stores import traces as module
from app.stores import traces_segments as segments
from app.stores.traces import Traces
from app.stores.traces_files import FileTraces
from app.stores.traces_redis import RedisTraces
from tests.redis_server import shared_server
from tests.upstream import PATIENCE_S


def name(number: int, *, at_s: float | None = None) -> str:
    """A request id as `app.http.hot` makes them."""
    return f"req_{int((at_s or time.time()) * 1000) // 3_600_000 * 3_600_000:011x}{number:016x}"


def record(number: int, **more: Any) -> dict[str, Any]:
    return {"request_id": name(number), "key": "k", "cost_usd": number / 1000, "attempts": [], **more}


@pytest.fixture
def lost() -> list[int]:
    """What the store said of lost records."""
    return []


@pytest.fixture(params=["files", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, lost: list[int]) -> AsyncIterator[Traces]:
    made: Traces
    if request.param == "files":
        made = FileTraces(tmp_path / "sub" / "traces", lost=lost.append)
    else:
        made = RedisTraces(shared_server().url, namespace=f"t{time.time_ns()}", lost=lost.append)
    await made.start()
    yield made
    await made.close()


async def flushed(store: Traces) -> None:
    """Wait until nothing waits to be written."""
    assert isinstance(store, FileTraces | RedisTraces)
    async with asyncio.timeout(PATIENCE_S):
        while len(store._waiting):
            await asyncio.sleep(0.01)


class TestEveryStore:
    async def test_a_record_can_be_read_at_once_and_later(self, store: Traces) -> None:
        store.append(name(1), partial(record, 1))
        assert await store.get(name(1)) == record(1)
        await flushed(store)
        assert await store.get(name(1)) == record(1)

    async def test_the_calls_of_a_task(self, store: Traces) -> None:
        """Those of its key only, waiting or written, whatever else a record may hold that looks like its name."""
        began_s = time.time()
        odd = 'it\'s "odd" é'
        for number, (key, task) in enumerate([("k", odd), ("k", odd), ("other", odd), ("k", "x"), ("k", None)]):
            store.append(name(number), partial(record, number, key=key, task_id=task))
        liar = record(9, task_id="x", client={"task_id": odd})
        store.append(name(9), liar.copy)
        for _ in range(2):
            found, whole = await store.of_task("k", odd, began_s)
            assert whole
            assert sorted(one["request_id"] for one in found) == [name(0), name(1)]
            await flushed(store)
        assert await store.of_task("k", "unknown", began_s) == ([], True)
        assert await store.of_task("k", odd, began_s + 3600) == ([], True)

    async def test_an_unknown_one_is_none(self, store: Traces) -> None:
        assert await store.get("req_nothing") is None
        assert await store.get("") is None
        assert await store.get("x' OR 1=1 --") is None

    async def test_what_msgspec_can_encode_comes_back_as_json(self, store: Traces) -> None:
        given = record(1, error="quote ' \" \n é 😀", price=msgspec.Raw(b'{"input":1.5}'), unknown=None)
        store.append(name(1), given.copy)
        await flushed(store)
        assert await store.get(name(1)) == msgspec.json.decode(msgspec.json.encode(given))

    async def test_many_and_in_bursts(self, store: Traces) -> None:
        for burst in range(3):
            for number in range(burst * 300, burst * 300 + 300):
                store.append(name(number), partial(record, number))
            await asyncio.sleep(0)
        await flushed(store)
        for number in (0, 299, 300, 899):
            assert await store.get(name(number)) == record(number)

    async def test_beyond_what_may_wait_new_ones_are_dropped_and_counted(
        self, store: Traces, lost: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MAX_PENDING", 5)
        for number in range(8):
            store.append(name(number), partial(record, number))
        assert sum(lost) == 3
        assert await store.get(name(4)) == record(4)
        assert await store.get(name(7)) is None

    async def test_one_that_cannot_be_encoded_does_not_stop_the_rest(self, store: Traces, lost: list[int]) -> None:
        store.append(name(1), partial(record, 1, broken=object()))
        await flushed(store)
        store.append(name(2), partial(record, 2))
        await flushed(store)
        assert await store.get(name(2)) == record(2)
        assert await store.get(name(1)) is None
        assert lost == [1]

    async def test_closing_twice_is_once(self, store: Traces) -> None:
        store.append(name(1), partial(record, 1))
        await store.close()
        await store.close()


def lines(folder: Path) -> list[dict[str, Any]]:
    found = b"".join(path.read_bytes() for path in sorted(folder.glob("*.jsonl")))
    return [msgspec.json.decode(line) for line in found.splitlines()]


async def opened(folder: Path) -> FileTraces:
    store = FileTraces(folder)
    await store.start()
    return store


class TestFiles:
    async def test_what_is_written_while_a_tasks_files_are_read_is_not_missed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store, loop = await opened(tmp_path), asyncio.get_running_loop()
        store.append(name(1), partial(record, 1, task_id="t"))
        read = store._read_task

        def meanwhile(*asked: Any) -> Any:
            found = read(*asked)
            asyncio.run_coroutine_threadsafe(flushed(store), loop).result(PATIENCE_S)
            return found

        monkeypatch.setattr(store, "_read_task", meanwhile)
        found, whole = await store.of_task("k", "t", time.time() - 1)
        assert ([one["request_id"] for one in found], whole) == ([name(1)], True)
        await store.close()

    async def test_closing_writes_what_waits(self, tmp_path: Path) -> None:
        store = await opened(tmp_path)
        store.append(name(1), partial(record, 1))
        await store.close()
        assert lines(tmp_path) == [record(1)]
        assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())

    async def test_two_workers_share_the_folder(self, tmp_path: Path) -> None:
        one, other = await opened(tmp_path), await opened(tmp_path)
        one.append(name(1), partial(record, 1))
        other.append(name(2), partial(record, 2))
        # Neither is written yet: reading waits for the flush of whoever has it.
        assert await other.get(name(1)) == record(1)
        assert await one.get(name(2)) == record(2)
        await asyncio.gather(one.close(), other.close())

    async def test_a_failed_write_loses_its_batch_and_no_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lost: list[int] = []
        store = FileTraces(tmp_path, lost=lost.append)
        await store.start()
        real, room = os.write, 20

        def full(file: int, data: bytes) -> int:
            nonlocal room
            if file != store._segment._file:  # type: ignore[union-attr]
                return real(file, data)
            if not room:
                raise OSError(28, "No space left on device")
            part, room = data[:room], 0
            return real(file, part)

        monkeypatch.setattr(os, "write", full)
        with structlog.testing.capture_logs() as logs:
            for number in (1, 3):
                store.append(name(number), partial(record, number))
                async with asyncio.timeout(PATIENCE_S):
                    while sum(lost) < number // 2 + 1:
                        await asyncio.sleep(0.01)
            monkeypatch.setattr(os, "write", real)
            store.append(name(2), partial(record, 2))
            await flushed(store)
        told = [line["event"] for line in logs]
        assert told == ["traces cannot be written, and are lost", "traces are written again"]
        assert logs[1]["lost"] == 2
        assert await store.get(name(1)) is None
        assert await store.get(name(2)) == record(2)
        await store.close()

    async def test_a_segment_that_was_removed_is_begun_anew(self, tmp_path: Path) -> None:
        store = await opened(tmp_path)
        store.append(name(1), partial(record, 1))
        await flushed(store)
        for path in tmp_path.iterdir():
            path.unlink()
        store.append(name(2), partial(record, 2))
        await flushed(store)
        assert await store.get(name(1)) is None
        assert await store.get(name(2)) == record(2)
        await store.close()

    async def test_full_segments_are_followed_by_new_ones(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(segments, "SEGMENT_BYTES", 100)
        store = await opened(tmp_path)
        for number in range(6):
            store.append(name(number), partial(record, number))
            await flushed(store)
        assert len(list(tmp_path.iterdir())) == 3
        for number in range(6):
            assert await store.get(name(number)) == record(number)
        await store.close()

    async def test_a_client_cannot_pass_a_value_off_as_a_record(self, tmp_path: Path) -> None:
        store = await opened(tmp_path)
        store.append(name(1), partial(record, 1, client={"request_id": name(2), "more": 1}))
        store.append(name(2), partial(record, 2))
        await flushed(store)
        assert await store.get(name(2)) == record(2)
        await store.close()

    async def test_files_from_before_are_read(self, tmp_path: Path) -> None:
        first = await opened(tmp_path)
        first.append(name(1), partial(record, 1))
        await first.close()
        second = await opened(tmp_path)
        assert await second.get(name(1)) == record(1)
        assert await second.get(name(1, at_s=time.time() + 86_400)) is None
        await second.close()
