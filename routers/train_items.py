"""Fits what a request demands: coordinates of every question, and their regression on its surface.

    logit P(m succeeds on i) = theta_m . (1, u_i),   u_i = W x_i + g_family(i) + e_i

x is the surface vector, g a random effect of the question's family and e one of the question itself. With g in the
model, W is learned almost wholly from differences *within* families: what tells a hard question from an easy one
where the kind of question is the same. That part carries over to families never seen; what is true of a family
(g) is learned apart, by `routers.train_terms`, and only trusted where the words are known. Penalised quasi-likelihood
(Breslow and Clayton 1993, https://doi.org/10.2307/2290687), one Newton step at a time in turn with the abilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from routers.abilities import AbilityWeights, Matrix, Vector, prior
from routers.base import Arm
from routers.train_abilities import Observations, anchored, fit_abilities

Places = NDArray[np.int64]

SKILLS: Final = 4
"""Coordinates beside the constant: one for how easy, three for which models are good at it."""
ROUNDS: Final = 5
STEPS: Final = 2
ABILITY_ROUNDS: Final = 6
RIDGE: Final = 100.0
"""Prior precision of a regression coefficient on a standardised feature: a standard deviation of 0.1 each."""
FAMILY_VARIANCE: Final = (2.0, 0.3, 0.3, 0.3)
ITEM_VARIANCE: Final = (1.5, 0.3, 0.3, 0.3)
"""Prior variances of g and e by coordinate. Levels differ between families by about a logit; within one
family more."""
START_SPREAD: Final = 0.3


@dataclass(frozen=True)
class Outcomes:
    """Training data, flat: `item`, `arm` (N,) places, `score` (N,) in [0, 1]; `family` (items,); `x` (items, D)."""

    item: Places
    arm: Places
    score: Vector
    family: Places
    x: Matrix


@dataclass(frozen=True)
class Items:
    """`slope` (D, SKILLS); `effect` (families, SKILLS); `u` (items, SKILLS) without the question's own effect;
    `own` (items, SKILLS): its posterior mean; `abilities`: arrays of `fit_abilities`."""

    slope: Matrix
    effect: Matrix
    u: Matrix
    own: Matrix
    abilities: dict[str, Any]


def fit_items(arms: Sequence[Arm], seen: Outcomes, *, seed: int) -> Items:
    """Questions and abilities in turn. Deterministic in its arguments."""
    theta = _start(arms, seen, seed)
    families = int(seen.family.max()) + 1
    slope, effect = np.zeros((seen.x.shape[1], SKILLS)), np.zeros((families, SKILLS))
    items = Items(slope, effect, seen.x @ slope, np.zeros((len(seen.x), SKILLS)), {})
    for _ in range(ROUNDS):
        for _ in range(STEPS):
            items = _step(seen, theta, items)
        items = _scaled(items)
        items = replace(
            items, abilities=abilities_at(arms, seen, items.u, np.zeros(len(items.u)), rounds=ABILITY_ROUNDS)
        )
        known = AbilityWeights.of(items.abilities)
        theta = np.array([prior(arm, known).mean for arm in arms])
    return items


def abilities_at(arms: Sequence[Arm], seen: Outcomes, u: Matrix, offset: Vector, *, rounds: int) -> dict[str, Any]:
    """Abilities, where the questions' coordinates are known. `offset` (items,): ease that `u` does not tell."""
    at = np.column_stack([np.ones(len(u)), u])[seen.item]
    return fit_abilities(
        arms, Observations(seen.arm, at, seen.score, offset[seen.item], np.ones(len(at))), rounds=rounds
    )


def _start(arms: Sequence[Arm], seen: Outcomes, seed: int) -> Matrix:
    """Each model's ability on one scale for all families, a slope of 1 on ease, and small random skills that break
    the tie. From each model's own success rate it would never get there: a hard family's models stay weak."""
    theta = np.zeros((len(arms), 1 + SKILLS))
    theta[:, 0], _ = anchored(arms, seen.arm, seen.family[seen.item], seen.score)
    theta[:, 1] = 1.0
    theta[:, 2:] = START_SPREAD * np.random.default_rng(seed).standard_normal((len(arms), SKILLS - 1))
    return theta


def _scaled(items: Items) -> Items:
    """Skills have no unit of their own: standard deviation 1. Ease keeps the logit's, through its slope of 1."""
    scale = np.maximum(items.u.std(axis=0), 1e-3)
    scale[0] = 1.0
    return replace(items, slope=items.slope / scale, effect=items.effect / scale, u=items.u / scale)


def _step(seen: Outcomes, theta: Matrix, items: Items) -> Items:
    """One Newton step for slopes and family effects together, the questions' own effects integrated out."""
    slope, curve, kept = _derivatives(seen, theta, items.u)
    x, family, families = seen.x, seen.family, len(items.effect)
    width = x.shape[1]
    hessian = RIDGE * np.eye(SKILLS * width)
    for k in range(SKILLS):
        for j in range(k, SKILLS):
            block = (x * curve[:, k, j][:, None]).T @ x
            hessian[k * width : (k + 1) * width, j * width : (j + 1) * width] += block
            if j > k:
                hessian[j * width : (j + 1) * width, k * width : (k + 1) * width] += block.T
    gradient = (x.T @ slope - RIDGE * items.slope).T.ravel()
    precision = 1.0 / np.array(FAMILY_VARIANCE)
    inner = np.zeros((families, SKILLS, SKILLS))
    np.add.at(inner, family, curve)
    inner += np.diag(precision)
    pull = np.zeros((families, SKILLS))
    np.add.at(pull, family, slope)
    pull -= items.effect * precision
    cross = np.zeros((families, SKILLS, SKILLS * width))
    for number in range(families):
        of = np.flatnonzero(family == number)
        cross[number] = np.einsum("nkl,nd->kld", curve[of], x[of], optimize=True).reshape(SKILLS, -1)
    solved = np.linalg.solve(inner, cross)
    hessian -= np.einsum("fka,fkb->ab", cross, solved, optimize=True)
    gradient -= np.einsum("fka,fk->a", solved, pull, optimize=True)
    change = np.linalg.solve(hessian, gradient)
    new_slope = items.slope + change.reshape(SKILLS, width).T
    effect = items.effect + np.linalg.solve(inner, (pull - cross @ change)[:, :, None])[:, :, 0]
    return Items(new_slope, effect, x @ new_slope + effect[family], kept, items.abilities)


def _derivatives(seen: Outcomes, theta: Matrix, u: Matrix) -> tuple[Matrix, NDArray[np.float64], Matrix]:
    """Gradient and curvature of the log-likelihood in each question's coordinates, with the question's own
    effect integrated out, and that effect's posterior mean."""
    skill = theta[seen.arm, 1:]
    logit = theta[seen.arm, 0] + np.einsum("nk,nk->n", u[seen.item], skill)
    p = 1.0 / (1.0 + np.exp(-np.clip(logit, -30.0, 30.0)))
    weight, count = p * (1.0 - p), len(u)
    slope = np.column_stack(
        [np.bincount(seen.item, (seen.score - p) * skill[:, k], minlength=count) for k in range(SKILLS)]
    )
    curve = np.zeros((count, SKILLS, SKILLS))
    for k in range(SKILLS):
        for j in range(k, SKILLS):
            curve[:, k, j] = curve[:, j, k] = np.bincount(seen.item, weight * skill[:, k] * skill[:, j], count)
    variance = np.array(ITEM_VARIANCE)
    damped = np.linalg.inv(np.eye(SKILLS) + curve * variance)
    slope = np.einsum("nij,nj->ni", damped, slope)
    curve = damped @ curve
    return slope, (curve + curve.transpose(0, 2, 1)) / 2.0, slope * variance
