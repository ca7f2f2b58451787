"""The pool: framing, reuse, breaks, cancelling and back-pressure, on asyncio's loop and on uvloop's."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from app.core.policy import Deadlines, Provider
from app.gateway import pool as pool_module
from app.gateway import upstream as upstream_module
from app.gateway.pool import PooledReply, PooledUpstreams, make_upstreams
from app.gateway.pool_connection import MAX_HEAD_BYTES
from app.gateway.upstream import READ_BUFFER_BYTES, AiohttpUpstreams, ConnectionBroken, NotConnected
from tests.gateway.raw_server import Peer, RawServer, saying
from tests.upstream import ScriptedUpstream
from tests.upstream_script import CLOSE, HANG, RESET, Gate, Script, Wait, text, words

PATH = "/chat/completions"
STREAM = b'{"model":"m","stream":true,"messages":[]}'
WHOLE = b'{"model":"m","messages":[]}'
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
TLS = Path(__file__).parent / "tls"

# What replaces this fixture is a hook that only a conftest can hold, and that pytest-asyncio has had only lately.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture")


@pytest.fixture(params=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    policies = {"asyncio": asyncio.DefaultEventLoopPolicy, "uvloop": uvloop.EventLoopPolicy}
    return policies[request.param]()


@pytest.fixture
async def pool() -> AsyncIterator[PooledUpstreams]:
    """A pool that must not leak a connection, nor leave anything for the event loop to complain about."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    pool = PooledUpstreams(_trusting())
    yield pool
    await pool.close()
    assert not pool._everyone
    gc.collect(1)
    await asyncio.sleep(0)
    assert complaints == []


def _trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=TLS / "cert.pem")


def _serving() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    return context


def _provider(upstream: ScriptedUpstream) -> Provider:
    return Provider("scripted", "openai_chat", upstream.url)


async def _exchange(pool: PooledUpstreams, provider: Provider, body: bytes = WHOLE) -> tuple[int, bytes]:
    reply = await pool.open(provider, PATH, body)
    data = await reply.read_all()
    reply.release()
    return reply.status, data


async def _until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_request_carries_its_headers_and_its_body(pool: PooledUpstreams) -> None:
    seen: list[tuple[bytes, bytes]] = []

    async def answer(peer: Peer) -> None:
        while True:
            seen.append(await peer.request())
            await peer.say(OK)

    async with RawServer(answer) as server:
        provider = server.provider(**{"X-Team": "blue", "user-agent": "other"})
        assert await _exchange(pool, provider) == (200, b"ok")
        large = b"x" * 300_000
        assert await _exchange(pool, provider, large) == (200, b"ok")
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


async def test_connections_are_reused_last_in_first_out(pool: PooledUpstreams) -> None:
    with ScriptedUpstream(Script.of(words("a b"))) as upstream:
        provider = _provider(upstream)
        first, second = await asyncio.gather(*[pool.open(provider, PATH, STREAM) for _ in range(2)])
        for reply in (first, second):
            assert b"[DONE]" in await reply.read_all()
        for _ in range(5):
            assert (await _exchange(pool, provider))[0] == 200
        assert upstream.connections_opened == 2
        later = {request.connection for request in upstream.requests[2:]}
        assert len(later) == 1


async def test_nagle_is_off(pool: PooledUpstreams) -> None:
    async with RawServer(saying(OK)) as server:
        await _exchange(pool, server.provider())
        (connection,) = pool._everyone
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


@pytest.mark.parametrize("segment", [None, 1, 7])
async def test_a_stream_arrives_whole_however_it_is_cut(pool: PooledUpstreams, segment: int | None) -> None:
    with ScriptedUpstream(Script.of(words("one two three"), segment=segment)) as upstream:
        provider = _provider(upstream)
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
        await _exchange(pool, provider)
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
        await _exchange(pool, provider)
        assert server.connections == (1 if reused else 2)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"])
async def test_a_body_may_end_with_its_connection(pool: PooledUpstreams, head: bytes) -> None:
    async with RawServer(saying(head + b"until the end", then="finish")) as server:
        assert await _exchange(pool, server.provider()) == (200, b"until the end")
        await _until(lambda: not pool._everyone)


async def test_repeated_headers_are_joined(pool: PooledUpstreams) -> None:
    wire = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 0\r\n\r\n"
    async with RawServer(saying(wire)) as server:
        reply = await pool.open(server.provider(), PATH, WHOLE)
        assert dict(reply.headers) == {"x-a": "1, 2", "content-length": "0"}
        reply.release()


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
        await _until(lambda: not pool._everyone)


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
        got = b""
        with pytest.raises(ConnectionBroken):
            while True:
                part = await reply.read()
                assert part
                got += part
        assert got == b"ok"
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
    with ScriptedUpstream(Script.of(words("a"), opening=[RESET])) as upstream:
        with pytest.raises(ConnectionBroken):
            await pool.open(_provider(upstream), PATH, STREAM)


@pytest.mark.parametrize("end", [RESET, CLOSE])
async def test_a_break_in_mid_stream(pool: PooledUpstreams, end: Any) -> None:
    gate = Gate()
    with ScriptedUpstream(Script.of(text("a"), Wait(gate), end)) as upstream:
        reply = await pool.open(_provider(upstream), PATH, STREAM)
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


async def test_a_connection_that_the_provider_closed_while_idle_is_not_taken(pool: PooledUpstreams) -> None:
    with ScriptedUpstream(Script.of(words("a"), drop_idle=True)) as upstream:
        provider = _provider(upstream)
        for _ in range(3):
            assert (await _exchange(pool, provider))[0] == 200
            await _until(lambda: not pool._everyone)
        assert upstream.connections_opened == 3


async def test_an_eof_that_the_loop_has_not_seen_is_found_before_reuse(
    pool: PooledUpstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.gateway.pool_origin.PEEK_AFTER_S", 0.0)
    with ScriptedUpstream(Script.of(words("a"))) as upstream:
        provider = _provider(upstream)
        await _exchange(pool, provider)
        upstream.refuse()  # blocks this loop, which so cannot see the reset
        upstream.accept()
        assert (await _exchange(pool, provider))[0] == 200


async def test_a_reused_connection_that_dies_unanswered_is_not_repeated(pool: PooledUpstreams) -> None:
    async def answer(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        await peer.request()  # taken, perhaps billed, and never answered

    async with RawServer(answer) as server:
        provider = server.provider()
        await _exchange(pool, provider)
        with pytest.raises(ConnectionBroken):
            await pool.open(provider, PATH, WHOLE)
        assert server.connections == 1


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
        await _exchange(pool, provider)
        push.set()
        await _until(lambda: not pool._everyone)
        assert await _exchange(pool, provider) == (200, b"ok")
        assert server.connections == 2


async def test_idle_connections_age_and_are_bounded(pool: PooledUpstreams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.gateway.pool_origin.MAX_IDLE", 2)
    with ScriptedUpstream(Script.of(words("a"))) as upstream:
        provider = _provider(upstream)
        replies = await asyncio.gather(*[pool.open(provider, PATH, STREAM) for _ in range(5)])
        for reply in replies:
            await reply.read_all()
        await _until(lambda: len(pool._everyone) == 2)
        for connection in pool._everyone:
            connection.idle_until_s = 0.0
        await _exchange(pool, provider)
        assert upstream.connections_opened == 6
        await _until(lambda: len(pool._everyone) == 1)


async def test_the_sweep_closes_the_old_ones_and_ends_with_the_last(
    pool: PooledUpstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "SWEEP_S", 0.01)
    async with RawServer(saying(OK)) as server:
        await _exchange(pool, server.provider())
        for connection in pool._everyone:
            connection.idle_until_s = 0.0
        await _until(lambda: not pool._everyone and pool._sweeper is None)
        await _exchange(pool, server.provider())
        assert pool._sweeper is not None


async def test_close_stops_the_provider_at_once(pool: PooledUpstreams) -> None:
    with ScriptedUpstream(Script.of(text("a"), HANG)) as upstream:
        reply = await pool.open(_provider(upstream), PATH, STREAM)
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
        reply = await pool.open(_provider(upstream), PATH, STREAM)
        reply.release()
        await upstream.until(lambda u: u.requests[0].client_gone)
        with pytest.raises(ConnectionBroken):
            await reply.read()


async def test_release_of_a_whole_reply_that_nobody_read(pool: PooledUpstreams) -> None:
    async with RawServer(saying(OK, OK.replace(b"ok", b"no"))) as server:
        provider = server.provider()
        reply = await pool.open(provider, PATH, WHOLE)
        reply.release()
        assert await _exchange(pool, provider) == (200, b"no")
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


async def test_a_provider_that_does_not_answer_is_left_when_the_call_is_cancelled(pool: PooledUpstreams) -> None:
    with ScriptedUpstream(Script.of(words("a"), opening=[HANG])) as upstream:
        opening = asyncio.create_task(pool.open(_provider(upstream), PATH, STREAM))
        await upstream.until(lambda u: u.requests)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await upstream.until(lambda u: u.requests[0].client_gone)
        upstream.source = Script.of(words("a"))
        await _exchange(pool, _provider(upstream))
        assert upstream.connections_opened == 2


async def test_cancelled_at_any_step_nothing_leaks(pool: PooledUpstreams) -> None:
    with ScriptedUpstream(Script.of(words("a b c"), segment=40)) as upstream:
        provider = _provider(upstream)
        for steps in range(40):
            task = asyncio.create_task(_exchange(pool, provider, STREAM))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        status, body = await _exchange(pool, provider, STREAM)
        assert (status, body.count(b"data: ")) == (200, 6)
        await _until(lambda: len(pool._everyone) == 1)


async def test_a_cancelled_read_loses_nothing(pool: PooledUpstreams) -> None:
    async with RawServer(saying(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n")) as server:
        reply = await pool.open(server.provider(), PATH, WHOLE)
        (connection,) = pool._everyone
        for taken in (reply.buffered, None):
            reading = asyncio.create_task(reply.read())
            await _until(lambda: connection.waiter is not None)
            connection.data_received(b"abc")
            reading.cancel()  # between the wake and the read
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert (taken() if taken else await reply.read()) == b"abc"
        assert await reply.read() == b""


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
        await _until(lambda: connection.size > READ_BUFFER_BYTES)
        held, before = connection.size, -1
        while said != before:
            before = said
            await asyncio.sleep(0.05)
        assert said < size
        assert connection.size == held
        assert len(reply.buffered()) == held
        assert held + len(await reply.read_all()) == size


async def test_a_reply_that_is_too_large_is_refused(pool: PooledUpstreams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "MAX_REPLY_BYTES", 1)
    async with RawServer(saying(OK)) as server:
        reply = await pool.open(server.provider(), PATH, WHOLE)
        with pytest.raises(ConnectionBroken, match="larger"):
            await reply.read_all()
        await _until(lambda: not pool._everyone)


async def test_an_answer_before_the_request_was_read_ends_the_connection(pool: PooledUpstreams) -> None:
    async def answer(peer: Peer) -> None:
        await peer.say(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        await asyncio.Event().wait()

    async with RawServer(answer) as server:
        reply = await pool.open(server.provider(), PATH, b"x" * 32 * 1024 * 1024)
        assert (reply.status, await reply.read_all()) == (413, b"")
        await _until(lambda: not pool._everyone)


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


async def test_connecting_fails(pool: PooledUpstreams) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        refused = Provider("x", "openai_chat", f"http://127.0.0.1:{unheard.getsockname()[1]}/v1")
        with pytest.raises(NotConnected):
            await pool.open(refused, PATH, WHOLE)
    with pytest.raises(NotConnected):
        await pool.open(Provider("x", "openai_chat", "http://nowhere.invalid/v1"), PATH, WHOLE)


async def test_connecting_has_a_deadline_of_its_own(pool: PooledUpstreams) -> None:
    with socket.socket() as silent:  # takes the TCP connection, never answers the TLS handshake
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        slow = Provider(
            "x",
            "openai_chat",
            f"https://127.0.0.1:{silent.getsockname()[1]}/v1",
            deadlines=Deadlines(connect_s=0.05),
        )
        with pytest.raises(NotConnected, match="too long"):
            await pool.open(slow, PATH, WHOLE)
        opening = asyncio.create_task(pool.open(replace(slow, deadlines=Deadlines()), PATH, WHOLE))
        await asyncio.sleep(0.02)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("http://127.0.0.1/v1", {"X-A": "1\r\nX-B: 2"}),
        ("http://127.0.0.1/v1", {"X-A": "1\n"}),
        ("http://127.0.0.1/v1", {"X A": "1"}),
        ("http://127.0.0.1/v1", {"X-A": "€"}),
        ("http://127.0.0.1/v1", {"Content-Length": "1"}),
        ("http://127.0.0.1/v1", {"transfer-encoding": "chunked"}),
        ("http://127.0.0.1/v 1", {}),
        ("http://127.0.0.1/vé", {}),
        ("http://127.0.0.1:99999/v1", {}),
        ("ftp://127.0.0.1/v1", {}),
        ("http:///v1", {}),
    ],
)
async def test_what_cannot_be_put_into_a_request_is_not_sent(
    pool: PooledUpstreams, url: str, headers: dict[str, str]
) -> None:
    with pytest.raises(NotConnected, match="cannot be asked"):
        await pool.open(Provider("x", "openai_chat", url, headers=headers), PATH, WHOLE)


async def test_ipv6_literals(pool: PooledUpstreams) -> None:
    heads: list[bytes] = []

    async def answer(peer: Peer) -> None:
        heads.append((await peer.request())[0])
        await peer.say(OK)
        await peer.gone()

    try:
        async with RawServer(answer, host="::1") as server:
            assert await _exchange(pool, server.provider()) == (200, b"ok")
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert f"\r\nHost: [::1]:{server.port}\r\n".encode() in heads[0]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_tls(pool: PooledUpstreams, host: str) -> None:
    large = b"x" * 1_000_000
    reply = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(large), large)
    async with RawServer(saying(OK, reply), tls=_serving()) as server:
        provider = server.provider(host=host)
        assert await _exchange(pool, provider) == (200, b"ok")
        assert await _exchange(pool, provider, large) == (200, large)
        assert server.connections == 1


async def test_a_provider_that_hangs_up_under_tls(pool: PooledUpstreams) -> None:
    async def answer(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok")

    async with RawServer(answer, tls=_serving()) as server:
        reply = await pool.open(server.provider(), PATH, WHOLE)
        assert await reply.read() == b"ok"
        with pytest.raises(ConnectionBroken):
            await reply.read()
        await _until(lambda: not pool._everyone)


async def test_close_stops_the_provider_at_once_under_tls(pool: PooledUpstreams) -> None:
    gone = asyncio.Event()

    async def answer(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\n\r\nsome")
        await peer.gone()
        gone.set()

    async with RawServer(answer, tls=_serving()) as server:
        reply = await pool.open(server.provider(), PATH, WHOLE)
        assert await reply.read() == b"some"
        reply.close()
        await asyncio.wait_for(gone.wait(), 5)


async def test_certificates_are_verified(pool: PooledUpstreams) -> None:
    async with RawServer(saying(OK), tls=_serving()) as server:
        stranger = PooledUpstreams()
        with pytest.raises(NotConnected, match=r"(?i)certificate"):
            await stranger.open(server.provider(), PATH, WHOLE)
        await stranger.close()
        misnamed = replace(server.provider(), base_url=f"https://127.0.0.2:{server.port}/v1")
        with pytest.raises(NotConnected):
            await pool.open(misnamed, PATH, WHOLE)


async def test_old_targets_are_dropped_and_their_connections_kept(
    pool: PooledUpstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "MAX_TARGETS", 3)
    async with RawServer(saying(*[OK] * 8)) as server:
        for _ in range(8):
            await _exchange(pool, server.provider())  # a new Provider each time, as after a reload
        assert len(pool._targets) <= 3
        assert server.connections == 1


async def test_a_proxy_in_the_environment_is_used() -> None:
    heads: list[bytes] = []

    async def answer(peer: Peer) -> None:
        heads.append((await peer.request())[0])
        await peer.say(OK)
        await peer.gone()

    async with RawServer(answer) as proxy:
        upstreams = make_upstreams({"all_proxy": f"127.0.0.1:{proxy.port}"})
        assert isinstance(upstreams, AiohttpUpstreams)
        reply = await upstreams.open(Provider("x", "openai_chat", "http://provider.invalid/v1"), PATH, WHOLE)
        assert await reply.read_all() == b"ok"
        await upstreams.close()
    assert heads[0].startswith(b"POST http://provider.invalid/v1/chat/completions HTTP/1.1\r\n")


async def test_without_a_proxy_the_pool_is_used() -> None:
    upstreams = make_upstreams({"HTTPS_PROXY": "", "PATH": "/bin", "NO_PROXY": "*"})
    assert isinstance(upstreams, PooledUpstreams)
    await upstreams.close()


def test_proxies_of_an_environment() -> None:
    env = {"HTTP_PROXY": "http://upper", "http_proxy": "lower:3128", "ALL_PROXY": "http://all", "No_Proxy": ".a.b, c"}
    proxies = upstream_module.proxies_of(env)
    assert proxies == {"http": "http://lower:3128", "https": "http://all", "no": ".a.b, c"}
    hosts = {"x.a.b": None, "a.b": None, "c": None, "ca.b": "http://all", "cc": "http://all"}
    assert {host: upstream_module.proxy_for(proxies, "https", host) for host in hosts} == hosts
    assert upstream_module.proxy_for({"http": "http://p", "no": "*"}, "http", "any") is None
