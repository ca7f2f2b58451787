"""What a router's confidence says of P(success)."""

from __future__ import annotations

from math import log
from statistics import NormalDist

import pytest

from app.http.dashboard.explained import interval
from routers.learned import CONFIDENT_LOGITS


def test_the_interval_is_the_one_that_the_confidence_stands_for() -> None:
    """A logit that is with 95 % no farther than 1.5 away: at 0.8, between 0.47 and 0.95, as routers/learned.py says."""
    found = interval(0.8, 0.95, CONFIDENT_LOGITS)
    assert found == pytest.approx((0.4716, 0.9472), abs=1e-3)


def test_less_confidence_is_a_wider_interval() -> None:
    wide, narrow = interval(0.6, 0.5, 1.5), interval(0.6, 0.99, 1.5)
    assert wide is not None
    assert narrow is not None
    assert wide[0] < narrow[0] < 0.6 < narrow[1] < wide[1]
    spread = 1.5 / NormalDist().inv_cdf(0.75)
    assert log(wide[1] / (1 - wide[1])) - log(0.6 / 0.4) == pytest.approx(1.959964 * spread, rel=1e-4)


@pytest.mark.parametrize(("p", "confidence"), [(0.0, 0.5), (1.0, 0.5), (0.5, 0.0), (0.5, 1.0)])
def test_what_says_nothing(p: float, confidence: float) -> None:
    assert interval(p, confidence, 1.5) is None
