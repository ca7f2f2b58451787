"""The learned router under test: as shipped, trained for each fold, and after outcomes, as the gateway's learner would
leave it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from routers.artifact import Weights, read
from routers.belief import Belief
from routers.eval_contenders import Contender, Readings, UnknownRouter, scored
from routers.eval_policies import Forecast
from routers.eval_split import Fold, thirds
from routers.eval_table import ASSUMED_OUTPUT_TOKENS, Floats, Table
from routers.eval_told import Listener
from routers.learned import LearnedRouter
from routers.rows import Indices, Row

WEIGHTS: Final = Path(__file__).parent / "weights"
TOLD: Final = "learned, told"


def load_weights(folder: Path = WEIGHTS) -> Weights:
    """The shipped weights; UnknownRouter where there are none or they cannot be used."""
    try:
        return read(folder)
    except (OSError, ValueError) as error:
        raise UnknownRouter(f"the learned router's weights cannot be used: {error}") from None


def train_weights(rows: Sequence[Row], seed: int) -> Weights:
    """Weights trained on these rows alone; UnknownRouter where they hold no outcome."""
    from routers.train import train  # noqa: PLC0415  (it evaluates, too)

    if not any(row.outcomes for row in rows):
        raise UnknownRouter("the learned router cannot be trained: without what is new there is no outcome")
    return train(rows, seed=seed)


class Learning(Listener):
    """The learned router after outcomes of a table's rows, those that the static mix is chosen by.

    `at_home` is the router for a source that the weights were trained on a part of.
    """

    name: Final = "learned"

    def __init__(self, weights: Weights, readings: Readings) -> None:
        super().__init__(weights, readings)
        self.at_home = LearnedRouter(weights, trust=1.0)
        self._latest: tuple[tuple[str, bytes], Belief] | None = None

    def forecast(self, table: Table, known: Indices, rows: Indices) -> Floats:
        """P(success) of every model on some rows, after all outcomes on `known`: (rows, models)."""
        key, arms = (table.source, known.tobytes()), self._readings.arms(table)
        if self._latest is None or self._latest[0] != key:
            self._latest = key, self.heard(table, range(len(arms)), known)
        return np.column_stack([self.chances(self._latest[1], arm, table, rows) for arm in arms])

    def unheard(self, table: Table, fold: Fold) -> Floats:
        """P(success) of every model on the validation rows, by a learner that has not heard of them, for a row that was
        heard is foreseen too well to choose a setting by. It is told of the training rows or, where there are none, of
        the other half of the validation rows."""
        rows = fold.validation
        if len(fold.train):
            return self.forecast(table, fold.train, rows)
        half, p = thirds(table.group[rows], seed=0, parts=2), np.empty((len(rows), len(table.models)))
        for part in (0, 1):
            p[half == part] = self.forecast(table, rows[half != part], rows[half == part])
        return p


def contenders(learning_for: Callable[[int], Learning], version: str, readings: Readings) -> list[Contender]:
    """The router of each plan as it is; and after the outcomes of the source's training and validation rows, as the
    learning loop would leave it. The static mix is chosen knowing those outcomes: the second line knows as much."""
    made: dict[tuple[str, int], Forecast] = {}

    def everywhere(table: Table, fold: Fold) -> Forecast:
        key = (table.source, fold.plan)
        if key not in made:
            learning = learning_for(fold.plan)
            router = learning.at_home if len(fold.train) else learning.router
            found = scored(router, table, np.arange(len(table.rows), dtype=np.int64), readings)
            made[key] = _as_priced(found, table)
        return made[key]

    def plain(table: Table, fold: Fold, _pair: tuple[int, int] | None) -> tuple[Forecast, Forecast]:
        whole = everywhere(table, fold)
        return whole.take(fold.validation), whole.take(fold.test)

    def told(table: Table, fold: Fold, _pair: tuple[int, int] | None) -> tuple[Forecast, Forecast]:
        learning, whole = learning_for(fold.plan), everywhere(table, fold)
        known = np.concatenate([fold.train, fold.validation])
        validation, test = whole.take(fold.validation), whole.take(fold.test)
        return (
            replace(validation, p=learning.unheard(table, fold)),
            replace(test, p=learning.forecast(table, known, fold.test)),
        )

    return [
        Contender(Learning.name, version, plain, note="knows names, prices and its training", prudent=True),
        Contender(
            TOLD, version, told, note="knows names, prices and the outcomes that the mix is chosen by", prudent=True
        ),
    ]


def _as_priced(forecast: Forecast, table: Table) -> Forecast:
    """Expected tokens as the table prices them: where it records neither lengths nor dollars it assumes one length
    for every answer, and a router that expects others would choose by differences that its bill does not show."""
    recorded = (outcome.cost_usd is not None for row in table.rows for outcome in row.outcomes.values())
    if not np.isnan(table.out_tokens).all() or any(recorded):
        return forecast
    return replace(forecast, tokens=np.full(forecast.p.shape, ASSUMED_OUTPUT_TOKENS))


def shipped(readings: Readings) -> list[Contender]:
    """The shipped weights as they are; UnknownRouter where there are none."""
    learning = Learning(load_weights(), readings)
    return contenders(lambda _plan: learning, learning.router.version, readings)


def trained(rows_of: Callable[[int], Sequence[Row]], seed: int, readings: Readings) -> list[Contender]:
    """The router trained for each plan on the rows that are named for it, and on nothing else."""
    made: dict[int, Learning] = {}

    def learning_for(plan: int) -> Learning:
        if plan not in made:
            made[plan] = Learning(train_weights(rows_of(plan), seed), readings)
        return made[plan]

    return contenders(learning_for, "trained here", readings)
