"""Thompson sampling: a choice drawn from what is believed, and the exact probability with which it is drawn. Pure.

Each arm's logit on a request is normal (`routers.live.Drawn`); one draw of each is taken for the truth, and the route's
objective chooses (Thompson 1933, https://doi.org/10.2307/2332286; Agrawal and Goyal 2013,
https://proceedings.mlr.press/v28/agrawal13.html). So an arm is tried as often as it may be the best. The draws of
arms are independent, though what is believed of them is not: what is common to them shifts no choice among them by
much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import erf, exp, inf, log, pi, sqrt
from typing import Final

import numpy as np

from routers.abilities import Vector

WIDTH: Final = 6.0
"""Standard deviations within which a normal variable is."""
_X, _W = np.polynomial.legendre.leggauss(128)
_AT: Final = np.linspace(-WIDTH, WIDTH, 2401)
_PHI: Final = np.array([0.5 * (1.0 + erf(x / sqrt(2.0))) for x in _AT])


def logit(p: float) -> float:
    """The log odds; infinite at 0 and 1."""
    if p <= 0.0:
        return -inf
    return inf if p >= 1.0 else log(p / (1.0 - p))


def drawn(mean: Vector, variance: Vector, normals: Sequence[float]) -> list[float]:
    """P(success) of each arm as drawn: its logit so many standard deviations from its mean."""
    logits = mean + np.sqrt(variance) * np.asarray(normals)
    return [1.0 / (1.0 + exp(-min(max(x, -700.0), 700.0))) for x in logits.tolist()]


def first_adequate(mean: Vector, variance: Vector, at: int, adequacy: float) -> float:
    """The probability that arm `at` is drawn as the first whose P(success) is at least `adequacy`, or, where none is,
    as the likeliest to succeed. The arms stand in the order of preference: by cost."""
    spread = np.sqrt(variance)
    threshold = logit(adequacy)
    adequate = 1.0 - _phi((threshold - mean) / spread)
    first = float(adequate[at] * np.prod(1.0 - adequate[:at]))
    return first + _beats_all(mean, spread, at, threshold, lambda s, _: s)


def likeliest(mean: Vector, variance: Vector, at: int) -> float:
    """The probability that arm `at` is drawn as the likeliest to succeed."""
    return _beats_all(mean, np.sqrt(variance), at, inf, lambda s, _: s)


def most_useful(mean: Vector, variance: Vector, at: int, costs: Sequence[float], value: float) -> float:
    """The probability that arm `at` is drawn as the one with the largest P(success) * value - cost."""
    if value <= 0.0:
        return float(min(range(len(costs)), key=lambda place: costs[place]) == at)

    def level(s: Vector, other: int) -> Vector:
        """The logit at which the other arm is as useful as this one at s."""
        p = 1.0 / (1.0 + np.exp(-s)) + (costs[other] - costs[at]) / value
        inside = np.clip(p, 1e-12, 1.0 - 1e-12)
        return np.where(p <= 0.0, -1e6, np.where(p >= 1.0, 1e6, np.log(inside / (1.0 - inside))))

    return _beats_all(mean, np.sqrt(variance), at, inf, level)


def _beats_all(mean: Vector, spread: Vector, at: int, below: float, level: Callable[[Vector, int], Vector]) -> float:
    """The integral over s < below of the density of arm `at` times the chance that every other is under level(s)."""
    top = min((below - float(mean[at])) / float(spread[at]), WIDTH)
    if top <= -WIDTH:
        return 0.0
    half = 0.5 * (top + WIDTH)
    z = half * _X + (half - WIDTH)
    s = mean[at] + spread[at] * z
    density = half * _W * np.exp(-0.5 * z * z) / sqrt(2.0 * pi)
    for other in range(len(mean)):
        if other != at:
            density = density * _phi((level(s, other) - mean[other]) / spread[other])
    return min(float(density.sum()), 1.0)


def _phi(x: Vector) -> Vector:
    """The standard normal distribution function."""
    found: Vector = np.interp(x, _AT, _PHI)
    return found
