"""The stream of records in Redis: batches of one owner each, and compaction that any number of processes share."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.stores import traces_compact, traces_redis, traces_stream
from app.stores.traces_compact import compact_stream
from app.stores.traces_parquet import ParquetFolder, TracesError
from app.stores.traces_query import ask, open_stream
from app.stores.traces_redis import RedisTraces
from app.stores.traces_stream import BATCH, Batch, TraceStream
from tests.conftest import ROOT
from tests.redis_server import shared_server
from tests.stores.test_traces_compact import in_parquet
from tests.stores.traces_records import record
from tests.upstream import PATIENCE_S

_names = (f"stream-{time.time_ns()}-{number}" for number in itertools.count())


@pytest.fixture
def namespace() -> str:
    return next(_names)


@pytest.fixture
async def store(namespace: str) -> AsyncIterator[RedisTraces]:
    made = RedisTraces(shared_server().url, namespace=namespace)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def stream(namespace: str) -> AsyncIterator[TraceStream]:
    made = TraceStream(shared_server().url, namespace=namespace)
    yield made
    await made.close()


@pytest.fixture
def parquet(tmp_path: Path) -> ParquetFolder:
    return ParquetFolder(str(tmp_path / "parquet"))


async def written(store: RedisTraces, *numbers: int) -> list[str]:
    """Append records; their ids, when Redis has them."""
    given = [record(number, time.time()) for number in numbers]
    for one in given:
        store.append(one["request_id"], one.copy)
    async with asyncio.timeout(PATIENCE_S):
        while len(store._waiting):
            await asyncio.sleep(0.005)
    return [one["request_id"] for one in given]


async def asked(stream: TraceStream, parquet: ParquetFolder) -> list[str]:
    async with open_stream(stream, parquet) as db:
        return [str(name) for (name,) in ask(db, "SELECT request_id FROM traces ORDER BY ALL").rows(100_000)]


async def publish(stream: TraceStream, batch: Batch, parquet: ParquetFolder) -> None:
    """What compaction does with a batch before it acknowledges it."""
    bodies = await stream.bodies(batch.request_ids)
    with traces_compact.database(small=True) as db:
        traces_compact._compact_bodies(db, bodies, batch.name, parquet, traces_compact.Pass("batches"))


async def test_each_record_is_taken_once_by_each_group(store: RedisTraces, stream: TraceStream, namespace: str) -> None:
    ids = [name.encode() for name in await written(store, 1, 2, 3)]
    learners = TraceStream(shared_server().url, namespace=namespace, group="learners")
    first, second = await stream.take(2), await stream.take(2)
    assert first is not None
    assert second is not None
    assert (*first.request_ids, *second.request_ids) == tuple(ids)
    assert await stream.take() is None
    theirs = await learners.take()
    assert theirs is not None
    assert list(theirs.request_ids) == ids
    assert len(await learners.bodies(theirs.request_ids)) == 3
    await learners.close()


async def test_a_batch_left_alone_is_the_same_batch_until_it_is_acknowledged(
    store: RedisTraces, stream: TraceStream
) -> None:
    await written(store, 1, 2)
    batch = await stream.take()
    assert batch is not None
    await written(store, 3)
    assert await stream.left() == []
    assert await stream.left(0.0) == [batch.name]
    assert await stream.again(batch.name) == batch
    await stream.acknowledge(batch)
    await stream.acknowledge(batch)
    assert await stream.left(0.0) == []
    assert await stream.again(batch.name) is None
    rest = await stream.take()
    assert rest is not None
    assert len(rest.request_ids) == 1


async def test_before_any_record(stream: TraceStream, parquet: ParquetFolder) -> None:
    assert await stream.left() == []
    assert await stream.again("nobody") is None
    assert await asked(stream, parquet) == []
    assert (await compact_stream(stream, parquet, 0)).sources == 0


async def test_records_written_twice_are_one(store: RedisTraces, stream: TraceStream) -> None:
    """A write whose reply was lost is sent again."""
    (name,) = await written(store, 1)
    keys = [store._stream, store._prefix + name]
    await store._server.link().call(keys, ["set", 60, traces_stream.oldest_entry(), b"{}"])
    batch = await stream.take()
    assert batch is not None
    assert len(batch.entries) == 1


async def test_entries_go_when_their_records_have_expired(
    store: RedisTraces, stream: TraceStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(store, *range(150))
    monkeypatch.setattr(traces_redis, "oldest_entry", lambda: str(int(time.time() * 1000) + 1000))
    await written(store, 200)
    waiting = await stream.waiting()
    assert len(waiting.request_ids) < 151  # whole nodes of the stream go, not single entries


async def test_compaction_and_questions(store: RedisTraces, stream: TraceStream, parquet: ParquetFolder) -> None:
    ids = await written(store, *range(5))
    assert await asked(stream, parquet) == sorted(ids)
    done = await compact_stream(stream, parquet, 0)
    assert (done.sources, done.records) == (1, 5)
    assert in_parquet(parquet) == sorted(ids)
    ids += await written(store, 5, 6)
    assert await asked(stream, parquet) == sorted(ids)
    taken = await stream.take(1)  # one is under way, one has not been taken
    assert taken is not None
    assert await asked(stream, parquet) == sorted(ids)
    await publish(stream, taken, parquet)
    assert len(in_parquet(parquet)) == 6  # published, and not yet acknowledged
    assert await asked(stream, parquet) == sorted(ids)
    await stream.acknowledge(taken)
    assert await asked(stream, parquet) == sorted(ids)


async def test_large_records_are_taken_a_few_at_a_time(
    store: RedisTraces, stream: TraceStream, parquet: ParquetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await written(store, *range(7))
    size = max(len(body) for body in await stream.bodies([name.encode() for name in ids]))
    monkeypatch.setattr(traces_compact, "_BATCH_BYTES", 3 * size)
    done = await compact_stream(stream, parquet, 0)
    assert (done.sources, done.records) == (3, 7)
    assert in_parquet(parquet) == sorted(ids)


def test_records_of_many_candidates_are_compacted_beside_a_gateway(parquet: ParquetFolder) -> None:
    """As many as a batch may have of such records: in one file they took more memory than DuckDB is given there."""
    made = record(0)
    decision = made["decision"]
    many = [{**decision["candidates"][0], "model": f"provider/quite-a-long-name-of-model-{n}"} for n in range(48)]
    body = msgspec.json.encode({**made, "decision": {**decision, "candidates": many}})
    bodies = [body.replace(made["request_id"].encode(), f"req_{n:027d}".encode(), 1) for n in range(BATCH)]
    with traces_compact.database(small=True) as db:
        done = traces_compact.Pass("batches")
        traces_compact._compact_bodies(db, bodies, "large", parquet, done)
    assert (done.records, done.parts) == (BATCH, 1)


async def test_questions_wait_for_a_moment_at_which_nothing_changes(
    store: RedisTraces, stream: TraceStream, parquet: ParquetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await written(store, 1, 2, 3)
    real = TraceStream.waiting
    parts: list[str] = []

    async def meanwhile(self: TraceStream) -> Any:
        found = await real(self)
        if len(parts) < 2:
            batch = await stream.take(1)
            assert batch is not None
            await publish(stream, batch, parquet)
            await stream.acknowledge(batch)
            parts.append(batch.name)
        return found

    monkeypatch.setattr(TraceStream, "waiting", meanwhile)
    assert await asked(stream, parquet) == sorted(ids)
    assert len(parts) == 2


async def test_several_at_once_share_the_work(
    store: RedisTraces, namespace: str, parquet: ParquetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TraceStream.take, "__defaults__", (7,))
    ids = await written(store, *range(60))
    streams = [TraceStream(shared_server().url, namespace=namespace) for _ in range(3)]
    done = await asyncio.gather(*(compact_stream(one, parquet, 0) for one in streams))
    assert sum(one.records for one in done) == 60
    assert in_parquet(parquet) == sorted(ids)
    for one in streams:
        await one.close()


async def test_a_batch_that_cannot_be_written_stays(
    store: RedisTraces, stream: TraceStream, parquet: ParquetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await written(store, 1)
    Path(parquet.root).write_text("a file in the way")
    with pytest.raises(TracesError):
        await compact_stream(stream, parquet, 0)
    Path(parquet.root).unlink()
    assert (await compact_stream(stream, parquet, 0)).records == 0  # it may only be slow
    assert await asked(stream, parquet) == ids
    monkeypatch.setattr(TraceStream.left, "__defaults__", (0.0,))
    assert (await compact_stream(stream, parquet, 0)).records == 1
    assert in_parquet(parquet) == ids


async def test_one_gateway_is_told_that_it_is_time(
    store: RedisTraces, stream: TraceStream, namespace: str, parquet: ParquetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = RedisTraces(shared_server().url, namespace=namespace)
    assert not await store.due()
    await written(store, 1)
    assert [await store.due(), await other.due(), await store.due()] == [True, False, False]
    monkeypatch.setattr(traces_redis, "TURN_S", 0.001)
    shared_server().command("DEL", store._stream + ":turn")
    await compact_stream(stream, parquet, 0)
    assert not await other.due()
    await written(store, 2)
    assert await other.due()
    await other.close()


KILLED_AT_EVERY_STEP = """
import asyncio, os, pathlib, signal, sys, time
import duckdb, fsspec
from app.stores import traces_compact, traces_stream
from app.stores.redis_link import PooledLink
from app.stores.traces_parquet import ParquetFolder
from app.stores.traces_redis import RedisTraces
from app.stores.traces_stream import Batch, TraceStream
from tests.stores.test_traces_stream import asked, written, in_parquet

url, base, together = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3] == "two"
TraceStream.left.__defaults__ = (0.0,)
traces_stream.BATCH = 4
left = 0


def step():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def counted(real):
    async def call(self, keys, args):
        step()
        reply = await real(self, keys, args)
        step()
        return reply
    return call


def stepping(real):
    def publish(*given):
        step()
        real(*given)
        step()
    return publish


async def fill(namespace):
    store = RedisTraces(url, namespace=namespace)
    await store.start()
    ids = await written(store, *range(6))
    await store.close()
    return sorted(ids)


async def compact(namespace, parquet):
    await traces_compact.compact_stream(TraceStream(url, namespace=namespace), parquet, 0)


async def look(namespace, parquet):
    return await asked(TraceStream(url, namespace=namespace), parquet)


def attempt(number):
    parquet, namespace = ParquetFolder(str(base / str(number))), f"killed-{time.time_ns()}"
    ids = asyncio.run(fill(namespace))
    other = os.fork() if together else None
    if other == 0:
        asyncio.run(compact(namespace, parquet))  # what the one to be killed is at counts as left alone: both do it
        asyncio.run(compact(namespace, parquet))
        os._exit(0)
    child = os.fork()
    if child == 0:
        global left
        left = number
        PooledLink.call, ParquetFolder.publish = counted(PooledLink.call), stepping(ParquetFolder.publish)
        asyncio.run(compact(namespace, parquet))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if other is not None:
        assert os.waitpid(other, 0)[1] == 0
    assert asyncio.run(look(namespace, parquet)) == ids, (number, "after the kill")
    asyncio.run(compact(namespace, parquet))
    assert in_parquet(parquet) == ids, (number, "after the next pass")
    assert asyncio.run(look(namespace, parquet)) == ids
    return os.WIFSIGNALED(status)


number = kills = 0
killed = True
while killed or number < 30 and together:
    number += 1
    killed = attempt(number)
    kills += killed
print(kills)
"""


@pytest.mark.parametrize("compactors", ["one", "two"])
def test_a_pass_that_is_killed_at_any_step_loses_and_doubles_nothing(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, compactors: str
) -> None:
    """Of two that are at it at once, and at the same batches, one is killed."""
    env = {**os.environ, "TMPDIR": str(tmp_path_factory.mktemp("left"))}  # who is killed cleans up nothing
    command = [sys.executable, "-c", KILLED_AT_EVERY_STEP, shared_server().url, str(tmp_path), compactors]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) >= (20 if compactors == "one" else 10), "the kills did not reach their steps"
