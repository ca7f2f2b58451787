"""An upstream's one JSON reply, read as if it had been streamed."""

from __future__ import annotations

from collections.abc import Mapping

from app.gateway.upstream import Take, pour_reads


class UnstreamedReply:
    """A Reply that has ended already: `stream` is all of it."""

    __slots__ = ("_rest", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], stream: bytes) -> None:
        self.status = status
        self.headers = headers
        self._rest = stream

    async def read(self) -> bytes:
        """All of it, then b""."""
        return self.buffered()

    async def pour(self, take: Take) -> None:
        """See `upstream.Reply`."""
        await pour_reads(self, take)

    def buffered(self) -> bytes:
        """What was not read yet."""
        rest, self._rest = self._rest, b""
        return rest

    async def read_all(self) -> bytes:
        """What was not read yet."""
        return self.buffered()

    def release(self) -> None:
        """The connection went back to its pool when the reply had been read."""

    def close(self) -> None:
        """There is nothing left to cancel."""
