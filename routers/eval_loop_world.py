"""What the experiments on the loop stand on: real outcomes as a stream, and weights that never saw their source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Final

import numpy as np

from routers.base import Arm
from routers.eval_bootstrap import Estimate
from routers.eval_contenders import Readings
from routers.eval_learned import load_weights, train_weights
from routers.eval_policies import column_means
from routers.eval_table import Bools, Floats, Prices, Table, tables
from routers.kinds import Demand
from routers.learned import LearnedRouter
from routers.rows import Indices, Row, deduplicated, groups

MOST_ARMS: Final = 8
"""Candidates of a route in these experiments: models spread evenly over the order of their prices."""
MIN_SHARE: Final = 0.8
"""Of a source's rows must have outcomes of a model, for it to be a candidate."""
STUDENT: Final = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11,
                  2.10, 2.09, 2.09, 2.08, 2.07, 2.07, 2.06, 2.06, 2.06, 2.05, 2.05, 2.05)  # fmt: skip
"""97.5 % quantiles of Student's t by degrees of freedom, from 1."""


@dataclass(frozen=True)
class World:
    """One source as a place where a router works: N requests, A arms.

    `score`, `cost` (N, A): what came of each call, and its dollars; where an outcome is missing the arm cannot be
    called (`usable`). `price` (A,): mean dollars of a call, which every contender knows. `task` (N,): the task type's
    number among `tasks`, as the router tells it. `base` was trained on other sources.
    """

    source: str
    table: Table
    arms: tuple[Arm, ...]
    score: Floats
    cost: Floats
    usable: Bools
    price: Floats
    demands: tuple[Demand, ...]
    task: Indices
    tasks: tuple[str, ...]
    base: LearnedRouter
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> int:
        """The best single model."""
        return int(np.argmax(column_means(self.score)))

    def rate(self, share: float) -> float:
        """Successes a dollar at which a call of the best single model costs this share of a success."""
        return share / max(float(self.price[self.best]), 1e-12)


@dataclass
class Setting:
    """What an evaluation is asked for; tables, weights and worlds are made when first needed, and kept."""

    rows: Sequence[Row]
    prices: Prices
    seeds: int = 20
    say: Callable[[str], None] = lambda _: None
    notes: list[str] = field(default_factory=list)
    _tables: dict[str, Table] = field(default_factory=dict)
    _weights: dict[str, LearnedRouter] = field(default_factory=dict)
    _worlds: dict[tuple[str, int], World] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rows = deduplicated(self.rows)
        self._group = groups(self.rows)
        self._readings = Readings()

    def tables(self) -> Mapping[str, Table]:
        """A table a source."""
        if not self._tables:
            self._tables = {table.source: table for table in tables(self.rows, self.prices)}
        return self._tables

    def without(self, source: str) -> LearnedRouter:
        """The router trained on all rows of other sources that ask none of this one's questions; as it is shipped,
        and a note, where there are none."""
        if source not in self._weights:
            self.say(f"training without {source}")
            asked = {int(self._group[i]) for i, row in enumerate(self.rows) if row.source == source}
            kept = [row for i, row in enumerate(self.rows) if row.source != source and int(self._group[i]) not in asked]
            if any(row.outcomes for row in kept):
                self._weights[source] = LearnedRouter(train_weights(kept, 0))
            else:
                self.notes.append(f"{source}: no other source to train on; the shipped weights, which may know it")
                self._weights[source] = LearnedRouter(load_weights())
        return self._weights[source]

    def worlds(self, least: int = 2) -> list[World]:
        """The worlds of all sources with so many arms at least."""
        able = [name for name, table in self.tables().items() if len(arms_of(table, MOST_ARMS)) >= least]
        return [self.world(name) for name in able]

    def world(self, source: str, most: int = MOST_ARMS) -> World:
        """A source's world with so many arms at most."""
        if (source, most) not in self._worlds:
            self._worlds[source, most] = self._world(self.tables()[source], most)
        return self._worlds[source, most]

    def _world(self, table: Table, most: int) -> World:
        base = self.without(table.source)
        chosen = arms_of(table, most)
        features = self._readings.features(table)
        demands = tuple(base.demand_of(i.u, i.place, i.ood, base.task(f).type.value, plain=True, read=True)
                        for f, i in ((f, base.item(f)) for f in features))  # fmt: skip
        tasks = tuple(sorted({demand.task_type for demand in demands}))
        arms = self._readings.arms(table)
        cost = table.cost[:, chosen]
        return World(
            source=table.source,
            table=table,
            arms=tuple(arms[j] for j in chosen),
            score=table.score[:, chosen],
            cost=cost,
            usable=table.usable[:, chosen],
            price=column_means(cost),
            demands=demands,
            task=np.array([tasks.index(demand.task_type) for demand in demands], dtype=np.int64),
            tasks=tasks,
            base=base,
            notes=table.notes,
        )


def arms_of(table: Table, most: int) -> list[int]:
    """Priced models with outcomes on nearly all rows, spread evenly over the order of their mean costs; how good they
    are has no part in the choice."""
    known = table.usable.mean(axis=0)
    able = [j for j in range(len(table.models)) if known[j] >= MIN_SHARE]
    order = sorted(able, key=lambda j: float(np.nanmean(table.cost[:, j])))
    if len(order) <= most:
        return order
    return [order[round(place)] for place in np.linspace(0, len(order) - 1, most)]


def stream(world: World, length: int, seed: int) -> Indices:
    """Row numbers in a random order, without repetition as far as there are rows enough."""
    rng, count = np.random.default_rng([seed, 11]), len(world.table.rows)
    laps = [rng.permutation(count) for _ in range(-(-length // count))]
    return np.concatenate(laps)[:length]


def over_seeds(values: Sequence[float] | Floats) -> Estimate:
    """A mean over seeds with its 95 % interval (Student's t)."""
    x = np.asarray(values, dtype=np.float64)
    x = x[np.isfinite(x)]
    if len(x) < 2:
        return Estimate(float(x.mean()) if len(x) else float("nan"), float("nan"), float("nan"))
    half = (STUDENT[len(x) - 2] if len(x) - 2 < len(STUDENT) else 1.96) * float(x.std(ddof=1)) / sqrt(len(x))
    return Estimate(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half)


def share_found(found: int, of: int) -> Estimate:
    """A share with its 95 % interval (Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953)."""
    z, p = 1.96, found / of
    middle, half = (p + z * z / (2 * of)) / (1 + z * z / of), z * sqrt(p * (1 - p) / of + (z / (2 * of)) ** 2)
    return Estimate(p, middle - half / (1 + z * z / of), middle + half / (1 + z * z / of))
