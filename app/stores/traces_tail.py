"""The latest records, and then each new one as it comes: for whoever watches."""

from __future__ import annotations

import contextlib
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from app.stores.traces_segments import segments

if TYPE_CHECKING:  # redis-py costs 60 ms to import
    from app.stores.traces_stream import TraceStream


class Tail(Protocol):
    """Where records come from, in the order in which they were written."""

    async def latest(self, count: int) -> list[bytes]:
        """The last records; `new` goes on from there."""

    async def new(self) -> list[bytes]:
        """The records since the last question, as JSON."""


class SegmentTail:
    """The records of segments: their whole lines, as far as they go."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, int] = {}

    async def latest(self, count: int) -> list[bytes]:
        """Only the newest segments are read; the others are known to have been there."""
        found: deque[bytes] = deque()
        for path, _, _ in sorted(segments(self._folder), key=lambda one: (one[2], one[0].name), reverse=True):
            self._read[path.name] = 0
            lines = self._lines(path) if len(found) < count else self._skip(path)
            found.extendleft(reversed(lines))
        return list(found)[-count:] if count else []

    async def new(self) -> list[bytes]:
        return [line for path, _, _ in segments(self._folder) for line in self._lines(path)]

    def _lines(self, path: Path) -> list[bytes]:
        start = self._read.get(path.name, 0)
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            file.seek(start)
            data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._read[path.name] = start + len(whole)
            return whole.splitlines()
        return []

    def _skip(self, path: Path) -> list[bytes]:
        with contextlib.suppress(FileNotFoundError):
            self._read[path.name] = path.stat().st_size
        return []


class StreamTail:
    """The records that the stream in Redis names."""

    def __init__(self, stream: TraceStream) -> None:
        self._stream = stream
        self._last = b"0-0"

    async def latest(self, count: int) -> list[bytes]:
        """The last records; LedgerUnavailable where Redis does not answer."""
        self._last, request_ids = await self._stream.latest(count)
        return await self._stream.bodies(request_ids)

    async def new(self) -> list[bytes]:
        """The records since the last question; LedgerUnavailable where Redis does not answer."""
        self._last, request_ids = await self._stream.since(self._last)
        return await self._stream.bodies(request_ids)
