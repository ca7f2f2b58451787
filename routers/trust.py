"""How far the weights are believed on traffic that no outcome is known of yet: by a part of what tells models apart.

What a request demands is a level, which moves all models alike, and directions in which models differ: one fades
faster than another on hard questions, one is good at code. The level carries over to benchmarks never seen; the
directions measured on other benchmarks do so by a fraction only, and a router that believes them whole picks the
wrong model with conviction. So a model keeps its ability on the whole, and its slopes are drawn to those of a
typical model. Outcomes of the new traffic need no such care: what `routers.belief` learns there is true there.
"""

from __future__ import annotations

from typing import Final

from routers.abilities import Ability, AbilityWeights, Vector

TRUST: Final = 0.4
"""What is left of a model's own slopes. Chosen by leaving out sources: whichever of the eight is not looked at, the
others choose it among 0, 0.25, 0.4, 0.5, 0.6, 0.75 and 1 (for one of them 0.25 is as good); all of the slopes or none
lose twice as much to the static mix. Not for traffic that the weights were trained on."""


def typical_slopes(weights: AbilityWeights) -> Vector:
    """The mean slopes of the models that training knows (K,), the place of the constant 0; for none known, of facts."""
    slopes: Vector = weights.known_mean.mean(axis=0) if len(weights.known) else weights.coef[0].copy()
    slopes[0] = 0.0
    return slopes


def trusted(ability: Ability, typical: Vector, trust: float = TRUST) -> Ability:
    """The ability with its slopes drawn to the typical ones, as uncertain as before.

    `trust` in [0, 1]: 1 leaves it as it is; with 0 models differ in their general ability alone, so that every
    request has the same best model at a price: the static mix. Raises ValueError outside.
    """
    if not 0.0 <= trust <= 1.0:
        raise ValueError("trust lies between 0 and 1")
    mean = typical + trust * (ability.mean - typical)
    mean[0] = ability.mean[0]
    return Ability(mean, ability.cov)
