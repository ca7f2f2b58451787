"""The columns of traces in Parquet, and the SQL that makes them from records as JSON.

Columns may be added, with a new SCHEMA number; what a name means never changes. Old files then have NULL there.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

SCHEMA = 8
"""Written into every file, as `bursar_schema` among its key-value metadata."""

_MOMENT = "make_timestamp(CAST(t.created_s * 1e6 AS BIGINT))"
_TEXT, _REAL, _WHOLE, _BOOL = "VARCHAR", "DOUBLE", "BIGINT", "BOOLEAN"

Kind = str | dict[str, str] | list[str] | list[dict[str, str]]
"""A type of SQL, a struct, or a list of either; in the words of DuckDB's `json_transform`."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: where a record has it (names with dots between), or the SQL over `t` (the record's values) and
    `json` (the record) that makes it."""

    name: str
    kind: Kind
    about: str
    path: str = ""
    sql: str = ""


_CANDIDATE = {
    "model": _TEXT,
    "provider": _TEXT,
    "tier": _WHOLE,
    "stands_for": _TEXT,
    "verdict": _TEXT,
    "p_success": _REAL,
    "confidence": _REAL,
    "expected_output_tokens": _REAL,
    "expected_cost_usd": _REAL,
}
_CUT = {"scope": _TEXT, "by": _TEXT, "killed_at_usd": _REAL, "in_tool_call": _BOOL}
_LANDING = {"limit": _TEXT, "used_share": _REAL, "noted": _BOOL, "clamped": _BOOL}
_CACHED = {
    "request_id": _TEXT,
    "model": _TEXT,
    "provider": _TEXT,
    "task_type": _TEXT,
    "input_tokens": _WHOLE,
    "saved_usd": _REAL,
}
_CAP = {"scope": _TEXT, "name": _TEXT, "limit_usd": _REAL, "by": _TEXT}


def _of(path: str, name: str, kind: Kind, about: str) -> Column:
    return Column(name, kind, about, path=path)


COLUMNS = (
    _of("request_id", "request_id", _TEXT, "the call's name, one row each"),
    _of("created_s", "created_s", _REAL, "when it arrived, Unix time"),
    Column("created_at", "TIMESTAMP", "the same, UTC", sql=_MOMENT),
    _of("key", "key", _TEXT, "whose key"),
    _of("team", "team", _TEXT, "the team that key was in; NULL: in none"),
    _of("user", "user", _TEXT, "for which end user of that key, as a hash; NULL: not told, or not counted"),
    _of("tags", "tags", [_TEXT], "what the client said that it is for; NULL: nothing"),
    _of("probe", "probe", _BOOL, "whether it was a probe (`X-Bursar-Probe`), which runs leave out; NULL: it was none"),
    _of("task_id", "task_id", _TEXT, "its task, where the client names one"),
    _of(
        "task_step", "task_step", _WHOLE, "the place of its first request to a provider among those of its task, from 1"
    ),
    _of("parent_id", "parent_id", _TEXT, "the agent that asked for it, as the client says"),
    _of("harness", "harness", _TEXT, "which program asked"),
    _of("requested_model", "requested_model", _TEXT, "what the client asked for"),
    _of("stream", "stream", _BOOL, "whether it asked for a stream"),
    _of("decision.route", "route", _TEXT, "the policy's route; NULL where a model was named"),
    _of("decision.task_type", "task_type", _TEXT, "what kind of work it was taken for"),
    _of("decision.item.u", "u", [_REAL], "what it demands, as the learned router read it; NULL: its text was not read"),
    _of(
        "decision.item.place", "place", [_REAL], "what it looks like among all requests, as the learned router read it"
    ),
    _of("decision.item.ood", "ood", _REAL, "how little of its words training knows, 0 to 1"),
    _of("decision.item.plain", "plain", _BOOL, "one question, without long instructions, history, pictures, results"),
    _of("decision.asked.input_tokens", "asked_input_tokens", _WHOLE, "the input as it was estimated to decide"),
    _of("decision.asked.choices", "asked_choices", _WHOLE, "how many answers it asked for"),
    _of("decision.asked.wants_schema", "asked_schema", _BOOL, "whether it asked for JSON of a schema"),
    _of("decision.asked.features", "features", "JSON", "its counts (routers/features.py), without its text"),
    _of("decision.router", "router", _TEXT, "whose scores decided, name@version; of two, with & between"),
    _of("decision.assigned", "assigned", _TEXT, "whose turn it was"),
    _of("decision.share", "share", _REAL, "that router's share, where traffic is split"),
    _of("decision.deferred", "deferred", _BOOL, "whether it left the choice to the heuristic"),
    _of("decision.propensity", "propensity", _REAL, "the probability with which `chosen` was chosen"),
    _of("decision.explored", "explored", _BOOL, "whether it was one to explore; NULL: none like it may be"),
    _of("decision.instead_of", "instead_of", _TEXT, "the choice had it not been explored; NULL: the same"),
    _of("decision.chosen", "chosen", _TEXT, "the first choice; `model` is who answered in the end"),
    _of("decision.reason", "reason", _TEXT, "why"),
    _of("decision.candidates", "candidates", [_CANDIDATE], "all that were considered, with scores"),
    _of("model", "model", _TEXT, "who was asked last; NULL where nobody was"),
    _of("provider", "provider", _TEXT, "who is paid"),
    Column("attempts", _WHOLE, "how many were asked", sql="CAST(json_array_length(json, '$.attempts') AS BIGINT)"),
    _of("outcome", "outcome", _TEXT, "completed, cost_killed, denied, client_gone, timeout, ..."),
    _of("error", "error", _TEXT, "what went wrong"),
    _of("denied_scope", "denied_scope", _TEXT, "whose budget refused it"),
    _of("cost_usd", "cost_usd", _REAL, "all attempts together; NULL: unknown, never 0"),
    _of(
        "provenance",
        "provenance",
        _TEXT,
        "of that figure: metered, estimated, conservative, list_price, free, unknown",
    ),
    _of("usage.input_tokens", "input_tokens", _WHOLE, "of the last attempt, cached ones included"),
    _of("usage.output_tokens", "output_tokens", _WHOLE, "of the last attempt, reasoning included"),
    _of("usage.cache_read_tokens", "cache_read_tokens", _WHOLE, "of the input"),
    _of("usage.reasoning_tokens", "reasoning_tokens", _WHOLE, "of the output"),
    _of("cached", "cached", _CACHED, "whose reply it got from the policy's cache, with what was saved; NULL: nobody's"),
    _of("cut", "cut", _CUT, "where and how it was cut; NULL where it was not"),
    _of(
        "cost_killed_at_usd",
        "cost_killed_at_usd",
        _REAL,
        "what the budget that ended it, or let it not begin, had spent",
    ),
    _of("seen", "seen", "JSON", "what showed in the answer, without its words (app/core/seen.py)"),
    _of("caps", "caps", [_CAP], "every cap that bound it"),
    _of("landing", "landing", _LANDING, "how near its task was to a limit; NULL where it was far, or does not land"),
    _of("timings.duration_ms", "duration_ms", _REAL, "from its arrival to its end"),
    _of("timings.ttft_ms", "ttft_ms", _REAL, "the last attempt's first token"),
    _of("timings.first_attempt_ms", "first_attempt_ms", _REAL, "its first text, or call of a tool that writes"),
    _of("timings.generation_ms", "generation_ms", _REAL, "how long its output took"),
    _of("timings.tokens_per_sec", "tokens_per_sec", _REAL, "output tokens over that time"),
    _of("timings.success_ms", "success_ms", _REAL, "-1: feedback comes later; `runs` has it"),
    _of("timings.overhead_ms", "overhead_ms", _REAL, "from its arrival until a provider was asked"),
    _of("versions.policy", "policy_version", _TEXT, "a digest of the policy"),
    _of("versions.prices", "prices_version", _TEXT, "a digest of the price catalogue"),
    _of("client.request_id", "client_request_id", _TEXT, "the client's own name for it"),
    Column("record", "JSON", "the whole record, so that nothing is lost", sql="json"),
    Column("day", "DATE", "of `created_at`: the partition", sql=f"CAST({_MOMENT} AS DATE)"),
)

SHAPE = f"{zlib.crc32(repr([(column.name, column.kind) for column in COLUMNS]).encode()):08x}"
"""Of files with just these columns: they can be read together without a look at each one's own."""

STEPS = """
    SELECT request_id, row_number() OVER (PARTITION BY key, task_id ORDER BY created_s, request_id) AS step
    FROM traces WHERE task_id IS NOT NULL
"""
"""The view `steps`: a call's number in its task, from 1. Only all of a task's calls together tell it, and several
gateways may have served them: so it is counted when it is asked for."""


def rows_sql(source: str) -> str:
    """The query for the rows of all records in a query `source`, which has them in a JSON column `json`.

    What is no record (NULL, or without an id and a time) is left out.
    """
    columns = ", ".join(f'{column.sql or _field(column.path)} AS "{column.name}"' for column in COLUMNS)
    values = f"SELECT json, json_transform(json, {literal(json.dumps(_structure()))}) AS t FROM ({source})"  # noqa: S608  (our own words)
    return f"SELECT {columns} FROM ({values}) WHERE t.request_id IS NOT NULL AND t.created_s IS NOT NULL"  # noqa: S608


def lines_sql(paths: Iterable[str]) -> str:
    """The query for the lines of these files as a column `json`; NULL for one that is not whole."""
    listed = ", ".join(literal(plain_path(path)) for path in paths)
    if not listed:
        return "SELECT NULL::JSON AS json WHERE false"
    return f"SELECT json FROM read_ndjson_objects([{listed}], ignore_errors = true)"  # noqa: S608  (all quoted)


def since_sql(since_s: float) -> str:
    """The condition that a call came at this Unix time or later; nothing is read of files of earlier days."""
    return f"created_s >= {since_s!r}::DOUBLE AND day >= CAST(make_timestamp({int(since_s * 1e6)}) AS DATE)"


def literal(text: str) -> str:
    """A string in SQL."""
    return "'" + text.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def plain_path(path: str) -> str:
    """A path in which DuckDB finds no pattern."""
    return re.sub(r"([*?\[])", r"[\1]", path)


def _field(path: str) -> str:
    return "t." + ".".join(f'"{name}"' for name in path.split("."))


def _structure() -> dict[str, Any]:
    """What `json_transform` is to find in a record."""
    found: dict[str, Any] = {}
    for column in COLUMNS:
        *parents, name = column.path.split(".")
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
        if name:
            place[name] = column.kind
    return found
