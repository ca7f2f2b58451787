"""`bursar traces`: ask about finished calls in SQL, bring them into Parquet, watch them come in."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import datetime as dt
import re
import sys
from enum import StrEnum

import msgspec
import structlog

from app.commands.ending import Refused
from app.commands.outcomes import feedback_of
from app.commands.terminal import complain, say, table, visible
from app.commands.traces_open import FAILURES, asking, open_traces, parquet_of, settings_for_asking, stream_of
from app.settings import Settings
from app.stores.opening import segments_folder
from app.stores.traces_compact import Pass, compact_segments, compact_stream
from app.stores.traces_parquet import TracesError
from app.stores.traces_query import Answer, QueryError, ask
from app.stores.traces_runs import make_runs
from app.stores.traces_tail import SegmentTail, StreamTail, Tail

log = structlog.get_logger()

SHOWN = 1000
"""Rows of a table; more belong in a file."""
BATCH = 5000
LOOK_EVERY_S = 0.5
_RUNS = re.compile(r"\bruns\b", re.IGNORECASE)
"""What a question about runs says; they are made for no other."""


class Form(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


@asking
def query(sql: str, form: Form) -> int:
    """Print the answer to one SELECT over the view `traces` and the table `runs`; the exit code."""
    try:
        asyncio.run(_query(settings_for_asking(), sql, form))
    except QueryError as error:
        raise Refused(str(error)) from None
    return 0


@asking
def compact(*, quiet: bool) -> int:
    """One pass of compaction; the exit code."""
    settings = settings_for_asking()
    try:
        done = asyncio.run(_compact(settings))
    except FAILURES as error:
        if not quiet:
            raise
        log.error("traces could not be compacted", error=str(error))
        return 1
    if not quiet:
        say(_told(done))
    return 0


@asking
def tail(*, count: int, follow: bool, as_json: bool) -> int:
    """Print the last calls, and go on with new ones until interrupted; the exit code."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_tail(settings_for_asking(), count, follow, as_json))
    return 0


async def _tail(settings: Settings, count: int, follow: bool, as_json: bool) -> None:
    async with contextlib.AsyncExitStack() as stack:
        source: Tail = SegmentTail(segments_folder(settings))
        if settings.redis_url is not None:
            source = StreamTail(await stack.enter_async_context(stream_of(settings)))
        records = await source.latest(count)
        while True:
            for record in records:
                if (line := _line(record, as_json)) is not None:
                    say(line)
            if not follow:
                return
            await asyncio.sleep(LOOK_EVERY_S)
            records = await source.new()


def _line(record: bytes, as_json: bool) -> str | None:
    """A call in one line; None for what is no record."""
    try:
        found = msgspec.json.decode(record)
        if as_json:
            return record.decode()
        at = dt.datetime.fromtimestamp(found["created_s"], dt.UTC)
        cost = "?" if found["cost_usd"] is None else f"{found['cost_usd']:.6f}"
        asked, model = found["requested_model"], found["model"] or "-"
        names = model if asked == model else f"{asked} > {model}"
        took = found["timings"]["duration_ms"] or 0.0
        parts = [f"{at:%H:%M:%S}", f"{found['outcome']:<12}", f"${cost}", f"{took:.0f} ms", found["key"], names]
        return visible("  ".join((*parts, found["request_id"])))
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError):
        return None


async def _query(settings: Settings, sql: str, form: Form) -> None:
    words = await feedback_of(settings) if _RUNS.search(sql) is not None else None
    async with open_traces(settings) as db:
        if words is not None:
            make_runs(db, words)
        _PRINTERS[form](ask(db, sql))


async def _compact(settings: Settings) -> Pass:
    parquet, keep_days = parquet_of(settings), settings.traces_keep_days
    if settings.redis_url is not None:
        async with stream_of(settings) as stream:
            return await compact_stream(stream, parquet, keep_days)
    folder = segments_folder(settings)
    if not folder.is_dir():
        raise TracesError(f"there are no traces at {folder}; BURSAR_DATA_DIR says where to look")
    return compact_segments(folder, parquet, keep_days)


def _told(done: Pass) -> str:
    if done.busy:
        return "another process is compacting: nothing was done"
    removed = f"; {done.expired} old files removed" if done.expired else ""
    return f"{done.records} records of {done.sources} {done.kind} in {done.parts} files{removed}"


def _print_table(answer: Answer) -> None:
    rows = answer.rows(SHOWN + 1)
    shown = [[_cell(value) for value in row] for row in rows[:SHOWN]]
    numbers = {
        column for i, column in enumerate(answer.columns) if all(isinstance(row[i], int | float | None) for row in rows)
    }
    table(answer.columns, shown, right=numbers)
    if len(rows) > SHOWN:
        complain(f"note: these are the first {SHOWN:,} rows; LIMIT, --csv or --json give others")


def _print_csv(answer: Answer) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(answer.columns)
    while rows := answer.rows(BATCH):
        writer.writerows([_cell(value) for value in row] for row in rows)


def _print_json(answer: Answer) -> None:
    """One array, a row a line."""
    before = "[\n"
    while rows := answer.rows(BATCH):
        for row in rows:
            sys.stdout.write(before + _json(dict(zip(answer.columns, row, strict=True))))
            before = ",\n"
    sys.stdout.write("[]\n" if before == "[\n" else "\n]\n")


_PRINTERS = {Form.TABLE: _print_table, Form.CSV: _print_csv, Form.JSON: _print_json}


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.3f}"
    return _json(value) if isinstance(value, dict | list) else str(value)


def _json(value: object) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()
