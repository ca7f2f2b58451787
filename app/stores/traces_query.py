"""SQL over all traces: Parquet and what is not compacted yet, as one view `traces`, each record once."""

from __future__ import annotations

import contextlib
import itertools
import json
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import structlog

from app.stores.traces_compact import database, write_lines
from app.stores.traces_parquet import ParquetFolder, Part, TracesError
from app.stores.traces_schema import COLUMNS, STEPS, lines_sql, literal, plain_path, quoted, rows_sql
from app.stores.traces_segments import UnreadableSegment, complete
from app.stores.traces_segments import waiting as waiting_segments

if TYPE_CHECKING:  # redis-py costs 60 ms to import
    from app.stores.traces_stream import TraceStream, Waiting

log = structlog.get_logger()

NAMES = ", ".join(f'"{column.name}"' for column in COLUMNS)

_READING = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
"""The kinds of queries, as DuckDB writes its syntax trees, that change nothing."""

_LOOKS = 5
_ZONED = "TIMESTAMP WITH TIME ZONE"
_READ = "hive_partitioning = true, hive_types = {'day': DATE}"


class QueryError(Exception):
    """The SQL cannot be run, or is more than a question; the message says why."""


class Answer:
    """Columns, and rows that are read as they are asked for."""

    def __init__(self, db: duckdb.DuckDBPyConnection) -> None:
        self._db = db
        self.columns = [str(described[0]) for described in db.description or ()]

    def rows(self, limit: int) -> list[tuple[object, ...]]:
        """The next rows, none at the end. Raises QueryError."""
        try:
            return self._db.fetchmany(limit)
        except duckdb.Error as error:
            raise QueryError(str(error)) from error


@contextlib.contextmanager
def open_files(folder: Path, parquet: ParquetFolder, *, small: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """The view over the embedded store: segments here, and the parts of this machine and any other.

    A segment that is being compacted is read itself, and what there may be of its parts already is not.
    """
    open_now = waiting_segments(folder)
    with parquet.reading(), database(small=small) as db, tempfile.TemporaryDirectory(prefix="bursar-") as copies:
        whole = [_readable(path, Path(copies)) for path in open_now]
        hidden = {path.stem for path in open_now}
        make_view(db, parquet, [part for part in parquet.parts() if part.name not in hidden], whole)
        yield db


@contextlib.asynccontextmanager
async def open_stream(
    stream: TraceStream, parquet: ParquetFolder, *, small: bool = False
) -> AsyncIterator[duckdb.DuckDBPyConnection]:
    """The view over the shared store. Raises TracesError; LedgerUnavailable where Redis does not answer."""
    with parquet.reading(), database(small=small) as db, tempfile.TemporaryDirectory(prefix="bursar-") as copies:
        waiting, parts = await _standing_still(stream, parquet)
        if not waiting.all:
            log.warning("many traces are not compacted yet, and the latest are left out: bursar traces compact")
        lines = write_lines(Path(copies), await stream.bodies(waiting.request_ids))
        make_view(db, parquet, [part for part in parts if part.name not in waiting.batches], lines)
        yield db


async def _standing_still(stream: TraceStream, parquet: ParquetFolder) -> tuple[Waiting, list[Part]]:
    """What waits, and the parts there are, at a moment at which no batch became a part."""
    before = parquet.parts()
    for _ in range(_LOOKS):
        waiting = await stream.waiting()
        after = parquet.parts()
        if after == before:
            return waiting, after
        before = after
    raise TracesError("traces are being compacted at this very moment: ask again")


def make_view(
    db: duckdb.DuckDBPyConnection, parquet: ParquetFolder, parts: Sequence[Part], lines: Sequence[Path]
) -> None:
    """Define `traces` over these parts and these files of records as JSON lines, and `steps`. Raises TracesError.

    Parts of one shape are opened as they are read, those of days that a question leaves out not at all; but the first,
    here the latest, tells the columns of all. Parts whose shape is not known are all asked first. One that is not whole
    (a copy that was broken off) is left out, and said.
    """
    parts = [part for part in parts if parquet.is_whole(part) or _left_out(part)]
    rows = rows_sql(lines_sql([str(path) for path in lines]))
    if parts and not parquet.local:
        db.register_filesystem(parquet.fs)
    for shape, alike in itertools.groupby(sorted(reversed(parts), key=_shape), _shape):
        listed = ", ".join(literal(plain_path(parquet.url(part))) for part in alike)
        how = f"union_by_name = {not shape}, {_READ}"
        rows += f" UNION ALL BY NAME SELECT * FROM read_parquet([{listed}], {how})"  # noqa: S608  (all quoted)
    try:
        db.execute(f"CREATE VIEW traces AS SELECT {NAMES} FROM ({rows})")  # noqa: S608  (our own words)
        db.execute(f"CREATE VIEW steps AS {STEPS}")
    except duckdb.Error as error:
        raise TracesError(f"traces could not be read: {error}") from error


def _left_out(part: Part) -> bool:
    log.warning("a file of traces is not whole, and is left out", file=part.path)
    return False


def _shape(part: Part) -> str:
    return part.shape


def ask(db: duckdb.DuckDBPyConnection, sql: str) -> Answer:
    """Run one SELECT. Raises QueryError for anything else, and for what DuckDB cannot run."""
    try:
        statements = db.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT or not _only_reads(db, sql):
            raise QueryError("one SELECT is expected: traces are only read")
        db.execute(statements[0])
        if any(_ZONED in str(column[1]) for column in db.description or ()):
            _without_zones(db, sql)
    except duckdb.Error as error:
        raise QueryError(str(error)) from error
    return Answer(db)


def _without_zones(db: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Ask again where the answer holds moments with a time zone, for which DuckDB's Python needs a package that is not
    here: without it, in UTC, as all of ours are."""
    told = [(quoted(str(column[0])), str(column[1])) for column in db.description or ()]
    casts = [
        f"c{at}::{kind.replace(_ZONED, 'TIMESTAMP')} AS {name}" if _ZONED in kind else f"c{at} AS {name}"
        for at, (name, kind) in enumerate(told)
    ]
    # Written anew from its syntax tree it has no comment and no semicolon at its end.
    (asked,) = db.execute("SELECT json_deserialize_sql(json_serialize_sql(?))", [sql]).fetchone() or ("",)
    db.execute(f"SELECT {', '.join(casts)} FROM ({asked}) AS asked({', '.join(f'c{at}' for at in range(len(told)))})")  # noqa: S608


def _only_reads(db: duckdb.DuckDBPyConnection, sql: str) -> bool:
    """False for a SELECT with something else in it: `WITH x AS (COPY ...)` would write."""
    (text,) = db.execute("SELECT json_serialize_sql(?)", [sql]).fetchone() or ("",)
    tree = json.loads(text)
    if tree["error"]:
        return False
    return all(node["type"] in _READING for node in _query_nodes(tree["statements"]))


def _query_nodes(tree: object) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        if "cte_map" in tree:
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            yield from _query_nodes(part)


def _readable(path: Path, folder: Path) -> Path:
    """A segment as it is, if it is complete; of one that its writer goes on with a copy of the whole lines. Nothing of
    one that cannot be read."""
    copy, data = folder / path.name, b""
    try:
        with complete(path) as ready:
            if ready:
                return path
        data = path.read_bytes()
    except FileNotFoundError:  # removed meanwhile
        pass
    except UnreadableSegment as error:
        log.warning("traces are left out", error=str(error))
    copy.write_bytes(data[: data.rfind(b"\n") + 1])
    return copy
