"""How the gateway's learner meets a model that is new: it has heard what the others did on requests of this traffic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from routers.artifact import Weights
from routers.base import Arm
from routers.belief import SPREAD, Belief, Spread
from routers.eval_contenders import Readings
from routers.eval_learned import load_weights, train_weights
from routers.eval_split import without_source
from routers.eval_table import Floats, Table
from routers.eval_told import Listener
from routers.identity import canonical
from routers.rows import Indices, Row, deduplicated

MOST_OTHERS: Final = 12
"""Models whose outcomes tell of the traffic, of more those evenly over the order of the table: each outcome is a step
of the belief, and what is common is known well by so many."""


class State(NamedTuple):
    """What is believed of all, and who is new."""

    belief: Belief
    arm: Arm


class Joining(Listener):
    """The learner, as one that is told outcomes of a new model."""

    name: Final = "learned"

    def __init__(self, weights: Weights, readings: Readings, spread: Spread = SPREAD) -> None:
        super().__init__(weights, readings, spread)
        self._latest: tuple[tuple[str, int, bytes], Belief] | None = None

    def start(self, table: Table, model: int, known: Indices) -> State:
        """What is believed when a model joins traffic of which the others' outcomes on some rows are known."""
        arm = self._readings.arms(table)[model]
        return State(self.joined(self._of_others(table, model, known), arm), arm)

    def learn(self, state: State, table: Table, row: int, outcome: float) -> State:
        """After one outcome of the new model."""
        return State(self.told(state.belief, state.arm, table, row, outcome), state.arm)

    def predict(self, state: State, table: Table, rows: Indices) -> Floats:
        """P(success) of the new model on some rows."""
        return self.chances(state.belief, state.arm, table, rows)

    def others(self, table: Table, model: int, known: Indices, rows: Indices) -> Floats:
        """P(success) of every model on some rows, as it is when `model` joins; the new one's is NaN."""
        belief = self._of_others(table, model, known)
        found = np.full((len(rows), len(table.models)), np.nan)
        for other, arm in enumerate(self._readings.arms(table)):
            if other != model:
                found[:, other] = self.chances(self.joined(belief, arm), arm, table, rows)
        return found

    def _of_others(self, table: Table, model: int, known: Indices) -> Belief:
        key = table.source, model, known.tobytes()
        if self._latest is None or self._latest[0] != key:
            self._latest = key, self.heard(table, _spread_over(table, model, known), known)
        return self._latest[1]


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
