"""From what a router expects to what it chooses: the rules, their settings, and how settings are chosen.

Two rules. *Utility*: the model with the largest P(success) - rate x expected dollars, over a grid of rates; it makes
the cost-quality curve. *Adequacy*: the cheapest model whose P(success) reaches a level, else the likeliest, which is
what the gateway does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from routers.eval_split import Fold
from routers.eval_table import Bools, Floats, Table
from routers.rows import Indices

SETTINGS: Final = 80
SPENDS: Final = 60
SHARES: Final = (1.0, 0.99, 0.97, 0.95)
"""Of the best single model's quality, at which dollars saved are reported."""
ADEQUACIES: Final = (0.8, 0.9)


@dataclass(frozen=True)
class Forecast:
    """What a router expects on some rows of a table: `p` of each model's success, NaN for a model it cannot judge.

    `tokens`: expected output, where it says. `needed`: its own score of how much the strong model of a pair is needed.
    """

    p: Floats
    tokens: Floats | None = None
    needed: Floats | None = None

    def take(self, rows: Indices) -> Forecast:
        """The forecast of some of the rows."""
        return Forecast(
            self.p[rows],
            None if self.tokens is None else self.tokens[rows],
            None if self.needed is None else self.needed[rows],
        )


def expected_costs(table: Table, fold: Fold, rows: Indices, validation: Forecast, forecast: Forecast) -> Floats:
    """Dollars expected of each model on some rows: expected tokens x price, scaled to the validation rows' dollars.

    Without expected tokens or a price it is the model's mean on the validation rows.
    """
    known = table.cost[fold.validation]
    mean = column_means(known)
    fallback = float(np.nanmean(mean)) if np.isfinite(mean).any() else np.nan
    mean = np.where(np.isfinite(mean) | ~table.dollars, mean, fallback)
    flat = np.broadcast_to(mean, (len(rows), len(mean)))
    if forecast.tokens is None or validation.tokens is None:
        return flat
    guessed = _by_tokens(table, fold.validation, validation.tokens)
    guess_mean = column_means(np.where(np.isnan(known), np.nan, guessed))
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = _by_tokens(table, rows, forecast.tokens) * (mean / guess_mean)
    return np.where(np.isfinite(scaled), scaled, flat)


def rates_of(table: Table) -> Floats:
    """The grid of the utility rule, in successes a dollar: from cost ignored to cost alone."""
    means = column_means(table.cost)
    means = means[np.isfinite(means) & (means > 0)]
    if not len(means):
        return np.zeros(1)
    return np.concatenate(
        [[0.0], np.geomspace(1e-3 / means.max(), 10.0 / means.min(), SETTINGS - 2), [1e3 / means.min()]]
    )


def spends_of(table: Table, rows: Indices | None = None) -> Floats:
    """A grid of mean dollars a call on some rows, all where None: from the cheapest single model's to the dearest's."""
    cost = np.where(table.usable, table.cost, np.nan)
    means = column_means(cost if rows is None else cost[rows])
    means = np.maximum(means[np.isfinite(means)], 1e-12)
    return np.geomspace(means.min(), means.max(), SPENDS) if len(means) else np.ones(SPENDS)


def by_utility(p: Floats, cost: Floats, usable: Bools, rates: Floats) -> Indices:
    """The chosen model for each row and rate, the cheaper one where two are level; -1 where none can be called."""
    order, p, cost = _cheapest_first(p, cost, usable)
    chosen = np.empty((len(p), len(rates)), dtype=np.int64)
    for k, rate in enumerate(rates):
        chosen[:, k] = np.argmax(p - rate * cost, axis=1)
    return _named(chosen, order, usable)


def by_adequacy(p: Floats, cost: Floats, usable: Bools, level: float) -> Indices:
    """The cheapest model whose P(success) reaches a level, else the likeliest, for each row; -1 where there is none."""
    order, p, cost = _cheapest_first(p, cost, usable)
    enough = p >= level
    chosen = np.where(enough.any(axis=1), enough.argmax(axis=1), p.argmax(axis=1))
    return _named(chosen[:, None], order, usable)[:, 0]


def _cheapest_first(p: Floats, cost: Floats, usable: Bools) -> tuple[Indices, Floats, Floats]:
    """Models in order of expected cost by row; what cannot be chosen comes last with no chance at all."""
    # A model that the router cannot judge is chosen only where there is no other.
    chance = np.where(usable, np.where(np.isnan(p), -1e6, p), -1e12)
    dollars = np.where(usable & ~np.isnan(cost), cost, np.inf)
    order = np.argsort(dollars, axis=1, kind="stable")
    dollars = np.where(np.isinf(dollars), 0.0, dollars)
    return order, np.take_along_axis(chance, order, axis=1), np.take_along_axis(dollars, order, axis=1)


def _named(chosen: Indices, order: Indices, usable: Bools) -> Indices:
    model = np.take_along_axis(order, chosen, axis=1)
    nobody = ~np.logical_or.reduce(usable, axis=1)
    return np.where(nobody[:, None], -1, model)


def picked(values: Floats, chosen: Indices) -> Floats:
    """The values of the chosen models (rows, settings); NaN where none was chosen."""
    found = np.take_along_axis(values, np.maximum(chosen, 0), axis=1)
    return np.where(chosen < 0, np.nan, found)


def setting_for(share: float, quality: Floats, cost: Floats, best: float) -> int:
    """The cheapest setting whose mean quality on validation rows reaches a share of the best single model's.

    The best setting (the cheaper, where level) where none does.
    """
    with np.errstate(invalid="ignore"):
        reached = quality >= share * best - 1e-12
    if not reached.any():
        top = quality >= np.nanmax(quality) - 1e-12 if np.isfinite(quality).any() else np.isnan(quality)
        return int(np.argmin(np.where(top, cost, np.inf)))
    return int(np.argmin(np.where(reached, cost, np.inf)))


def column_means(values: Floats) -> Floats:
    """Means of the known values of each column; NaN for a column without any."""
    count = (~np.isnan(values)).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, np.nansum(values, axis=0) / np.maximum(count, 1), np.nan)


def _by_tokens(table: Table, rows: Indices, tokens: Floats) -> Floats:
    return np.asarray((table.in_tokens[rows][:, None] * table.rates[:, 0] + tokens * table.rates[:, 1]) / 1e6)
