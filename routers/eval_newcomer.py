"""A model that is new: how well its success rate is known after a few outcomes, and what routing with that loses.

On each draw a source's questions are halved. Outcomes of the new model are drawn from one half; on the other its
predicted success is compared with what it did, by family, and the utility rule chooses between it and the other
models. Figures are means over draws, with the 2.5th and 97.5th percentile of draws: what one operator may meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from routers.eval_bootstrap import LEVEL, Estimate
from routers.eval_fits import Texts, fit_single
from routers.eval_policies import by_utility, column_means, picked
from routers.eval_table import Floats, Table
from routers.facts import arm_of_name
from routers.rows import Indices

SCRATCH_LABELS: Final = (20, 50, 100, 200)
MAX_TESTED: Final = 1500
KNOWN_ROWS: Final = 300
"""Rows whose outcomes of the other models are known: the candidates that are not new have a history."""
MIN_FAMILY_ROWS: Final = 10
"""A family with fewer tested rows has no success rate worth comparing with."""
MIN_QUESTIONS: Final = 2 * MIN_FAMILY_ROWS
"""Of half of the questions outcomes are drawn, and the other half is tested."""
SPREAD_MODELS: Final = 6
MIN_OUTCOMES: Final = 40
BEST_COSTS: Final = (0.0, 0.05, 0.2)
"""Prices of money in the utility rule: a call of the best single model costs this much of a success."""


class Updatable(Protocol):
    """A router that learns a model from single outcomes. A state is what it believes of the new model."""

    @property
    def name(self) -> str: ...

    def start(self, table: Table, model: int, known: Indices) -> Any:
        """What it believes before any outcome of the model: from its name and price, and from the other models'
        outcomes on `known`."""

    def learn(self, state: Any, table: Table, row: int, outcome: float) -> Any:
        """What it believes after one outcome on one row."""

    def predict(self, state: Any, table: Table, rows: Indices) -> Floats:
        """P(success) of the new model on some rows."""

    def others(self, table: Table, model: int, known: Indices, rows: Indices) -> Floats:
        """P(success) of every model but the new one on some rows, after the others' outcomes on `known`."""


@dataclass(frozen=True)
class Line:
    """One method with some number of labels. `error`: mean over families of |predicted rate - actual rate|.

    `regret`: utility lost against routing with the new model's actual family rates, in successes, by what a call of the
    best single model costs in them; below 0 where a method knows more than these rates.
    """

    method: str
    labels: int
    error: Estimate
    by_family: dict[str, Estimate]
    regret: dict[str, Estimate]


@dataclass(frozen=True)
class Newcomer:
    """The lines of one source. `rate`: the new model's actual success rate there."""

    source: str
    model: str
    rows: int
    rate: float
    draws: int
    lines: list[Line]
    notes: list[str]


Method = Callable[[Indices, Indices, Indices], Floats]
"""(labelled rows, tested rows, rows with known outcomes of the others) -> P(success) of the new model when tested."""


def newcomer(
    table: Table, model: str, labels: Sequence[int], learner: Updatable | None, *, draws: int, seed: int
) -> Newcomer | None:
    """Evaluate a model as if it were new to one source; None where it or any other model has too few outcomes."""
    if model not in table.models:
        return None
    j = table.models.index(model)
    known = np.flatnonzero(~np.isnan(table.score[:, j]))
    if len(np.unique(table.group[known])) < MIN_QUESTIONS or len(table.models) < 2:
        return None
    notes = list(table.notes)
    priced = bool(table.dollars[j]) and table.dollars.sum() > 1
    if not priced:
        notes.append("no dollars of the new model or of any other: no regret")
    asked = _asked(table, j, labels, learner, seed)
    figures: dict[tuple[str, int], list[dict[str, float]]] = {}
    fewest = len(known)
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        pool, tested = _halves(table, known, rng)
        order = rng.permutation(pool)
        fewest = min(fewest, len(order))
        others = _others(table, j, order[:KNOWN_ROWS], tested, learner) if priced else None
        for name, count, method in asked:
            if count <= len(order):
                p = method(order[:count], tested, order[:KNOWN_ROWS])
                figure = _errors(table, j, tested, p)
                if others is not None:
                    figure |= _regrets(table, j, pool, tested, p, others)
                figures.setdefault((name, count), []).append(figure)
    # In every draw or in none: draws that happen to be large would be others than those of fewer labels.
    lines = [_line(name, count, found) for (name, count), found in figures.items() if count <= fewest]
    if missing := sorted({count for count in labels if count > fewest}):
        notes.append(
            f"no figure with {', '.join(map(str, missing))} labels: half of the questions are {fewest} outcomes"
        )
    return Newcomer(
        table.source, model, len(known), float(np.nanmean(table.score[:, j])), draws, lines, notes
    )  # fmt: skip


def spread_models(table: Table, most: int = SPREAD_MODELS) -> list[str]:
    """Models with enough outcomes to be taken for new, evenly from the weakest to the strongest."""
    able = [j for j in range(len(table.models)) if (~np.isnan(table.score[:, j])).sum() >= MIN_OUTCOMES]
    order = sorted(able, key=lambda j: float(np.nanmean(table.score[:, j])))
    places = np.linspace(0, len(order) - 1, min(most, len(order)))
    return [table.models[order[round(place)]] for place in places]


def _asked(
    table: Table, j: int, labels: Sequence[int], learner: Updatable | None, seed: int
) -> list[tuple[str, int, Method]]:
    """All methods with their numbers of labels."""
    found: list[tuple[str, int, Method]] = []
    if learner is not None:
        found += [(learner.name, count, _learnt(learner, table, j)) for count in sorted(set(labels))]
    dense = Texts(table, seed).dense()
    scratch = sorted({*SCRATCH_LABELS, *(count for count in labels if count)})
    found += [
        ("logistic from scratch", n, lambda fit, ask, _: fit_single(dense, table.score[:, j], fit, ask))
        for n in scratch
    ]
    found += [("own mean", n, lambda fit, ask, _: _own_mean(table, j, fit, ask)) for n in scratch]
    tier = [arm_of_name(name).tier for name in table.models]
    alike = [m for m in range(len(tier)) if m != j and tier[m] == tier[j]]
    everyone = [m for m in range(len(tier)) if m != j]
    found.append(("mean of all models", 0, lambda _, ask, __: _mean_of(table, everyone, ask)))
    found.append(("mean of its tier", 0, lambda _, ask, __: _mean_of(table, alike or everyone, ask)))
    return found


def _learnt(learner: Updatable, table: Table, j: int) -> Method:
    def method(fit: Indices, ask: Indices, known: Indices) -> Floats:
        state = learner.start(table, j, known)
        for row in fit:
            state = learner.learn(state, table, int(row), float(table.score[row, j]))
        return learner.predict(state, table, ask)

    return method


def _own_mean(table: Table, j: int, fit: Indices, ask: Indices) -> Floats:
    """The labels' mean, drawn a little to 1/2."""
    return np.full(len(ask), (float(table.score[fit, j].sum()) + 0.5) / (len(fit) + 1.0))


def _mean_of(table: Table, models: Sequence[int], ask: Indices) -> Floats:
    """The mean success of other models in each row's family, over the whole source: their outcomes are known."""
    rates = _family_rates(table, np.arange(len(table.rows)), list(models))
    return rates[table.family[ask]]


def _family_rates(table: Table, rows: Indices, models: Sequence[int]) -> Floats:
    """Mean score by family over some models and rows; the mean over families where one has none."""
    rates = np.full(len(table.families), np.nan)
    for family in range(len(rates)):
        scores = table.score[np.ix_(rows[table.family[rows] == family], models)]
        if np.isfinite(scores).any():
            rates[family] = np.nanmean(scores)
    middle = float(np.nanmean(rates)) if np.isfinite(rates).any() else 0.5
    return np.where(np.isnan(rates), middle, rates)


def _halves(table: Table, known: Indices, rng: np.random.Generator) -> tuple[Indices, Indices]:
    names = np.unique(table.group[known])
    rng.shuffle(names)
    first = np.isin(table.group[known], names[: len(names) // 2])
    tested = known[~first]
    return known[first], np.sort(rng.permutation(tested)[:MAX_TESTED])


def _errors(table: Table, j: int, tested: Indices, p: Floats) -> dict[str, float]:
    """|predicted - actual| rate of each family with enough rows, and their mean; of all rows where none has."""
    found: dict[str, float] = {}
    actual = table.score[tested, j]
    for number, family in enumerate(table.families):
        of = table.family[tested] == number
        if of.sum() >= MIN_FAMILY_ROWS:
            found[f"family {family}"] = abs(float(p[of].mean() - actual[of].mean()))
    mean = float(np.mean(list(found.values()))) if found else abs(float(p.mean() - actual.mean()))
    return {"error": mean, **found}


def _others(table: Table, model: int, known: Indices, tested: Indices, learner: Updatable | None) -> Floats:
    """P(success) of the models that are not new, of which a history is known."""
    if learner is not None:
        return learner.others(table, model, known, tested)
    rates = np.stack([_family_rates(table, known, [m]) for m in range(len(table.models))], axis=1)
    return rates[table.family[tested]]


def _regrets(table: Table, j: int, pool: Indices, tested: Indices, p: Floats, others: Floats) -> dict[str, float]:
    usable, chance = table.usable[tested], others.copy()
    cost = column_means(np.where(table.usable, table.cost, np.nan)[pool])
    best = int(np.nanargmax(np.where(np.isfinite(cost), column_means(table.score[pool]), -np.inf)))
    prices = np.array(BEST_COSTS) / max(float(cost[best]), 1e-12)
    spent = np.broadcast_to(np.where(np.isfinite(cost), cost, np.nanmean(cost)), chance.shape)
    worth = []
    for own in (p, _family_rates(table, tested, [j])[table.family[tested]]):
        chance[:, j] = own
        chosen = by_utility(chance, spent, usable, prices)
        quality, dollars = picked(table.score[tested], chosen), picked(table.cost[tested], chosen)
        worth.append(np.nanmean(quality - prices * dollars, axis=0))
    return {f"regret {share:g}": float(lost) for share, lost in zip(BEST_COSTS, worth[1] - worth[0], strict=True)}


def _line(name: str, labels: int, figures: Sequence[dict[str, float]]) -> Line:
    def over(key: str) -> Estimate:
        values = np.array([figure[key] for figure in figures if key in figure])
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(values, [tail, 1 - tail])
        return Estimate(float(values.mean()), float(low), float(high))

    keys = dict.fromkeys(key for figure in figures for key in figure)
    families = {key.removeprefix("family "): over(key) for key in keys if key.startswith("family ")}
    regrets = {key.removeprefix("regret "): over(key) for key in keys if key.startswith("regret ")}
    return Line(name, labels, over("error"), families, regrets)
