"""Runs out of traces: the calls of each task since some moment, with what was said of them.

Of a task that goes on since then all calls are read, so that its times are whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import duckdb

from app.core.feedback import Feedback
from app.core.runs import CallPace, Run, run_of
from app.stores.outcomes import Outcomes
from app.stores.traces_parquet import TracesError

C = TypeVar("C", bound=CallPace)

BATCH = 5_000
WORDS = 5_000
_NUMBERS = ("ttft_ms", "first_attempt_ms", "generation_ms", "output_tokens")
_SIGNS = """coalesce(seen->>'$.refused' = 'true' OR seen->>'$.empty' = 'true' OR seen->>'$.shape_ok' = 'false'
    OR seen->>'$.arguments_ok' = 'false', false)"""
PACE = f"""request_id, key, task_id, created_s, coalesce(duration_ms, 0.0), outcome, coalesce(model, ''),
    coalesce(harness, ''), coalesce(task_type, ''), {", ".join(f"coalesce({name}, 0)" for name in _NUMBERS)},
    cost_usd, cost_killed_at_usd, {_SIGNS}, task_type IS NOT NULL"""
"""What makes a CallPace."""
_CALLS = """
    SELECT {columns} FROM traces
    WHERE (? IS NULL OR key = ?) AND CASE WHEN task_id IS NULL
        THEN created_s >= ? AND (task_type IS NOT NULL OR outcome <> 'completed')
        ELSE (key, task_id) IN (SELECT (key, task_id) FROM traces WHERE task_id IS NOT NULL AND created_s >= ?) END
    ORDER BY key, task_id, coalesce(task_id, request_id), created_s
"""
"""An embedding that belongs to no task is no run: it has no task type, and nothing to be fast at."""


def runs_since(
    db: duckdb.DuckDBPyConnection, since_s: float, words: Mapping[str, Sequence[Feedback]], *, key: str | None = None
) -> Iterator[Run]:
    """The runs of a key (None: of all), over the view `traces` (`stores/traces_query.py`). Raises TracesError."""
    for calls in calls_by_run(db, since_s, CallPace, key=key):
        yield run_of(calls, words)


def calls_by_run(
    db: duckdb.DuckDBPyConnection, since_s: float, kind: type[C], *, more: str = "", key: str | None = None
) -> Iterator[list[C]]:
    """The calls of each run. `more`: the SQL of what `kind` has beyond a CallPace. Raises TracesError."""
    try:
        db.execute(_CALLS.format(columns=", ".join(filter(None, (PACE, more)))), [key, key, since_s, since_s])
        calls = (kind(*row) for row in _rows(db))
        for _, same in itertools.groupby(calls, lambda c: (c.key, c.task_id, c.task_id or c.request_id)):
            yield list(same)
    except duckdb.Error as error:
        raise TracesError(f"traces could not be read: {error}") from error


def _rows(db: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while rows := db.fetchmany(BATCH):
        yield from rows


async def every_word(outcomes: Outcomes) -> dict[str, list[Feedback]]:
    """All feedback on record, by the thing it was said of. Raises OutcomesUnavailable."""
    found: dict[str, list[Feedback]] = {}
    cursor = 0
    while words := await outcomes.since(cursor, WORDS):
        for cursor, word in words:  # noqa: B007  (the last one is where to go on)
            found.setdefault(word.thing, []).append(word)
    return found
