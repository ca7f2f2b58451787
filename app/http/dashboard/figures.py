"""Figures of finished calls for the dashboard and the report: SQL over `traces`, shaped for charts.

Runs where DuckDB is (`app/commands/figures.py`), never in a gateway's own process.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from app.http.dashboard.ask import MAX_CALLS, Burn, Find, Overview, Pace, Question, Record
from app.stores.traces import arrived_ms
from app.stores.traces_schema import literal, since_sql

POINTS = 60
"""Buckets of a series over time, at most."""
_STEPS_S = (60, 300, 900, 1_800, 3_600, 3 * 3_600, 6 * 3_600, 12 * 3_600, 86_400, 7 * 86_400)
TOP = 7
"""Groups that are told apart; the rest are one."""
REST = "\N{HORIZONTAL ELLIPSIS}"
"""Stands for all other groups: no key, task or model can be called so, for names are ASCII."""
NOT_ERRORS = ("completed", "client_gone")


Row = tuple[Any, ...]


class Database(Protocol):
    """What is used of DuckDB."""

    def execute(self, query: str, parameters: object = ...) -> Any:
        """Run one statement."""


def answer(db: Database, question: Question, now_s: float) -> dict[str, Any] | msgspec.Raw:
    """The answer to one question, ready for JSON."""
    if isinstance(question, Record):
        return record(db, question.request_id)
    if isinstance(question, Find):
        return {"calls": find(db, question)}
    if isinstance(question, Burn):
        return {"points": burn(db, question)}
    if isinstance(question, Pace):
        return {"keys": pace(db, question, "key"), "teams": pace(db, question, "team")}
    assert isinstance(question, Overview)
    return overview(db, question, now_s)


def overview(db: Database, question: Overview, now_s: float) -> dict[str, Any]:
    """Everything that the views show of traces since a time."""
    step = step_s(now_s - question.since_s)
    where = since_sql(question.since_s)
    return {
        "since_s": question.since_s,
        "until_s": now_s,
        "step_s": step,
        "totals": totals(db, where),
        "spend": {name: spend(db, where, column, step) for name, column in _GROUPS.items()},
        "outcomes": outcomes(db, where),
        "stopped": stopped(db, where),
        "models": models(db, where),
    }


def step_s(span_s: float) -> int:
    """The width of a bucket, so that there are not too many."""
    return next((step for step in _STEPS_S if span_s / step <= POINTS), _STEPS_S[-1])


_GROUPS = {
    "key": "key",
    "task": "coalesce(task_id, '')",
    "model": "coalesce(model, '')",
}


def totals(db: Database, where: str) -> dict[str, Any]:
    """Calls, dollars and the gateway's own time."""
    row = _one(
        db,
        f"""SELECT count(*), coalesce(sum(cost_usd), 0), count(*) FILTER (cost_usd IS NULL),
            count(*) FILTER (outcome = 'cost_killed'), count(*) FILTER (outcome = 'denied'),
            quantile_cont(overhead_ms, [0.5, 0.99]), quantile_cont(ttft_ms, [0.5, 0.99]), min(created_s)
        FROM traces WHERE {where}""",  # noqa: S608  (our own words and numbers, here and below)
    )
    names = ("calls", "cost_usd", "unknown_cost", "cut", "denied")
    found = dict(zip(names, row, strict=False))
    for name, pair in (("overhead_ms", row[5]), ("ttft_ms", row[6])):
        found[name] = {"p50": pair[0], "p99": pair[1]} if pair else None
    return {**found, "first_s": row[7]}


def spend(db: Database, where: str, column: str, step: int) -> dict[str, Any]:
    """Dollars over time for each of the groups that spent most; the rest together."""
    rows = _all(
        db,
        f"""WITH told AS (SELECT {column} AS name, created_s, coalesce(cost_usd, 0) AS usd FROM traces WHERE {where}),
            top AS (SELECT name FROM told GROUP BY name ORDER BY sum(usd) DESC, count(*) DESC, name LIMIT {TOP})
        SELECT CAST(floor(created_s / {step}) * {step} AS BIGINT) AS moment,
            CASE WHEN name IN (FROM top) THEN name ELSE '{REST}' END AS who, sum(usd), count(*)
        FROM told GROUP BY moment, who ORDER BY moment""",  # noqa: S608
    )
    series: dict[str, dict[str, Any]] = {}
    for at, who, usd, calls in rows:
        one = series.setdefault(who, {"name": who, "usd": 0.0, "calls": 0, "points": []})
        one["usd"] += usd
        one["calls"] += calls
        one["points"].append([at, usd])
    return {"series": sorted(series.values(), key=lambda one: (one["name"] == REST, -one["usd"], -one["calls"]))}


def outcomes(db: Database, where: str) -> list[dict[str, Any]]:
    """How calls ended."""
    rows = _all(
        db,
        f"SELECT outcome, count(*), sum(cost_usd) FROM traces WHERE {where} GROUP BY outcome ORDER BY 2 DESC, 1",  # noqa: S608
    )
    return [{"outcome": name, "calls": calls, "cost_usd": usd} for name, calls, usd in rows]


def stopped(db: Database, where: str) -> list[dict[str, Any]]:
    """The latest calls that a cap cut or denied."""
    return _calls(db, f"{where} AND (cut IS NOT NULL OR outcome = 'denied')", 20)


def models(db: Database, where: str) -> list[dict[str, Any]]:
    """How each model's calls went and how fast they were, as far as a provider was asked."""
    rows = _all(
        db,
        f"""SELECT model, provider, count(*), count(*) FILTER (outcome IN ('completed', 'cost_killed')),
            count(*) FILTER (outcome IN ('api_error', 'timeout', 'rate_limit', 'quota')),
            sum(cost_usd), quantile_cont(ttft_ms, 0.5), quantile_cont(duration_ms, 0.5),
            sum(output_tokens) FILTER (outcome = 'completed' AND duration_ms > coalesce(ttft_ms, 0)),
            sum(duration_ms - coalesce(ttft_ms, 0)) FILTER (outcome = 'completed' AND output_tokens IS NOT NULL),
            max(created_s)
        FROM traces WHERE {where} AND model IS NOT NULL GROUP BY model, provider ORDER BY 3 DESC, 1, 2 LIMIT 100""",  # noqa: S608
    )
    names = ("model", "provider", "calls", "good", "failed", "cost_usd", "ttft_ms", "duration_ms")
    return [
        {
            **dict(zip(names, row, strict=False)),
            "tokens_per_s": row[8] * 1000 / row[9] if row[8] and row[9] else None,
            "last_s": row[10],
        }
        for row in rows
    ]


def errors(db: Database, since_s: float) -> list[dict[str, Any]]:
    """How often calls ended in other ways than well, by model: what a cap ended beside what providers did."""
    rows = _all(
        db,
        f"""SELECT outcome, coalesce(model, ''), count(*) FROM traces
        WHERE {since_sql(since_s)} AND outcome NOT IN ({", ".join(map(literal, NOT_ERRORS))})
        GROUP BY outcome, model ORDER BY outcome, 3 DESC, 2""",  # noqa: S608
    )
    found: dict[str, dict[str, Any]] = {}
    for outcome, model, calls in rows:
        one = found.setdefault(outcome, {"outcome": outcome, "calls": 0, "models": []})
        one["calls"] += calls
        one["models"].append([model, calls])
    return sorted(found.values(), key=lambda one: (-one["calls"], one["outcome"]))


def find(db: Database, question: Find) -> list[dict[str, Any]]:
    """The calls that were asked for: the latest first; those of one task in their order."""
    conditions = [since_sql(question.since_s)]
    if question.text:
        found = literal(question.text)
        fields = ("request_id", "coalesce(task_id, '')", "coalesce(client_request_id, '')")
        conditions.append("(" + " OR ".join(f"contains({field}, {found})" for field in fields) + ")")
    for column, value in (("key", question.key), ("task_id", question.task), ("model", question.model)):
        if value is not None:
            conditions.append(f"{column} = {literal(value)}")
    if question.outcome == "trouble":
        conditions.append("outcome <> 'completed'")
    elif question.outcome is not None:
        conditions.append(f"outcome = {literal(question.outcome)}")
    return _calls(db, " AND ".join(conditions), min(max(question.limit, 1), MAX_CALLS))


_CALL = (
    "request_id", "created_s", "key", "task_id", "harness", "requested_model", "model", "provider", "route",
    "task_type", "outcome", "error", "cost_usd", "input_tokens", "output_tokens", "duration_ms", "ttft_ms",
    "denied_scope",
)  # fmt: skip


def _calls(db: Database, where: str, limit: int) -> list[dict[str, Any]]:
    columns = ", ".join(_CALL)
    rows = _all(
        db,
        f"""SELECT {columns}, cut.scope, try_cast(cut.killed_at_usd AS DOUBLE), propensity FROM traces WHERE {where}
        ORDER BY created_s DESC, request_id DESC LIMIT {limit}""",  # noqa: S608
    )
    return [dict(zip((*_CALL, "cut_scope", "cut_usd", "propensity"), row, strict=True)) for row in rows]


def burn(db: Database, question: Burn) -> list[list[float]]:
    """[when, dollars spent by then], at most some hundreds of points."""
    conditions = [since_sql(question.since_s)]
    for column, value in (("key", question.key), ("team", question.team), ("task_id", question.task)):
        if value is not None:
            conditions.append(f"{column} = {literal(value)}")
    rows = _all(
        db,
        f"""WITH told AS (SELECT created_s + coalesce(duration_ms, 0) / 1000 AS moment, coalesce(cost_usd, 0) AS usd
                FROM traces WHERE {" AND ".join(conditions)}),
            parts AS (SELECT moment, usd, ntile(240) OVER (ORDER BY moment) AS part FROM told)
        SELECT max(moment), sum(sum(usd)) OVER (ORDER BY part) FROM parts GROUP BY part ORDER BY part""",  # noqa: S608
    )
    return [list(row) for row in rows]


def pace(db: Database, question: Pace, owner: str) -> list[dict[str, Any]]:
    """For each owner, a key or a team, what it spent since then, and its first call."""
    rows = _all(
        db,
        f"""SELECT {owner}, sum(cost_usd), min(created_s) FROM traces
        WHERE {owner} IS NOT NULL AND {since_sql(question.since_s)} GROUP BY {owner}""",  # noqa: S608
    )
    return [{"name": name, "usd": usd or 0.0, "first_s": first} for name, usd, first in rows]


def record(db: Database, request_id: str) -> msgspec.Raw:
    """The record as it was stored; null where there is none."""
    came_ms = arrived_ms(request_id)
    if came_ms is None:
        return msgspec.Raw(b"null")
    since = since_sql(came_ms / 1000 - 1)
    rows = _all(db, f"SELECT record FROM traces WHERE request_id = {literal(request_id)} AND {since} LIMIT 1")  # noqa: S608
    return msgspec.Raw(rows[0][0].encode() if rows else b"null")


def decoded(text: bytes) -> Question:
    """A question from JSON. Raises msgspec.ValidationError."""
    question: Question = msgspec.json.decode(text, type=Question)
    return question


def _all(db: Database, sql: str) -> list[Row]:
    rows: list[Row] = db.execute(sql).fetchall()
    return rows


def _one(db: Database, sql: str) -> Row:
    return _all(db, sql)[0]
