"""What the embedded ledger forgets, and when: beside the verbs, on a connection of its own."""

# ruff: noqa: S608 (what is formatted into statements are placeholders)

from __future__ import annotations

import sqlite3
import time

from app.stores import sqlite_tables as tables
from app.stores.budgets import TASK_RETENTION_S

WINDOW_RETENTION_S = 400 * 86_400
"""Days and months stay for a year and a month of reports; totals stay for good. Of users, who are without number, days
and months stay until they are over, and totals this long after the last call."""
USER_RETENTION_S = 40 * 86_400
SHORT_RETENTION_S = 2 * 3600
"""Of minutes and hours, once they are over."""
ENDED_RETENTION_S = 86_400
"""Of calls that are remembered after their end: no call, and no outage that leaves debts, is as long."""
PRUNE_ROWS = 500
"""Rows deleted in one transaction: verbs wait for it, so it has to be short."""
LISTS_S = 2.0
"""Well under a lease, which is not renewed meanwhile. Enough for some 200,000 lists."""
MIN_PAUSE_S = 0.002
PRUNABLE = (
    ("user:*:day:[0-9]*", USER_RETENTION_S),
    ("user:*:month:[0-9]*", USER_RETENTION_S),
    ("user:*:total", WINDOW_RETENTION_S),
    ("*:day:[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]", WINDOW_RETENTION_S),
    ("*:month:[0-9][0-9][0-9][0-9]-[0-9][0-9]", WINDOW_RETENTION_S),
    ("[^t]*:minute:[0-9]*", SHORT_RETENTION_S),
    ("team:*:minute:[0-9]*", SHORT_RETENTION_S),
    ("[^t]*:hour:[0-9]*", SHORT_RETENTION_S),
    ("team:*:hour:[0-9]*", SHORT_RETENTION_S),
)


def prune(db: sqlite3.Connection, at_ms: int, tasks_s: float = TASK_RETENTION_S) -> int:
    """Delete tasks that nobody has touched for `tasks_s`, and windows for their retention; how many."""
    deleted = 0
    if tables.has_cuts(db):
        db.execute("DELETE FROM cuts WHERE at_ns < ?", ((at_ms - int(tasks_s * 1000)) * 1_000_000,))
    db.execute(
        "DELETE FROM holds WHERE owner IN (?, ?) AND risk_nano < ?",
        (tables.SETTLED, tables.EXPIRED, at_ms - ENDED_RETENTION_S * 1000),
    )
    for pattern, retention_s in (("task:*", tasks_s), *PRUNABLE):
        idle = (pattern, at_ms - int(retention_s * 1000))
        names = [row[0] for row in db.execute("SELECT name FROM scopes WHERE name GLOB ? AND updated_ms < ?", idle)]
        for start in range(0, len(names), PRUNE_ROWS):
            piece, began_s = names[start : start + PRUNE_ROWS], time.monotonic()
            deleted += db.execute(
                f"DELETE FROM scopes WHERE name IN ({tables.times(len(piece), tables.NAME_ROW)})"
                " AND updated_ms < ? AND held_nano = 0",
                (*piece, idle[1]),
            ).rowcount
            _let_others_in(began_s)
    return deleted


def prune_lists(db: sqlite3.Connection) -> bool:
    """Delete lists of scopes that no hold has, for at most `LISTS_S`; whether there are no more of them."""
    used, last = {name for (name,) in db.execute("SELECT DISTINCT scopes FROM holds")}, ""
    until_s = time.monotonic() + LISTS_S
    while (began_s := time.monotonic()) < until_s:
        page = "SELECT id FROM scope_lists WHERE id > ? ORDER BY id LIMIT ?"
        found = [name for (name,) in db.execute(page, (last, PRUNE_ROWS))]
        if not found:
            return True
        last = found[-1]
        if piece := [name for name in found if name not in used]:
            these = f"({tables.times(len(piece), tables.NAME_ROW)})"
            since = f"SELECT scopes FROM holds WHERE scopes IN {these}"
            db.execute(f"DELETE FROM scope_lists WHERE id IN {these} AND id NOT IN ({since})", piece * 2)
            _let_others_in(began_s)
    return False


def _let_others_in(began_s: float) -> None:
    """After a transaction that began then: those who wait for the lock look for it every half millisecond or so,
    and would not get it for as long as one transaction follows another."""
    time.sleep(max(time.monotonic() - began_s, MIN_PAUSE_S))
