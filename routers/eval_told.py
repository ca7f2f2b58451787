"""The gateway's learner in the harness: what `routers.belief` makes of the outcomes on a table's rows."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi

import numpy as np

from routers.abilities import Ability, regressed
from routers.artifact import Weights
from routers.base import Arm
from routers.belief import SPREAD, Belief, Prior, Spread
from routers.eval_contenders import Readings
from routers.eval_policies import column_means
from routers.eval_table import Floats, Table
from routers.kinds import Demand, extended
from routers.learned import LearnedRouter
from routers.rows import Indices
from routers.trust import trusted, typical_slopes


class Listener:
    """A learner on some weights that is told outcomes one by one; what it hears of one model tells of all.

    Of every model it knows the name and the price alone at first, whatever the weights know of it: they may have
    measured it on these very rows. `spread`: where belief begins.
    """

    def __init__(self, weights: Weights, readings: Readings, spread: Spread = SPREAD) -> None:
        self._readings = readings
        self.router = LearnedRouter(weights)
        self._typical = typical_slopes(self.router.ability_weights)
        told = [kind.value for kind in self.router.tried]
        self._prior = Prior(self.router.ability_weights, self.router.places, told, spread)
        self._demands: dict[str, list[Demand]] = {}
        self._at: dict[str, tuple[Floats, Floats]] = {}

    def joined(self, belief: Belief, arm: Arm) -> Belief:
        """With one more model, the same where it is there already."""
        expected = trusted(regressed(arm, self.router.ability_weights), self._typical)
        return self._prior.joined(belief, arm, expected)

    def told(self, belief: Belief, arm: Arm, table: Table, row: int, outcome: float, weight: float = 1.0) -> Belief:
        """After one outcome of a model that has joined."""
        site = belief.site(arm.name, self.demands(table)[row], outcome, weight)
        return belief.told(site)

    def heard(self, table: Table, models: Sequence[int], rows: Indices) -> Belief:
        """After all outcomes of some models on some rows.

        Belief takes outcomes for independent, as those of a gateway are, which hears of one model a request. Here many
        models answered one, and how hard it is for all of them is one draw: M outcomes count for as many as they tell
        of, M / (1 + (M - 1) `in_common`), the design effect of clusters (Kish 1965, Survey Sampling, 5.4).
        """
        arms, belief = self._readings.arms(table), self._prior.start()
        for model in models:
            belief = self.joined(belief, arms[model])
        common = in_common(table.score[np.ix_(rows, np.array(models, dtype=np.int64))])
        for row in rows:
            asked = [model for model in models if not np.isnan(table.score[row, model])]
            for model in asked:
                outcome, weight = float(table.score[row, model]), 1.0 / (1.0 + (len(asked) - 1) * common)
                belief = self.told(belief, arms[model], table, int(row), outcome, weight)
        return belief

    def chances(self, belief: Belief, arm: Arm, table: Table, rows: Indices) -> Floats:
        """P(success) of a model that has joined on some rows."""
        self.demands(table)
        z, var = self._at[table.source]
        return predicted(belief.ability(arm.name), z[rows], var[rows])

    def demands(self, table: Table) -> list[Demand]:
        """The demands of all rows, their texts read whatever the kind of work: the weights' own doubt about kinds that
        they have no outcomes of is a rule of serving."""
        if table.source not in self._demands:
            router = self.router
            found = [
                router.demand_of(i.u, i.place, i.ood, router.task(f).type.value, plain=True, read=True)
                for f, i in ((f, router.item(f)) for f in self._readings.features(table))
            ]
            z = np.array([extended(demand) for demand in found])
            var = np.zeros_like(z)
            var[:, : len(found[0].var)] = [demand.var for demand in found]
            self._demands[table.source], self._at[table.source] = found, (z, var)
        return self._demands[table.source]


def in_common(score: Floats) -> float:
    """The correlation, at least 0, of two models' outcomes on one request, less each model's mean: (rows, models)."""
    known = ~np.isnan(score)
    left = np.where(known, score - column_means(score), 0.0)
    asked, square = known.sum(axis=1), float((left**2).sum())
    pairs = float((asked * (asked - 1)).sum())
    if pairs == 0.0 or square == 0.0:
        return 0.0
    together = float((left.sum(axis=1) ** 2).sum()) - square
    return max(together / pairs / (square / float(known.sum())), 0.0)


def predicted(ability: Ability, u: Floats, var: Floats) -> Floats:
    """P(success) of one model on many requests at once: `abilities.AbilityStack.predict`, row by row."""
    mean = u @ ability.mean
    spread = np.einsum("ik,kl,il->i", u, ability.cov, u) + var @ (ability.mean**2 + np.diag(ability.cov))
    return np.asarray(1.0 / (1.0 + np.exp(-mean / np.sqrt(1.0 + pi / 8.0 * spread))))
