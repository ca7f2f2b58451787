"""Fits what `routers.abilities` starts from: abilities of the models in the data, and their regression on facts.

A hierarchical model fitted by expectation and maximisation (Dempster, Laird, Rubin 1977): each model's abilities are
a Laplace posterior under the prior that its facts give, and the prior is the regression of those posteriors on the
facts, with effects of model lines shrunk to zero. Models that are many rows of one benchmark and nothing else keep
the prior's width in the directions which that benchmark does not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from routers.abilities import FACTS, Matrix, Vector, regressors
from routers.base import Arm
from routers.facts import line_of
from routers.identity import canonical

ROUNDS: Final = 25
NEWTON_STEPS: Final = 2
FACT_ROUNDS: Final = 20
SLOPE: Final = 0.4
"""Standard deviation expected of a coefficient: logits by which one standard deviation of a fact moves an ability."""
LINE: Final = 0.3
"""Standard deviation expected of the effect of a model line, in logits."""
CONSTANT: Final = 10.0
RESIDUAL_PRIOR: Final = 6.0
"""How many models' worth of belief in START_VARIANCE the residual covariance begins with."""
START_VARIANCE: Final = 0.4
LEVEL: Final = 3.0
"""Standard deviation expected of a family's level, in logits: so wide that it is nearly free."""
CELL_VARIANCE: Final = 0.15
"""Variance of a model's own luck with a family, in squared logits."""
MIN_RELIABILITY: Final = 1e-3
DRIFT: Final = 0.15
"""Share of the residual covariance that a known model keeps however much was seen of it."""

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Observations:
    """Outcomes, one entry each: `arm` (N,) a place in a list of arms, `u` (N, K) the request's coordinates, `score`
    (N,) in [0, 1], `offset` (N,) the part of the logit that is no ability, `weight` (N,)."""

    arm: Places
    u: Matrix
    score: Vector
    offset: Vector
    weight: Vector


def fit_abilities(
    arms: Sequence[Arm], seen: Observations, *, rounds: int = ROUNDS, slope: float = SLOPE, line: float = LINE
) -> dict[str, Any]:
    """Arrays for `AbilityWeights.of`. `arms` are told apart by `canonical` name of their model: two spellings of one
    model are one model. Deterministic."""
    names, model_of = _models(arms)
    first = [arms[int(np.flatnonzero(model_of == m)[0])] for m in range(len(names))]
    raw = np.array([regressors(arm) for arm in first]).reshape(len(names), len(FACTS))
    fact_mean, fact_scale, fact_cov, z = complete_facts(raw)
    # An agent whose name tells neither size nor price teaches nothing about them: its tier is no more than a default.
    teaches = ~np.isnan(raw[:, [FACTS.index("price"), FACTS.index("size")]]).all(axis=1)
    lines, line_at = _lines(first)
    k = seen.u.shape[1]
    design = np.column_stack([np.ones(len(names)), np.clip(z, -4.0, 4.0), np.eye(len(lines) + 1)[line_at, :-1]])
    prior = np.array([CONSTANT**-2] + [slope**-2] * len(FACTS) + [line**-2] * len(lines))
    parts = _split(seen, model_of, len(names))
    coef, spread = np.zeros((design.shape[1], k)), np.zeros((k, design.shape[1], design.shape[1]))
    residual = START_VARIANCE * np.eye(k)
    means, covs = np.zeros((len(names), k)), np.zeros((len(names), k, k))
    for _ in range(rounds):
        start = design @ coef
        precision: Matrix = np.asarray(np.linalg.inv(residual), np.float64)
        for m, part in enumerate(parts):
            means[m], covs[m] = posterior(part, start[m], precision, means[m])
        # What the outcomes alone say of an ability, and the share of its variance that they take away.
        told = np.clip(1.0 - np.diagonal(covs, axis1=1, axis2=2) / np.diag(residual), MIN_RELIABILITY, 1.0)
        targets = start + (means - start) / told
        for at in range(k):
            weight = teaches * told[:, at] / residual[at, at]
            spread[at] = np.linalg.inv((design * weight[:, None]).T @ design + np.diag(prior))
            coef[:, at] = spread[at] @ design.T @ (weight * targets[:, at])
        left = (means - design @ coef)[teaches]
        scatter = left.T @ left + covs[teaches].sum(axis=0) + RESIDUAL_PRIOR * START_VARIANCE * np.eye(k)
        residual = scatter / (len(left) + RESIDUAL_PRIOR)
    return {
        "fact_mean": fact_mean,
        "fact_scale": fact_scale,
        "fact_cov": fact_cov,
        "lines": np.array(lines, dtype=np.str_),
        "coef": coef,
        "spread": spread,
        "new_line": np.full(k, line**2),
        "residual": residual,
        "known": np.array(names, dtype=np.str_),
        "known_mean": means,
        "known_cov": covs,
        "drift": np.float64(DRIFT),
    }


def posterior(part: Observations, mean: Vector, precision: Matrix, start: Vector) -> tuple[Vector, Matrix]:
    """The Laplace posterior of one model's abilities: mode and covariance, by Newton steps from `start`."""
    theta = start
    hessian = precision
    for _ in range(NEWTON_STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(part.u @ theta + part.offset, -30.0, 30.0)))
        slope = part.u.T @ (part.weight * (part.score - p)) - precision @ (theta - mean)
        hessian = precision + (part.u * (part.weight * p * (1.0 - p))[:, None]).T @ part.u
        step = np.linalg.solve(hessian, slope)
        theta = theta + step * min(1.0, 3.0 / (float(np.max(np.abs(step))) + 1e-12))
    return theta, np.asarray(np.linalg.inv(hessian), np.float64)


def complete_facts(raw: Matrix) -> tuple[Vector, Vector, Matrix, Matrix]:
    """Mean, scale and covariance of facts with gaps, and the standardised facts with their gaps filled in."""
    mean, scale = np.zeros(raw.shape[1]), np.ones(raw.shape[1])
    for column in range(raw.shape[1]):
        there = raw[~np.isnan(raw[:, column]), column]
        if len(there):
            mean[column], scale[column] = there.mean(), max(float(there.std()), 0.1)
    z = (raw - mean) / scale
    cov = np.eye(raw.shape[1])
    filled, there = np.nan_to_num(z), ~np.isnan(z)
    patterns, of = np.unique(there, axis=0, return_inverse=True)
    for _ in range(FACT_ROUNDS):
        open_cov = np.zeros_like(cov)
        for number, known in enumerate(patterns):
            lacks = ~known
            if not lacks.any():
                continue
            rows = np.flatnonzero(of == number)
            gain = np.linalg.solve(cov[np.ix_(known, known)], cov[np.ix_(known, lacks)]).T
            filled[np.ix_(rows, lacks)] = filled[np.ix_(rows, known)] @ gain.T
            left = cov[np.ix_(lacks, lacks)] - gain @ cov[np.ix_(known, lacks)]
            open_cov[np.ix_(lacks, lacks)] += len(rows) * left
        # Three models' worth of belief that facts are unrelated keeps the covariance regular.
        cov = (filled.T @ filled + open_cov + 3.0 * np.eye(len(mean))) / (len(raw) + 3.0)
    return mean, scale, cov, filled


def _models(arms: Sequence[Arm]) -> tuple[list[str], Places]:
    places: dict[str, int] = {}
    at = [places.setdefault(canonical(arm.model or arm.name), len(places)) for arm in arms]
    return list(places), np.array(at, dtype=np.int64)


def _lines(arms: Sequence[Arm]) -> tuple[list[str], Places]:
    """The lines, and each arm's place among them; -1 where its line is unknown."""
    names = [line_of(arm.model or arm.name) or arm.family for arm in arms]
    lines = sorted(set(names) - {""})
    return lines, np.array([lines.index(name) if name else -1 for name in names], dtype=np.int64)


def _split(seen: Observations, arm_to_model: Places, models: int) -> list[Observations]:
    """The outcomes of each model."""
    of = arm_to_model[seen.arm]
    order = np.argsort(of, kind="stable")
    bounds = np.searchsorted(of[order], np.arange(models + 1))
    return [
        Observations(seen.arm[i], seen.u[i], seen.score[i], seen.offset[i], seen.weight[i])
        for i in (order[bounds[m] : bounds[m + 1]] for m in range(models))
    ]


def anchored(arms: Sequence[Arm], arm: Places, family: Places, score: Vector) -> tuple[Vector, Vector]:
    """A general ability for each arm and a level for each family, on one scale for families that share no models.

    One linear mixed model of the logits of success rates: rate = ability(facts, line) + own part + level of the
    family. Levels are nearly free and abilities are tied to facts, so that a hard benchmark is not taken for a
    benchmark of weak models; fitted in turns, the two hardly move from where they start.
    """
    names, model_of = _models(arms)
    raw = np.array([regressors(arms[int(np.flatnonzero(model_of == m)[0])]) for m in range(len(names))])
    _, _, _, z = complete_facts(raw.reshape(len(names), len(FACTS)))
    families = int(family.max()) + 1
    cell = model_of[arm] * families + family
    count, total = (np.bincount(cell, values, len(names) * families) for values in (None, score))
    at = np.flatnonzero(count)
    model, of, n, s = at // families, at % families, count[at], total[at]
    target = np.log((s + 0.5) / (n - s + 0.5))
    weight = 1.0 / (1.0 / n + 1.0 / (s + 0.5) + 1.0 / (n - s + 0.5) + CELL_VARIANCE)
    own = np.eye(len(names))
    design = np.hstack([np.clip(z, -4.0, 4.0), own])[model]
    design = np.hstack([design, np.eye(families)[of]])
    prior = np.array([SLOPE**-2] * len(FACTS) + [1.0 / START_VARIANCE] * len(names) + [LEVEL**-2] * families)
    solved = np.linalg.solve((design * weight[:, None]).T @ design + np.diag(prior), design.T @ (weight * target))
    ability = np.clip(z, -4.0, 4.0) @ solved[: len(FACTS)] + solved[len(FACTS) : -families]
    return ability[model_of], solved[-families:]
