"""Records as JSON lines in segment files, one open segment per process.

Appending a line costs a tenth of what a row in a database does, and the files are what DuckDB reads. No index is
needed: a request id begins with the time of its arrival, a segment's name with the time of its first record, and
its last change is its last record's, so that an id leads to the few segments which can hold it.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from pathlib import Path

import structlog

from app.stores import traces
from app.stores.traces import FLUSH_EVERY_S, SEEN_AFTER_S, Lost, Make, Record, arrived_ms, is_of_task
from app.stores.traces_segments import SKEW_MS, Segment, any_complete, find_record, lines_with, prune, segments
from app.stores.traces_waiting import Waiting, decoded, task_needle

log = structlog.get_logger()


class FileTraces:
    """A thread that owns the open segment; batches are written every FLUSH_EVERY_S while there are any."""

    def __init__(self, folder: Path, *, keep_days: float = 0, lost: Lost = bool) -> None:
        """`keep_days`: what was never compacted is removed after it; 0: not for its age."""
        self._folder = folder
        self._keep_days = keep_days
        self._waiting = Waiting(lost)
        self._queue: queue.SimpleQueue[list[tuple[str, bytes]] | None] = queue.SimpleQueue()
        self._timer: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._write_all, name="traces", daemon=True)
        self._segment: Segment | None = None

    async def start(self) -> None:
        """Make the folder if need be. Raises OSError where it cannot be made."""
        await asyncio.to_thread(self._folder.mkdir, mode=0o700, parents=True, exist_ok=True)
        self._thread.start()

    def append(self, request_id: str, make: Make) -> None:
        if self._waiting.add(request_id, make) and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_EVERY_S, self._hand_over)

    def _hand_over(self) -> None:
        self._timer = None
        if made := self._waiting.make():
            self._queue.put(made)

    async def get(self, request_id: str) -> Record | None:
        if (waiting := self._waiting.get(request_id)) is not None:
            return waiting
        if arrived_ms(request_id) is None:
            return None
        # Another worker may hold it for one flush more.
        for wait_s in (0.0, SEEN_AFTER_S, 2 * SEEN_AFTER_S):
            await asyncio.sleep(wait_s)
            found = await asyncio.to_thread(self._read, request_id)
            if found is not None:
                return found
        return None

    async def of_task(self, key: str, task_id: str, began_s: float) -> tuple[list[Record], bool]:
        waiting = self._waiting.of_task(key, task_id)  # first: what is written meanwhile is in the files, or here
        found, whole = await asyncio.to_thread(self._read_task, key, task_id, int(began_s * 1000))
        return list((found | waiting).values()), whole

    async def due(self) -> bool:
        return await asyncio.to_thread(any_complete, self._folder)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._hand_over()
        self._queue.put(None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def _read(self, request_id: str) -> Record | None:
        line = find_record(segments(self._folder), request_id)
        return None if line is None else decoded(line)

    def _read_task(self, key: str, task_id: str, began_ms: int) -> tuple[dict[str, Record], bool]:
        needle = task_needle(task_id)
        found: dict[str, Record] = {}
        left = traces.MAX_SEARCHED_BYTES
        for path, _, changed_ms in reversed(segments(self._folder)):
            if changed_ms + SKEW_MS < began_ms:
                continue
            if left <= 0:
                return found, False
            for line in lines_with(path, needle):
                record = decoded(line)
                if is_of_task(record, key, task_id):
                    found[record["request_id"]] = record
            with contextlib.suppress(OSError):
                left -= path.stat().st_size
        return found, True

    def _write_all(self) -> None:
        lost = 0
        while (batch := self._next_batch()) is not None:
            try:
                self._write(b"".join([line + b"\n" for _, line in batch]))
                if lost:
                    log.warning("traces are written again", lost=lost)
                lost = 0
            except OSError as error:  # whatever it is, the thread goes on: the next batch may be better
                if not lost:  # said once: a full disk may hold the log, too
                    log.error("traces cannot be written, and are lost", error=str(error), folder=str(self._folder))
                lost += len(batch)
                self._waiting.lose(len(batch))
            for request_id, _ in batch:
                self._waiting.written(request_id)
        if self._segment is not None:
            self._segment.close()

    def _next_batch(self) -> list[tuple[str, bytes]] | None:
        """What is to be written next; meanwhile the open segment is closed when its time has come."""
        while self._segment is not None:
            try:
                return self._queue.get(timeout=max(self._segment.left_s, 0.0))
            except queue.Empty:
                self._segment.close()
                self._segment = None
        return self._queue.get()

    def _write(self, lines: bytes) -> None:
        segment = self._segment
        if segment is not None and (segment.full or segment.gone()):
            segment.close()
            segment = None
        if segment is None:
            self._segment = None
            prune(self._folder, time.time(), self._keep_days)
            segment = self._segment = Segment(self._folder)
        segment.write(lines)
