"""`bursar report`: the dashboard's charts of some time, in one file."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from pathlib import Path
from typing import Any

import duckdb

from app.commands.figures import told
from app.commands.policy import read_catalogue, read_policy
from app.commands.spend import open_reading
from app.commands.terminal import complain, say, say_json
from app.commands.traces_open import asking, begin_of, open_traces, settings_for_asking
from app.http.dashboard.ask import Burn, Learning, Overview, Pace, Speed
from app.http.dashboard.budgets import budgets_of, paces_of
from app.http.dashboard.report import report_page
from app.settings import Settings
from app.stores.budgets import LedgerUnavailable

MAX_BURNS = 8
DAY_S = 86_400.0


@asking
def report(*, since: str, out: Path, as_json: bool) -> int:
    """Write the report, or print its figures; the exit code."""
    begin_s = begin_of(since)
    figures = asyncio.run(_figures(settings_for_asking(), begin_s))
    if as_json:
        say_json(figures)
        return 0
    try:
        out.write_text(report_page(figures))
    except OSError as error:
        complain(f"{out} cannot be written: {error.strerror or error}")
        return 1
    say(f"{out}: {figures['overview']['totals']['calls']} calls since {_text(figures['since_s'])}")
    return 0


async def _figures(settings: Settings, begin_s: float) -> dict[str, Any]:
    now_s = time.time()
    async with open_traces(settings) as db:
        overview = await told(settings, db, Overview(begin_s))
        # "All" begins with the first call.
        begin_s = max(begin_s, overview["totals"]["first_s"] or now_s - DAY_S)
        return {
            "made_s": now_s,
            "since_s": begin_s,
            "overview": await told(settings, db, Overview(begin_s)),
            "speed": await told(settings, db, Speed(begin_s)),
            "learning": await told(settings, db, Learning(begin_s)),
            "budgets": await _budgets(settings, db),
        }


async def _budgets(settings: Settings, db: duckdb.DuckDBPyConnection) -> dict[str, Any] | None:
    """As they stand now, with the burn-down of those that have a limit; None where there is no ledger yet."""
    policy = read_policy(settings.policy, read_catalogue())
    now = dt.datetime.now(dt.UTC)
    paces = paces_of(await told(settings, db, Pace(now.timestamp() - DAY_S)), now.timestamp())
    try:
        async with open_reading(settings) as ledger:
            found = await budgets_of(ledger, policy, paces, now)
    except LedgerUnavailable:
        return None
    limited = [row for row in found["windows"] if row["limit_usd"] is not None and row["since_s"] and row["calls"]]
    for row in limited[:MAX_BURNS]:
        row["points"] = (await told(settings, db, Burn(row["since_s"], row["key"], row["team"])))["points"]
    return found


def _text(moment_s: float) -> str:
    return dt.datetime.fromtimestamp(moment_s, dt.UTC).isoformat(timespec="minutes")
