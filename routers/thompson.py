"""Thompson sampling: a choice drawn from what is believed, and the exact probability with which it is drawn. Pure.

Each arm's logit on a request is normal (`routers.live.Drawn`); one draw of each is taken for the truth, and the route's
objective chooses (Thompson 1933, https://doi.org/10.2307/2332286; Agrawal and Goyal 2013,
https://proceedings.mlr.press/v28/agrawal13.html). So an arm is tried as often as it may be the best. The draws of
arms are independent, though what is believed of them is not: what is common to them shifts no choice among them by
much.

Every call of a route that explores needs the probability of its choice, so it is worked out in plain floats, with as
few nodes as tell it to 1e-5: for a handful of arms that costs a tenth of what arrays do. `means` and `spreads` are
those of the arms' logits, spreads being standard deviations.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Sequence
from math import cos, erfc, exp, inf, log, pi, prod, sqrt
from typing import Final

WIDTH: Final = 5.0
"""Standard deviations within which a normal variable is: all but 6e-7 of it."""
NEVER: Final = 1e-6
FLOORS: Final = (-1.0, -1.75, -2.5, -3.5)
"""Where an integral may begin, in an arm's standard deviations, if its choice with less is as good as NEVER."""
_ROOT: Final = sqrt(0.5)
_STEPS: Final = (0.5, 1.0, 1.5, 2.0, 2.5, 3.3, 4.2, 6.3, 10.0, 20.0, 40.0)
_NODES: Final = (4, 5, 7, 9, 10, 13, 16, 18, 24, 48, 64, 96)
"""How many nodes tell an integral to 1e-5, by half its range in standard deviations times how much wider the arm's
spread is than the narrowest of all, up to each of `_STEPS` and beyond: a narrow rival's chance is a steep step."""


@functools.cache
def _rule(count: int) -> tuple[tuple[float, float], ...]:
    """Gauss-Legendre nodes, and their weights over the normal density's constant: the roots of the polynomial by
    Newton's method."""
    found = []
    for place in range(count):
        x, slope = cos(pi * (place + 0.75) / (count + 0.5)), 1.0
        for _ in range(8):
            before, value = 1.0, x
            for n in range(2, count + 1):
                before, value = value, ((2 * n - 1) * x * value - (n - 1) * before) / n
            slope = count * (x * value - before) / (x * x - 1.0)
            x -= value / slope
        found.append((x, 2.0 / ((1.0 - x * x) * slope * slope) / sqrt(2.0 * pi)))
    return tuple(found)


def logit(p: float) -> float:
    """The log odds; infinite at 0 and 1."""
    if p <= 0.0:
        return -inf
    return inf if p >= 1.0 else log(p / (1.0 - p))


def drawn(means: Sequence[float], spreads: Sequence[float], normals: Sequence[float]) -> list[float]:
    """P(success) of each arm as drawn: its logit so many standard deviations from its mean."""
    logits = [mean + spread * x for mean, spread, x in zip(means, spreads, normals, strict=True)]
    return [1.0 / (1.0 + exp(-min(max(x, -700.0), 700.0))) for x in logits]


def first_adequate(means: Sequence[float], spreads: Sequence[float], at: int, adequacy: float) -> float:
    """The probability that arm `at` is drawn as the first whose P(success) is at least `adequacy`, or, where none is,
    as the likeliest to succeed. The arms stand in the order of preference: by cost."""
    threshold = logit(adequacy)
    under = [0.5 * erfc((mine - threshold) / spread * _ROOT) for mine, spread in zip(means, spreads, strict=True)]
    none = prod(under)
    first = (1.0 - under[at]) * prod(under[:at])
    return first if none < NEVER else first + _beats_all(means, spreads, at, threshold)


def likeliest(means: Sequence[float], spreads: Sequence[float], at: int) -> float:
    """The probability that arm `at` is drawn as the likeliest to succeed."""
    if len(means) == 2:
        one, other = spreads
        return 0.5 * erfc((means[1 - at] - means[at]) / sqrt(2.0 * (one * one + other * other)))
    return _beats_all(means, spreads, at, inf)


def most_useful(
    means: Sequence[float], spreads: Sequence[float], at: int, costs: Sequence[float], value: float
) -> float:
    """The probability that arm `at` is drawn as the one with the largest P(success) * value - cost."""
    if value <= 0.0:
        return float(min(range(len(costs)), key=lambda place: costs[place]) == at)
    return _beats_levels(means, spreads, at, [(cost - costs[at]) / value for cost in costs])


def _beats_all(means: Sequence[float], spreads: Sequence[float], at: int, below: float) -> float:
    """The integral over s < below of the density of arm `at` times the chance that every other is under s."""
    mine, width = means[at], spreads[at]
    top = min((below - mine) / width, WIDTH)
    if top <= -WIDTH:
        return 0.0
    others = [
        ((mean - mine) / spread * _ROOT, width / spread * _ROOT)
        for place, (mean, spread) in enumerate(zip(means, spreads, strict=True))
        if place != at
    ]
    low = _floor(others, top)
    half, middle = 0.5 * (top - low), 0.5 * (top + low)
    rule = _rule(_NODES[bisect_left(_STEPS, half * width / min(spreads))])
    found = 0.0
    if len(others) == 2:  # three candidates are the most common
        (a, b), (c, d) = others
        for x, weight in rule:
            z = half * x + middle
            found += weight * exp(-0.5 * z * z) * erfc(a - b * z) * erfc(c - d * z)
    else:
        for x, weight in rule:
            z = half * x + middle
            likely = weight * exp(-0.5 * z * z)
            for a, b in others:
                likely *= erfc(a - b * z)
            found += likely
    return min(half * found * 0.5 ** len(others), 1.0)


def _floor(others: Sequence[tuple[float, float]], top: float) -> float:
    """Where the integral may begin: below, that the arm is there and all rivals under it is as good as NEVER. The fewer
    they are, the lower that is."""
    for low in FLOORS[max(4 - len(others), 0) :]:
        if low < top:
            chance = 0.5 * erfc(-low * _ROOT)
            for a, b in others:
                chance *= 0.5 * erfc(a - b * low)
            if chance < NEVER:
                return low
    return -WIDTH


def _beats_levels(means: Sequence[float], spreads: Sequence[float], at: int, ahead: Sequence[float]) -> float:
    """The integral of the density of arm `at` times the chance that no other's P(success) is more than `ahead` above
    its own. It is taken piece by piece, for it has a corner where a rival can win or lose no more."""
    mine, width = means[at], spreads[at]
    low, top, corners = -WIDTH, WIDTH, []
    for place, by in enumerate(ahead):
        if by < 0.0:  # below this a cheaper one is worth more whatever it does
            low = max(low, (logit(-by) - mine) / width)
        elif 0.0 < by < 1.0 and place != at:
            corners.append((logit(1.0 - by) - mine) / width)
    others = [(means[j] * _ROOT / spreads[j], _ROOT / spreads[j], ahead[j]) for j in range(len(means)) if j != at]
    found, narrowest = 0.0, min(spreads)
    if low >= top:
        return 0.0
    for end in (*sorted({corner for corner in corners if low < corner < top}), top):
        half, middle = 0.5 * (end - low), 0.5 * (end + low)
        for x, weight in _rule(_NODES[bisect_left(_STEPS, 2.0 * half * width / narrowest)]):
            z = half * x + middle
            likely, p = half * weight * exp(-0.5 * z * z), 1.0 / (1.0 + exp(-max(mine + width * z, -700.0)))
            for from_, scale, by in others:
                likely *= erfc(from_ - scale * logit(p + by))
            found += likely
        low = end
    return min(found * 0.5 ** len(others), 1.0)
