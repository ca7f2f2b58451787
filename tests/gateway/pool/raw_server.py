"""A server that says exactly the bytes it is told, in the test's own event loop: for framing no real server sends."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Self, cast

from app.core.policy import Provider
from app.core.secret import Secret

Answer = Callable[["Peer"], Coroutine[Any, Any, None]]


class Peer:
    """One connection: `request` reads the next request whole, `say` writes bytes, `gone` waits for its end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def request(self) -> tuple[bytes, bytes]:
        """A request's head and its body."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        sizes = [line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        return head, await self._reader.readexactly(int(sizes[0]))

    async def say(self, *segments: bytes) -> None:
        """Write these bytes, one segment after the other."""
        for segment in segments:
            self._writer.write(segment)
            await asyncio.sleep(0)
        await self._writer.drain()

    async def gone(self) -> None:
        """Return once the client has closed or reset the connection."""
        try:
            while await self._reader.read(65536):
                pass
        except ConnectionError:
            return

    async def finish(self) -> None:
        """Half-close: FIN after what was said."""
        self._writer.write_eof()
        await self.gone()

    def reset(self) -> None:
        """A TCP RST."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        cast(asyncio.Transport, self._writer.transport).abort()


class RawServer:
    """Answers each connection with one coroutine, and closes it when that ends; counts the connections."""

    def __init__(self, answer: Answer, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._answer = answer
        self._tls = tls
        self._host = host
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._host, 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def provider(self, headers: Mapping[str, str] | None = None, *, host: str | None = None) -> Provider:
        """The provider that this server is."""
        named = host or (f"[{self._host}]" if ":" in self._host else self._host)
        scheme = "http" if self._tls is None else "https"
        return Provider(
            "raw",
            "openai_chat",
            f"{scheme}://{named}:{self.port}/v1",
            api_key=Secret("sk-test"),
            headers=headers or {},
        )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._answer(Peer(reader, writer))
        except (asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            pass  # cancelled only by __aexit__; asyncio's streams would log it
        finally:
            writer.transport.abort() if self._tls else writer.close()
            self._tasks.discard(task)


def saying(*replies: bytes, then: str = "wait") -> Answer:
    """Answer request after request on a connection with these bytes; then wait for its end, finish, or reset."""

    async def answer(peer: Peer) -> None:
        for reply in replies:
            await peer.request()
            await peer.say(reply)
        if then == "finish":
            await peer.finish()
        elif then == "reset":
            peer.reset()
        else:
            await peer.gone()

    return answer
