"""A thin HTTP/1.1 client pool that fills the seam of `upstream`: about a tenth of what a general client costs.

RFC 9112, section 9.3.1 lets a client repeat on its own only what is idempotent, and what was certainly never applied. A
chat call is not idempotent: it is billed. So where a connection ends without a byte of a reply, it matters whether the
provider's machine had acknowledged the request. If not, nobody can have read it: it costs nothing, and where the
connection was a reused one, the request is written once more, on a new one. If it had, the answer is ConnectionBroken.
Everything is done to not get there: a lost connection leaves the pool at once, one idle for longer is checked for a
waiting EOF before it is used, and none is kept for longer than the provider's `Keep-Alive: timeout` says.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping

from app.core.policy import Provider
from app.gateway.pool_connection import Connection
from app.gateway.pool_origin import Origin
from app.gateway.pool_target import Target, build_target, with_headers
from app.gateway.upstream import (
    NO_HEADERS,
    ConnectionBroken,
    NotConnected,
    Take,
    Upstreams,
    all_reads,
    proxies_of,
)
from app.stores.causes import unreachable

SWEEP_S = 15.0
MAX_TARGETS = 256


class PooledReply:
    """A reply whose connection goes back to the pool once the body has been read to its end."""

    __slots__ = ("_connection", "_cut", "headers", "status")

    def __init__(self, connection: Connection) -> None:
        self._connection: Connection | None = connection
        self._cut = False
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers

    async def read(self) -> bytes:
        connection = self._connection
        if connection is None:
            if self._cut:
                raise ConnectionBroken("the reply was closed")
            return b""
        if not connection.parts and connection.asked:
            connection.waiter = waiter = connection.loop.create_future()
            await waiter
        if connection.parts:
            return connection.take()
        if connection.error is not None:
            self.close()
            raise ConnectionBroken(connection.error)
        self.release()
        return b""

    async def pour(self, take: Take) -> None:
        while True:
            connection = self._connection
            if connection is None or connection.parts or not connection.asked:
                if not take(await self.read()):  # which does not wait
                    return
                continue
            connection.waiter = waiter = connection.loop.create_future()
            connection.sink = take
            try:
                await waiter
                if connection.sink is None:
                    return
            finally:
                connection.sink = None

    def buffered(self) -> bytes:
        connection = self._connection
        return connection.take() if connection is not None and connection.parts else b""

    async def read_all(self) -> bytes:
        connection = self._connection
        if connection is not None and not connection.asked and connection.error is None:
            body = connection.take()  # nearly all: it came with its head
            self.release()
            return body
        try:
            return await all_reads(self)
        except BaseException:
            self.close()
            raise

    def release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._cut = connection.asked or bool(connection.parts)
            connection.finish()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._cut = True
            connection.abort()


class PooledUpstreams:
    """All connections to all providers, in one event loop. `tls` replaces the system's trust store."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._everyone: set[Connection] = set()
        self._origins: dict[tuple[str, int, bool], Origin] = {}
        self._targets: dict[tuple[int, str], Target] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def open(
        self, provider: Provider, path: str, body: bytes, headers: Mapping[str, str] = NO_HEADERS
    ) -> PooledReply:
        target = self._targets.get((id(provider), path))
        if target is None:
            target = self._new_target(provider, path)
        origin = target.origin
        connection = None
        if origin.idle:
            connection = origin.take(origin.idle[-1].loop.time())
        reused = connection is not None
        while True:
            if connection is None:
                connection = await self._connect(origin, provider.deadlines.connect_s)
            try:
                connection.send(with_headers(target.head, headers) if headers else target.head, body)
                connection.waiter = waiter = connection.loop.create_future()
                await waiter
            except BaseException:
                connection.abort()
                raise
            if connection.status:
                return PooledReply(connection)
            connection.abort()
            why = connection.error or "the connection was lost"
            if not connection.unread:
                raise ConnectionBroken(why)
            if not reused:
                raise NotConnected(why)
            reused, connection = False, None

    def _new_target(self, provider: Provider, path: str) -> Target:
        if len(self._targets) >= MAX_TARGETS:  # old policies' providers
            self._targets.clear()
            self._origins = {key: origin for key, origin in self._origins.items() if origin.idle}
        try:
            target = build_target(provider, path, self._origins)
        except ValueError as error:
            raise NotConnected(f"it cannot be asked: {error}") from error
        self._targets[id(provider), path] = target
        return target

    async def _connect(self, origin: Origin, connect_s: float) -> Connection:
        if self._closed:
            raise NotConnected("the gateway is shutting down")
        loop = asyncio.get_running_loop()
        connection = Connection(loop, origin, self._everyone)
        try:
            async with asyncio.timeout(connect_s):
                if origin.tls and self._tls is None:
                    # Reading the trust store takes tens of milliseconds.
                    self._tls = await loop.run_in_executor(None, _default_tls)
                await loop.create_connection(
                    lambda: connection, origin.host, origin.port, ssl=self._tls if origin.tls else None
                )
        except (OSError, ValueError) as error:
            connection.abort()
            raise NotConnected(unreachable(error)) from error
        except BaseException:
            connection.abort()
            raise
        if connection.closed or self._closed:
            connection.abort()
            raise NotConnected("the connection was lost")
        # Not in connection_made: uvloop reports no loss where connecting is cancelled right after that.
        self._everyone.add(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(SWEEP_S, self._sweep, loop)
        return connection

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close what has been idle for too long; goes on while there are connections."""
        now_s = loop.time()
        for origin in {connection.origin for connection in self._everyone}:
            origin.sweep(now_s)
        self._sweeper = loop.call_later(SWEEP_S, self._sweep, loop) if self._everyone else None

    async def close(self) -> None:
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._everyone):
            connection.abort()
        while self._everyone:  # each leaves as the event loop reports it lost
            connection = next(iter(self._everyone))
            connection.waiter = waiter = connection.loop.create_future()
            await waiter


def _default_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def make_upstreams(env: Mapping[str, str]) -> Upstreams:
    """The pool; aiohttp's client where the environment names a proxy, which the pool does not speak to."""
    proxies = proxies_of(env)
    if not proxies:
        return PooledUpstreams()
    from app.gateway.upstream_aiohttp import AiohttpUpstreams  # noqa: PLC0415  # 14 MB that only this needs

    return AiohttpUpstreams(proxies)
