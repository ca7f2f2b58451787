"""Thompson sampling: a choice drawn from what is believed, and the exact probability with which it is drawn. Pure.

Each arm's logit on a request is normal (`routers.live.Drawn`); one draw of each is taken for the truth, and the route's
objective chooses (Thompson 1933, https://doi.org/10.2307/2332286; Agrawal and Goyal 2013,
https://proceedings.mlr.press/v28/agrawal13.html). So an arm is tried as often as it may be the best. The draws of
arms are independent, though what is believed of them is not: what is common to them shifts no choice among them by
much.

Every call of a route that explores needs the probability of its choice, so it is worked out in plain floats: for a
handful of arms that costs a fifth of what arrays do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import erfc, exp, inf, log, pi, sqrt
from typing import Final

import numpy as np

from routers.abilities import Vector

WIDTH: Final = 5.0
"""Standard deviations within which a normal variable is: all but 6e-7 of it."""
NEVER: Final = 1e-6
_ROOT: Final = sqrt(0.5)


def _rule(count: int) -> tuple[tuple[float, float], ...]:
    """Gauss-Legendre nodes, and their weights over the normal density's constant."""
    x, w = np.polynomial.legendre.leggauss(count)
    return tuple(zip(x.tolist(), (w / sqrt(2.0 * pi)).tolist(), strict=True))


_RULES: Final = tuple((most, _rule(count)) for most, count in (
    (2.5, 8), (3.3, 10), (4.2, 12), (6.3, 18), (10.0, 24), (20.0, 32), (40.0, 48), (inf, 96)
))  # fmt: skip
"""How many nodes tell an integral to 1e-4, by half its range in standard deviations times how much wider the arm's
spread is than the narrowest of all: a narrow rival's chance is a steep step."""

_Level = Callable[[float, int], float]
"""The logit at which another arm, by its place, is as good as this one at s."""


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
    means, spreads = mean.tolist(), [sqrt(v) for v in variance.tolist()]
    threshold = logit(adequacy)
    before, first = 1.0, 0.0  # `before`: that none so far is adequate
    for place, (mine, spread) in enumerate(zip(means, spreads, strict=True)):
        under = 0.5 * erfc((mine - threshold) / spread * _ROOT)
        if place == at:
            first = (1.0 - under) * before
        before *= under
    if before < NEVER:
        return first
    return first + _beats_all(means, spreads, at, threshold)


def likeliest(mean: Vector, variance: Vector, at: int) -> float:
    """The probability that arm `at` is drawn as the likeliest to succeed."""
    means = mean.tolist()
    if len(means) == 2:
        return 0.5 * erfc((means[1 - at] - means[at]) / sqrt(2.0 * float(variance.sum())))
    return _beats_all(means, [sqrt(v) for v in variance.tolist()], at, inf)


def most_useful(mean: Vector, variance: Vector, at: int, costs: Sequence[float], value: float) -> float:
    """The probability that arm `at` is drawn as the one with the largest P(success) * value - cost."""
    if value <= 0.0:
        return float(min(range(len(costs)), key=lambda place: costs[place]) == at)
    ahead = [(cost - costs[at]) / value for cost in costs]

    def level(s: float, place: int) -> float:
        return logit(1.0 / (1.0 + exp(-s)) + ahead[place] if s > -700.0 else ahead[place])

    return _beats_all(mean.tolist(), [sqrt(v) for v in variance.tolist()], at, inf, level)


def _beats_all(means: list[float], spreads: list[float], at: int, below: float, level: _Level | None = None) -> float:
    """The integral over s < below of the density of arm `at` times the chance that every other is under level(s), which
    is s itself where nothing else is said."""
    mine, width = means[at], spreads[at]
    half = 0.5 * (min((below - mine) / width, WIDTH) + WIDTH)
    if half <= 0.0:
        return 0.0
    scales = [_ROOT / spread for spread in spreads]
    others = [(means[j] * scales[j], scales[j], j) for j in range(len(means)) if j != at]
    middle, steps, found = half - WIDTH, half * width / min(spreads), 0.0
    if level is not None:
        steps *= 1.5  # it is as steep again where it comes near 0 and 1
    for x, weight in next(rule for most, rule in _RULES if steps <= most):
        z = half * x + middle
        s = mine + width * z
        likely = weight * exp(-0.5 * z * z)
        if level is None:
            for from_, scale, _ in others:
                likely *= erfc(from_ - scale * s)
        else:
            for from_, scale, place in others:
                likely *= erfc(from_ - scale * level(s, place))
        found += likely
    return min(half * found * 0.5 ** len(others), 1.0)
