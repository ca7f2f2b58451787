"""The client's side of a call over ASGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Head = list[tuple[bytes, bytes]]


class AsgiDownstream:
    """The client's side of a call over ASGI. The server ignores what is sent after the client has left."""

    __slots__ = ("_send", "finished", "opened")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.finished = self.opened = False

    @property
    def writable(self) -> bool:
        return False  # no server tells

    async def start(self, status: int, headers: Head) -> None:
        if self.opened:  # for a keepalive, while the first event was awaited
            return
        self.opened = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    def push(self, data: bytes) -> bool:
        return False

    async def finish(self, data: bytes) -> None:
        self.finished = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def reply(self, status: int, headers: Head, body: bytes) -> None:
        await self.start(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self.finish(body)
