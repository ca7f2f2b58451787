"""A connection that the provider closes before it has the request: nobody has read that, so it is sent once more."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import sys
from typing import Self

import pytest

from app.core.policy import Provider
from app.gateway.pool import PooledUpstreams
from app.gateway.pool_connection import Connection
from app.gateway.upstream import ConnectionBroken, NotConnected
from tests.gateway.pool.exchanges import OK, PATH, WHOLE, exchange, serving, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that tells what was acknowledged")

WAIT_S = 20.0


class Blocking:
    """A server that does one thing at a time, in whichever thread it is told to. `connections`: how many there were."""

    def __init__(self, *, secure: bool) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(WAIT_S)
        self._tls = serving() if secure else None
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
        """End the last connection."""
        assert self._peer is not None
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


async def test_over_tls_it_ends_in_any_case(pool: PooledUpstreams) -> None:
    """uvloop closes the socket before it tells of the loss: then it counts as read."""
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
        assert server._peer is not None
        server._peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.close()
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
