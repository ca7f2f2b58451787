"""When a budget runs out at its pace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.forecast import forecast

USD, DAY_S, NOW = 10**9, 86_400.0, 1_000_000.0


@pytest.mark.parametrize(
    ("spent", "limit", "pace", "refills_s", "verdict", "at_s"),
    [
        (4 * USD, 10 * USD, 6 * USD, None, "runs_out", NOW + DAY_S),
        (4 * USD, 10 * USD, 6 * USD, NOW + 2 * DAY_S, "runs_out", NOW + DAY_S),
        (4 * USD, 10 * USD, 6 * USD, NOW + DAY_S / 2, "lasts", NOW + DAY_S),
        (10 * USD, 10 * USD, 6 * USD, NOW + DAY_S, "spent", NOW),
        (12 * USD, 10 * USD, 0, None, "spent", NOW),
        (4 * USD, 10 * USD, 0, None, "idle", None),
        (4 * USD, None, 6 * USD, None, "unlimited", None),
    ],
)
def test_the_verdicts(
    spent: int, limit: int | None, pace: int, refills_s: float | None, verdict: str, at_s: float | None
) -> None:
    told = forecast(spent, limit, pace, DAY_S, NOW, refills_s)
    assert (told.verdict, told.at_s) == (verdict, at_s)


@given(st.integers(0, 10**15), st.integers(1, 10**15), st.integers(0, 10**15), st.floats(60, 1e7))
def test_it_never_runs_out_in_the_past(spent: int, limit: int, pace: int, pace_s: float) -> None:
    told = forecast(spent, limit, pace, pace_s, NOW, None)
    assert told.at_s is None or told.at_s >= NOW
    assert (told.verdict == "spent") == (spent >= limit)
