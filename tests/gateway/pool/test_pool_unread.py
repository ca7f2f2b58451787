"""A connection that the provider closes before it has the request: nobody has read that, so it is sent once more."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import sys
from typing import Self

import pytest

from app.core.policy import Provider
from app.gateway.pool import PooledUpstreams
from app.gateway.pool_connection import Connection
from app.gateway.pool_origin import has_unacknowledged
from app.gateway.upstream import ConnectionBroken, NotConnected
from tests.gateway.pool.exchanges import OK, PATH, WHOLE, exchange, serving, trusting, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that tells what was acknowledged")

WAIT_S = 20.0
VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


class Blocking:
    """A server that does one thing at a time, in whichever thread it is told to. `connections`: how many there were."""

    def __init__(self, *, secure: bool, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(WAIT_S)
        self._tls = serving() if secure else None
        if self._tls is not None:
            self._tls.maximum_version = version
        port = self._listener.getsockname()[1]
        self.provider = Provider("b", "openai_chat", f"{'https' if secure else 'http'}://127.0.0.1:{port}/v1")
        self.connections = 0
        self._peer: socket.socket | ssl.SSLSocket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        if self._peer is not None:
            self._peer.close()

    def accept(self) -> None:
        """Take the next connection."""
        plain, _ = self._listener.accept()
        plain.settimeout(WAIT_S)
        self._peer = plain if self._tls is None else self._tls.wrap_socket(plain, server_side=True)
        self.connections += 1

    def read(self) -> None:
        """Read one request whole."""
        assert self._peer is not None
        got = b""
        while not got.endswith(WHOLE):
            part = self._peer.recv(65536)
            assert part
            got += part

    def serve(self, connect: bool = True) -> None:
        """Answer one request, of a new connection or of the last."""
        if connect:
            self.accept()
        self.read()
        assert self._peer is not None
        self._peer.sendall(OK)

    def close(self) -> None:
        """End the last connection; over TLS without a word."""
        assert self._peer is not None
        self._peer.close()

    def reset(self) -> None:
        """End the last connection at once, whatever has come or not."""
        assert self._peer is not None
        self._peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._peer.close()

    def say_goodbye(self) -> None:
        """End the last connection with TLS's own end, as nearly all servers do."""
        assert isinstance(self._peer, ssl.SSLSocket)
        self._peer.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError):  # the other side's, which is not waited for
            self._peer.unwrap()
        self._peer.close()


async def test_it_is_sent_once_more_on_a_new_connection(pool: PooledUpstreams) -> None:
    with Blocking(secure=False) as server:
        for _ in range(3):
            served = asyncio.ensure_future(asyncio.to_thread(server.serve))
            assert await exchange(pool, server.provider) == (200, b"ok")
            await served
            server.close()  # this loop has no turn to see it before it sends the next request
        assert server.connections == 3
        await until(lambda: not pool._everyone)


@VERSIONS
async def test_over_tls_it_is_sent_once_more_where_the_server_said_that_it_ends(
    pool: PooledUpstreams, version: ssl.TLSVersion
) -> None:
    with Blocking(secure=True, version=version) as server:
        for _ in range(3):
            served = asyncio.ensure_future(asyncio.to_thread(server.serve))
            assert await exchange(pool, server.provider) == (200, b"ok")
            await served
            server.say_goodbye()
        assert server.connections == 3


@VERSIONS
async def test_over_tls_one_that_was_read_is_not_sent_again(pool: PooledUpstreams, version: ssl.TLSVersion) -> None:
    """Also where this side's own end, which nobody acknowledges, is still on its way: whatever ends it, and however."""
    for end in (Blocking.say_goodbye, Blocking.close, Blocking.reset):
        with Blocking(secure=True, version=version) as server:
            served = asyncio.ensure_future(asyncio.to_thread(server.serve))
            await exchange(pool, server.provider)
            await served
            for _ in range(3):  # after which an acknowledgement waits for the answer
                served = asyncio.ensure_future(asyncio.to_thread(server.serve, connect=False))
                await exchange(pool, server.provider)
                await served
            opening = asyncio.ensure_future(pool.open(server.provider, PATH, WHOLE))
            await asyncio.to_thread(server.read)
            end(server)
            with pytest.raises(ConnectionBroken):
                await asyncio.wait_for(opening, 30)
            assert server.connections == 1


@VERSIONS
async def test_what_tls_itself_says_at_the_end_is_no_part_of_a_request(version: ssl.TLSVersion) -> None:
    """This side's own end goes out when the other's has come, to a machine that acknowledges nothing any more."""
    unread: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    class Asking(asyncio.Protocol):
        transport: asyncio.Transport

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport  # type: ignore[assignment]
            self.transport.write(WHOLE)

        def connection_lost(self, exc: Exception | None) -> None:
            unread.set_result(has_unacknowledged(self.transport, exc))

    with Blocking(secure=True, version=version) as server:
        accepted = asyncio.ensure_future(asyncio.to_thread(server.accept))
        port = server._listener.getsockname()[1]
        await asyncio.get_running_loop().create_connection(Asking, "127.0.0.1", port, ssl=trusting())
        await accepted
        await asyncio.to_thread(server.read)
        server.say_goodbye()
        assert not await asyncio.wait_for(unread, WAIT_S)


async def test_over_tls_without_a_word_it_counts_as_read(pool: PooledUpstreams) -> None:
    """uvloop closes the socket before it tells of such a loss. asyncio tells it from others."""
    with Blocking(secure=True) as server:
        served = asyncio.ensure_future(asyncio.to_thread(server.serve))
        await exchange(pool, server.provider)
        await served
        server.close()
        again = asyncio.ensure_future(asyncio.to_thread(server.serve))
        try:
            assert await exchange(pool, server.provider) == (200, b"ok")
        except ConnectionBroken:
            await exchange(pool, server.provider)
        await again
        assert server.connections == 2


async def test_only_once(pool: PooledUpstreams, monkeypatch: pytest.MonkeyPatch) -> None:
    with Blocking(secure=False) as server:
        served = asyncio.ensure_future(asyncio.to_thread(server.serve))
        await exchange(pool, server.provider)
        await served
        connect = pool._connect

        async def connected(origin: object, connect_s: float) -> Connection:
            connection = await connect(origin, connect_s)  # type: ignore[arg-type]
            server.accept()
            server.close()
            return connection

        monkeypatch.setattr(pool, "_connect", connected)
        server.close()
        with pytest.raises(NotConnected, match="lost"):
            await pool.open(server.provider, PATH, WHOLE)
        assert server.connections == 2


async def test_one_that_was_read_is_not_sent_again(pool: PooledUpstreams) -> None:
    """It may be billed, whatever became of it."""
    with Blocking(secure=False) as server:
        served = asyncio.ensure_future(asyncio.to_thread(server.serve))
        await exchange(pool, server.provider)
        await served
        opening = asyncio.ensure_future(pool.open(server.provider, PATH, WHOLE))
        await asyncio.to_thread(server.read)
        server.close()
        with pytest.raises(ConnectionBroken):
            await opening
        assert server.connections == 1


async def test_one_that_was_read_before_a_reset_is_not_sent_again(pool: PooledUpstreams) -> None:
    """Between machines that know each other an acknowledgement waits for the answer, and a reset carries none that
    Linux looks at: the request is not acknowledged, and may be billed all the same."""
    with Blocking(secure=False) as server:
        served = asyncio.ensure_future(asyncio.to_thread(server.serve))
        await exchange(pool, server.provider)
        await served
        for _ in range(3):
            served = asyncio.ensure_future(asyncio.to_thread(server.serve, connect=False))
            await exchange(pool, server.provider)
            await served
        opening = asyncio.ensure_future(pool.open(server.provider, PATH, WHOLE))
        await asyncio.to_thread(server.read)
        server.reset()
        with pytest.raises(ConnectionBroken):
            await asyncio.wait_for(opening, 30)  # else it was sent again, to a connection that nobody answers
        assert server.connections == 1


async def test_one_that_is_answered_in_part_is_not_sent_again(pool: PooledUpstreams) -> None:
    with Blocking(secure=False) as server:
        served = asyncio.ensure_future(asyncio.to_thread(server.serve))
        await exchange(pool, server.provider)
        await served
        assert server._peer is not None
        (connection,) = pool._everyone
        opening = asyncio.ensure_future(pool.open(server.provider, PATH, WHOLE))
        await until(lambda: connection.asked)
        server._peer.sendall(OK[:10])  # without having read
        await until(lambda: connection._silent_bytes)
        server.close()
        with pytest.raises(ConnectionBroken):
            await opening
