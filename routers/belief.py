"""What live traffic has taught about all models at once: one normal distribution, a rank-one change per outcome.

On the traffic of one house a model's abilities over extended coordinates z (`routers.kinds`) are what the weights
expect of it, plus g, in which this traffic differs from training for all models alike, plus a part of its own. So an
outcome of one model tells of all others, through g, and a model that joins begins with what is common. Given g the
models are independent: it suffices to keep g ~ N(mean, cov) and for each model theta | g ~ N(slope g + base, cov),
both exact for Gaussian evidence whatever the number of models.

An outcome enters as a Gaussian `Site` on z . theta that moves it to the moments of the exact posterior (expectation
propagation: Minka 2001, https://arxiv.org/abs/1301.2294). Against the exact posterior of 20 to 200 outcomes of one
model its means are off by 0.02 to 0.08 standard deviations, a chain of Laplace steps by 0.1 to 0.23. Sites multiply, so
their order does not matter, and one can be divided out again when what it rests on was withdrawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from routers.abilities import Ability, AbilityWeights, Matrix, Vector, moments
from routers.base import Arm
from routers.facts import line_of
from routers.kinds import N_TYPES, TYPES, Demand, extended, resemblance

CERTAIN: Final = 1e-12
"""A logit of so little variance learns nothing more: below it, numbers are too coarse to tell what it would."""
MOST_REMOVED: Final = 0.95
"""Of the precision in a site's direction no more than this is taken away at once, so that rounding, and what was
forgotten since, leave a covariance."""
SAME_LINE: Final = 0.7
TIER_SCALE: Final = 1.0
"""How alike two models' own parts are: exp(-|tiers apart| / TIER_SCALE), halved between different lines."""
SERVED_OTHERWISE: Final = 0.25
"""Of the variance of a model's own part, for the same model under another name: a policy renames it, has it twice, or
has two that are tuned from it."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Standard deviations, in logits, of how live traffic may differ from training before anything is known of it.

    `level`, `types`, `untold_types`, `circumstances`, `slopes`, `places`: common to all models. `own_*`: of one model
    beyond that. Types are told where training has outcomes of them.

    Fitted: of 34 settings on a coordinate search those that foresee best, one outcome after the other, 500 requests of
    each of nine sources, each answered by one model and read by weights that never saw the source (0.548 nats a label;
    0.550 as guessed before). Whichever source is not looked at, the others choose nearly the same. Untold types rest on
    one source (tool calls): of 1.0 and 1.4, alike in it, the narrower. No source tells of circumstances: a guess.
    """

    level: float = 1.2
    types: float = 0.4
    untold_types: float = 0.6
    circumstances: float = 0.7
    slopes: float = 0.55
    places: float = 0.7
    own_level: float = 0.2
    own_types: float = 0.5
    own_untold_types: float = 1.0
    own_circumstances: float = 0.5
    own_slopes: float = 0.1
    own_places: float = 0.3


SPREAD: Final = Spread()


@dataclass(frozen=True, slots=True)
class Site:
    """Evidence on one model: exp(-precision s^2 / 2 + shift s) in s = z . theta. `model`: the arm's name. `weight`: of
    the label that it comes from."""

    model: str
    z: Vector
    precision: float
    shift: float
    weight: float = 0.0


@dataclass(frozen=True, slots=True)
class Own:
    """theta given g of one model, normal: mean `slope` g + `base`, covariance `cov`. `prior` (D,): what was expected
    of it at first. `arm`: whose; another upstream model under the same name is another. `labels`: their weight."""

    arm: Arm
    slope: Matrix
    base: Vector
    cov: Matrix
    prior: Vector
    labels: float = 0.0


@dataclass(frozen=True)
class Belief:
    """`mean` (D,), `cov` (D, D): what is common; `own` by arm name. A value: a change makes another one."""

    mean: Vector
    cov: Matrix
    own: Mapping[str, Own] = field(default_factory=dict)

    def ability(self, name: str) -> Ability:
        """A model's abilities over extended coordinates, all things considered."""
        mine = self.own[name]
        return Ability(mine.slope @ self.mean + mine.base, mine.slope @ self.cov @ mine.slope.T + mine.cov)

    def logit(self, name: str, z: Vector) -> tuple[float, float]:
        """Mean and variance of one model's logit at z."""
        mine = self.own[name]
        along = mine.slope.T @ z
        return float(along @ self.mean + z @ mine.base), float(along @ self.cov @ along + z @ mine.cov @ z)

    def told(self, site: Site, *, back: bool = False) -> Belief:
        """After the evidence of a site, or, `back`, without it; the model must be there."""
        mine = self.own[site.model]
        precision, shift = (-site.precision, -site.shift) if back else (site.precision, site.shift)
        z = site.z
        gain, along = mine.cov @ z, mine.slope.T @ z
        spread, common = float(z @ gain), self.cov @ along
        whole = spread + float(along @ common)
        if -precision * whole > MOST_REMOVED:
            shrink = MOST_REMOVED / (-precision * whole)
            precision, shift = precision * shrink, shift * shrink
        # What the site says of g alone, the model's own part integrated out.
        left = 1.0 + precision * spread
        k, surprise = precision / left, (shift - precision * float(z @ mine.base)) / left
        of_g = 1.0 + k * float(along @ common)
        own = replace(
            mine,
            slope=mine.slope - np.outer(gain, along * k),
            base=mine.base + gain * surprise,
            cov=mine.cov - np.outer(gain, gain * k),
            labels=max(mine.labels + (-site.weight if back else site.weight), 0.0),
        )
        return Belief(
            self.mean + common * ((surprise - k * float(along @ self.mean)) / of_g),
            self.cov - np.outer(common, common * (k / of_g)),
            {**self.own, site.model: own},
        )

    def site(self, name: str, demand: Demand, outcome: float, weight: float) -> Site:
        """The Gaussian that stands for an outcome in [0, 1] of this weight: it moves the logit to the moments of its
        exact posterior. What the request itself is uncertain by (`demand.var`) blurs it. Raises ValueError for an
        outcome outside [0, 1], a weight that is negative or infinite, and coordinates that are not finite."""
        if not (0.0 <= outcome <= 1.0 and 0.0 <= weight < float("inf")):
            raise ValueError("an outcome lies in [0, 1] and its weight is finite and not negative")
        z = extended(demand)
        mean, variance = self.logit(name, z)
        if not (np.isfinite(mean) and np.isfinite(variance)):
            raise ValueError("the coordinates of a request are finite numbers")
        noise = self.noise(name, demand)
        before = variance + noise
        if weight <= 0.0 or before <= CERTAIN:
            return Site(name, z, 0.0, 0.0, weight)
        after, left = moments(mean, before, outcome, weight)
        precision = max(1.0 / left - 1.0 / before, 0.0)
        if precision <= 0.0:
            return Site(name, z, 0.0, 0.0, weight)
        blur = 1.0 + precision * noise
        return Site(name, z, precision / blur, (after / left - mean / before) / blur, weight)

    def noise(self, name: str, demand: Demand) -> float:
        """Variance of the logit that comes from what is not known of the request."""
        ability, k = self.ability(name), len(demand.u)
        return float(demand.var @ (ability.mean[:k] ** 2 + np.diag(ability.cov)[:k]))


class Prior:
    """Where belief begins, for one set of weights. `places`: the length of a request's place; `told`: the task types
    that training has outcomes of; `first`: what is known of this house's traffic already."""

    def __init__(
        self,
        weights: AbilityWeights,
        places: int,
        told: Sequence[str],
        spread: Spread = SPREAD,
        first: Belief | None = None,
    ) -> None:
        self.first = first
        self.k = weights.coef.shape[1]
        self.size = self.k + places + N_TYPES + 1
        known = np.array([kind.value in told for kind in TYPES])
        common = np.where(known, spread.types, spread.untold_types)
        own = np.where(known, spread.own_types, spread.own_untold_types)
        slopes = self.k - 1
        self._common = self._block(
            [spread.level, *[spread.slopes] * slopes, *[spread.places] * places], common, spread.circumstances
        )
        self._own = self._block(
            [spread.own_level, *[spread.own_slopes] * slopes, *[spread.own_places] * places],
            own,
            spread.own_circumstances,
        )

    def _block(self, on_request: Sequence[float], on_types: Vector, on_circumstances: float) -> Matrix:
        cov, size = np.zeros((self.size, self.size)), len(on_request)
        cov[:size, :size] = np.diag(np.square(on_request))
        cov[size:-1, size:-1] = resemblance() * np.outer(on_types, on_types)
        cov[-1, -1] = on_circumstances**2
        return cov

    def begin(self) -> Belief:
        """What is known when learning begins here."""
        return self.start() if self.first is None else self.first

    def start(self) -> Belief:
        """Nothing learned, no models."""
        return Belief(np.zeros(self.size), self._common.copy())

    def joined(self, belief: Belief, arm: Arm, expected: Ability) -> Belief:
        """With one more model, of which the weights expect `expected`; the same where it is there already.

        One that is there under another name begins where that is. Beyond what is common others begin with what models
        like them (of their line and tier) have shown of their own, as far as that is known: kriging, coordinate by
        coordinate."""
        there = belief.own.get(arm.name)
        if there is not None and same_model(there.arm, arm):
            return belief
        known = [own for own in belief.own.values() if own.labels > 0.0 and same_model(own.arm, arm)]
        if known:
            before = max(known, key=lambda own: own.labels)
            again = replace(before, arm=arm, cov=before.cov + SERVED_OTHERWISE * self._own, labels=0.0)
            return replace(belief, own={**belief.own, arm.name: again})
        prior, cov = np.zeros(self.size), self._own.copy()
        prior[: self.k] = expected.mean
        cov[: self.k, : self.k] += expected.cov
        shift, kept = self._neighbours(belief, arm)
        cov = cov * np.sqrt(np.outer(kept, kept))
        own = Own(arm, np.eye(self.size), prior + shift, cov, prior)
        return replace(belief, own={**belief.own, arm.name: own})

    def _neighbours(self, belief: Belief, arm: Arm) -> tuple[Vector, Vector]:
        """How far models like this one are from what was expected of them, and the share of variance that leaves."""
        others = [own for name, own in belief.own.items() if own.labels > 0.0 and name != arm.name]
        if not others:
            return np.zeros(self.size), np.ones(self.size)
        like = np.array([alike(arm, own.arm) for own in others])
        among = np.array([[alike(one.arm, other.arm) for other in others] for one in others])
        np.fill_diagonal(among, 1.0)
        shift, kept = np.zeros(self.size), np.ones(self.size)
        scale = np.diag(self._own)
        for at in range(self.size):
            seen = np.array([(own.slope @ belief.mean + own.base - own.prior - belief.mean)[at] for own in others])
            doubt = np.array([min(own.cov[at, at], 100.0) for own in others])
            gain = np.linalg.solve(scale[at] * among + np.diag(doubt), scale[at] * like)
            shift[at] = gain @ seen
            kept[at] = min(max(1.0 - float(gain @ like), 0.05), 1.0)
        return shift, kept


def same_model(one: Arm, other: Arm) -> bool:
    """Whether one model is behind two arms: names and prices may differ."""
    return (one.model or one.name) == (other.model or other.name)


def alike(one: Arm, other: Arm) -> float:
    """The correlation of two models' own parts, in [0, 1)."""
    near = float(np.exp(-abs(one.tier - other.tier) / TIER_SCALE))
    line = line_of(one.model or one.name) or one.family
    same = bool(line) and line == (line_of(other.model or other.name) or other.family)
    return SAME_LINE * near * (1.0 if same else 0.5)
