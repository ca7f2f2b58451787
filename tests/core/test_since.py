"""Since when, as people write it."""

from __future__ import annotations

import pytest

from app.core.since import since_s

NOW_S = 1_795_176_000.0  # 2026-11-20 12:00 UTC


@pytest.mark.parametrize(
    ("text", "moment_s"),
    [
        ("7d", NOW_S - 7 * 86_400),
        ("1.5h", NOW_S - 5400),
        ("90s", NOW_S - 90),
        ("2w", NOW_S - 14 * 86_400),
        ("999999w", 0.0),
        ("1969-12-31", 0.0),
        ("9999-12-31T23:59:59Z", 253_402_300_799.0),
        ("2026-11-20", NOW_S - 43_200),
        ("2026-11-20T12:00", NOW_S),
        ("2026-11-20T12:00:00Z", NOW_S),
        ("2026-11-20T13:00+01:00", NOW_S),
        (" 1795176000 ", NOW_S),
        ("all", 0.0),
    ],
)
def test_a_span_a_date_or_a_moment(text: str, moment_s: float) -> None:
    assert since_s(text, NOW_S) == moment_s


@pytest.mark.parametrize("text", ["", "yesterday", "7 days", "-1d", "7d; DROP", "2026-13-01", "1e9", "nan"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="24h"):
        since_s(text, NOW_S)


@pytest.mark.parametrize("text", ["253402300800", "999999999999"])
def test_what_has_no_date_is_refused(text: str) -> None:
    """It was a stack trace, or an error 503 of the gateway."""
    with pytest.raises(ValueError, match="year 10000"):
        since_s(text, NOW_S)
