"""The client's side of a call over ASGI, and how long a client may take to send its request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from app.core.errors import BodyTimeout

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Head = list[tuple[bytes, bytes]]
BeforeEnd = Callable[[bytes], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a body may take: `idle_s` from its head to its first piece and from each to the next, `whole_s` in all
    (32 MB at 2 Mbit/s by default)."""

    idle_s: float = 30.0
    whole_s: float = 120.0


PATIENT = Patience()


async def next_piece(receive: Receive, within_s: float) -> Message:
    """The next piece of a body. Raises BodyTimeout where none comes."""
    try:
        async with asyncio.timeout(within_s):
            return await receive()
    except TimeoutError:
        raise BodyTimeout("The body did not arrive in time.", headers={"connection": "close"}) from None


def in_time(receive: Receive, patience: Patience) -> Receive:
    """The same pieces, each in time; what comes behind a body (that its client leaves) may take for ever."""
    arriving = True

    async def receive_in_time() -> Message:
        nonlocal arriving
        if not arriving:
            return await receive()
        message = await next_piece(receive, patience.idle_s)
        arriving = bool(message.get("more_body"))
        return message

    return receive_in_time


class AsgiDownstream:
    """The client's side of a call over ASGI. The server ignores what is sent after the client has left."""

    __slots__ = ("_send", "before_end", "finished", "opened", "sound")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.finished = self.opened = False
        self.before_end: BeforeEnd | None = None  # awaited with a reply's last bytes, before they go out
        self.sound = True  # what it said: whether the reply may be given again to others

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
        if self.before_end is not None:
            self.sound = await self.before_end(data)
        self.finished = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def reply(self, status: int, headers: Head, body: bytes) -> None:
        await self.start(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self.finish(body)
