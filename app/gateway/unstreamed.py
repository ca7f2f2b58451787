"""An upstream's one JSON reply, read as if it had been streamed."""

from __future__ import annotations

from collections.abc import Mapping

from app.dialects.openai_chat.unstreamed import as_stream


class UnstreamedReply:
    """A Reply that has ended already: `body` is all of it. Raises BadEvent where that is no JSON object."""

    __slots__ = ("_rest", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self._rest = as_stream(body)

    async def read(self) -> bytes:
        """All of it, then b""."""
        return self.buffered()

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
