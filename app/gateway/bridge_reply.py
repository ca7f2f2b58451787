"""A reply that is made in another thread's event loop and read in the gateway's: `upstream`'s seam between them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from typing import Any

from app.gateway.upstream import READ_BUFFER_BYTES, ConnectionBroken, Take, all_reads, pour_reads


class BridgedReply:
    """Both halves of one reply. The making half is called in the bridge's loop, the rest in the gateway's.

    No more than READ_BUFFER_BYTES (and one event) wait here: who makes the reply then waits for who reads it.
    """

    def __init__(self, ours: asyncio.AbstractEventLoop, theirs: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._ours, self._theirs = ours, theirs
        self._parts: deque[bytes] = deque()
        # Each is written in one loop only.
        self._said_bytes = self._taken_bytes = 0
        self._ended = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._room = asyncio.Event()
        self._making: Future[None] | None = None

    def begin(self, making: Coroutine[Any, Any, None]) -> None:
        """Let it be made."""
        self._making = asyncio.run_coroutine_threadsafe(making, self._theirs)

    async def opened(self) -> None:
        """Wait for the head. Raises what the maker ended with before it."""
        while not self.status and not self._ended:
            await self._wait()
        if not self.status:
            raise self._error or ConnectionBroken("the bridge gave no answer")

    async def read(self) -> bytes:
        """See `upstream.Reply`."""
        while not self._parts and not self._ended:
            await self._wait()
        if self._parts:
            return self.buffered()
        if self._error is not None:
            raise ConnectionBroken(str(self._error)) from self._error
        return b""

    async def pour(self, take: Take) -> None:
        """See `upstream.Reply`."""
        await pour_reads(self, take)

    def buffered(self) -> bytes:
        """See `upstream.Reply`."""
        found = b"".join(self._parts)
        self._parts.clear()
        self._taken_bytes += len(found)
        if not self._ended:
            self._tell(self._theirs, self._room.set)
        return found

    async def read_all(self) -> bytes:
        """See `upstream.Reply`."""
        return await all_reads(self)

    def release(self) -> None:
        """See `upstream.Reply`; what is still made is not wanted."""
        self.close()

    def close(self) -> None:
        """Cancel the making: it closes the provider's connection."""
        if self._making is not None and not self._making.done():
            self._making.cancel()
        self._end(ConnectionBroken("the reply was closed"))

    async def _wait(self) -> None:
        self._waiter = self._ours.create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _end(self, error: Exception | None) -> None:
        if not self._ended:
            self._ended, self._error = True, error
            self._wake()

    def _take(self, part: bytes) -> None:
        if not self._ended:
            self._parts.append(part)
            self._wake()

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.status, self.headers = status, headers
        self._wake()

    @staticmethod
    def _tell(loop: asyncio.AbstractEventLoop, what: Any, *arguments: Any) -> None:
        """Call in another loop, which may be closed by now: then nobody is there to be told."""
        if not loop.is_closed():
            loop.call_soon_threadsafe(what, *arguments)

    # The making half.

    def say_head(self, status: int, headers: Mapping[str, str]) -> None:
        """The status and what the head says."""
        self._tell(self._ours, self._head, status, headers)

    async def say(self, part: bytes) -> None:
        """The next bytes; waits while too many lie unread."""
        while self._said_bytes - self._taken_bytes > READ_BUFFER_BYTES and not self._ended:
            self._room.clear()
            await self._room.wait()
        self._said_bytes += len(part)
        self._tell(self._ours, self._take, part)

    def say_end(self, error: Exception | None = None) -> None:
        """Nothing follows."""
        self._tell(self._ours, self._end, error)
