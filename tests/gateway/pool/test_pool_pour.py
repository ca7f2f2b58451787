"""The pool's `pour`: reads are handed on in the connection's own callback, and none is lost, doubled or late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.gateway.pool import PooledReply, PooledUpstreams
from app.gateway.pool_connection import Connection
from app.gateway.upstream import ConnectionBroken, Take
from tests.gateway.pool.exchanges import PATH, STREAM, WHOLE, exchange, provider_of, until
from tests.gateway.pool.raw_server import RawServer, saying
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, words

SIX = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n"


class Taken:
    """Takes what is poured; no more from `enough` reads on."""

    def __init__(self, enough: int = 1_000_000) -> None:
        self.parts: list[bytes] = []
        self._enough = enough

    def __call__(self, data: bytes) -> bool:
        self.parts.append(data)
        return bool(data) and len(self.parts) < self._enough


@asynccontextmanager
async def pouring(
    pool: PooledUpstreams, take: Take
) -> AsyncIterator[tuple[PooledReply, Connection, asyncio.Task[None]]]:
    """A reply of six bytes of which none has come, its connection, and the task that pours it."""
    async with RawServer(saying(SIX)) as server:
        reply = await pool.open(server.provider(), PATH, WHOLE)
        (connection,) = pool._everyone
        task = asyncio.create_task(reply.pour(take))
        await until(lambda: connection.waiter is not None)
        yield reply, connection, task


@pytest.mark.parametrize("segment", [None, 1, 7])
async def test_a_stream_is_poured_whole_however_it_is_cut(pool: PooledUpstreams, segment: int | None) -> None:
    with ScriptedUpstream(Script.of(words("one two three"), segment=segment)) as upstream:
        provider, take = provider_of(upstream), Taken()
        await (await pool.open(provider, PATH, STREAM)).pour(take)
        assert take.parts[-1] == b""
        assert all(take.parts[:-1])
        assert b"".join(take.parts).endswith(b"data: [DONE]\n\n")
        await exchange(pool, provider)
        assert upstream.connections_opened == 1


async def test_no_task_is_woken_for_a_read(pool: PooledUpstreams) -> None:
    take = Taken()
    async with pouring(pool, take) as (_, connection, task):
        waiter = connection.waiter
        connection.data_received(b"ab")
        assert take.parts == [b"ab"]
        assert connection.waiter is waiter
        connection.data_received(b"cdef")
        await task
        assert take.parts == [b"ab", b"cdef", b""]


async def test_what_comes_after_enough_waits(pool: PooledUpstreams) -> None:
    take = Taken(enough=1)
    async with pouring(pool, take) as (reply, connection, task):
        connection.data_received(b"ab")
        connection.data_received(b"cd")  # before the task has run
        await task
        assert take.parts == [b"ab"]
        assert reply.buffered() == b"cd"
        connection.data_received(b"ef")
        assert await reply.read() == b"ef"


async def test_a_cancelled_pour_loses_nothing(pool: PooledUpstreams) -> None:
    take = Taken()
    async with pouring(pool, take) as (reply, connection, task):
        connection.data_received(b"ab")
        task.cancel()
        connection.data_received(b"cd")  # it is told, and has not run yet
        with pytest.raises(asyncio.CancelledError):
            await task
        assert take.parts == [b"ab"]
        assert reply.buffered() == b"cd"
        connection.data_received(b"ef")
        assert await reply.read() == b"ef"
        assert await reply.read() == b""


async def test_what_take_raises_is_raised_where_it_was_awaited(pool: PooledUpstreams) -> None:
    def take(data: bytes) -> bool:
        raise ValueError(f"cannot read {data!r}")

    async with pouring(pool, take) as (reply, connection, task):
        connection.data_received(b"ab")
        with pytest.raises(ValueError, match="ab"):
            await task
        connection.data_received(b"cdef")
        assert reply.buffered() == b"cdef"


async def test_a_break_is_raised_after_what_came_before(pool: PooledUpstreams) -> None:
    take = Taken()
    async with RawServer(saying(SIX + b"abc", then="finish")) as server:
        reply = await pool.open(server.provider(), PATH, WHOLE)
        with pytest.raises(ConnectionBroken):
            await reply.pour(take)
        assert b"".join(take.parts) == b"abc"
        assert all(take.parts)
