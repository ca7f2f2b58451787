"""What another policy would have cost and scored, from decisions that were drawn with known probabilities. Pure.

A row is one recorded decision: its propensity p, the probability t with which the other policy takes the same
candidate, and what came of it. With w = t / p, all three estimate the other policy's mean per decision:

    ips    mean of w * outcome (Horvitz and Thompson 1952, https://doi.org/10.1080/01621459.1952.10483446)
    snips  sum of w * outcome / sum of w (Swaminathan and Joachims 2015,
           https://papers.nips.cc/paper/2015/hash/39027dfad5138c9ca0c474d71db915c3-Abstract.html)
    dr     mean of expected + w * (outcome - what was expected of the taken one), "doubly robust" (Dudik et al. 2011,
           https://arxiv.org/abs/1103.4601): unbiased whatever the router expects, and the closer the better it knows

The intervals are for traffic of which the recorded units (tasks, or calls without one) are a sample: a unit's rows vary
together, and the truth that they cover is the mean over such traffic, not the one over just these requests. They are
studentised with Hall's correction for skewness (1992, https://doi.org/10.1111/j.2517-6161.1992.tb01876.x): dollars are
skewed, and so are weights.

Where a row's other choice could never have been drawn, no weight can tell what would have come of it. Such rows are
left out of everything, the recorded mean beside it included, and where they are many nothing is estimated. Weights
have a mean of 1; where it is surely less, much could be drawn and hardly ever was, which is no support either.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite, sqrt
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Indices = NDArray[np.intp]

LEVEL: Final = 0.95
MOST_UNSUPPORTED: Final = 0.05
"""Beyond this share of decisions whose other choice was never possible nothing is estimated."""
LEAST_WEIGHT: Final = 0.9
"""Where the mean weight is surely below this, decisions whose other choice was too unlikely to be seen are missing."""
LEAST_EFFECTIVE: Final = 75.0
"""Below this effective sample size the intervals cover less than they say."""
LEAST_FREEDOM: Final = 3.0
NONE_SEEN: Final = 3.0
"""Where n of n went one way, the other way is no likelier than this / n, with 95 % (Hanley and Lippman-Hand 1983,
https://doi.org/10.1001/jama.1983.03330370053031)."""
SKEW: Final = 1.0 / 3.0, 1.0 / 6.0
"""Hall's a and b for a studentised mean."""


@dataclass(frozen=True, slots=True)
class Logged:
    """Recorded decisions, a row each; every array is (n,).

    `unit`: whose draw it shared (a number for each task). `propensity` in (0, 1]; `target` in [0, 1]: the probability
    that the other policy takes the candidate that was taken; `unsupported` in [0, 1]: that it takes one that could not
    be drawn. `outcome`: what came of it, NaN where that is not known. `expected`: the outcome expected of the one that
    was taken; `expected_target`: of what the other policy takes. Both may be all 0, which makes `dr` the same as `ips`.
    """

    unit: Indices
    propensity: Vector
    target: Vector
    unsupported: Vector
    outcome: Vector
    expected: Vector
    expected_target: Vector

    def where(self, keep: NDArray[np.bool_]) -> Logged:
        """The rows that are kept."""
        return Logged(**{name: getattr(self, name)[keep] for name in self.__slots__})


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean per decision with its interval; NaN where it cannot be told."""

    value: float
    low: float
    high: float

    def within(self, low: float, high: float, effective: float) -> Estimate:
        """The same, for a quantity that lies between these. Outcomes that were all the same leave some doubt too."""
        if isfinite(low) and isfinite(high) and self.low == self.high:
            room = NONE_SEEN / effective * (high - low)
            return Estimate(self.value, max(self.low - room, low), min(self.high + room, high))
        return Estimate(*(min(max(x, low), high) if isfinite(x) else x for x in (self.value, self.low, self.high)))

    def as_json(self) -> dict[str, float | None]:
        """JSON-ready: null where it cannot be told."""
        told = {name: getattr(self, name) for name in self.__slots__}
        return {name: x if isfinite(x) else None for name, x in told.items()}


NOTHING: Final = Estimate(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True, slots=True)
class Replayed:
    """What another policy is estimated to have come to, in the unit of `outcome`, per decision.

    `rows`: decisions; `known`: those that are supported and whose outcome is known, `units` of them apart. `ess`: how
    many units drawn by the other policy itself would tell as much (Kish 1965). `unsupported`: the mean of that.
    `recorded`: what the recorded policy came to on the same rows; `change`: `dr` less that, narrower than the two
    apart, for they share their traffic. `refusal`: why nothing is estimated, or None.
    """

    rows: int
    known: int
    units: int
    ess: float
    unsupported: float
    largest_weight: float
    recorded: Estimate = NOTHING
    ips: Estimate = NOTHING
    snips: Estimate = NOTHING
    dr: Estimate = NOTHING
    change: Estimate = NOTHING
    refusal: str | None = None

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        told = {name: getattr(self, name) for name in self.__slots__}
        return {name: value.as_json() if isinstance(value, Estimate) else value for name, value in told.items()}


def estimate(
    logged: Logged,
    *,
    least: float | None = None,
    most: float | None = None,
    level: float = LEVEL,
    most_unsupported: float = MOST_UNSUPPORTED,
    least_effective: float = LEAST_EFFECTIVE,
) -> Replayed:
    """All estimates, or why there are none. `least`, `most`: what a mean cannot pass (0 and 1 for success).

    Raises ValueError for a propensity outside (0, 1].
    """
    if len(logged.propensity) and not (logged.propensity.min() > 0.0 and logged.propensity.max() <= 1.0):
        raise ValueError("a propensity lies above 0 and is at most 1")
    unsupported = float(np.mean(logged.unsupported > 0.0)) if len(logged.unit) else 0.0
    rows = logged.where((logged.unsupported <= 0.0) & np.isfinite(logged.outcome))
    _, unit = np.unique(rows.unit, return_inverse=True)
    units = int(unit.max()) + 1 if len(unit) else 0
    weight = rows.target / rows.propensity
    found = Replayed(
        rows=len(logged.unit),
        known=len(unit),
        units=units,
        ess=_effective(np.bincount(unit, weight, units).astype(np.float64)),
        unsupported=unsupported,
        largest_weight=float(weight.max()) if len(weight) else 0.0,
    )
    refusal = _refusal(found, most_unsupported, least_effective) or _never_seen(weight, unit, level)
    if refusal is not None:
        return replace(found, refusal=refusal)
    known, recorded, ips = len(unit), rows.outcome, weight * rows.outcome
    dr = rows.expected_target + weight * (rows.outcome - rows.expected)
    low, high = -np.inf if least is None else least, np.inf if most is None else most

    def mean(values: Vector, per: Vector | None = None) -> Estimate:
        return ratio(values, np.ones(known) if per is None else per, unit, level=level)

    return replace(
        found,
        recorded=mean(recorded).within(low, high, float(found.units)),
        ips=mean(ips).within(low, high, found.ess),
        snips=mean(ips, weight).within(low, high, found.ess),
        dr=mean(dr).within(low, high, found.ess),
        change=mean(dr - recorded),
    )


def _refusal(found: Replayed, most_unsupported: float, least_effective: float) -> str | None:
    if found.unsupported > most_unsupported:
        return (
            f"{found.unsupported:.1%} of the decisions would go where the recorded policy never could have sent them: "
            "what would have come of those is not known"
        )
    if found.ess < least_effective:
        return f"too little data: it tells as much as {found.ess:.0f} tasks, and {least_effective:.0f} are needed"
    return None


def _never_seen(weight: Vector, unit: Indices, level: float) -> str | None:
    mean = ratio(weight, np.ones(len(weight)), unit, level=level)
    if not mean.high < LEAST_WEIGHT:
        return None
    return (
        f"weights average {mean.value:.2f} where they should average 1: too much of what it would do otherwise was so "
        "unlikely that it never happened"
    )


def _effective(weights: Vector) -> float:
    """(sum w)^2 / sum w^2: Kish's effective sample size."""
    squares = float(weights @ weights)
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def ratio(values: Vector, per: Vector, unit: Indices, *, level: float = LEVEL) -> Estimate:
    """sum(values) / sum(per) with its interval, the rows of a unit (numbered from 0) taken together; NaN for fewer
    than two units.

    A unit's influence is what the ratio loses without it (the jackknife: Efron and Stein 1981,
    https://doi.org/10.1214/aos/1176345462). Few units with large influence tell their own spread badly: the degrees
    of freedom are those that the variance of a variance with this kurtosis has.
    """
    units = int(unit.max()) + 1 if len(unit) else 0
    above, below = np.bincount(unit, values, units), np.bincount(unit, per, units)
    total = float(below.sum())
    rest = total - below
    if units < 2 or total <= 0.0 or rest.min() <= 0.0:
        return NOTHING
    value = float(above.sum()) / total
    influence = (units - 1) * (value - (above.sum() - above) / rest)
    influence -= influence.mean()
    spread = sqrt(float(influence @ influence) / (units - 1))
    if spread <= 1e-12 * max(abs(value), 1.0):
        return Estimate(value, value, value)
    skewness = float(np.mean(influence**3)) / spread**3
    kurtosis = float(np.mean(influence**4)) / spread**4
    freedom = max(min(units - 1.0, 2.0 * units / max(kurtosis - 1.0, 1e-9)), LEAST_FREEDOM)
    quantile = student((1.0 + level) / 2.0, freedom)
    error = spread / sqrt(units)
    low, high = (value - error * _skewed(side * quantile, skewness, units) for side in (1.0, -1.0))
    return Estimate(value, low, high)


def _skewed(quantile: float, skewness: float, n: int) -> float:
    """The quantile of a studentised mean of n values with this skewness, where without it is this one (the inverse of
    Hall's cubic)."""
    a, b = SKEW
    slant = a * skewness / sqrt(n)
    if abs(slant) < 1e-9:
        return quantile
    return (float(np.cbrt(1.0 + 3.0 * slant * (quantile - b * skewness / sqrt(n)))) - 1.0) / slant


def student(p: float, freedom: float) -> float:
    """The quantile of Student's t (Abramowitz and Stegun, 26.7.5); at 0.975 within 0.02 from 3 degrees of freedom."""
    z, v = NormalDist().inv_cdf(p), freedom
    first = (z**3 + z) / 4.0
    second = (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0
    third = (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0
    return z + first / v + second / v**2 + third / v**3
