"""The pool: requests, framing, reuse and back-pressure, on asyncio's loop and on uvloop's."""

from __future__ import annotations

import asyncio
import dataclasses
import socket

import pytest

from app.core.secret import Secret
from app.gateway import pool as pool_module
from app.gateway.pool import PooledUpstreams
from app.gateway.upstream import READ_BUFFER_BYTES
from tests.gateway.pool.exchanges import OK, PATH, STREAM, WHOLE, exchange, provider_of, until
from tests.gateway.pool.raw_server import Peer, RawServer, saying
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, words


async def test_a_request_carries_its_headers_and_its_body(pool: PooledUpstreams) -> None:
    seen: list[tuple[bytes, bytes]] = []

    async def answer(peer: Peer) -> None:
        while True:
            seen.append(await peer.request())
            await peer.say(OK)

    async with RawServer(answer) as server:
        provider = server.provider({"X-Team": "blue", "user-agent": "other"})
        assert await exchange(pool, provider) == (200, b"ok")
        large = b"x" * 300_000
        assert await exchange(pool, provider, large) == (200, b"ok")
        assert server.connections == 1
    head, body = seen[0]
    assert body == WHOLE
    assert seen[1][1] == large
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /v1/chat/completions HTTP/1.1"
    assert set(lines[1:-2]) == {
        f"Host: 127.0.0.1:{server.port}",
        "user-agent: other",
        "Accept: */*",
        "Accept-Encoding: identity",
        "Content-Type: application/json",
        "X-Team: blue",
        "Authorization: Bearer sk-test",
        f"Content-Length: {len(WHOLE)}",
    }


async def test_a_providers_query_stands_behind_the_path(pool: PooledUpstreams) -> None:
    heads: list[bytes] = []

    async def answer(peer: Peer) -> None:
        heads.append((await peer.request())[0])
        await peer.say(OK)

    async with RawServer(answer) as server:
        provider = dataclasses.replace(server.provider(), query=Secret("api-version=2024-10-21"))
        assert await exchange(pool, provider) == (200, b"ok")
    assert heads[0].startswith(b"POST /v1/chat/completions?api-version=2024-10-21 HTTP/1.1\r\n")


async def test_connections_are_reused_last_in_first_out(pool: PooledUpstreams) -> None:
    with ScriptedUpstream(Script.of(words("a b"))) as upstream:
        provider = provider_of(upstream)
        first, second = await asyncio.gather(*[pool.open(provider, PATH, STREAM) for _ in range(2)])
        for reply in (first, second):
            assert b"[DONE]" in await reply.read_all()
        for _ in range(5):
            assert (await exchange(pool, provider))[0] == 200
        assert upstream.connections_opened == 2
        later = {request.connection for request in upstream.requests[2:]}
        assert len(later) == 1


async def test_nagle_is_off(pool: PooledUpstreams) -> None:
    async with RawServer(saying(OK)) as server:
        await exchange(pool, server.provider())
        (connection,) = pool._everyone
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


@pytest.mark.parametrize("segment", [None, 1, 7])
async def test_a_stream_arrives_whole_however_it_is_cut(pool: PooledUpstreams, segment: int | None) -> None:
    with ScriptedUpstream(Script.of(words("one two three"), segment=segment)) as upstream:
        provider = provider_of(upstream)
        reply = await pool.open(provider, PATH, STREAM)
        assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        parts = []
        while part := await reply.read():
            parts.append(part)
        reply.release()
        body = b"".join(parts)
        assert body.count(b"data: ") == 6
        assert body.endswith(b"data: [DONE]\n\n")
        assert await reply.read() == b""
        await exchange(pool, provider)
        assert upstream.connections_opened == 1


@pytest.mark.parametrize(
    ("wire", "status", "body", "reused"),
    [
        (OK, 200, b"ok", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK, 200, b"ok", True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;a=b;c\r\nok\r\n0\r\n\r\n", 200, b"ok", True),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\nx-sum: 1\r\nx-b: 2\r\n\r\n",
            200,
            b"ok",
            True,
        ),
        (b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\nretry-after: 3\r\n\r\n", 429, b"", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok", 200, b"ok", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, b"ok", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok", 200, b"ok", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nkeep-alive: timeout=1\r\n\r\nok", 200, b"ok", False),
        (OK + b"HTTP/1.1 200 OK\r\n", 200, b"ok", False),
        (OK + b"nonsense", 200, b"ok", False),
    ],
)
async def test_framings(pool: PooledUpstreams, wire: bytes, status: int, body: bytes, reused: bool) -> None:
    async with RawServer(saying(wire, OK)) as server:
        provider = server.provider()
        reply = await pool.open(provider, PATH, WHOLE)
        assert (reply.status, await reply.read_all()) == (status, body)
        assert "x-sum" not in reply.headers
        assert "link" not in reply.headers
        reply.release()
        await exchange(pool, provider)
        assert server.connections == (1 if reused else 2)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"])
async def test_a_body_may_end_with_its_connection(pool: PooledUpstreams, head: bytes) -> None:
    async with RawServer(saying(head + b"until the end", then="finish")) as server:
        assert await exchange(pool, server.provider()) == (200, b"until the end")
        await until(lambda: not pool._everyone)


async def test_repeated_headers_are_joined(pool: PooledUpstreams) -> None:
    wire = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 0\r\n\r\n"
    async with RawServer(saying(wire)) as server:
        reply = await pool.open(server.provider(), PATH, WHOLE)
        assert dict(reply.headers) == {"x-a": "1, 2", "content-length": "0"}
        reply.release()


async def test_a_connection_that_the_provider_closed_while_idle_is_not_taken(pool: PooledUpstreams) -> None:
    with ScriptedUpstream(Script.of(words("a"), drop_idle=True)) as upstream:
        provider = provider_of(upstream)
        for _ in range(3):
            assert (await exchange(pool, provider))[0] == 200
            await until(lambda: not pool._everyone)
        assert upstream.connections_opened == 3


async def test_an_eof_that_the_loop_has_not_seen_is_found_before_reuse(
    pool: PooledUpstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.gateway.pool_origin.PEEK_AFTER_S", 0.0)
    with ScriptedUpstream(Script.of(words("a"))) as upstream:
        provider = provider_of(upstream)
        await exchange(pool, provider)
        upstream.refuse()  # blocks this loop, which so cannot see the reset
        upstream.accept()
        assert (await exchange(pool, provider))[0] == 200


async def test_an_unasked_for_reply_on_an_idle_connection_closes_it(pool: PooledUpstreams) -> None:
    push = asyncio.Event()

    async def answer(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        await push.wait()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
        await peer.gone()

    async with RawServer(answer) as server:
        provider = server.provider()
        await exchange(pool, provider)
        push.set()
        await until(lambda: not pool._everyone)
        assert await exchange(pool, provider) == (200, b"ok")
        assert server.connections == 2


async def test_idle_connections_age_and_are_bounded(pool: PooledUpstreams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.gateway.pool_origin.MAX_IDLE", 2)
    with ScriptedUpstream(Script.of(words("a"))) as upstream:
        provider = provider_of(upstream)
        replies = await asyncio.gather(*[pool.open(provider, PATH, STREAM) for _ in range(5)])
        for reply in replies:
            await reply.read_all()
        await until(lambda: len(pool._everyone) == 2)
        for connection in pool._everyone:
            connection.idle_until_s = 0.0
        await exchange(pool, provider)
        assert upstream.connections_opened == 6
        await until(lambda: len(pool._everyone) == 1)


async def test_the_sweep_closes_the_old_ones_and_ends_with_the_last(
    pool: PooledUpstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "SWEEP_S", 0.01)
    async with RawServer(saying(OK)) as server:
        await exchange(pool, server.provider())
        for connection in pool._everyone:
            connection.idle_until_s = 0.0
        await until(lambda: not pool._everyone and pool._sweeper is None)
        await exchange(pool, server.provider())
        assert pool._sweeper is not None


async def test_release_of_a_whole_reply_that_nobody_read(pool: PooledUpstreams) -> None:
    async with RawServer(saying(OK, OK.replace(b"ok", b"no"))) as server:
        provider = server.provider()
        reply = await pool.open(provider, PATH, WHOLE)
        reply.release()
        assert await exchange(pool, provider) == (200, b"no")
        assert server.connections == 1


async def test_a_finished_reply_cannot_touch_the_next_exchange(pool: PooledUpstreams) -> None:
    async with RawServer(saying(OK, OK)) as server:
        provider = server.provider()
        first = await pool.open(provider, PATH, WHOLE)
        await first.read_all()
        second = await pool.open(provider, PATH, WHOLE)
        first.close()
        first.release()
        assert first.buffered() == b""
        assert await second.read_all() == b"ok"
        assert server.connections == 1


async def test_a_slow_reader_makes_the_provider_wait(pool: PooledUpstreams) -> None:
    size, said = 32 * 1024 * 1024, 0

    async def answer(peer: Peer) -> None:
        nonlocal said
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        while said < size:
            await peer.say(b"x" * 65536)
            said += 65536
        await peer.gone()

    async with RawServer(answer) as server:
        reply = await pool.open(server.provider(), PATH, WHOLE)
        (connection,) = pool._everyone
        await until(lambda: connection.size > READ_BUFFER_BYTES)
        held, before = connection.size, -1
        while said != before:
            before = said
            await asyncio.sleep(0.05)
        assert said < size
        assert connection.size == held
        assert len(reply.buffered()) == held
        assert held + len(await reply.read_all()) == size


async def test_old_targets_are_dropped_and_their_connections_kept(
    pool: PooledUpstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "MAX_TARGETS", 3)
    async with RawServer(saying(*[OK] * 8)) as server:
        for _ in range(8):
            await exchange(pool, server.provider())  # a new Provider each time, as after a reload
        assert len(pool._targets) <= 3
        assert server.connections == 1
