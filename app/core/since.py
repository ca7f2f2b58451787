"""Since when: a span before now, a date, or a moment, as people write them."""

from __future__ import annotations

import datetime as dt
import re

_SPAN = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)([smhdw])")
_UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_UNIX = re.compile(r"\d{1,12}(?:\.\d{1,9})?")
_YEAR_10000_S = 253_402_300_800.0
"""What lies beyond has no date."""


def since_s(text: str, now_s: float) -> float:
    """`7d`, `24h`, `2026-11-20`, `2026-11-20T12:00Z`, seconds of Unix time, or `all`, as Unix time, 0 at the least. A
    date and a moment without a zone are UTC's. Raises ValueError."""
    text = text.strip()
    if text == "all":
        return 0.0
    if (span := _SPAN.fullmatch(text)) is not None:
        found_s = now_s - float(span[1]) * _UNIT_S[span[2]]
    elif _UNIX.fullmatch(text) is not None:
        found_s = float(text)
    else:
        found_s = _moment_s(text)
    if found_s >= _YEAR_10000_S:
        raise ValueError("must lie before the year 10000")
    return max(found_s, 0.0)


def _moment_s(text: str) -> float:
    try:
        moment = dt.datetime.fromisoformat(text)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValueError("must be a span such as 24h or 7d, a date, a moment as ISO 8601 has it, or all") from None
