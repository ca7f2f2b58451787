"""Thompson sampling: a choice drawn from what is believed, and the exact probability with which it is drawn. Pure.

Each arm's logit on a request is normal (`routers.live.Drawn`); one draw of each is taken for the truth, and the route's
objective chooses (Thompson 1933, https://doi.org/10.2307/2332286; Agrawal and Goyal 2013,
https://proceedings.mlr.press/v28/agrawal13.html). So an arm is tried as often as it may be the best. The draws of
arms are independent, though what is believed of them is not: what is common to them shifts no choice among them by
much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import erf, exp, inf, log, pi, prod, sqrt
from typing import Final

import numpy as np

from routers.abilities import Vector

WIDTH: Final = 6.0
"""Standard deviations within which a normal variable is."""
_X, _W = np.polynomial.legendre.leggauss(64)
_DENSITY_W: Final = _W / sqrt(2.0 * pi)
NEVER: Final = 1e-6
_AT: Final = np.linspace(-WIDTH, WIDTH, 601)
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
    inadequate = _phi((threshold - mean) / spread)
    chances: list[float] = inadequate.tolist()
    first = (1.0 - chances[at]) * prod(chances[:at])
    if prod(chances) < NEVER:
        return float(first)
    return first + _beats_all(mean, spread, at, threshold)


def likeliest(mean: Vector, variance: Vector, at: int) -> float:
    """The probability that arm `at` is drawn as the likeliest to succeed."""
    return _beats_all(mean, np.sqrt(variance), at, inf)


def most_useful(mean: Vector, variance: Vector, at: int, costs: Sequence[float], value: float) -> float:
    """The probability that arm `at` is drawn as the one with the largest P(success) * value - cost."""
    if value <= 0.0:
        return float(min(range(len(costs)), key=lambda place: costs[place]) == at)
    ahead = (np.array(costs, dtype=np.float64)[:, None] - costs[at]) / value

    def level(s: Vector) -> Vector:
        """The logit at which each other arm is as useful as this one at s: (arms, nodes)."""
        p = 1.0 / (1.0 + np.exp(-s)) + ahead
        inside = np.clip(p, 1e-12, 1.0 - 1e-12)
        return np.where(p <= 0.0, -1e6, np.where(p >= 1.0, 1e6, np.log(inside / (1.0 - inside))))

    return _beats_all(mean, np.sqrt(variance), at, inf, level)


def _beats_all(
    mean: Vector, spread: Vector, at: int, below: float, level: Callable[[Vector], Vector] | None = None
) -> float:
    """The integral over s < below of the density of arm `at` times the chance that every other is under level(s), which
    is s itself where nothing else is said."""
    top = min((below - float(mean[at])) / float(spread[at]), WIDTH)
    if top <= -WIDTH:
        return 0.0
    half = 0.5 * (top + WIDTH)
    z = half * _X + (half - WIDTH)
    s = mean[at] + spread[at] * z
    under = _phi(((s if level is None else level(s)) - mean[:, None]) / spread[:, None])
    under[at] = 1.0
    chance = np.multiply.reduce(under, axis=0)
    return min(half * float((_DENSITY_W * np.exp(-0.5 * z * z)) @ chance), 1.0)


def _phi(x: Vector) -> Vector:
    """The standard normal distribution function."""
    found: Vector = np.interp(x, _AT, _PHI)
    return found
