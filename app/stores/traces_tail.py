"""The latest records, and then each new one as it comes: for whoever watches, and for the learner."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec
import structlog

from app.stores.traces_segments import find_record, segments

if TYPE_CHECKING:  # redis-py costs 60 ms to import
    from app.stores.traces_stream import TraceStream

log = structlog.get_logger()

MOST_BYTES = 16 * 1024 * 1024
"""What is read in one go; what is beyond it comes next."""


class Tail(Protocol):
    """Where records come from, in the order in which they were written. `place` is how far has been read, and a new one
    made with it goes on from there."""

    @property
    def place(self) -> str: ...

    async def latest(self, count: int) -> list[bytes]:
        """The last records; `new` goes on from there."""

    async def new(self) -> list[bytes]:
        """The records since the last question, as JSON."""

    async def find(self, request_ids: Sequence[str]) -> list[bytes]:
        """The records of these calls, wherever they are, as JSON; of some there may be none, or none any more."""


class SegmentTail:
    """The records of segments: their whole lines, as far as they go."""

    def __init__(self, folder: Path, place: str = "") -> None:
        self._folder = folder
        self._unreadable: set[str] = set()
        self._read: dict[str, int] = msgspec.json.decode(place) if place else {}

    @property
    def place(self) -> str:
        """Bytes read of each segment that is still there."""
        there = {path.name for path, _, _ in segments(self._folder)}
        return msgspec.json.encode({name: read for name, read in self._read.items() if name in there}).decode()

    async def latest(self, count: int) -> list[bytes]:
        """Only the newest segments are read; the others are known to have been there."""
        found: deque[bytes] = deque()
        for path, _, _ in sorted(segments(self._folder), key=lambda one: (one[2], one[0].name), reverse=True):
            self._read[path.name] = 0
            lines = self._lines(path) if len(found) < count else self._skip(path)
            found.extendleft(reversed(lines))
        return list(found)[-count:] if count else []

    async def new(self) -> list[bytes]:
        found: list[bytes] = []
        left = MOST_BYTES
        for path, _, _ in segments(self._folder):
            before = self._read.get(path.name, 0)
            found += self._lines(path, left)
            left -= self._read.get(path.name, 0) - before
            if left <= 0:
                break
        return found

    async def find(self, request_ids: Sequence[str]) -> list[bytes]:
        known = segments(self._folder)
        found = (find_record(known, request_id) for request_id in request_ids)
        return [line for line in found if line is not None]

    def _lines(self, path: Path, most: int = -1) -> list[bytes]:
        start = self._read.get(path.name, 0)
        with self._passed_over(path), path.open("rb") as file:
            file.seek(start)
            data = file.read(most)
            if most > 0 and len(data) == most and b"\n" not in data:
                data += file.readline()  # one record that is larger than all that is read at once
            whole = data[: data.rfind(b"\n") + 1]
            self._read[path.name] = start + len(whole)
            return whole.splitlines()
        return []

    @contextlib.contextmanager
    def _passed_over(self, path: Path) -> Iterator[None]:
        """One that was removed meanwhile, or, which is said once, cannot be read."""
        try:
            yield
        except FileNotFoundError:
            pass
        except OSError as error:
            if path.name not in self._unreadable:
                log.warning("traces cannot be read, and are passed over", segment=path.name, error=error.strerror)
            self._unreadable.add(path.name)

    def _skip(self, path: Path) -> list[bytes]:
        with contextlib.suppress(FileNotFoundError):
            self._read[path.name] = path.stat().st_size
        return []


class StreamTail:
    """The records that the stream in Redis names."""

    def __init__(self, stream: TraceStream, place: str = "") -> None:
        self._stream = stream
        self._last = place.encode() or b"0-0"

    @property
    def place(self) -> str:
        """The last entry that was read."""
        return self._last.decode()

    async def latest(self, count: int) -> list[bytes]:
        """The last records; LedgerUnavailable where Redis does not answer."""
        self._last, request_ids = await self._stream.latest(count)
        return await self._stream.bodies(request_ids)

    async def new(self) -> list[bytes]:
        """The records since the last question; LedgerUnavailable where Redis does not answer."""
        self._last, request_ids = await self._stream.since(self._last)
        return await self._stream.bodies(request_ids)

    async def find(self, request_ids: Sequence[str]) -> list[bytes]:
        return await self._stream.bodies([request_id.encode() for request_id in request_ids])
