"""The pool where a reply cannot be read, breaks, is cancelled or is closed: the connection is never used again."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from app.gateway import upstream as upstream_module
from app.gateway.pool import PooledReply, PooledUpstreams
from app.gateway.pool_connection import MAX_HEAD_BYTES
from app.gateway.upstream import ConnectionBroken, NotConnected
from tests.gateway.pool.exchanges import OK, PATH, STREAM, WHOLE, exchange, provider_of, until
from tests.gateway.pool.raw_server import Peer, RawServer, saying
from tests.upstream import ScriptedUpstream
from tests.upstream_script import CLOSE, HANG, RESET, Gate, Script, Wait, text, words


@pytest.mark.parametrize(
    "wire",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * (MAX_HEAD_BYTES + 1) + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * (2 * MAX_HEAD_BYTES),
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * MAX_HEAD_BYTES + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * MAX_HEAD_BYTES,
        b"HTTP/1.1 200 OK\r\ncont",
        b"",
    ],
)
async def test_a_head_that_cannot_be_read_breaks_the_connection(pool: PooledUpstreams, wire: bytes) -> None:
    async with RawServer(saying(wire, then="finish")) as server:
        with pytest.raises(ConnectionBroken) as caught:
            await pool.open(server.provider(), PATH, WHOLE)
        assert "sk-test" not in str(caught.value)
        await until(lambda: not pool._everyone)


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokay\r\n",
    ],
)
async def test_what_came_before_a_break_is_read_first(pool: PooledUpstreams, wire: bytes) -> None:
    async with RawServer(saying(wire, then="finish")) as server:
        provider = server.provider()
        reply = await pool.open(provider, PATH, WHOLE)
        assert await _read_until(reply, b"ok") == b"ok"
        with pytest.raises(ConnectionBroken):
            await reply.read()
        with pytest.raises(ConnectionBroken):
            await (await pool.open(provider, PATH, WHOLE)).read_all()
        assert server.connections == 2


async def test_endless_trailers_break_the_connection(pool: PooledUpstreams) -> None:
    async def answer(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: ")
        with contextlib.suppress(ConnectionError):
            while True:
                await peer.say(b"y" * 10_000)

    async with RawServer(answer) as server:
        reply = await pool.open(server.provider(), PATH, WHOLE)
        with pytest.raises(ConnectionBroken, match="too large"):
            await reply.read_all()


async def test_a_reset_before_the_head(pool: PooledUpstreams) -> None:
    with ScriptedUpstream(Script.of(words("a"), opening=[RESET])) as upstream, pytest.raises(ConnectionBroken):
        await pool.open(provider_of(upstream), PATH, STREAM)


@pytest.mark.parametrize("end", [RESET, CLOSE])
async def test_a_break_in_mid_stream(pool: PooledUpstreams, end: Any) -> None:
    gate = Gate()
    with ScriptedUpstream(Script.of(text("a"), Wait(gate), end)) as upstream:
        reply = await pool.open(provider_of(upstream), PATH, STREAM)
        assert b'"a"' in await _read_until(reply, b'"a"')
        gate.open()
        with pytest.raises(ConnectionBroken):
            await reply.read()
        with pytest.raises(ConnectionBroken):
            await reply.read()
        assert reply.buffered() == b""


async def _read_until(reply: PooledReply, mark: bytes) -> bytes:
    got = b""
    while mark not in got:
        part = await reply.read()
        assert part
        got += part
    return got


async def test_a_reused_connection_that_dies_unanswered_is_not_repeated(pool: PooledUpstreams) -> None:
    async def answer(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        await peer.request()  # taken, perhaps billed, and never answered

    async with RawServer(answer) as server:
        provider = server.provider()
        await exchange(pool, provider)
        with pytest.raises(ConnectionBroken):
            await pool.open(provider, PATH, WHOLE)
        assert server.connections == 1


async def test_close_stops_the_provider_at_once(pool: PooledUpstreams) -> None:
    with ScriptedUpstream(Script.of(text("a"), HANG)) as upstream:
        reply = await pool.open(provider_of(upstream), PATH, STREAM)
        await _read_until(reply, b'"a"')
        reply.close()
        await upstream.until(lambda u: u.requests[0].client_gone)
        with pytest.raises(ConnectionBroken):
            await reply.read()
        assert reply.buffered() == b""
        reply.release()
        reply.close()


async def test_release_before_the_end_closes(pool: PooledUpstreams) -> None:
    with ScriptedUpstream(Script.of(text("a"), HANG)) as upstream:
        reply = await pool.open(provider_of(upstream), PATH, STREAM)
        reply.release()
        await upstream.until(lambda u: u.requests[0].client_gone)
        with pytest.raises(ConnectionBroken):
            await reply.read()


async def test_a_provider_that_does_not_answer_is_left_when_the_call_is_cancelled(pool: PooledUpstreams) -> None:
    with ScriptedUpstream(Script.of(words("a"), opening=[HANG])) as upstream:
        opening = asyncio.create_task(pool.open(provider_of(upstream), PATH, STREAM))
        await upstream.until(lambda u: u.requests)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await upstream.until(lambda u: u.requests[0].client_gone)
        upstream.source = Script.of(words("a"))
        await exchange(pool, provider_of(upstream))
        assert upstream.connections_opened == 2


async def test_cancelled_at_any_step_nothing_leaks(pool: PooledUpstreams) -> None:
    with ScriptedUpstream(Script.of(words("a b c"), segment=40)) as upstream:
        provider = provider_of(upstream)
        for steps in range(40):
            task = asyncio.create_task(exchange(pool, provider, STREAM))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        status, body = await exchange(pool, provider, STREAM)
        assert (status, body.count(b"data: ")) == (200, 6)
        await until(lambda: len(pool._everyone) == 1)


async def test_a_cancelled_read_loses_nothing(pool: PooledUpstreams) -> None:
    async with RawServer(saying(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n")) as server:
        reply = await pool.open(server.provider(), PATH, WHOLE)
        (connection,) = pool._everyone
        for taken in (reply.buffered, None):
            reading = asyncio.create_task(reply.read())
            await until(lambda: connection.waiter is not None)
            connection.data_received(b"abc")
            reading.cancel()  # between the wake and the read
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert (taken() if taken else await reply.read()) == b"abc"
        assert await reply.read() == b""


async def test_a_reply_that_is_too_large_is_refused(pool: PooledUpstreams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_module, "MAX_REPLY_BYTES", 1)
    opened = asyncio.Event()

    async def answer(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
        await opened.wait()  # what comes with its head is no larger than one read
        await peer.say(b"ok")

    async with RawServer(answer) as server:
        reply = await pool.open(server.provider(), PATH, WHOLE)
        opened.set()
        with pytest.raises(ConnectionBroken, match="larger"):
            await reply.read_all()
        await until(lambda: not pool._everyone)


async def test_an_answer_before_the_request_was_read_ends_the_connection(pool: PooledUpstreams) -> None:
    async def answer(peer: Peer) -> None:
        await peer.say(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        await asyncio.Event().wait()

    async with RawServer(answer) as server:
        reply = await pool.open(server.provider(), PATH, b"x" * 32 * 1024 * 1024)
        assert (reply.status, await reply.read_all()) == (413, b"")
        await until(lambda: not pool._everyone)


async def test_closing_the_pool_breaks_what_is_under_way(pool: PooledUpstreams) -> None:
    async with RawServer(saying(b"HTTP/1.1 200 OK\r\n\r\nsome")) as server:
        provider = server.provider()
        reply = await pool.open(provider, PATH, WHOLE)
        assert await reply.read() == b"some"
        reading = asyncio.create_task(reply.read())
        await asyncio.sleep(0)
        await pool.close()
        with pytest.raises(ConnectionBroken):
            await reading
        with pytest.raises(NotConnected):
            await pool.open(provider, PATH, WHOLE)
