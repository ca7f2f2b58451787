"""The learner's belief about one model alone, of which nothing is common with others: what one outcome changes."""

from __future__ import annotations

from functools import cache

import numpy as np

from routers.abilities import Ability, AbilityStack, Matrix, Vector
from routers.base import Arm
from routers.belief import Belief, Own
from routers.kinds import N_TYPES, Demand

ONE = Arm("one", 2)


@cache
def _space(k: int) -> tuple[Matrix, Matrix]:
    size = k + N_TYPES + 1
    return np.eye(size), np.zeros((size, size))


def update(ability: Ability, u: Vector, outcome: float, weight: float = 1.0, *, noise: float = 0.0) -> Ability:
    """What is believed after one outcome on a request at `u`; `noise`: the variance of its constant."""
    k, eye, nothing = len(u), *_space(len(u))
    mean, cov, var = np.zeros(len(eye)), nothing.copy(), np.zeros(k)
    mean[:k], cov[:k, :k] = ability.mean, ability.cov
    belief = Belief(nothing[0], nothing, {ONE.name: Own(ONE, eye, mean, cov, mean)})
    # A constant of its own variance blurs a logit by that times what the constant's ability is squared.
    var[0] = noise / max(float(mean[0] ** 2 + cov[0, 0]), 1e-9)
    demand = Demand(u, var, nothing[0, :0], 0.0, "none of the types")
    after = belief.told(belief.site(ONE.name, demand, outcome, weight)).ability(ONE.name)
    return Ability(after.mean[:k], after.cov[:k, :k])


def predict(
    ability: Ability, u: Vector, u_var: Vector | None = None, *, offset_var: float = 0.0
) -> tuple[float, float]:
    """P(success) and the variance of its logit."""
    p, variance = AbilityStack([ability]).predict(u, u_var, offset_var=offset_var)
    return float(p[0]), float(variance[0])
