"""Records as JSON lines in segment files, one open segment per process.

Appending a line costs a tenth of what a row in a database does, and the files are what DuckDB reads. No index is
needed: a request id begins with the time of its arrival, a segment's name with the time of its first record, and
its last change is its last record's, so that an id leads to the one or two segments which can hold it.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import queue
import re
import secrets
import threading
import time
from pathlib import Path

import msgspec
import structlog

from app.stores import traces
from app.stores.traces import FLUSH_EVERY_S, KEEP_DAYS, SEEN_AFTER_S, Record

log = structlog.get_logger()

SEGMENT_BYTES = 8 * 1024 * 1024
"""About 4,000 records; searching one takes 2 ms."""
KEEP_BYTES = 512 * 1024 * 1024
SKEW_MS = 2_000
"""Clocks of file systems tick coarsely, and a record waits a moment for its batch."""
LONGEST_CALL_MS = 6 * 3_600_000
"""A record is written when its call ends: at most this long after the time in its id."""
_ARRIVED = re.compile(r"req_([0-9a-f]{11})[0-9a-f]{16}")


class FileTraces:
    """A thread that owns the open segment; batches are written every FLUSH_EVERY_S while there are any."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pending: dict[str, Record] = {}
        self._queue: queue.SimpleQueue[list[tuple[str, Record]] | None] = queue.SimpleQueue()
        self._batch: list[tuple[str, Record]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._write_all, name="traces", daemon=True)
        self._segment: Segment | None = None
        self.dropped = 0

    async def start(self) -> None:
        """Make the folder if need be. Raises OSError where it cannot be made."""
        await asyncio.to_thread(self._folder.mkdir, mode=0o700, parents=True, exist_ok=True)
        self._thread.start()

    def append(self, request_id: str, record: Record) -> None:
        if len(self._pending) >= traces.MAX_PENDING:
            if not self.dropped:
                log.error("traces are written too slowly: some are dropped", waiting=len(self._pending))
            self.dropped += 1
            return
        self._pending[request_id] = record
        self._batch.append((request_id, record))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_EVERY_S, self._hand_over)

    def _hand_over(self) -> None:
        self._timer = None
        batch, self._batch = self._batch, []
        if batch:
            self._queue.put(batch)

    async def get(self, request_id: str) -> Record | None:
        waiting = self._pending.get(request_id)
        if waiting is not None:
            return waiting
        arrived = _ARRIVED.fullmatch(request_id)
        if arrived is None:
            return None
        # Another worker may hold it for one flush more.
        for wait_s in (0.0, SEEN_AFTER_S, 2 * SEEN_AFTER_S):
            await asyncio.sleep(wait_s)
            found = await asyncio.to_thread(self._read, request_id, int(arrived[1], 16))
            if found is not None:
                return found
        return None

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._hand_over()
        self._queue.put(None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def _read(self, request_id: str, arrived_ms: int) -> Record | None:
        for path, began_ms, changed_ms in segments(self._folder):
            if began_ms - LONGEST_CALL_MS <= arrived_ms <= changed_ms + SKEW_MS:
                line = find_line(path, request_id)
                if line is not None:
                    record: Record = msgspec.json.decode(line)
                    return record
        return None

    def _write_all(self) -> None:
        while (batch := self._queue.get()) is not None:
            try:
                lines = [line for request_id, record in batch if (line := self._encoded(request_id, record))]
                self._write(b"".join(lines))
            except OSError as error:  # whatever it is, the thread goes on: the next batch may be better
                log.error("traces could not be written", error=str(error), records=len(batch))
                self.dropped += len(batch)
            for request_id, _ in batch:
                self._pending.pop(request_id, None)
        if self._segment is not None:
            self._segment.close()

    def _encoded(self, request_id: str, record: Record) -> bytes:
        try:
            return msgspec.json.encode(record) + b"\n"
        except (TypeError, ValueError) as error:
            log.error("a trace could not be encoded", error=str(error), request_id=request_id)
            self.dropped += 1
            return b""

    def _write(self, lines: bytes) -> None:
        segment = self._segment
        if segment is not None and (segment.full or segment.gone()):
            segment.close()
            segment = None
        if segment is None:
            prune(self._folder, time.time())
            segment = self._segment = Segment(self._folder, int(time.time() * 1000))
        segment.write(lines)


class Segment:
    """An open file that only this process appends to."""

    def __init__(self, folder: Path, began_ms: int) -> None:
        name = f"{began_ms:011x}-{secrets.token_hex(4)}.jsonl"
        self._file = os.open(folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        self._size = 0
        self._torn = False

    @property
    def full(self) -> bool:
        """True when the next records belong in a new segment."""
        return self._size >= SEGMENT_BYTES

    def gone(self) -> bool:
        """True when the file was removed: what is written to it would be lost in silence."""
        return os.fstat(self._file).st_nlink == 0

    def write(self, lines: bytes) -> None:
        """Append whole lines. Raises OSError; a line that was cut short by it is no record, and harms no other."""
        if self._torn:
            lines = b"\n" + lines
        self._torn = True
        self._size += len(lines)
        while lines:
            lines = lines[os.write(self._file, lines) :]
        self._torn = False

    def close(self) -> None:
        """Nothing more is written."""
        os.close(self._file)


def segments(folder: Path) -> list[tuple[Path, int, int]]:
    """The segments, oldest first, each with the times of its first and last record in ms."""
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        with contextlib.suppress(OSError, ValueError):  # removed meanwhile, or not one of ours
            found.append((path, int(path.name.partition("-")[0], 16), int(path.stat().st_mtime * 1000)))
    return found


def find_line(path: Path, request_id: str) -> bytes | None:
    """The line of this record in a segment; None where it is not there, or not whole."""
    start = f'{{"request_id":"{request_id}"'.encode()
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            place = data.find(start)
            # A line's start, and not a value inside another record, which its client may have chosen.
            while place > 0 and data[place - 1] != ord("\n"):
                place = data.find(start, place + 1)
            end = data.find(b"\n", place) if place >= 0 else -1
            return data[place:end] if end >= 0 else None
    except (OSError, ValueError):  # removed meanwhile, or empty
        return None


def prune(folder: Path, now_s: float) -> None:
    """Remove what is older than KEEP_DAYS, then the oldest segments beyond KEEP_BYTES."""
    size = 0
    for path, _, changed_ms in reversed(segments(folder)):
        with contextlib.suppress(OSError):
            size += path.stat().st_size
            if size > KEEP_BYTES or changed_ms < (now_s - KEEP_DAYS * 86_400) * 1000:
                path.unlink()
