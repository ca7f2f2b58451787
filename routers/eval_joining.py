"""How the gateway's learner meets a model that is new: `routers.belief`, told outcomes of a table's rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from routers.abilities import Ability, regressed
from routers.artifact import Weights
from routers.base import Arm
from routers.belief import SPREAD, Belief, Prior, Spread
from routers.eval_contenders import Readings
from routers.eval_learned import load_weights, predicted, train_weights
from routers.eval_split import without_source
from routers.eval_table import Floats, Table
from routers.facts import canonical
from routers.kinds import Demand, extended
from routers.learned import LearnedRouter
from routers.rows import Indices, Row, deduplicated
from routers.trust import trusted, typical_slopes

MOST_OTHERS: Final = 12
"""Models whose outcomes tell of the traffic, of more those evenly over the order of the table: each outcome is a step
of the belief, and what is common is known well by so many."""


class State(NamedTuple):
    """What is believed of all, and who is new."""

    belief: Belief
    name: str


class Joining:
    """The learner, as one that is told outcomes of models one by one.

    Of every model it knows the name and the price alone at first, whatever the weights know of it: they may have
    measured it on these very rows. Then it hears what the others did on requests of this traffic, and what it hears of
    one tells of all. `spread`: where belief begins.
    """

    name: Final = "learned"

    def __init__(self, weights: Weights, readings: Readings, spread: Spread = SPREAD) -> None:
        self._readings = readings
        self.router = LearnedRouter(weights)
        self._typical = typical_slopes(self.router.ability_weights)
        told = [kind.value for kind in self.router.tried]
        self._prior = Prior(self.router.ability_weights, self.router.places, told, spread)
        self._demands: dict[str, list[Demand]] = {}
        self._at: dict[str, tuple[Floats, Floats]] = {}
        self._latest: tuple[tuple[str, int, bytes], Belief] | None = None

    def start(self, table: Table, model: int, known: Indices) -> State:
        """What is believed when a model joins traffic of which the others' outcomes on some rows are known."""
        arm = self._readings.arms(table)[model]
        return State(self._prior.joined(self._of_others(table, model, known), arm, self._expected(arm)), arm.name)

    def learn(self, state: State, table: Table, row: int, outcome: float) -> State:
        """After one outcome of the new model."""
        return State(self._told(state.belief, state.name, self._demand(table)[row], outcome), state.name)

    def predict(self, state: State, table: Table, rows: Indices) -> Floats:
        """P(success) of the new model on some rows."""
        return self._chances(state.belief.ability(state.name), table, rows)

    def others(self, table: Table, model: int, known: Indices, rows: Indices) -> Floats:
        """P(success) of every model on some rows, as it is when `model` joins; the new one's is NaN."""
        belief = self._of_others(table, model, known)
        found = np.full((len(rows), len(table.models)), np.nan)
        for other, arm in enumerate(self._readings.arms(table)):
            if other != model:
                joined = self._prior.joined(belief, arm, self._expected(arm))
                found[:, other] = self._chances(joined.ability(arm.name), table, rows)
        return found

    def _of_others(self, table: Table, model: int, known: Indices) -> Belief:
        key = table.source, model, known.tobytes()
        if self._latest is None or self._latest[0] != key:
            self._latest = key, self._heard(table, _spread_over(table, model, known), known)
        return self._latest[1]

    def _heard(self, table: Table, models: Sequence[int], known: Indices) -> Belief:
        arms, demands, belief = self._readings.arms(table), self._demand(table), self._prior.start()
        for model in models:
            belief = self._prior.joined(belief, arms[model], self._expected(arms[model]))
        for row in known:
            for model in models:
                if not np.isnan(outcome := table.score[row, model]):
                    belief = self._told(belief, arms[model].name, demands[row], float(outcome))
        return belief

    def _told(self, belief: Belief, name: str, demand: Demand, outcome: float) -> Belief:
        return belief.told(belief.site(name, demand, outcome, 1.0)).counted(name, 1.0)

    def _expected(self, arm: Arm) -> Ability:
        return trusted(regressed(arm, self.router.ability_weights), self._typical)

    def _demand(self, table: Table) -> list[Demand]:
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

    def _chances(self, ability: Ability, table: Table, rows: Indices) -> Floats:
        self._demand(table)
        z, var = self._at[table.source]
        return predicted(ability, z[rows], var[rows])


def _spread_over(table: Table, model: int, known: Indices) -> list[int]:
    """The others of which outcomes are known, at most MOST_OTHERS of them."""
    there = ~np.isnan(table.score[known])
    others = [other for other in np.flatnonzero(there.any(axis=0)) if other != model]
    if len(others) <= MOST_OTHERS:
        return [int(other) for other in others]
    return [int(others[round(place)]) for place in np.linspace(0, len(others) - 1, MOST_OTHERS)]


def joining_of(rows: Sequence[Row], without: str | None, seed: int) -> Callable[[str], Joining]:
    """The learner of any source on the shipped weights, or on some trained on these rows without any outcome of a
    model; UnknownRouter for no weights."""
    if without is None:
        one = Joining(load_weights(), Readings())
    else:
        gone = canonical(without)
        kept = [replace(r, outcomes={m: o for m, o in r.outcomes.items() if canonical(m) != gone}) for r in rows]
        one = Joining(train_weights([row for row in kept if row.outcomes], seed), Readings())
    return lambda _source: one


def joining_apart(rows: Sequence[Row], seed: int) -> Callable[[str], Joining]:
    """The learner of a source on weights that know nothing of it, neither its rows nor its questions elsewhere."""
    rows, readings = deduplicated(rows), Readings()
    return lambda source: Joining(train_weights(without_source(rows, source), seed), readings)
