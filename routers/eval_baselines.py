"""The baselines beside every router. What they must know is learnt from training or validation rows, as by routers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import sqrt
from statistics import NormalDist
from typing import Final

import numpy as np

from routers.eval_fits import Fit, Texts, fits
from routers.eval_metrics import BUDGETS, at_spend, hull
from routers.eval_policies import SPENDS, Forecast, by_utility, column_means, picked, rates_of, spends_of
from routers.eval_runs import Part, Run, Trial, best_single, cheapest_single, forecast_trial, run
from routers.eval_split import Fold, thirds
from routers.eval_table import Floats, Table
from routers.rows import Indices

MIX_SETTINGS: Final = SPENDS
MAX_CORNERS: Final = 12
VERIFIER_AUC: Final = 0.8
VERIFIER_GAP: Final = sqrt(2.0) * NormalDist().inv_cdf(VERIFIER_AUC)
"""Distance between a right and a wrong answer's mean verdicts, in standard deviations, that gives this AUC."""
STATIC, ORACLE = "static mix", "oracle"
LENGTH, LOGISTIC = "prompt length", "logistic on TF-IDF"


def baselines(table: Table, folds: Sequence[Fold], seed: int, *, fitted: bool = True) -> list[Run]:
    """All baselines on one table, those that need dollars only where there are any; the quick ones without `fitted`."""
    found = Fitted(table, seed)
    made: list[Run] = []
    if table.dollars.any():
        made += [run(name, table, folds, partial(_mixing, table, weights)) for name, weights in _MIXES.items()]
    for name in found.names if fitted else ():
        made.append(run(name, table, folds, partial(found.trial, name)))
        if name == LENGTH:
            made[-1].needed = np.array([float(len(row.prompt)) for row in table.rows])
    if table.dollars.any():
        if fitted:
            made += _two_calls(table, folds, found, _verdicts(table, seed))
        made.append(run(ORACLE, table, folds, partial(_oracle, table)))
    return made


def _two_calls(table: Table, folds: Sequence[Fold], fitted: Fitted, verdicts: Floats) -> list[Run]:
    """The baselines that may call twice."""

    def guess(fold: Fold) -> Floats:
        return fitted.everywhere(LOGISTIC, fold)

    return [
        run(
            f"cascade, verifier of AUC {VERIFIER_AUC}",
            table,
            folds,
            lambda fold: _cascade(table, fold, verdicts),
            note="the verifier is simulated: a noisy look at the true score",
        ),
        run(
            "cascade, verifier is the logistic",
            table,
            folds,
            lambda fold: _cascade(table, fold, guess(fold)),
            note="the cheap model's answer is trusted where its P(success), by the prompt alone, is high",
        ),
        run(
            "best model with retry",
            table,
            folds,
            lambda fold: _retry(table, fold, verdicts, guess(fold)),
            note="outcomes are single draws: a second draw is taken to succeed with the logistic's probability, "
            "independent of the first, which flatters it; the verifier is the simulated one",
        ),
    ]


class Fitted:
    """The fitted baselines on one table, each fitted once a fold."""

    def __init__(self, table: Table, seed: int) -> None:
        self._table, self._seed = table, seed
        self._fits = fits(Texts(table, seed))
        self._made: dict[tuple[str, int, int], tuple[Forecast, Forecast]] = {}

    @property
    def names(self) -> list[str]:
        return list(self._fits)

    def forecasts(self, name: str, fold: Fold) -> tuple[Forecast, Forecast]:
        """Forecasts of the validation and the test rows."""
        key = (name, fold.plan, int(fold.test[0]))
        if key not in self._made:
            self._made[key] = fitted_forecasts(self._table, fold, self._fits[name], self._seed)
        return self._made[key]

    def trial(self, name: str, fold: Fold) -> Trial:
        return forecast_trial(self._table, fold, *self.forecasts(name, fold))

    def everywhere(self, name: str, fold: Fold) -> Floats:
        """P(success) on validation and test rows, in the table's shape."""
        p = np.full(self._table.score.shape, np.nan)
        validation, test = self.forecasts(name, fold)
        p[fold.validation], p[fold.test] = validation.p, test.p
        return p


def fitted_forecasts(table: Table, fold: Fold, fit: Fit, seed: int) -> tuple[Forecast, Forecast]:
    """Fit on the training rows; without any, on the validation rows, which then are forecast by fits without them."""
    if len(fold.train):
        p = fit(table, fold.train, np.concatenate([fold.validation, fold.test]))
        return Forecast(p[: len(fold.validation)]), Forecast(p[len(fold.validation) :])
    rows = fold.validation
    part = thirds(table.group[rows], seed)
    inside = np.full((len(rows), len(table.models)), np.nan)
    for number in np.unique(part):
        held = part == number
        inside[held] = fit(table, rows[~held], rows[held])
    return Forecast(inside), Forecast(fit(table, rows, fold.test))


def static_weights(table: Table, fold: Fold) -> Floats:
    """How often the best mix of two models calls each: (settings, models), one line a spend.

    The two are neighbours on the hull of (cost, quality) of single models on training and validation rows; each of
    these models alone is a setting too.
    """
    return static_weights_at(table, fold, with_corners(table, fold, spends_of(table)))


def with_corners(table: Table, fold: Fold, spends: Floats) -> Floats:
    """Some spends, and what each model of the static mix spends alone: between all of these it is a straight line."""
    _, costs = static_corners(table, fold)
    alone = [costs[min(j, len(costs) - 1)] for j in range(MAX_CORNERS)] if costs else [0.0] * MAX_CORNERS
    return np.concatenate([spends, alone])


def static_weights_at(table: Table, fold: Fold, spends: Floats) -> Floats:
    """The same at these mean dollars a call, its nearest end where it cannot spend so much: (spends, models)."""
    corner, costs = static_corners(table, fold)
    weights = np.zeros((len(spends), len(table.models)))
    for k, spend in enumerate(spends if corner else ()):
        upper = min(int(np.searchsorted(costs, spend)), len(corner) - 1)
        lower = max(upper - 1, 0)
        gap = costs[upper] - costs[lower]
        part = min(max((spend - costs[lower]) / gap, 0.0), 1.0) if gap > 0 else 1.0
        weights[k, corner[lower]] += 1.0 - part
        weights[k, corner[upper]] += part
    return weights


def comparable(table: Table, fold: Fold) -> Indices:
    """The tested rows on which every model of the static mix was asked, all where that leaves none. On others its mean
    would be one of fewer rows than a router's, which has to call someone: were they the hard ones, the mix itself would
    lose to the mix."""
    asked = table.usable[np.ix_(fold.test, static_weights(table, fold).any(axis=0))].all(axis=1)
    return fold.test[asked] if asked.any() else fold.test


def static_corners(table: Table, fold: Fold) -> tuple[list[int], list[float]]:
    """The single models on that hull and their mean costs, cheapest first."""
    rows = np.concatenate([fold.train, fold.validation])
    usable = table.usable[rows]
    quality = column_means(np.where(usable, table.score[rows], np.nan))
    cost = column_means(np.where(usable, table.cost[rows], np.nan))
    known = np.flatnonzero(np.isfinite(quality) & np.isfinite(cost))
    xs, ys = hull(cost[known], quality[known])
    corner = [
        int(known[np.flatnonzero((cost[known] == x) & (quality[known] == y))[0]]) for x, y in zip(xs, ys, strict=True)
    ]
    return corner, xs


def _alone(table: Table, fold: Fold, *, strong: bool) -> Floats:
    weights = np.zeros((1, len(table.models)))
    model = best_single(table, fold) if strong else cheapest_single(table, fold)
    if model is not None:
        weights[0, model] = 1.0
    return weights


def _random_weights(table: Table, fold: Fold) -> Floats:
    """A coin between the cheapest and the best single model, from never to always the best."""
    share = np.linspace(0.0, 1.0, MIX_SETTINGS)[:, None]
    return (1.0 - share) * _alone(table, fold, strong=False) + share * _alone(table, fold, strong=True)


def _mixing(table: Table, weights: Callable[[Table, Fold], Floats], fold: Fold) -> Trial:
    return _mixed(table, fold, weights(table, fold))


def _mixed(table: Table, fold: Fold, weights: Floats) -> Trial:
    """The expected score and cost of calling models at random with these weights, whatever the prompt."""
    validation, test = (mixture(table, rows, weights) for rows in (fold.validation, fold.test))
    return Trial(validation, test)


def mixture(table: Table, rows: Indices, weights: Floats) -> Part:
    """The expected score and cost on some rows of calling models at random with these weights; NaN for a row that none
    of them was asked."""
    usable = table.usable[rows]
    share = usable @ weights.T
    with np.errstate(invalid="ignore", divide="ignore"):
        quality = np.where(usable, table.score[rows], 0.0) @ weights.T / share
        cost = np.where(usable, table.cost[rows], 0.0) @ weights.T / share
    nothing = share <= 1e-9
    return Part(np.where(nothing, np.nan, quality), np.where(nothing, np.nan, cost))


def _oracle(table: Table, fold: Fold) -> Trial:
    parts = []
    for rows in (fold.validation, fold.test):
        chosen = by_utility(table.score[rows], table.cost[rows], table.usable[rows], rates_of(table))
        parts.append(Part(picked(table.score[rows], chosen), picked(table.cost[rows], chosen)))
    return Trial(parts[0], parts[1])


def _verdicts(table: Table, seed: int) -> Floats:
    """A simulated verifier's verdict on each answer: higher is better."""
    return np.asarray(VERIFIER_GAP * table.score + np.random.default_rng(seed).normal(size=table.score.shape))


def _cascade(table: Table, fold: Fold, verdict: Floats) -> Trial:
    """Call a cheap model, and the best one where the verdict on its answer is below a threshold.

    The cheap one is the corner of the static mix whose cascade does best on the validation rows over all spends.
    """
    strong = best_single(table, fold)
    corners = [model for model in static_corners(table, fold)[0] if model != strong]
    if strong is None or not corners:
        return _mixed(table, fold, np.repeat(_alone(table, fold, strong=True), MIX_SETTINGS, axis=0))
    trials = [_cascade_with(table, fold, verdict, cheap, strong) for cheap in corners]
    return max(trials, key=lambda trial: _mean_over_spends(table, trial.validation))


def _cascade_with(table: Table, fold: Fold, verdict: Floats, cheap: int, strong: int) -> Trial:
    thresholds = _thresholds(verdict[fold.validation, cheap])
    return _twice(table, fold, verdict[:, cheap], thresholds, cheap, table.score[:, strong], table.cost[:, strong])


def _retry(table: Table, fold: Fold, verdict: Floats, p: Floats) -> Trial:
    strong = best_single(table, fold)
    if strong is None:
        return _mixed(table, fold, np.repeat(_alone(table, fold, strong=True), MIX_SETTINGS, axis=0))
    thresholds = _thresholds(verdict[fold.validation, strong])
    return _twice(table, fold, verdict[:, strong], thresholds, strong, p[:, strong], table.cost[:, strong])


def _thresholds(verdict: Floats) -> Floats:
    known = verdict[~np.isnan(verdict)]
    inner = np.quantile(known, np.linspace(0.0, 1.0, MIX_SETTINGS - 2)) if len(known) else np.zeros(MIX_SETTINGS - 2)
    return np.concatenate([[-np.inf], inner, [np.inf]])


def _twice(
    table: Table, fold: Fold, verdict: Floats, thresholds: Floats, first: int, score: Floats, cost: Floats
) -> Trial:
    """Call `first`; where the verdict is below the threshold pay `cost` too and have `score`."""
    parts = []
    for rows in (fold.validation, fold.test):
        again = (verdict[rows][:, None] < thresholds).astype(np.float64)
        quality = np.where(again > 0, score[rows][:, None], table.score[rows, first][:, None])
        spent = table.cost[rows, first][:, None] + again * cost[rows][:, None]
        unknown = np.isnan(verdict[rows] + score[rows] + cost[rows] + table.cost[rows, first])[:, None]
        parts.append(Part(np.where(unknown, np.nan, quality), np.where(unknown, np.nan, spent)))
    return Trial(parts[0], parts[1])


def _mean_over_spends(table: Table, part: Part) -> float:
    spends = spends_of(table)
    grid = np.geomspace(spends[0], spends[-1], BUDGETS)
    quality, cost = column_means(part.quality)[None], column_means(part.cost)[None]
    if not np.isfinite(quality).all():
        return -np.inf
    # A cascade that starts too dear for a spend cannot be had at it.
    reached = np.where(grid < cost.min(), 0.0, at_spend(grid[None], quality, cost)[0])
    return float(reached.mean())


_MIXES: Final[dict[str, Callable[[Table, Fold], Floats]]] = {
    "always cheapest": partial(_alone, strong=False),
    "always best": partial(_alone, strong=True),
    STATIC: static_weights,
    "random": _random_weights,
}
"""Baselines that do not look at the prompt, by how often they call each model at each of their settings."""
