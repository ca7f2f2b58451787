"""The experiments on the loop that need no part of the gateway: each with its table, and its marks, met or not.

Streams are real recorded outcomes in a random order; weights were trained on other sources; a fall of a model is
injected. Seeds are 0 and up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import isnan
from typing import Any, Final

from routers.eval_bootstrap import Estimate
from routers.eval_loop_drift import (
    ALL_AGAIN,
    MIN_ARMS,
    MIN_ROWS,
    PROBE_SET,
    PROBE_SETS,
    QUIET,
    RUNS,
    SYNTHETIC,
    SYNTHETIC_RUNS,
    CellReport,
    Repeats,
    cell_report,
    cells,
    saved,
)
from routers.eval_loop_new import CHECKPOINTS, CONVERGED, FITTED, OURS, Appeared, Joined, appeared, joined
from routers.eval_loop_regret import HINDSIGHT, RATES, REQUESTS, VARIANTS, regrets, summed_up, total
from routers.eval_loop_regret import OURS as LEARNER
from routers.eval_loop_world import Setting
from routers.eval_report import Sheet, shown

POINT: Final = 0.01


@dataclass(frozen=True)
class Mark:
    """What was asked for, what was found, and whether that is it."""

    asked: str
    found: str
    met: bool


@dataclass(frozen=True)
class Experiment:
    """One experiment's results. `data`: what the tables were made of."""

    name: str
    sheets: list[Sheet]
    marks: list[Mark]
    notes: list[str] = field(default_factory=list)
    data: Any = None


def regret(setting: Setting) -> Experiment:
    """Regret over 5,000 requests."""
    seeds, every, lines = range(setting.seeds), [], []
    for world in setting.worlds():
        for share in RATES:
            setting.say(f"regret: {world.source}, a call of the best model worth {share:g}")
            every.append(regrets(world, share, seeds))
            lines.append(summed_up(world, share, every[-1]))
    whole = total(every)
    ours = sum(whole[LEARNER]) / len(seeds)
    others = {name: sum(v) / len(seeds) for name, v in whole.items() if name not in {LEARNER, *VARIANTS, *HINDSIGHT}}
    next_best = min(others, key=lambda name: others[name])
    above = summed_up(setting.worlds()[0], 0.0, whole)
    gap = above.above[next_best]
    first = [line for line in lines if all(line.above[name].value > 0.0 for name in others)]
    names = list(whole)
    columns = ("source", "call worth", *names)
    table = [(x.source, f"{x.rate:g}", *(_whole(x.regret[name]) for name in names)) for x in lines]
    table.append(("all", "", *(_whole(above.regret[name]) for name in names)))
    marks = [
        Mark(
            "lowest regret of all but the oracle, all sources together",
            f"{ours:.0f}; next {next_best}: {_whole(gap)} more",
            gap.low > 0.0,
        ),
        Mark(
            "the same in each source at each rate",
            f"{len(first)} of {len(lines)}",
            len(first) == len(lines),
        ),
    ]
    notes = [
        f"regret over {REQUESTS} requests in successes, against the best choice for each request; means of "
        f"{len(seeds)} seeds with 95 % intervals; sources with fewer rows are streamed more than once"
    ]
    title = "Regret over a stream of requests"
    return Experiment("regret", [Sheet(title, columns, table, columns[1:])], marks, notes, lines)


def drift(setting: Setting) -> Experiment:
    """Falls found, false alarms, and what quarantine saves."""
    seeds = setting.seeds
    new, again, synthetic, probed = [], [], [], []
    for world, arm, rows in cells(setting):
        setting.say(f"drift: {world.source}")
        new.append(cell_report(world, arm, rows, seeds))
        again.append(cell_report(world, arm, rows, seeds, ALL_AGAIN))
        synthetic += [cell_report(world, arm, rows, seeds, repeats, SYNTHETIC_RUNS) for repeats in SYNTHETIC]
        probed += [cell_report(world, arm, rows, seeds, repeats, SYNTHETIC_RUNS) for repeats in PROBE_SETS]
    marks = [*_marks_of(new, seeds, "each request new"), *_marks_of(again, seeds, "rows come again as recorded")]
    for repeats in PROBE_SETS:
        marks += _marks_of([c for c in probed if c.repeats == repeats], seeds, _of_probes(repeats))
    notes = [
        "the fall is injected into real outcomes drawn with repetition, 2,000 labels after the start; "
        f"share: of {max(RUNS, seeds)} runs; most: what no detector with 5 % false alarms in {QUIET} labels can "
        "pass, were it told when, from where and how far the model falls, of yes or no of requests that are new; "
        f"least: labels within which that one finds {seeds} of {seeds} as likely as not; delay: median labels",
        "rows that come again have exactly the outcome that was recorded, which is an artefact of the replay: no model "
        "repeats itself so well",
        f"synthetic repeats: {SYNTHETIC_RUNS} runs a line; a share of the labels is of so many fixed requests, "
        "the others are new; two answers to a request differ by synthetic chance as often as it says; the injected "
        "fall loses answers by chance, or the same requests' each time",
        f"a probe set: {PROBE_SET} of the rows (all, where there are fewer), drawn anew for each of {SYNTHETIC_RUNS} "
        "runs, in rounds of another order each, and nothing else; the command's own test finds a fall with the round "
        "in which so many labels are reached",
    ]
    savings = []
    for world in setting.worlds():
        if len(world.table.rows) >= MIN_ROWS and len(world.arms) >= MIN_ARMS:
            setting.say(f"drift: quarantine in {world.source}")
            savings += saved(world, range(seeds))
    columns_2 = ("source", "model", "work", "points lost", "successes", "dollars", "worth in successes", "quarantined")
    table_2 = [
        (s.source, s.model, s.task_type, f"{s.drop * 100:.0f}", shown(s.successes), shown(s.dollars), shown(s.worth),
         f"{s.quarantined:.0%}") for s in savings
    ]  # fmt: skip
    sheets = [
        _falls("Falls of a model, found: each request held to be new", new, seeds),
        _falls("Falls of a model, found: rows of the source come again, as they were recorded", again, seeds),
        _synthetic(synthetic),
        _probe_sets(probed, seeds),
        Sheet("Saved by quarantine per 1,000 requests of that work, after an injected fall", columns_2, table_2,
              columns_2[3:]),
    ]  # fmt: skip
    return Experiment(
        "drift",
        sheets,
        marks,
        notes,
        {"cells": new, "again": again, "synthetic": synthetic, "probed": probed, "saved": savings},
    )


def _falls(title: str, found: list[CellReport], seeds: int) -> Sheet:
    columns = ("source", "model", "work", "success", "false alarms", "points lost", "within", "found", "share", "most",
               "least", "delay")  # fmt: skip
    table = [
        (c.source, c.model, c.task_type, f"{c.level:.3f}", f"{c.alarms_of_seeds}/{seeds}; {shown(c.alarms)}",
         f"{fall.drop * 100:.0f}", str(fall.within), f"{fall.of_seeds}/{seeds}", shown(fall.share), _bound(fall.most),
         str(fall.least or "graded"), f"{fall.delay:.0f}")
        for c in found for fall in c.falls
    ]  # fmt: skip
    return Sheet(title, columns, table, columns[3:])


def _synthetic(found: list[CellReport]) -> Sheet:
    """By how requests come again: each cell's share of falls found, and its false alarms."""
    columns = ("source", "success", "of labels again", "fixed requests", "differ by chance", "a fall loses",
               "false alarms", "5 points", "15 points", "30 points")  # fmt: skip
    table = [
        (c.source, f"{c.level:.3f}", f"{c.repeats.share:.0%}", str(c.repeats.probes or c.rows),
         f"{c.repeats.flips:.0%}", "the same" if c.repeats.same else "by chance", shown(c.alarms),
         *(shown(fall.share) for fall in c.falls))
        for c in found
    ]  # fmt: skip
    title = "Falls of a model, found: synthetic repeats"
    return Sheet(title, columns, [(*line, *("" for _ in columns[len(line) :])) for line in table], columns[1:])


def _probe_sets(found: list[CellReport], seeds: int) -> Sheet:
    """A set of fixed requests in rounds: what the detector finds, and what the command's own test does."""
    columns = ("source", "success", "differ by chance", "a fall loses", "false alarms", "of the command",
               *(f"{points} points{of}" for points in (5, 15) for of in (", found", ", share", ", delay", ", by the "
                 "command")))  # fmt: skip
    table = []
    for c in found:
        line = [c.source, f"{c.level:.3f}", f"{c.repeats.flips:.0%}", "the same" if c.repeats.same else "by chance"]
        line += [f"{c.alarms_of_seeds}/{seeds}; {shown(c.alarms)}", shown(c.command_alarms)] if c.command_alarms else []
        for fall in c.falls[:2]:
            line += [f"{fall.of_seeds}/{seeds}", shown(fall.share), f"{fall.delay:.0f}"]
            line += [shown(fall.by_command)] if fall.by_command else []
        table.append((*line, *("" for _ in columns[len(line) :])))
    return Sheet(f"Falls of a model, found: a probe set of {PROBE_SET} fixed requests", columns, table, columns[1:])


def _of_probes(repeats: Repeats) -> str:
    chance = f"{repeats.flips:.0%} differ by synthetic chance" if repeats.flips else "as recorded"
    lost = "the same requests lost each time" if repeats.same else "lost by chance"
    return f"a probe set of {PROBE_SET}, {chance}, {lost}"


def _marks_of(found: list[CellReport], seeds: int, how: str) -> list[Mark]:
    marks = []
    for at, drop, within in ((0, 5, 600), (1, 15, 150)):
        done = [c for c in found if len(c.falls) > at and c.falls[at].of_seeds == seeds]
        text = ", ".join(f"{c.falls[at].of_seeds}/{seeds} at {c.level:.2f}" for c in found if len(c.falls) > at)
        asked = f"{drop} points found {seeds}/{seeds} within {within} labels; {how}"
        marks.append(Mark(asked, text, len(done) == len(found) > 0))
    alarms = max((c.alarms_of_seeds for c in found), default=0)
    asked = f"at most 1 false alarm in {seeds} quiet runs of {QUIET}; {how}"
    return [*marks, Mark(asked, f"at most {alarms} in a cell", bool(found) and alarms <= 1)]


def newcomer(setting: Setting) -> Experiment:
    """A model never seen: 20 labels against a fit of its own on 100."""
    found: list[Joined] = []
    for world in setting.worlds():
        setting.say(f"newcomer: {world.source}")
        for arm in sorted({0, len(world.arms) // 2, world.best}):
            found += joined(world, arm, range(setting.seeds))
    columns = ("source", "model", "call worth", f"after {OURS} labels - fit on {FITTED}", "- without it")
    table = [(j.source, j.model, f"{j.rate:g}", shown(j.against_fit, 100), shown(j.against_none, 100)) for j in found]
    good = [j for j in found if j.against_fit.high >= 0.0]
    clear = [j for j in found if j.against_fit.low > -POINT]
    marks = [
        Mark(
            f"routed as well after {OURS} labels as a per-model fit after {FITTED}",
            f"not worse in {len(good)} of {len(found)}; within a point for sure in {len(clear)}",
            len(good) == len(found) > 0,
        )
    ]
    notes = ["points of utility on requests that neither was told of; a logistic regression on text is the fit"]
    return Experiment("newcomer", [Sheet("A model joins", columns, table, columns[2:])], marks, notes, found)


def family(setting: Setting) -> Experiment:
    """A family of requests never seen."""
    found: list[Appeared] = []
    for world in setting.worlds():
        setting.say(f"family: {world.source}")
        found += appeared(world, range(setting.seeds))
    last = CHECKPOINTS[-1]
    columns = ("source", "call worth", "labels", "against the static choice", f"against after {last}",
               "kept to the static choice, against it", f"against after {last}",
               "hearing all arms, against the static choice", f"against after {last}")  # fmt: skip
    table = [(a.source, f"{a.rate:g}", str(a.labels), shown(a.against_static, 100), shown(a.against_last, 100),
              shown(a.kept, 100), shown(a.kept_last, 100), shown(a.told, 100), shown(a.told_last, 100))
             for a in found]  # fmt: skip
    at = [a for a in found if a.labels == CONVERGED]
    near, kept_near, told_near = (
        sum(estimate.high >= 0.0 for estimate in of)
        for of in ([a.against_last for a in at], [a.kept_last for a in at], [a.told_last for a in at])
    )
    below, kept_below, told_below = (
        sum(estimate.high < 0.0 for estimate in of)
        for of in ([a.against_static for a in found], [a.kept for a in found], [a.told for a in found])
    )
    converged, never = f"converged within {CONVERGED} labels", "never below the static mix on the way"
    marks = [
        Mark(
            converged,
            f"as good as after {last} within its interval in {near} of {len(at)}, hearing all in {told_near}",
            near == len(at) > 0,
        ),
        Mark(f"{never}, within its interval",
             f"below at {below} of {len(found)} checkpoints, hearing all at {told_below}",
             bool(found) and not below),
        Mark(f"{converged}; a baseline is kept to", f"{kept_near} of {len(at)}", kept_near == len(at) > 0),
        Mark(f"{never}; a baseline is kept to", f"below at {kept_below} of {len(found)} checkpoints",
             bool(found) and not kept_below),
    ]  # fmt: skip
    notes = [
        "points of utility on other requests of the family; the static choice is the best single arm of the others; "
        "kept to it: a route whose baseline that is, left only for what is better with a probability of .95; "
        "hearing all: one with as many labels, but of all arms on the same requests, that takes one arm for the family"
    ]
    return Experiment("family", [Sheet("A family appears", columns, table, columns[1:])], marks, notes, found)


def _bound(share: float) -> str:
    return "graded" if isnan(share) else f"{share:.3f}"


def _whole(value: Estimate) -> str:
    return f"{value.value:.0f} [{value.low:.0f}, {value.high:.0f}]"


EXPERIMENTS: Final[dict[str, Callable[[Setting], Experiment]]] = {
    "regret": regret,
    "drift": drift,
    "newcomer": newcomer,
    "family": family,
}
