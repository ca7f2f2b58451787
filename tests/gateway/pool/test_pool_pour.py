"""The pool's `pour`: reads are handed on in the connection's own callback, and none is lost, doubled or late."""

from __future__ import annotations

import asyncio

import pytest

from app.gateway.pool import PooledUpstreams
from app.gateway.upstream import ConnectionBroken
from tests.gateway.pool.exchanges import PATH, STREAM, WHOLE, exchange, provider_of, until
from tests.gateway.pool.raw_server import RawServer, saying
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, words

SIX = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n"


@pytest.mark.parametrize("segment", [None, 1, 7])
async def test_a_stream_is_poured_whole_however_it_is_cut(pool: PooledUpstreams, segment: int | None) -> None:
    with ScriptedUpstream(Script.of(words("one two three"), segment=segment)) as upstream:
        provider = provider_of(upstream)
        reply = await pool.open(provider, PATH, STREAM)
        parts: list[bytes] = []

        def take(data: bytes) -> bool:
            parts.append(data)
            return bool(data)

        await reply.pour(take)
        assert parts[-1] == b""
        assert all(parts[:-1])
        assert b"".join(parts).endswith(b"data: [DONE]\n\n")
        await exchange(pool, provider)
        assert upstream.connections_opened == 1


async def test_no_task_is_woken_for_a_read(pool: PooledUpstreams) -> None:
    async with RawServer(saying(SIX)) as server:
        reply = await pool.open(server.provider(), PATH, WHOLE)
        (connection,) = pool._everyone
        parts: list[bytes] = []

        def take(data: bytes) -> bool:
            parts.append(data)
            return bool(data)

        pouring = asyncio.create_task(reply.pour(take))
        await until(lambda: connection.waiter is not None)
        connection.data_received(b"ab")
        assert parts == [b"ab"]
        assert connection.waiter is not None
        connection.data_received(b"cdef")
        await pouring
        assert parts == [b"ab", b"cdef", b""]


async def test_what_comes_after_enough_waits(pool: PooledUpstreams) -> None:
    async with RawServer(saying(SIX)) as server:
        reply = await pool.open(server.provider(), PATH, WHOLE)
        (connection,) = pool._everyone
        parts: list[bytes] = []

        def take(data: bytes) -> bool:
            parts.append(data)
            return False

        pouring = asyncio.create_task(reply.pour(take))
        await until(lambda: connection.waiter is not None)
        connection.data_received(b"ab")
        connection.data_received(b"cd")  # before the task has run
        await pouring
        assert parts == [b"ab"]
        assert reply.buffered() == b"cd"
        connection.data_received(b"ef")
        assert await reply.read() == b"ef"


async def test_a_cancelled_pour_loses_nothing(pool: PooledUpstreams) -> None:
    async with RawServer(saying(SIX)) as server:
        reply = await pool.open(server.provider(), PATH, WHOLE)
        (connection,) = pool._everyone
        parts: list[bytes] = []

        def take(data: bytes) -> bool:
            parts.append(data)
            return bool(data)

        pouring = asyncio.create_task(reply.pour(take))
        await until(lambda: connection.waiter is not None)
        connection.data_received(b"ab")
        pouring.cancel()
        connection.data_received(b"cd")  # it is told, and has not run yet
        with pytest.raises(asyncio.CancelledError):
            await pouring
        assert parts == [b"ab"]
        assert reply.buffered() == b"cd"
        connection.data_received(b"ef")
        assert await reply.read() == b"ef"
        assert await reply.read() == b""


async def test_what_take_raises_is_raised_where_it_was_awaited(pool: PooledUpstreams) -> None:
    async with RawServer(saying(SIX)) as server:
        reply = await pool.open(server.provider(), PATH, WHOLE)
        (connection,) = pool._everyone

        def take(data: bytes) -> bool:
            raise ValueError(f"cannot read {data!r}")

        pouring = asyncio.create_task(reply.pour(take))
        await until(lambda: connection.waiter is not None)
        connection.data_received(b"ab")
        with pytest.raises(ValueError, match="ab"):
            await pouring
        connection.data_received(b"cdef")
        assert reply.buffered() == b"cdef"


async def test_a_break_is_raised_after_what_came_before(pool: PooledUpstreams) -> None:
    async with RawServer(saying(SIX + b"abc", then="finish")) as server:
        reply = await pool.open(server.provider(), PATH, WHOLE)
        parts: list[bytes] = []

        def take(data: bytes) -> bool:
            parts.append(data)
            return bool(data)

        with pytest.raises(ConnectionBroken):
            await reply.pour(take)
        assert b"".join(parts) == b"abc"
        assert all(parts)
