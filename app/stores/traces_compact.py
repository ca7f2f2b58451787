"""Compaction: what was appended becomes Parquet, exactly once, whatever is killed in between.

Each part has a name of its own before it is made (its segment's, or its batch's in Redis), and what belongs to it never
changes. So a pass that died is repeated by the next, and writes the same files again in the place of its own. Only when
they are durable is the segment marked, or the batch acknowledged; only what is marked can be removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import structlog

from app.stores.file_lock import try_lock
from app.stores.traces_parquet import ParquetFolder, TracesError
from app.stores.traces_schema import SCHEMA, lines_sql, literal, rows_sql
from app.stores.traces_segments import UnreadableSegment, complete, mark_done, waiting

if TYPE_CHECKING:  # redis-py costs 60 ms to import
    from app.stores.traces_stream import Batch, TraceStream

log = structlog.get_logger()

_CLOSED = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "TimeZone": "'UTC'",
}
_SMALL = {"threads": "1", "memory_limit": "'512MB'"}
_DAY = "SELECT * EXCLUDE (day) FROM part WHERE day = ?"
_AS = f"FORMAT parquet, COMPRESSION zstd, KV_METADATA {{bursar_schema: '{SCHEMA}'}}"
_TRIES = 3
_FILE_BYTES = 8 * 1024 * 1024
"""DuckDB looks at 2,048 lines of a file at once, and needs many times their size: in one file of records that name
forty candidates, that was more than all of `_SMALL`."""
_BATCH_BYTES = 64 * 1024 * 1024
"""Of how large records a batch is smaller: all of it is one table in memory."""
_SAMPLE = 16
_LOCK = "compacting.lock"


@dataclass(slots=True)
class Pass:
    """What one pass did: how many sources (of a kind: segments or batches), records and parts; parts of old days
    removed. `busy`: another process was at it, and nothing was done."""

    kind: str
    sources: int = 0
    records: int = 0
    parts: int = 0
    expired: int = 0
    busy: bool = False


class _Failures:
    """What could not be compacted: one bad source must not hold up the rest, a bad place need not be tried for all."""

    def __init__(self) -> None:
        self._first: TracesError | None = None
        self._left = _TRIES

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Go on after a failure, but for the last of too many."""
        try:
            yield
        except UnreadableSegment as error:  # which says nothing of the place
            self._note(TracesError(str(error)))
        except TracesError as error:
            self._left -= 1
            first = self._note(error)
            if not self._left:
                raise first from error

    def _note(self, error: TracesError) -> TracesError:
        """The first of all."""
        if self._first is None:
            self._first = error
        else:
            log.warning("more traces could not be compacted", error=str(error))
        return self._first

    def told(self) -> None:
        """Raise the first failure, if there was any."""
        if self._first is not None:
            raise self._first


def compact_segments(folder: Path, parquet: ParquetFolder, keep_days: float) -> Pass:
    """Bring all complete segments into Parquet, then remove what is too old there (0: nothing).

    One process at a time does it; each segment is done for itself. Raises TracesError.
    """
    done = Pass("segments")
    with _alone(folder) as alone:
        if not alone:
            done.busy = True
            return done
        failures = _Failures()
        with database(small=True) as db:
            for path in waiting(folder):
                with failures.noted(), complete(path) as ready:
                    if ready:
                        _compact_segment(db, path, parquet, done)
        failures.told()
        done.expired = expire(parquet, keep_days)
    return done


async def compact_stream(stream: TraceStream, parquet: ParquetFolder, keep_days: float) -> Pass:
    """Bring all records of the stream into Parquet, batch by batch, first those that dead processes left; then remove
    what is too old there (0: nothing). Any number of processes may do so at once.

    Raises TracesError; LedgerUnavailable where Redis does not answer.
    """
    done, failures = Pass("batches"), _Failures()
    with database(small=True) as db:
        for name in await stream.left():
            batch = await stream.again(name)
            if batch is not None:
                with failures.noted():
                    await _compact_batch(db, stream, batch, parquet, done)
        count = await _batch_records(stream)
        while (batch := await stream.take(count)) is not None:
            with failures.noted():
                await _compact_batch(db, stream, batch, parquet, done)
    failures.told()
    done.expired = expire(parquet, keep_days)
    return done


async def _batch_records(stream: TraceStream) -> int:
    """How many records a batch may have, as large as the latest are."""
    from app.stores.traces_stream import BATCH  # noqa: PLC0415  (see above)

    _, latest = await stream.latest(_SAMPLE)
    bodies = await stream.bodies(latest)
    largest = max((len(body) for body in bodies), default=1)
    return max(min(BATCH, _BATCH_BYTES // largest), 1)


async def _compact_batch(
    db: duckdb.DuckDBPyConnection, stream: TraceStream, batch: Batch, parquet: ParquetFolder, done: Pass
) -> None:
    bodies = await stream.bodies(batch.request_ids)
    if len(bodies) < len(batch.entries):
        log.warning("traces had expired before they were compacted", records=len(batch.entries) - len(bodies))
    await asyncio.to_thread(_compact_bodies, db, bodies, batch.name, parquet, done)
    await stream.acknowledge(batch)


def _compact_bodies(
    db: duckdb.DuckDBPyConnection, bodies: Sequence[bytes], name: str, parquet: ParquetFolder, done: Pass
) -> None:
    with tempfile.TemporaryDirectory(prefix="bursar-") as folder:
        compact_files(db, write_lines(Path(folder), bodies), name, parquet, done, f"batch {name}")


def expire(parquet: ParquetFolder, keep_days: float) -> int:
    """Remove parts whose whole day is older than this (0: none); how many."""
    if keep_days <= 0:
        return 0
    return parquet.expire(dt.datetime.fromtimestamp(time.time() - keep_days * 86_400, dt.UTC).date())


@contextlib.contextmanager
def database(*, small: bool) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB, in memory, that installs nothing and reads no variables of Python; `small`: beside a gateway."""
    with (
        tempfile.TemporaryDirectory(prefix="bursar-", ignore_cleanup_errors=True) as spill,
        contextlib.closing(duckdb.connect(":memory:")) as db,
    ):
        for setting, value in {**_CLOSED, **(_SMALL if small else {}), "temp_directory": literal(spill)}.items():
            db.execute(f"SET {setting} = {value}")
        yield db


def compact_files(
    db: duckdb.DuckDBPyConnection, lines: Sequence[Path], name: str, parquet: ParquetFolder, done: Pass, source: str
) -> None:
    """Bring the records of files of JSON lines into the parts of this name. Raises TracesError."""
    try:
        rows = rows_sql(lines_sql([str(path) for path in lines]))
        db.execute(f"CREATE OR REPLACE TEMP TABLE part AS {rows} ORDER BY created_s")
        days = db.execute("SELECT day, count(*) FROM part GROUP BY day ORDER BY day").fetchall()
        with parquet.making() as folder:
            for day, records in days:
                made = folder / f"{day}.parquet"
                db.execute(f"COPY ({_DAY}) TO {literal(str(made))} ({_AS})", [day])
                parquet.publish(made, day, name)
                done.records += records
                done.parts += 1
    except (duckdb.Error, OSError) as error:
        raise TracesError(f"{source} could not be compacted: {error}") from error
    done.sources += 1


def write_lines(folder: Path, bodies: Iterable[bytes]) -> list[Path]:
    """Files of JSON lines with these records, none much larger than _FILE_BYTES."""
    left, paths = iter(bodies), list[Path]()
    while (first := next(left, None)) is not None:
        paths.append(path := folder / f"records-{len(paths)}.jsonl")
        with path.open("wb") as file:
            file.write(first + b"\n")
            while file.tell() < _FILE_BYTES and (body := next(left, None)) is not None:
                file.write(body + b"\n")
    return paths


def _compact_segment(db: duckdb.DuckDBPyConnection, path: Path, parquet: ParquetFolder, done: Pass) -> None:
    if path.stat().st_size == 0:  # its writer may only just have made it: it sees that the file is gone
        path.unlink()
        return
    before = done.records
    compact_files(db, [path], path.stem, parquet, done, f"segment {path.name}")
    broken = _lines(path) - (done.records - before)
    if broken:
        log.warning("a segment of traces has lines that are no records", segment=path.name, lines=broken)
    mark_done(path)


def _lines(path: Path) -> int:
    """Lines that are not empty; the last may be cut short."""
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """True where no other process is compacting this folder."""
    file = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield try_lock(file)
    finally:
        os.close(file)
