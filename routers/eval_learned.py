"""The learned router under test: as shipped, trained for each fold, and with abilities updated by outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import pi
from pathlib import Path
from typing import Final

import numpy as np

from routers.abilities import Ability, among_new_requests, regressed, update
from routers.artifact import Weights, read
from routers.eval_contenders import Contender, Readings, UnknownRouter, scored
from routers.eval_policies import Forecast
from routers.eval_split import Fold
from routers.eval_table import ASSUMED_OUTPUT_TOKENS, Floats, Table
from routers.learned import LearnedRouter
from routers.rows import Indices, Row

WEIGHTS: Final = Path(__file__).parent / "weights"
UPDATED: Final = "learned, abilities updated"


def load_weights(folder: Path = WEIGHTS) -> Weights:
    """The shipped weights; UnknownRouter where there are none or they cannot be used."""
    try:
        return read(folder)
    except (OSError, ValueError) as error:
        raise UnknownRouter(f"the learned router's weights cannot be used: {error}") from None


def train_weights(rows: Sequence[Row], seed: int) -> Weights:
    """Weights trained on these rows alone."""
    from routers.train import train  # noqa: PLC0415  (it evaluates, too)

    return train(rows, seed=seed)


@dataclass(frozen=True)
class Items:
    """What rows demand: coordinates and their variances, (rows, K)."""

    u: Floats
    var: Floats


class Learning:
    """The learned router with each model's abilities told its outcomes, one model at a time: what a table's rows say of
    models, apart from what they say of each other (`routers.eval_joining` has that).

    Of every model it knows the name and the price alone at first, whatever the weights know of it. `at_home` is the
    same router for a source that the weights were trained on a part of.
    """

    name: Final = "learned"

    def __init__(self, weights: Weights, readings: Readings) -> None:
        self._readings = readings
        self.router = LearnedRouter(weights)
        self.at_home = LearnedRouter(weights, trust=1.0)
        self._items: dict[str, Items] = {}
        self._latest: tuple[tuple[str, bytes], list[Ability]] | None = None

    def items(self, table: Table) -> Items:
        """The demands of all rows of a table."""
        if table.source not in self._items:
            found = [self.router.item(features) for features in self._readings.features(table)]
            self._items[table.source] = Items(np.array([i.u for i in found]), np.array([i.var for i in found]))
        return self._items[table.source]

    def _fresh(self, table: Table, model: int) -> Ability:
        return among_new_requests(regressed(self._readings.arms(table)[model], self.router.ability_weights))

    def learn(self, state: Ability, table: Table, row: int, outcome: float) -> Ability:
        items = self.items(table)
        # What the question has of its own blurs what an outcome tells of the model.
        noise = float(items.var[row] @ (state.mean**2 + np.diag(state.cov)))
        return update(state, items.u[row], outcome, noise=noise)

    def predict(self, state: Ability, table: Table, rows: Indices) -> Floats:
        items = self.items(table)
        return predicted(state, items.u[rows], items.var[rows])

    def after(self, table: Table, rows: Indices) -> list[Ability]:
        """What is believed of every model after all outcomes on some rows, starting from what is known of its name.

        What the weights measured of it they may have measured on these very rows."""
        key = table.source, rows.tobytes()
        if self._latest is None or self._latest[0] != key:
            abilities = []
            for j in range(len(table.models)):
                state = self._fresh(table, j)
                for row in rows[~np.isnan(table.score[rows, j])]:
                    state = self.learn(state, table, int(row), float(table.score[row, j]))
                abilities.append(state)
            self._latest = key, abilities
        return self._latest[1]

    def forecast(self, table: Table, abilities: Sequence[Ability], rows: Indices) -> Floats:
        """P(success) of every model on some rows: (rows, models)."""
        return np.column_stack([self.predict(ability, table, rows) for ability in abilities])


def predicted(ability: Ability, u: Floats, var: Floats) -> Floats:
    """P(success) of one model on many requests at once: `abilities.AbilityStack.predict`, row by row."""
    mean = u @ ability.mean
    spread = np.einsum("ik,kl,il->i", u, ability.cov, u) + var @ (ability.mean**2 + np.diag(ability.cov))
    return np.asarray(1.0 / (1.0 + np.exp(-mean / np.sqrt(1.0 + pi / 8.0 * spread))))


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

    def updated(table: Table, fold: Fold, _pair: tuple[int, int] | None) -> tuple[Forecast, Forecast]:
        learning, whole = learning_for(fold.plan), everywhere(table, fold)
        abilities = learning.after(table, np.concatenate([fold.train, fold.validation]))
        told = [
            replace(whole.take(rows), p=learning.forecast(table, abilities, rows))
            for rows in (fold.validation, fold.test)
        ]
        return told[0], told[1]

    note = "abilities alone, by the outcomes that the static mix knows; the weights as they are"
    return [Contender(Learning.name, version, plain), Contender(UPDATED, version, updated, note=note)]


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
