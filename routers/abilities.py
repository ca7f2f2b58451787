"""How able a model is: a normal distribution over its abilities, and a prior from what is known of it.

A request i has coordinates u_i, a model m abilities theta_m ~ N(mean, cov), and

    logit P(m succeeds on i) = u_i . theta_m + offset_i

(multidimensional item response theory: Reckase 2009, https://doi.org/10.1007/978-0-387-89976-3). The prior is a
regression of abilities on facts with an effect per model line, all learned by `routers.train_abilities`. What an
outcome changes is in `routers.belief`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, log2, pi, sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from routers.base import Arm, tier_of_rates
from routers.facts import NANO, facts_of, line_of
from routers.identity import canonical

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

FACTS: Final = ("tier", "price", "size", "released", "reasoning", "base", "code", "tools", "rating")
"""The regressors, in order: tier; log2 of dollars per million tokens (three of input to one of output); log2 of
billions of parameters as if dense; years since EPOCH; four that are 0 or 1; and
hundreds of points of `facts_ratings` from RATED."""
EPOCH: Final = 2024.5
RATED: Final = 1200.0
MIN_PRICE, MIN_SIZE_B = 0.005, 0.1

MAX_STEPS: Final = 50
TOLERANCE: Final = 1e-10

NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(11)
NODE_LOGS: Final = np.log(_NODE_WEIGHTS) + NODES**2 / 2.0
"""Nodes in standard deviations from the mode, and the logarithms of their weights for a density that is not normal."""


@dataclass(frozen=True, slots=True)
class Ability:
    """What is believed of one model: `mean` (K,), `cov` (K, K), symmetric and positive definite."""

    mean: Vector
    cov: Matrix


@dataclass(frozen=True)
class AbilityWeights:
    """What was learned about models. F = len(FACTS), K coordinates, L lines, M known models.

    `fact_mean`, `fact_scale` (F,) and `fact_cov` (F, F): facts over models, the covariance of standardised ones.
    `coef` (1 + F + L, K): abilities from a constant, standardised facts and the model's line; `spread` (K, 1 + F + L,
    1 + F + L): what is uncertain about them; `new_line` (K,): variance of the effect of a line never seen.
    `residual` (K, K): covariance of what facts leave open.
    `known`, `known_mean` (M, K), `known_cov` (M, K, K): models of the training data by `canonical` name; `drift`:
    what is added to their covariance, in units of `residual`, because tomorrow's requests are not those they were
    measured on.
    """

    fact_mean: Vector
    fact_scale: Vector
    fact_cov: Matrix
    lines: tuple[str, ...]
    coef: Matrix
    spread: NDArray[np.float64]
    new_line: Vector
    residual: Matrix
    known: tuple[str, ...]
    known_mean: Matrix
    known_cov: NDArray[np.float64]
    drift: float
    _line_at: Mapping[str, int] = field(init=False, repr=False)
    _known_at: Mapping[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_line_at", {line: at for at, line in enumerate(self.lines)})
        object.__setattr__(self, "_known_at", {name: at for at, name in enumerate(self.known)})

    @classmethod
    def of(cls, arrays: Mapping[str, Any]) -> AbilityWeights:
        """The weights of arrays as `fit_abilities` returns and an .npz file holds them."""
        given: dict[str, Any] = {name: tuple(str(text) for text in arrays[name]) for name in ("lines", "known")}
        for name in ("fact_mean", "fact_scale", "fact_cov", "coef", "spread", "new_line", "residual"):
            given[name] = np.asarray(arrays[name], np.float64)
        for name in ("known_mean", "known_cov"):
            given[name] = np.asarray(arrays[name], np.float64)
        return cls(**given, drift=float(arrays["drift"]))

    def known_at(self, model: str) -> int | None:
        """The place of a model of the training data, None for a new one."""
        return self._known_at.get(canonical(model))

    def line_at(self, line: str) -> int | None:
        """The place of a line of the training data, None for a new one."""
        return self._line_at.get(line)


def regressors(arm: Arm) -> Vector:
    """The facts of an arm in the order of FACTS, NaN where unknown. The arm's own rates go before recalled ones."""
    model = arm.model or arm.name
    facts = facts_of(model)
    price = facts.blended_price
    if arm.input_rate is not None and arm.output_rate is not None:
        price = (0.75 * arm.input_rate + 0.25 * arm.output_rate) / NANO
    size = facts.effective_b
    # A tier that was taken from the price tells nothing more, and counted again would have price weigh double.
    guessed = facts.blank and arm.tier == tier_of_rates(arm.input_rate, arm.output_rate)
    return np.array(
        [
            np.nan if guessed else arm.tier,
            np.nan if not price else log2(max(price, MIN_PRICE)),  # a price of 0 says who pays, not what it is worth
            np.nan if size is None else log2(max(size, MIN_SIZE_B)),
            np.nan if facts.released is None else facts.released - EPOCH,
            float(arm.reasoning or facts.reasoning),
            float(not facts.tuned),
            float(facts.code),
            float(facts.tools),
            np.nan if facts.rating is None else (facts.rating - RATED) / 100.0,
        ]
    )


def completed(x: Vector, weights: AbilityWeights) -> tuple[Vector, Matrix]:
    """Standardised facts with unknown ones at their conditional mean given the known, and their covariance."""
    z = (x - weights.fact_mean) / weights.fact_scale
    missing = np.isnan(z)
    cov = np.zeros_like(weights.fact_cov)
    if missing.any():
        given = ~missing
        block = np.ix_(missing, given)
        gain = np.linalg.solve(weights.fact_cov[np.ix_(given, given)], weights.fact_cov[block].T).T
        z = z.copy()
        z[missing] = gain @ z[given]
        cov[np.ix_(missing, missing)] = weights.fact_cov[np.ix_(missing, missing)] - gain @ weights.fact_cov[block].T
    return np.clip(z, -4.0, 4.0), cov


def prior(arm: Arm, weights: AbilityWeights) -> Ability:
    """What is believed of an arm before its first outcome: the posterior of a known model, else the regression."""
    model = arm.model or arm.name
    at = weights.known_at(model)
    if at is not None:
        return Ability(weights.known_mean[at], weights.known_cov[at] + weights.drift * weights.residual)
    return regressed(arm, weights)


def regressed(arm: Arm, weights: AbilityWeights) -> Ability:
    """What facts alone tell of an arm."""
    z, open_facts = completed(regressors(arm), weights)
    x = np.zeros(len(weights.coef))
    x[0], x[1 : 1 + len(z)] = 1.0, z
    at = weights.line_at(line_of(arm.model or arm.name) or arm.family)
    if at is not None:
        x[1 + len(z) + at] = 1.0
    slopes = weights.coef[1 : 1 + len(z)]
    cov = weights.residual + slopes.T @ open_facts @ slopes + np.diag(x @ weights.spread @ x)
    return Ability(x @ weights.coef, cov if at is not None else cov + np.diag(weights.new_line))


def moments(mean: float, variance: float, outcome: float, weight: float) -> tuple[float, float]:
    """Mean and variance of N(x | mean, variance) * sigma(x)^(w y) * sigma(-x)^(w (1 - y)), normalised: quadrature
    about its mode, where it is nearly normal (Liu and Pierce 1994, https://doi.org/10.1093/biomet/81.3.624)."""
    mode = _mode(mean, variance, outcome, weight)
    p = logistic(mode)
    x = mode + NODES / sqrt(weight * p * (1.0 - p) + 1.0 / variance)
    log_density = weight * (outcome * x - np.logaddexp(0.0, x)) - (x - mean) ** 2 / (2.0 * variance) + NODE_LOGS
    density = np.exp(log_density - log_density.max())
    density /= density.sum()
    centre = float(density @ x)
    return centre, float(density @ (x - centre) ** 2)


def _mode(mean: float, variance: float, outcome: float, weight: float) -> float:
    """The maximum of N(x | mean, variance) * sigma(x)^(w y) * sigma(-x)^(w (1 - y)): Newton within a bracket."""
    low = mean - variance * weight * (1.0 - outcome)
    high = mean + variance * weight * outcome
    x = min(max(mean, low), high)
    for _ in range(MAX_STEPS):
        p = logistic(x)
        slope = weight * (outcome - p) - (x - mean) / variance
        if slope > 0.0:
            low = x
        else:
            high = x
        step = slope / (weight * p * (1.0 - p) + 1.0 / variance)
        x = x + step if low <= x + step <= high else 0.5 * (low + high)
        if abs(step) <= TOLERANCE * (1.0 + abs(x)):
            break
    return x


def logistic(x: float) -> float:
    """1 / (1 + e^-x), for any x."""
    return 1.0 / (1.0 + exp(-x)) if x > -700.0 else 0.0


class AbilityStack:
    """Abilities of some arms, side by side, so that one request is scored against all of them at once."""

    __slots__ = ("_flat", "_square", "means")

    def __init__(self, abilities: Sequence[Ability]) -> None:
        self.means: Matrix = np.array([ability.mean for ability in abilities])
        covs = np.array([ability.cov for ability in abilities])
        self._flat: Matrix = covs.reshape(len(abilities), -1)
        self._square: Matrix = self.means**2 + np.diagonal(covs, axis1=1, axis2=2)

    def predict(
        self, u: Vector, u_var: Vector | None = None, *, offset: float = 0.0, offset_var: float = 0.0
    ) -> tuple[Vector, Vector]:
        """P(success) of each arm, and the variance of its logit.

        `u_var` (K,): variance of each coordinate of the request. P integrates over both uncertainties by the probit
        approximation of MacKay 1992 (https://doi.org/10.1162/neco.1992.4.5.720): sigma(m / sqrt(1 + pi v / 8))."""
        mean = self.means @ u + offset
        variance = self.variance(u) + offset_var
        if u_var is not None:
            variance = variance + self._square @ u_var
        return 1.0 / (1.0 + np.exp(-mean / np.sqrt(1.0 + pi / 8.0 * variance))), variance

    def variance(self, u: Vector) -> Vector:
        """The variance of each arm's logit from what is not known of the arm."""
        return self._flat @ np.outer(u, u).ravel()
