"""The windows of the clock and the calendar in which limits hold, all in UTC: their names in the ledger, when they
begin and when they refill. Pure.

A moment is ISO text to the minute (`2026-11-30T17:44`), and each window's own name is its beginning: the day
is `2026-11-30`, the hour `2026-11-30T17`.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from typing import Literal

Window = Literal["minute", "hour", "day", "month", "total"]
CHARS: dict[Window, int] = {"minute": 16, "hour": 13, "day": 10, "month": 7}
"""How much of a moment names each window; a total has no name of its own."""
_SCOPE = re.compile(
    r":(?:(minute):\d{4}-\d\d-\d\dT\d\d:\d\d|(hour):\d{4}-\d\d-\d\dT\d\d|(day):\d{4}-\d\d-\d\d|(month):\d{4}-\d\d|(total))$"
)


def moment_of(now: dt.datetime) -> str:
    """The minute that it is; not by `isoformat`, which takes three times as long."""
    return f"{now.year:04}-{now.month:02}-{now.day:02}T{now.hour:02}:{now.minute:02}"


def moment_at(unix_s: float) -> str:
    """The minute at a Unix time."""
    return _moment_in(int(unix_s // 60))


@functools.lru_cache(maxsize=4)
def _moment_in(minute: int) -> str:
    """All calls of a minute share it."""
    return moment_of(dt.datetime.fromtimestamp(60 * minute, dt.UTC))


def scope_in(owner: str, window: Window, moment: str) -> str:
    """The ledger's name of an owner's (`global`, `team:NAME`, `key:NAME`, `user:KEY:HASH`) window at a moment."""
    return f"{owner}:total" if window == "total" else f"{owner}:{window}:{moment[: CHARS[window]]}"


def window_of(scope: str) -> Window | None:
    """Which window a scope of a user, a key, a team or everybody is; None for the rest. A task may have any name."""
    found = None if scope.startswith("task:") else _SCOPE.search(scope)
    return None if found is None else found[found.lastindex or 0]  # type: ignore[return-value]


def ends_at(scope: str) -> dt.datetime | None:
    """When the window that a scope is ends, which may be over; None where it never does."""
    window = window_of(scope)
    if window is None or window == "total":
        return None
    began = scope[-CHARS[window] :] + ("-01" if window == "month" else "")
    return refills_at(window, dt.datetime.fromisoformat(began).replace(tzinfo=dt.UTC))


def began_at(window: Window | None, now: dt.datetime) -> dt.datetime | None:
    """When the present one began; None where it never did."""
    minute = now.replace(second=0, microsecond=0)
    match window:
        case "minute":
            return minute
        case "hour":
            return minute.replace(minute=0)
        case "day":
            return minute.replace(minute=0, hour=0)
        case "month":
            return minute.replace(minute=0, hour=0, day=1)
    return None


def refills_at(window: Window | None, now: dt.datetime) -> dt.datetime | None:
    """When the next one begins; None where it never does."""
    began = began_at(window, now)
    if began is None:
        return None
    if window == "month":
        return (began + dt.timedelta(days=32)).replace(day=1)
    return began + dt.timedelta(**{f"{window}s": 1})
