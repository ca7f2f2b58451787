"""Evaluate routers on anybody's outcomes: split, let every router and baseline choose, measure, report.

See `eval_split` for who is trained and tested on what, `eval_policies` for how forecasts become choices,
`eval_baselines` and `eval_metrics` for what stands beside a router and what is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from routers.eval_baselines import LOGISTIC, ORACLE, STATIC, baselines, comparable
from routers.eval_bootstrap import Estimate
from routers.eval_contenders import (
    Contender,
    Readings,
    UnknownRouter,
    heuristic,
    plugged_in,
)
from routers.eval_learned import shipped, trained
from routers.eval_measure import Ground, Measured, find, ground_of, measure
from routers.eval_prudent import prudent
from routers.eval_runs import Run, Trial, forecast_trial, run
from routers.eval_split import Cv, Fold, Plan, plans
from routers.eval_table import Prices, Table, tables
from routers.rows import Row

BUILT_IN = ("learned", "heuristic")
COLD: Final = "learned: the shipped weights as they are, cold; rows that they were trained on flatter them"
AS_THE_MIX: Final = "learned, told: after the same outcomes, of other rows, that the static mix is chosen by"
OR_THE_MIX: Final = ", or the mix"
PRUDENT: Final = "the static mix, unless validation rows show the router to be surely better"


@dataclass(frozen=True)
class Options:
    """What is asked of an evaluation. `routers`: built-in names or `module:callable`; `resamples` of the bootstrap.

    `models`: only these, all where empty. `strong`, `weak`: the pair of RouteLLM's metrics, chosen where None.
    `fitted`: with the baselines that must be fitted.
    """

    routers: tuple[str, ...] = BUILT_IN
    cv: Cv = "none"
    seed: int = 0
    resamples: int = 1000
    models: tuple[str, ...] = ()
    strong: str | None = None
    weak: str | None = None
    fitted: bool = True


@dataclass(frozen=True)
class SourceReport:
    """One source: its size, its models with mean score and dollars, and every run. `pair` is (strong, weak)."""

    source: str
    rows: int
    questions: int
    families: int
    best: str | None
    pair: tuple[str, str] | None
    notes: list[str]
    models: list[tuple[str, Estimate, Estimate]]
    routers: list[Measured]
    baselines: list[Measured]


@dataclass(frozen=True)
class Report:
    """A whole evaluation: how it was done, and what came out for each source."""

    options: Options
    versions: dict[str, str]
    rows: int
    notes: list[str]
    sources: list[SourceReport] = field(default_factory=list)


Said = Callable[[str], None]


def evaluate(rows: Sequence[Row], options: Options, prices: Prices, *, say: Said = lambda _text: None) -> Report:
    """Evaluate on every source of some rows. UnknownRouter where a router cannot be had."""
    rows = [row for row in rows if row.outcomes]  # nothing to train or test on: a fold of such rows alone is none
    made = tables(rows, prices, models=options.models)
    split, notes = plans(rows, made, options.cv, options.seed)
    readings = Readings()
    contenders = [
        contender for name in options.routers for contender in _contenders(name, rows, split, options, readings)
    ]
    versions = {contender.name: contender.version for contender in contenders}
    report = Report(options, versions, len(rows), [*notes, *_unknown_models(options, made)])
    if "learned" in options.routers and not any(len(plan.train) for plan in split):
        report.notes.extend((COLD, AS_THE_MIX))
    for number, table in enumerate(made):
        folds = [fold for plan in split for place, fold in plan.folds if place == number]
        if not folds:
            report.notes.append(f"{table.source}: too few different questions to choose on some and test on others")
            continue
        say(f"{table.source}: {len(table.rows)} rows, {len(table.models)} models")
        report.sources.append(_source(table, folds, contenders, options, say))
    return report


def _unknown_models(options: Options, made: Sequence[Table]) -> list[str]:
    known = {name for table in made for name in table.models}
    asked = [*options.models, *(name for name in (options.strong, options.weak) if name is not None)]
    return [f"no outcomes of a model named {name!r}" for name in asked if name not in known]


def _contenders(
    name: str, rows: Sequence[Row], split: Sequence[Plan], options: Options, readings: Readings
) -> list[Contender]:
    if name == "heuristic":
        return [heuristic(readings)]
    if name == "learned":
        if options.cv == "none" or not any(len(plan.train) for plan in split):
            return shipped(readings)
        return trained(lambda plan: [rows[int(number)] for number in split[plan].train], options.seed, readings)
    if ":" in name:
        return [plugged_in(name, readings)]
    raise UnknownRouter(
        f"no router named {name!r}: there are {', '.join(BUILT_IN)}, or name one as module:callable or file.py:callable"
    )


def _source(
    table: Table, folds: list[Fold], contenders: Sequence[Contender], options: Options, say: Said
) -> SourceReport:
    tested = [comparable(table, fold) for fold in folds]
    ground = ground_of(table, tested, options.resamples, options.seed, strong=options.strong, weak=options.weak)
    say("  baselines")
    beside = baselines(table, folds, options.seed, fitted=options.fitted)
    runs = []
    for contender in contenders:
        say(f"  {contender.name}")
        runs.extend(_runs(contender, table, folds, ground.pair))
    say("  intervals")
    left_out = sum(len(fold.test) for fold in folds) - len(ground.rows)
    note = f"left out, a model of the static mix was not asked: {left_out} rows"
    return _source_report(ground, runs, beside, [note] if left_out else [])


def _runs(contender: Contender, table: Table, folds: list[Fold], pair: tuple[int, int] | None) -> list[Run]:
    """A contender's run; and, where it has one, that with the static mix in its place until outcomes speak for it."""
    trials: dict[int, Trial] = {}

    def attempt(fold: Fold) -> Trial:
        trials[int(fold.test[0])] = made = forecast_trial(
            table, fold, *contender.ask(table, fold, pair), adequacy=contender.calibrated
        )
        return made

    done = run(contender.name, table, folds, attempt, note=contender.note)
    if not contender.calibrated:
        done.p = None
    if not contender.prudent or not table.dollars.any():
        return [done]
    name = f"{contender.name}{OR_THE_MIX}"
    return [done, run(name, table, folds, lambda fold: prudent(table, fold, trials[int(fold.test[0])]), note=PRUDENT)]


def _source_report(ground: Ground, runs: list[Run], beside: list[Run], notes: list[str]) -> SourceReport:
    table = ground.table
    static, oracle = find(beside, STATIC), find(beside, ORACLE)
    names = table.models
    return SourceReport(
        source=table.source,
        rows=len(ground.rows),
        questions=len(np.unique(table.group[ground.rows])),
        families=len(table.families),
        best=None if ground.best is None else names[ground.best],
        pair=None if ground.pair is None else (names[ground.pair[0]], names[ground.pair[1]]),
        notes=[*table.notes, *notes],
        models=ground.models,
        routers=[measure(ground, done, static, oracle, by_family=True) for done in runs],
        baselines=[measure(ground, done, static, oracle, by_family=done.name == LOGISTIC) for done in beside],
    )
