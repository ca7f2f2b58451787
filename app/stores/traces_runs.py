"""Runs out of traces: the calls of each task since some moment, with what was said of them.

Of a task that goes on since then all calls are read, so that its times are whole. Feedback comes when a call's record
is long written, so that its time to success is a matter of runs: `bursar traces query` has them as a table beside.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import msgspec

from app.core.feedback import Feedback
from app.core.runs import CallPace, Run, run_of
from app.stores.outcomes import Outcomes
from app.stores.traces_compact import write_lines
from app.stores.traces_parquet import TracesError
from app.stores.traces_schema import literal, since_sql

C = TypeVar("C", bound=CallPace)

COLUMNS = {
    "key": "VARCHAR",
    "task_id": "VARCHAR",
    "began_s": "DOUBLE",
    "began_at": "TIMESTAMP",
    "duration_ms": "DOUBLE",
    "model": "VARCHAR",
    "harness": "VARCHAR",
    "task_type": "VARCHAR",
    "outcome": "VARCHAR",
    "passed": "BOOLEAN",
    "judged": "BOOLEAN",
    "calls": "BIGINT",
    "turns": "BIGINT",
    "first_token_ms": "DOUBLE",
    "first_attempt_ms": "DOUBLE",
    "success_ms": "DOUBLE",
    "time_to_success_ms": "DOUBLE",
    "tokens_per_sec": "DOUBLE",
    "cost_usd": "DOUBLE",
    "killed_usd": "DOUBLE",
}
"""Of the table `runs`."""
BATCH = 5_000
WORDS = 5_000
_NUMBERS = ("ttft_ms", "first_attempt_ms", "generation_ms", "output_tokens")
_SIGNS = """coalesce(seen->>'$.refused' = 'true' OR seen->>'$.empty' = 'true' OR seen->>'$.shape_ok' = 'false'
    OR seen->>'$.arguments_ok' = 'false', false)"""
PACE = f"""request_id, key, task_id, created_s, coalesce(duration_ms, 0.0), outcome, coalesce(model, ''),
    coalesce(harness, ''), coalesce(task_type, cached.task_type, ''),
    {", ".join(f"coalesce({name}, 0)" for name in _NUMBERS)},
    cost_usd, cost_killed_at_usd, {_SIGNS}, coalesce(task_type, cached.task_type) IS NOT NULL"""
"""What makes a CallPace."""
_CALLS = """
    SELECT {columns} FROM traces
    WHERE (? IS NULL OR key = ?) AND probe IS NULL AND CASE WHEN task_id IS NULL
        THEN {since} AND ({kinds} OR outcome <> 'completed')
        ELSE (key, task_id) IN (SELECT (key, task_id) FROM traces WHERE task_id IS NOT NULL AND {since}) END
    ORDER BY key, task_id, coalesce(task_id, request_id), created_s
"""
"""An embedding that belongs to no task is no run: it has no task type, and nothing to be fast at. Nor are probes, for
who asks the same two hundred questions each day says nothing of how users' work goes."""
_ASKED = "task_type IS NOT NULL"
_ASKED_OR_CACHED = "coalesce(task_type, cached.task_type) IS NOT NULL"


def runs_since(
    db: duckdb.DuckDBPyConnection, since_s: float, words: Mapping[str, Sequence[Feedback]], *, key: str | None = None
) -> Iterator[Run]:
    """The runs of a key (None: of all), over the view `traces` (`stores/traces_query.py`). Raises TracesError. A call
    alone that the cache answered is none: it says nothing of how fast a model is."""
    for calls in calls_by_run(db, since_s, CallPace, key=key):
        yield run_of(calls, words)


def calls_by_run(
    db: duckdb.DuckDBPyConnection,
    since_s: float,
    kind: type[C],
    *,
    more: str = "",
    key: str | None = None,
    cached: bool = False,
) -> Iterator[list[C]]:
    """The calls of each run. `more`: the SQL of what `kind` has beyond a CallPace; `cached`: with those that belong to
    no task and that the cache answered. Raises TracesError."""
    try:
        columns = ", ".join(filter(None, (PACE, more)))
        kinds = _ASKED_OR_CACHED if cached else _ASKED
        db.execute(_CALLS.format(columns=columns, since=since_sql(since_s), kinds=kinds), [key, key])
        calls = (kind(*row) for row in _rows(db))
        for _, same in itertools.groupby(calls, lambda c: (c.key, c.task_id, c.task_id or c.request_id)):
            yield list(same)
    except duckdb.Error as error:
        raise TracesError(f"traces could not be read: {error}") from error


def _rows(db: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while rows := db.fetchmany(BATCH):
        yield from rows


def make_runs(db: duckdb.DuckDBPyConnection, words: Mapping[str, Sequence[Feedback]]) -> None:
    """Define the table `runs`: a row for each, over the view `traces`, with a `Run`'s own names. Raises TracesError."""
    columns = ", ".join(f"{name}: {literal(kind)}" for name, kind in COLUMNS.items())
    with tempfile.TemporaryDirectory(prefix="bursar-") as folder:
        lines = write_lines(Path(folder), (msgspec.json.encode(_row(run)) for run in runs_since(db, 0.0, words)))
        rows = f"read_json([{', '.join(literal(str(file)) for file in lines)}], columns = {{{columns}}})"
        none = ", ".join(f"NULL::{kind} AS {name}" for name, kind in COLUMNS.items())
        asked = f"FROM {rows}" if lines else f"SELECT {none} WHERE false"
        try:
            db.execute(f"CREATE TABLE runs AS {asked}")
        except duckdb.Error as error:
            raise TracesError(f"runs could not be read: {error}") from error


def _row(run: Run) -> dict[str, Any]:
    began_at = dt.datetime.fromtimestamp(run.began_s, dt.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    return {**dataclasses.asdict(run), "began_at": began_at, "time_to_success_ms": run.time_to_success_ms}


async def every_word(outcomes: Outcomes) -> dict[str, list[Feedback]]:
    """All feedback on record, by the thing it was said of. Raises OutcomesUnavailable."""
    found: dict[str, list[Feedback]] = {}
    cursor = 0
    while words := await outcomes.since(cursor, WORDS):
        for cursor, word in words:  # noqa: B007  (the last one is where to go on)
            found.setdefault(word.thing, []).append(word)
    return found
