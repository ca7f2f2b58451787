"""What a run comes to: every metric with its interval, beside the static mix at equal spend, by family and pooled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from routers.eval_baselines import ORACLE, STATIC
from routers.eval_bootstrap import Estimate, Resamples, estimate, estimate_of_size
from routers.eval_metrics import aiq, arena, at_spend, budgets, calibration, median_log2_error, pair_metrics, saved
from routers.eval_policies import SHARES, column_means
from routers.eval_runs import Run, best_of_all
from routers.eval_table import Bools, Floats, Table
from routers.rows import Indices

POOLED: Final = "all"
NOISE: Final = 5e-5
"""A difference below it is rounding."""
MIN_QUESTIONS: Final = 10
"""With fewer a family is not judged: resamples of a few questions differ by less than they stand for, those of one not
at all."""
NARROW: Final = 0.002
"""Mean distance from static mix to oracle below which no share of it is told."""


@dataclass(frozen=True)
class Against:
    """A run's quality less the static mix's at equal spend: averaged over spends, and at its operating points.

    Within folds, and averaged over them: pooled, two routers that do the same at every spend of every fold would differ
    by how they share dollars out between folds, which no operator does.
    """

    family: str
    rows: int
    average: Estimate
    points: dict[str, Estimate]

    @property
    def verdict(self) -> str:
        """Of the average: `better` and `worse` where the interval lies on one side of 0."""
        return verdict(self.average)


@dataclass(frozen=True)
class Measured:
    """All figures of one run. `values` by metric, `points` by operating point and metric.

    `curve`: (cost, quality) of its settings; `reliability`: (mean P(success), mean score, forecasts) by bin.
    """

    name: str
    note: str
    values: dict[str, Estimate]
    points: dict[str, dict[str, Estimate]]
    against_static: list[Against]
    curve: list[tuple[float, float]]
    reliability: list[tuple[float, float, int]]


@dataclass(frozen=True)
class Ground:
    """What all runs on a table are measured against. `rows` were tested, each in one fold (`fold` numbers them by row);
    the best single model is known afterwards."""

    table: Table
    rows: Indices
    fold: Indices
    resamples: Resamples
    seed: int
    best: int | None
    pair: tuple[int, int] | None
    single: Floats = field(repr=False)
    spent: Floats = field(repr=False)

    @property
    def models(self) -> list[tuple[str, Estimate, Estimate]]:
        """Every model's mean score and mean dollars."""
        quality, cost = (
            self.resamples.mean(self.table.score[self.rows]),
            self.resamples.mean(self.table.cost[self.rows]),
        )
        return [(name, estimate(quality[:, j]), estimate(cost[:, j])) for j, name in enumerate(self.table.models)]


def verdict(difference: Estimate) -> str:
    """How a difference reads: `better`, `worse`, `level` where its interval holds 0, `unknown` without one."""
    if not np.isfinite(difference.low):
        return "unknown"
    return "worse" if difference.high < -NOISE else "better" if difference.low > NOISE else "level"


def ground_of(
    table: Table,
    tested: Sequence[Indices],
    resamples: int,
    seed: int,
    *,
    strong: str | None = None,
    weak: str | None = None,
) -> Ground:
    """The ground of a table whose folds test these rows. The pair is, where not named, the best single model and the
    cheapest one."""
    rows, number = np.concatenate(tested), np.repeat(np.arange(len(tested)), [len(part) for part in tested])
    order = np.argsort(rows, kind="stable")
    rows, number = rows[order], number[order]
    drawn = Resamples(table.group[rows], resamples, seed)
    usable = table.usable[rows]
    single = drawn.mean(np.where(usable, table.score[rows], np.nan))
    spent = drawn.mean(np.where(usable, table.cost[rows], np.nan))
    return Ground(
        table, rows, number, drawn, seed, best_of_all(table, rows), _pair(table, rows, strong, weak), single, spent
    )  # fmt: skip


def _pair(table: Table, rows: Indices, strong: str | None, weak: str | None) -> tuple[int, int] | None:
    """By name, else the model with the best mean score and the cheapest (without dollars, the worst) of the others."""
    quality = column_means(table.score[rows])
    cost = column_means(table.cost[rows])
    order = np.where(np.isnan(quality), -np.inf, quality)
    first = table.models.index(strong) if strong in table.models else int(order.argmax())
    if weak in table.models:
        second = table.models.index(weak)
    else:
        rank = (
            np.where(np.isfinite(cost), cost, np.inf)
            if np.isfinite(cost).any()
            else np.where(np.isnan(quality), np.inf, quality)
        )
        rank[first] = np.inf
        second = int(rank.argmin())
    return None if first == second or len(table.models) < 2 else (first, second)


def measure(ground: Ground, run: Run, static: Run | None, oracle: Run | None, *, by_family: bool) -> Measured:
    """All figures of a run."""
    values: dict[str, Estimate] = {}
    points: dict[str, dict[str, Estimate]] = {}
    against: list[Against] = []
    curve: list[tuple[float, float]] = []
    rows = ground.rows
    if ground.best is not None:
        quality, cost = _curve(ground, run)
        low, high = _least(ground.spent), -_least(-ground.spent)
        area = aiq(quality, cost, low, high)
        values |= {"AIQ": estimate(area), **_savings(ground, quality, cost)}
        points = {name: _point_values(ground, run, name) for name in run.points}
        curve = sorted(zip(cost[0].tolist(), quality[0].tolist(), strict=True))
        if static is not None and run.name != STATIC:
            if oracle is not None and run.name != ORACLE:
                values["gap to the oracle closed"] = estimate(_gap(ground, run, static, oracle))
                base, top = (aiq(*_curve(ground, other), low, high) for other in (static, oracle))
                values["gap of AIQ closed"] = estimate(_share(area, base, top))
            against = _against(ground, run, static, by_family=by_family)
    values |= _pair_values(ground, run)
    reliability: list[tuple[float, float, int]] = []
    if run.p is not None:
        found = calibration(run.p[rows], ground.table.score[rows], ground.resamples)
        values["ECE"] = estimate_of_size(found.ece)
        reliability = [
            (float(p), float(y), int(n))
            for p, y, n in zip(found.predicted, found.observed, found.count, strict=True)
            if n > 0
        ]
    if run.tokens is not None:
        error = median_log2_error(run.tokens[rows], ground.table.out_tokens[rows], ground.resamples)
        if np.isfinite(error[0]):
            values["length error, log2"] = estimate(error)
    return Measured(run.name, run.note, values, points, against, curve, reliability)


def _curve(ground: Ground, run: Run) -> tuple[Floats, Floats]:
    return ground.resamples.mean(run.quality[ground.rows]), ground.resamples.mean(run.cost[ground.rows])


def _savings(ground: Ground, quality: Floats, cost: Floats) -> dict[str, Estimate]:
    best = ground.best
    assert best is not None
    values = {}
    for share in SHARES:
        found = saved(quality, cost, ground.single[:, best], ground.spent[:, best], share)
        values[f"saved at {share:.0%}, in hindsight"] = estimate(found)
    return values


def _point_values(ground: Ground, run: Run, name: str) -> dict[str, Estimate]:
    point, best, rows = run.points[name], ground.best, ground.rows
    quality, cost = ground.resamples.mean(point.quality[rows]), ground.resamples.mean(point.cost[rows])
    with np.errstate(invalid="ignore", divide="ignore"):
        values = {
            "quality": estimate(quality),
            "cost": estimate(cost),
            "of best": estimate(quality / ground.single[:, best]),
            "saved": estimate(1.0 - cost / ground.spent[:, best]),
            "arena": estimate(arena(quality, cost)),
        }
    if point.unsafe is not None and np.isfinite(point.unsafe[rows]).any():
        values["unsafe cheap misses"] = estimate(ground.resamples.mean(point.unsafe[rows]))
    if point.missed is not None and np.isfinite(point.missed[rows]).any():
        values["missed escalations"] = estimate(ground.resamples.mean(point.missed[rows]))
    return values


def _gap(ground: Ground, run: Run, static: Run, oracle: Run) -> Floats:
    """Share of the distance from static mix to oracle that a run covers, on the mean over the budgets it can have."""
    everywhere = np.ones(len(ground.rows), dtype=bool)
    own, top = (_lead(ground, one, static, run, everywhere, ground.resamples) for one in (run, oracle))
    return _share(own, np.zeros_like(own), top)


def _share(reached: Floats, base: Floats, top: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(top - base > NARROW, (reached - base) / (top - base), np.nan))


def _least(values: Floats) -> Floats:
    """The least known value of each line, NaN where none is."""
    least = np.where(np.isnan(values), np.inf, values).min(axis=1)
    return np.where(np.isinf(least), np.nan, least)


def _budgets(spent: Floats, best: int | None) -> Floats:
    assert best is not None
    return budgets(_least(spent), spent[:, best])


def _within(cost: Floats, spends: Floats) -> Floats:
    """Spends that a router can have: what it cannot is compared at its nearest end, against others at that spend."""
    low, high = cost.min(axis=1, keepdims=True), cost.max(axis=1, keepdims=True)
    return np.asarray(np.clip(spends, low, high))


def _against(ground: Ground, run: Run, static: Run, *, by_family: bool) -> list[Against]:
    found = [_against_on(ground, run, static, np.ones(len(ground.rows), dtype=bool), POOLED, ground.resamples)]
    table = ground.table
    if by_family and len(table.families) > 1:
        for number, family in enumerate(table.families):
            within = table.family[ground.rows] == number
            if within.any():
                group = table.group[ground.rows[within]]
                judged = len(np.unique(group)) >= MIN_QUESTIONS
                drawn = Resamples(group, len(ground.resamples.weights) - 1 if judged else 0, ground.seed)
                found.append(_against_on(ground, run, static, within, family, drawn))
    return found


def _against_on(ground: Ground, run: Run, static: Run, within: Bools, name: str, drawn: Resamples) -> Against:
    rows = ground.rows[within]
    if ground.best is None or not ground.table.usable[rows].any():
        return Against(name, len(rows), estimate(np.full(len(drawn.weights), np.nan)), {})

    def at_point(label: str) -> Callable[[Indices, Resamples], Floats]:
        point = run.points[label]

        def ahead(of: Indices, part: Resamples) -> Floats:
            base = part.mean(static.quality[of]), part.mean(static.cost[of])
            return part.mean(point.quality[of]) - at_spend(part.mean(point.cost[of])[:, None], *base)[:, 0]

        return ahead

    average = _lead(ground, run, static, run, within, drawn)
    points = {label: estimate(_over_folds(ground, within, drawn, at_point(label))) for label in run.points}
    return Against(name, len(rows), estimate(average), points)


def _lead(ground: Ground, run: Run, static: Run, able: Run, within: Bools, drawn: Resamples) -> Floats:
    """A run's quality less the static mix's, on the mean over the budgets that `able` can have."""

    def ahead(of: Indices, part: Resamples) -> Floats:
        spent = part.mean(np.where(ground.table.usable[of], ground.table.cost[of], np.nan))
        spends = _within(part.mean(able.cost[of]), _budgets(spent, ground.best))
        own, base = ((part.mean(one.quality[of]), part.mean(one.cost[of])) for one in (run, static))
        return np.asarray((at_spend(spends, *own) - at_spend(spends, *base)).mean(axis=1))

    return _over_folds(ground, within, drawn, ahead)


def _over_folds(
    ground: Ground, within: Bools, drawn: Resamples, figure: Callable[[Indices, Resamples], Floats]
) -> Floats:
    """The mean over folds of a figure of each, by rows; a fold that a resample leaves nothing of has no part in it."""
    rows, fold = ground.rows[within], ground.fold[within]
    total, weight = np.zeros(len(drawn.weights)), np.zeros(len(drawn.weights))
    for number in np.unique(fold):
        part = drawn.only(fold == number)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = figure(rows[fold == number], part)
        size = part.weights.sum(axis=1, dtype=np.float64)
        size = np.where(np.isnan(found), 0.0, size)
        total, weight = total + np.where(size > 0.0, found, 0.0) * size, weight + size
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(total / np.where(weight > 0.0, weight, np.nan))


def _pair_values(ground: Ground, run: Run) -> dict[str, Estimate]:
    """RouteLLM's metrics, where the run has something to rank prompts by."""
    if ground.pair is None or (run.p is None and run.needed is None):
        return {}
    strong, weak = ground.pair
    score = ground.table.score[ground.rows]
    if run.needed is not None:
        needed = run.needed[ground.rows]
    else:
        assert run.p is not None
        needed = (run.p[:, strong] - run.p[:, weak])[ground.rows]
    both = ~np.isnan(score[:, strong] + score[:, weak]) & ~np.isnan(needed)
    if both.sum() < 2:
        return {}
    drawn = ground.resamples if both.all() else Resamples(
        ground.table.group[ground.rows[both]], len(ground.resamples.weights) - 1, ground.seed
    )  # fmt: skip
    found = pair_metrics(needed[both], score[both, strong], score[both, weak], drawn)
    return {"APGR": estimate(found.apgr), "CPT50": estimate(found.cpt50), "CPT80": estimate(found.cpt80)}


def find(runs: Sequence[Run], name: str) -> Run | None:
    """The run of a name."""
    return next((run for run in runs if run.name == name), None)
