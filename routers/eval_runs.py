"""A run: what one router did on every tested row, at every setting, and at settings chosen on validation rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from routers.eval_policies import (
    ADEQUACIES,
    SHARES,
    Forecast,
    by_adequacy,
    by_utility,
    column_means,
    expected_costs,
    picked,
    rates_of,
    setting_for,
    spends_of,
)
from routers.eval_split import Fold
from routers.eval_table import Floats, Table
from routers.rows import Indices

SUCCESS: Final = 0.5
"""A fractional score from here on counts as a success where one must be told from a failure."""

HIGHEST: Final = "highest"
_SETTINGS: Final = {**{f"{share:.0%} of best": share for share in SHARES}, HIGHEST: float("inf")}
"""Operating points: the cheapest setting that reaches a share of the best single model's quality; the best one."""


@dataclass(frozen=True)
class Part:
    """Score and dollars of a router's calls on some rows, at each of its settings: (rows, settings)."""

    quality: Floats
    cost: Floats


@dataclass(frozen=True)
class Point:
    """One operating point on every row: score and dollars of its call, and, at an adequacy level, its misses.

    `unsafe`: 1 where it called a model cheaper than the strong one, that failed, and the strong one succeeds.
    `missed`: on rows where the cheapest model fails and the strong one succeeds, 1 where its choice fails, else NaN.
    """

    quality: Floats
    cost: Floats
    unsafe: Floats | None = None
    missed: Floats | None = None


@dataclass(frozen=True)
class Trial:
    """One fold: all settings on the validation and on the test rows, and what was expected of the latter."""

    validation: Part
    test: Part
    points: dict[str, Point] = field(default_factory=dict)
    forecast: Forecast | None = None


@dataclass
class Run:
    """All test rows of all folds together; arrays have a line for each row of the table, NaN where not tested."""

    name: str
    quality: Floats
    cost: Floats
    points: dict[str, Point]
    p: Floats | None = None
    tokens: Floats | None = None
    needed: Floats | None = None
    note: str = ""


def run(name: str, table: Table, folds: Sequence[Fold], attempt: Callable[[Fold], Trial], *, note: str = "") -> Run:
    """Try a router on every fold; its setting for each share of the best single model's quality is chosen by fold."""
    size = len(table.rows)
    made: Run | None = None
    for fold in folds:
        trial = attempt(fold)
        if made is None:
            made = _empty(name, table, trial, note)
        made.quality[fold.test], made.cost[fold.test] = trial.test.quality, trial.test.cost
        best = best_single(table, fold)
        quality, cost = column_means(trial.validation.quality), column_means(trial.validation.cost)
        for setting, share in _SETTINGS.items() if best is not None else ():
            k = setting_for(share, quality, cost, float(np.nanmean(table.score[fold.validation, best])))
            point = made.points.setdefault(setting, _no_point(size, misses=False))
            point.quality[fold.test], point.cost[fold.test] = trial.test.quality[:, k], trial.test.cost[:, k]
        for level, of_test in trial.points.items():
            _keep(made.points.setdefault(level, _no_point(size, misses=True)), of_test, fold.test)
        _keep_forecast(made, trial.forecast, fold.test)
    if made is None:
        raise ValueError(f"{table.source}: too few questions to choose on one half and test on the other")
    return made


def forecast_trial(table: Table, fold: Fold, validation: Forecast, test: Forecast, *, adequacy: bool = True) -> Trial:
    """What a router that forecasts P(success) does with a fold: the utility rule at every spend, the adequacy rule."""
    usable, rates = table.usable, rates_of(table)
    parts = []
    for rows, forecast in ((fold.validation, validation), (fold.test, test)):
        cost = expected_costs(table, fold, rows, validation, forecast)
        chosen = by_utility(forecast.p, cost, usable[rows], rates)
        parts.append(Part(picked(table.score[rows], chosen), picked(table.cost[rows], chosen)))
    share = mixed_rates(column_means(parts[0].cost), spends_of(table, fold.validation))
    parts = [Part(part.quality @ share, part.cost @ share) for part in parts]
    points = {}
    if adequacy and table.dollars.any():
        # `cost` is the test rows' here: the adequacy rule has no setting that validation rows could choose.
        for level in ADEQUACIES:
            chosen = by_adequacy(test.p, cost, usable[fold.test], level)
            points[f"adequacy {level}"] = _adequacy_point(table, fold, chosen)
    return Trial(parts[0], parts[1], points, test)


def mixed_rates(costs: Floats, spends: Floats) -> Floats:
    """How often each rate is used to spend so much on the validation rows: (rates, spends), columns sum to 1.

    A spend lies between two rates and is a random mix of both, its nearest end where none reaches it. So a setting
    means the same spend in every fold, as it does for the static mix. A rate does not: at one and the same rate a fold
    whose training families show a wide gap buys the strong model for everything, and its neighbour for nothing. Of
    rates that spend the same the first is used, which minds money least.
    """
    share = np.zeros((len(costs), len(spends)))
    if not np.isfinite(costs).all():  # no dollars, and so no curve
        share[0] = 1.0
        return share
    unit = float(costs.max()) or 1.0
    # What differs in a sum's last digits is the same; the first rate of each cost is taken.
    at, order = np.unique(np.round(costs / unit, 9), return_index=True)
    spends = np.round(spends / unit, 9)
    upper = np.clip(np.searchsorted(at, spends, side="right"), min(1, len(at) - 1), len(at) - 1)
    for k, spend in enumerate(spends):
        high = int(upper[k])
        low = max(high - 1, 0)
        gap = at[high] - at[low]
        part = min(max((spend - at[low]) / gap, 0.0), 1.0) if gap > 0 else float(spend >= at[high])
        share[order[low], k] += 1.0 - part
        share[order[high], k] += part
    return share


def best_single(table: Table, fold: Fold) -> int | None:
    """The model with the best mean score on the validation rows among those with a cost, the cheaper where level."""
    return _best(table, fold.validation)


def cheapest_single(table: Table, fold: Fold) -> int | None:
    """The model with the least mean cost on the validation rows."""
    cost = column_means(np.where(table.usable, table.cost, np.nan)[fold.validation])
    return int(np.nanargmin(cost)) if np.isfinite(cost).any() else None


def best_of_all(table: Table, rows: Indices) -> int | None:
    """The best single model on some rows, known only afterwards: the reference of every saving."""
    return _best(table, rows)


def _best(table: Table, rows: Indices) -> int | None:
    usable = table.usable[rows]
    quality = column_means(np.where(usable, table.score[rows], np.nan))
    if not np.isfinite(quality).any():
        return None
    cost = column_means(np.where(usable, table.cost[rows], np.nan))
    level = quality >= np.nanmax(quality) - 1e-12
    return int(np.argmin(np.where(level, cost, np.inf)))


def _adequacy_point(table: Table, fold: Fold, chosen: Indices) -> Point:
    rows = fold.test
    score, cost = table.score[rows], table.cost[rows]
    quality, spent = picked(score, chosen[:, None])[:, 0], picked(cost, chosen[:, None])[:, 0]
    strong, cheap = best_single(table, fold), cheapest_single(table, fold)
    if strong is None or cheap is None:
        return Point(quality, spent)
    mean = column_means(table.cost[fold.validation])
    known = ~np.isnan(score[:, strong]) & ~np.isnan(quality)
    cheaper = np.where(chosen >= 0, mean[chosen], np.nan) < mean[strong]
    failed, could = quality < SUCCESS, score[:, strong] >= SUCCESS
    unsafe = np.where(known, (cheaper & failed & could).astype(np.float64), np.nan)
    wanted = known & could & (score[:, cheap] < SUCCESS)
    return Point(quality, spent, unsafe, np.where(wanted, failed.astype(np.float64), np.nan))


def _no_point(size: int, *, misses: bool) -> Point:
    arrays = [np.full(size, np.nan) for _ in range(4)]
    return Point(*arrays) if misses else Point(arrays[0], arrays[1])


def _keep(point: Point, of_test: Point, rows: Indices) -> None:
    pairs = [(point.quality, of_test.quality), (point.cost, of_test.cost)]
    pairs += [(point.unsafe, of_test.unsafe), (point.missed, of_test.missed)]  # type: ignore[list-item]
    for into, values in pairs:
        if into is not None and values is not None:
            into[rows] = values


def _empty(name: str, table: Table, trial: Trial, note: str) -> Run:
    size, settings = len(table.rows), trial.test.quality.shape[1]
    made = Run(name, np.full((size, settings), np.nan), np.full((size, settings), np.nan), {}, note=note)
    if trial.forecast is not None:
        made.p = np.full(table.score.shape, np.nan)
        made.tokens = None if trial.forecast.tokens is None else np.full(table.score.shape, np.nan)
        made.needed = None if trial.forecast.needed is None else np.full(size, np.nan)
    return made


def _keep_forecast(made: Run, forecast: Forecast | None, rows: Indices) -> None:
    if forecast is None or made.p is None:
        return
    made.p[rows] = forecast.p
    if made.tokens is not None and forecast.tokens is not None:
        made.tokens[rows] = forecast.tokens
    if made.needed is not None and forecast.needed is not None:
        made.needed[rows] = forecast.needed
