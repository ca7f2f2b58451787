"""Who chooses in the experiments on the loop: the learner of this project, and what others do.

All know the same prices, choose one arm for each request in turn, and hear what came of that arm alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Final, Protocol

import numpy as np

from routers.abilities import AbilityStack
from routers.belief import Belief
from routers.eval_loop_world import World
from routers.eval_table import Floats
from routers.eval_told import predicted
from routers.kinds import extended
from routers.live import prior_of
from routers.rows import Indices
from routers.thompson import most_useful

SHARE: Final = 0.05
FIRST: Final = 300
"""Of requests are drawn: all at first, half when so many labels are known, never less than SHARE. Of 0, 100 and 300
the least regret, by 0.4 %, which may be chance, and on new families the nearest to the static choice, on pilot runs
(seeds from 100, which are none of those that are reported). With 0, shares of 0.05, 0.1 and 0.2 were alike."""
JITTER: Final = 1e-9
LINUCB_WIDTH: Final = 0.5
"""Of 0.02, 0.1 and 0.5 the least regret on pilot runs (3,000 requests of each of three sources, one seed, none of those
that are reported)."""
LINUCB_MEMORY: Final = 0.998
"""Share of what was learned that is left after each request, of the order ParetoBandit uses
(https://pypi.org/project/paretobandit/)."""
RIDGE: Final = 1.0
SURE: Final = 0.95
"""The default of `baseline.sure` in a policy, which was not chosen by any of these experiments."""
NANO: Final = 1e9
LEAST_RATE: Final = 1e-9


class Chooser(Protocol):
    """Chooses among arms with a rate, the successes that a dollar is worth."""

    def choose(self, row: int, rate: float) -> int: ...

    def learn(self, row: int, arm: int, outcome: float) -> None: ...


class Online:
    """The belief of `routers.belief`, as the gateway's learner updates it: it starts from weights that never saw the
    source and is told every outcome.

    As a route that explores does, it chooses by the means, and for a share of requests by Thompson sampling: a joint
    draw of the arms' logits (what they have in common is drawn once), as wide as the doubt. The share falls to `share`
    as labels come; 0: means alone. Where arms have nothing in common a constant share has the bounds of regret of a
    draw for each request (Jin et al. 2023, https://proceedings.mlr.press/v202/jin23b.html). Draws narrower than the
    doubt have not, but lock in (Phan et al. 2019, https://arxiv.org/abs/1908.04970): at half the width, an arm that
    first outcomes put two standard deviations below the best is drawn above it once in 30,000 requests instead of 44.
    """

    def __init__(self, world: World, seed: int, *, share: float = SHARE) -> None:
        self.world, self._share = world, share
        self._rng = np.random.default_rng([seed, 12])
        self._names = [arm.name for arm in world.arms]
        self._z = [extended(demand) for demand in world.demands]
        prior = prior_of(world.base)
        belief = prior.start()
        for arm in world.arms:
            belief = prior.joined(belief, arm, world.base.ability(arm))
        self.believe(belief)

    def believe(self, belief: Belief) -> None:
        """Go on from a belief that knows all arms but those that are yet to join."""
        self.belief = belief
        size, arms = len(belief.mean), len(self._names)
        self._slope, self._cov = np.zeros((2, arms, size, size))
        self._base, self._square = np.zeros((arms, size)), np.zeros((arms, len(self.world.demands[0].u)))
        for arm, name in enumerate(self._names):
            if name in belief.own:
                self._refresh(arm)

    def _refresh(self, arm: int) -> None:
        own, ability = self.belief.own[self._names[arm]], self.belief.ability(self._names[arm])
        self._slope[arm], self._base[arm], self._cov[arm] = own.slope, own.base, own.cov
        k = self._square.shape[1]
        self._square[arm] = ability.mean[:k] ** 2 + np.diag(ability.cov)[:k]

    def logits(self, row: int) -> tuple[Floats, Floats]:
        """Means and covariance of the arms' logits."""
        z = self._z[row]
        along = z @ self._slope
        cov = along @ self.belief.cov @ along.T
        cov[np.diag_indices_from(cov)] += (self._cov @ z) @ z
        return along @ self.belief.mean + self._base @ z, cov

    def p(self, row: int) -> Floats:
        """P(success) of each arm."""
        mean, cov = self.logits(row)
        return _blurred(mean, np.diag(cov) + self._noise(row))

    def everywhere(self, rows: Indices) -> Floats:
        """P(success) of each arm on many rows: (rows, arms)."""
        z = np.array([self._z[row] for row in rows])
        var = np.zeros_like(z)
        var[:, : self._square.shape[1]] = [self.world.demands[row].var for row in rows]
        return np.column_stack([predicted(self.belief.ability(name), z, var) for name in self._names])

    def _noise(self, row: int) -> Floats:
        return np.asarray(self._square @ self.world.demands[row].var)

    def choose(self, row: int, rate: float) -> int:
        if self._rng.random() >= self._drawn_share():
            return self.best(row, rate)
        mean, cov = self.logits(row)
        drawn = mean + np.linalg.cholesky(cov + JITTER * np.eye(len(mean))) @ self._rng.normal(size=len(mean))
        return best_of(_blurred(drawn, self._noise(row)) - rate * self.world.price, self.world, row)

    def best(self, row: int, rate: float) -> int:
        """The arm that is worth the most by the means: the choice where nothing is drawn."""
        return best_of(self.p(row) - rate * self.world.price, self.world, row)

    def _drawn_share(self) -> float:
        if not self._share:
            return 0.0
        labels = sum(own.labels for own in self.belief.own.values())
        return max(self._share, FIRST / (FIRST + labels))

    def learn(self, row: int, arm: int, outcome: float) -> None:
        name = self._names[arm]
        site = self.belief.site(name, self.world.demands[row], outcome, 1.0)
        self.belief = self.belief.told(site)
        self._refresh(arm)

    def copy(self) -> Online:
        """Another that knows as much and goes its own way."""
        twin = copy(self)
        twin.believe(self.belief)
        return twin


class Kept(Online):
    """The same on a route with a baseline, an arm that it keeps to: where nothing is drawn another is chosen only if a
    draw of both arms' logits, independent of each other, puts it above with the probability SURE, and an outcome of it
    was heard, as the gateway has it (`gateway/baseline.py`)."""

    def __init__(self, world: World, seed: int, baseline: int) -> None:
        super().__init__(world, seed)
        self._baseline = baseline
        self._costs = [round(price * NANO) for price in world.price.tolist()]

    def best(self, row: int, rate: float) -> int:
        kept, usable = self._baseline, self.world.usable[row]
        if not usable[kept]:
            return super().best(row, rate)
        mean, cov = self.logits(row)
        spread = np.sqrt(np.diag(cov))
        worth = _blurred(mean, spread**2 + self._noise(row)) - rate * self.world.price
        heard = np.array([self.belief.own[name].labels > 0.0 for name in self._names])
        heard[kept] = True
        return surely_best(np.where(usable & heard, worth, -np.inf), mean, spread, self._costs, kept, rate)


def surely_best(
    worth: Floats, mean: Floats, spread: Floats, costs: Sequence[int], kept: int, rate: float, sure: float = SURE
) -> int:
    """The arm worth the most of those that are surely worth more than the one that is kept to; else that one. `mean`
    and `spread` are those of logits, `costs` nano-dollars."""
    for arm in np.argsort(-worth).tolist():
        if arm == kept:
            break
        pair, paid = [arm, kept], [costs[arm], costs[kept]]
        if most_useful(mean[pair].tolist(), spread[pair].tolist(), 0, paid, NANO / max(rate, LEAST_RATE)) >= sure:
            return int(arm)
    return kept


def _blurred(mean: Floats, variance: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-mean / np.sqrt(1.0 + np.pi / 8.0 * variance))))


class Static:
    """The learned router as it was trained, without any outcome of this traffic."""

    def __init__(self, world: World) -> None:
        stack = AbilityStack([world.base.ability(arm) for arm in world.arms])
        self.world = world
        self.p = np.array([stack.predict(demand.u, demand.var)[0] for demand in world.demands])

    def choose(self, row: int, rate: float) -> int:
        return best_of(self.p[row] - rate * self.world.price, self.world, row)

    def learn(self, row: int, arm: int, outcome: float) -> None:
        pass


class BetaThompson:
    """One Beta(1, 1) for each arm on each task type, drawn from (LiteLLM's adaptive router works like this)."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self._rng = world, np.random.default_rng([seed, 13])
        self._good = np.ones((len(world.tasks), len(world.arms)))
        self._bad = np.ones_like(self._good)

    def choose(self, row: int, rate: float) -> int:
        task = self.world.task[row]
        return best_of(self._rng.beta(self._good[task], self._bad[task]) - rate * self.world.price, self.world, row)

    def learn(self, row: int, arm: int, outcome: float) -> None:
        self._good[self.world.task[row], arm] += outcome
        self._bad[self.world.task[row], arm] += 1.0 - outcome


class LinUcb:
    """A ridge regression for each arm with an upper bound on its mean, which forgets (Li et al. 2010,
    https://doi.org/10.1145/1772690.1772758, as ParetoBandit uses it). It sees the coordinates that `Online` sees, which
    were learned from other sources: that favours it."""

    def __init__(self, world: World, width: float = LINUCB_WIDTH, memory: float = LINUCB_MEMORY) -> None:
        self.world, self._width, self._memory = world, width, memory
        self._z = np.array([extended(demand) for demand in world.demands])
        arms, size = len(world.arms), self._z.shape[1]
        self._a = np.tile(RIDGE * np.eye(size), (arms, 1, 1))
        self._inverse = np.tile(np.eye(size) / RIDGE, (arms, 1, 1))
        self._b = np.zeros((arms, size))

    def choose(self, row: int, rate: float) -> int:
        z = self._z[row]
        along = self._inverse @ z
        bound = np.einsum("ak,ak->a", along, self._b) + self._width * np.sqrt(np.maximum(along @ z, 0.0))
        return best_of(bound - rate * self.world.price, self.world, row)

    def learn(self, row: int, arm: int, outcome: float) -> None:
        z, keep = self._z[row], self._memory
        self._a[arm] = keep * self._a[arm] + (1.0 - keep) * RIDGE * np.eye(len(z)) + np.outer(z, z)
        self._inverse[arm] = np.linalg.inv(self._a[arm])
        self._b[arm] = keep * self._b[arm] + outcome * z


def best_of(worth: Floats, world: World, row: int) -> int:
    """The arm that is worth the most of those that can be called."""
    return int(np.argmax(np.where(world.usable[row], worth, -np.inf)))
