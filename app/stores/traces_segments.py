"""Segment files: JSON lines that one process appends to, and then nobody.

A segment's name is the time of its first record, in hex ms, and a random part. Its writer holds a lock on it, which
ends with the writer: whoever can lock a segment knows that it is complete. Beside a segment that is in Parquet lies
an empty file of the same name ending in `.done`; it stays, for reading single records, until `prune` takes it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog

from app.stores.file_lock import try_lock
from app.stores.traces import KEEP_DAYS, arrived_ms

log = structlog.get_logger()

SEGMENT_BYTES = 8 * 1024 * 1024
"""About 4,000 records; searching one takes 2 ms."""
SEGMENT_S = 300.0
"""A segment is closed this long after its first record, however few came."""
KEEP_BYTES = 512 * 1024 * 1024
"""What segments that are in Parquet may take; the oldest go first."""
KEEP_WAITING_BYTES = 2 * 1024 * 1024 * 1024
"""What those may take that are not: beyond it the oldest are lost, for a full disk would lose the new ones."""
SKEW_MS = 2_000
"""Clocks of file systems tick coarsely, and a record waits a moment for its batch."""
LONGEST_CALL_MS = 6 * 3_600_000
"""A record is written when its call ends: at most this long after the time in its id."""
_ATTEMPTS = 8


class UnreadableSegment(OSError):
    """A segment is there and cannot be opened: another user's, or damaged. The message says which, and why."""


class Segment:
    """An open file that only this process appends to."""

    def __init__(self, folder: Path) -> None:
        """Begin one. Raises OSError."""
        self._file = _new_file(folder)
        self._began_s = time.monotonic()
        self._size = 0
        self._torn = False

    @property
    def full(self) -> bool:
        """True when the next records belong in a new segment."""
        return self._size >= SEGMENT_BYTES or self.left_s <= 0

    @property
    def left_s(self) -> float:
        """Seconds until it is closed for its age."""
        return self._began_s + SEGMENT_S - time.monotonic()

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
        """Nothing more is written: it may be compacted now."""
        os.close(self._file)


def _new_file(folder: Path) -> int:
    for _ in range(_ATTEMPTS):  # whoever compacts may look at it between the two steps, and take it for complete
        path = folder / f"{int(time.time() * 1000):011x}-{secrets.token_hex(4)}.jsonl"
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        if try_lock(file) and os.fstat(file).st_nlink:
            return file
        os.close(file)
    raise OSError("a new segment of traces is always in someone else's use")


def segments(folder: Path) -> list[tuple[Path, int, int]]:
    """The segments, oldest first, each with the times of its first and last record in ms."""
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        with contextlib.suppress(OSError, ValueError):  # removed meanwhile, or not one of ours
            found.append((path, int(path.name.partition("-")[0], 16), int(path.stat().st_mtime * 1000)))
    return found


def waiting(folder: Path) -> list[Path]:
    """The segments that are not in Parquet, oldest first, open ones among them.

    All were so at one moment: the marks are read first, so that one which is made meanwhile changes nothing.
    """
    done = {path.stem for path in folder.glob("*.done")}
    return [path for path, _, _ in segments(folder) if path.stem not in done]


@contextlib.contextmanager
def complete(path: Path) -> Iterator[bool]:
    """True, and nobody else gets it meanwhile, where the segment is there, closed, and not in Parquet. Raises
    UnreadableSegment."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        yield False
        return
    except OSError as error:
        raise UnreadableSegment(f"segment {path.name} cannot be read: {error.strerror}") from error
    try:
        yield try_lock(file) and os.fstat(file).st_nlink > 0 and not _mark(path).exists()
    finally:
        os.close(file)


def any_complete(folder: Path) -> bool:
    """True where there is something to compact."""
    for path in waiting(folder):
        with contextlib.suppress(UnreadableSegment), complete(path) as ready:
            if ready:
                return True
    return False


def mark_done(path: Path) -> None:
    """Note that a segment is in Parquet; to be called when that is durable. Raises OSError."""
    os.close(os.open(_mark(path), os.O_WRONLY | os.O_CREAT, 0o600))


def _mark(path: Path) -> Path:
    return path.with_suffix(".done")


def find_record(known: Sequence[tuple[Path, int, int]], request_id: str) -> bytes | None:
    """The line of this record in any of these `segments`; None where it is in none, or not whole."""
    if (came_ms := arrived_ms(request_id)) is None:
        return None
    for path, began_ms, changed_ms in known:
        if began_ms - LONGEST_CALL_MS <= came_ms <= changed_ms + SKEW_MS:
            line = find_line(path, request_id)
            if line is not None:
                return line
    return None


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


def lines_with(path: Path, needle: bytes) -> list[bytes]:
    """The whole lines of a segment that hold these bytes."""
    found: list[bytes] = []
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            place = data.find(needle)
            while place >= 0 and (end := data.find(b"\n", place)) >= 0:
                found.append(data[data.rfind(b"\n", 0, place) + 1 : end])
                place = data.find(needle, end)
    except (OSError, ValueError):  # removed meanwhile, or empty
        return found
    return found


def prune(folder: Path, now_s: float, keep_days: float) -> None:
    """Remove segments that are in Parquet and older than KEEP_DAYS or beyond KEEP_BYTES; and those that are not, but
    would be out of Parquet again (`keep_days`, 0: never), or are beyond KEEP_WAITING_BYTES."""
    done = {path.stem for path in folder.glob("*.done")}
    found = segments(folder)
    size, waiting_size = 0, 0
    for path, _, changed_ms in reversed(found):
        age_days = (now_s - changed_ms / 1000) / 86_400
        with contextlib.suppress(OSError):
            bytes_ = path.stat().st_size
            if path.stem in done:
                size += bytes_
                if size > KEEP_BYTES or age_days > KEEP_DAYS:
                    path.unlink()
                    _mark(path).unlink()
                continue
            waiting_size += bytes_
            if waiting_size > KEEP_WAITING_BYTES or 0 < keep_days < age_days:
                log.error("a segment of traces is removed that was never compacted", segment=path.name)
                path.unlink()
    for stem in done - {path.stem for path, _, _ in found}:  # a crash came between the two
        _mark(folder / f"{stem}.jsonl").unlink(missing_ok=True)
