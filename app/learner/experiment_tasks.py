"""Tasks of many calls, of which only the task's outcome is said: what one label for all teaches the gateway's learner.

Outcomes of calls are real and recorded; the tasks are synthetic: each is made of rows of one kind of work, and succeeds
by a stated rule. The learner is the gateway's, with its labels, credit and guard, and it chooses: by the means of what
it believes, for a share EXPLORED by a draw. Beside one word on each task stand a word on each call, a word on one call
of each task (as many labels as there are tasks), the naive rule (each call is said to have turned out as its task did),
and weights that hear nothing. What is sought is the model that is right most often, whatever it costs, so that it is
the same one by whichever outcome it is sought.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from app.learner.experiment_poisoned import KEYS, LIARS, SOURCES
from app.learner.experiment_tasks_made import (
    BY_CALL,
    BY_ONE,
    BY_TASK,
    CALLS,
    DROP,
    EXPLORED,
    FALLEN,
    LENGTHS,
    NAIVE,
    NOTHING,
    QUIET,
    RULES,
    WAYS,
    Found,
    Setup,
    Work,
    fell,
    found,
)
from routers.eval_bootstrap import Estimate
from routers.eval_loop import Experiment, Mark
from routers.eval_loop_world import Setting, World, over_seeds, share_found
from routers.eval_report import Sheet, shown

COVERED: Final = 0.9
MIXED: Final = 8
"""Calls of a task, where keys lie, where a model is chosen for each call, and where a naive rule hears of a fall."""


@dataclass(frozen=True)
class Line:
    """Streams of one source and setup, over seeds; `more`: regret above that of a word on each call, seed by seed."""

    source: str
    setup: Setup
    regret: Estimate
    more: Estimate
    error: Estimate
    bias: Estimate
    covered: Estimate
    caught: tuple[int, ...]


@dataclass(frozen=True)
class Falls:
    """Falls of one cell over seeds. `after`: a number a seed in which it was found."""

    source: str
    model: str
    task_type: str
    setup: Setup
    seeds: int
    false_alarms: int
    after: tuple[int, ...]


def setups() -> list[Setup]:
    """All that are run, each beside the same with a word on each call."""
    found = [Setup(1, BY_CALL), Setup(1, NOTHING)]
    for calls in LENGTHS[1:]:
        found += [Setup(calls, way) for way in (*WAYS, NOTHING)]
        found += [Setup(calls, way, "all") for way in (BY_CALL, BY_TASK)]
    found += [Setup(MIXED, way, held=False) for way in (BY_CALL, BY_TASK, NAIVE)]
    return found + [Setup(MIXED, way, lies=True) for way in (BY_CALL, BY_TASK, NAIVE)]


def lines(world: World, seeds: Sequence[int]) -> list[Line]:
    """All setups on one source."""
    work, made = Work(world), dict[Setup, list[Found]]()
    for setup in setups():
        known = Setup(setup.calls, setup.way, "noisy", setup.held, setup.lies)
        if setup.way in (BY_CALL, BY_ONE, NOTHING) and known in made:
            made[setup] = made[known]  # when a task succeeds they do not hear
        else:
            made[setup] = [found(work, setup, seed) for seed in seeds]
    return [_line(world.source, setup, streams, made[_beside(setup)]) for setup, streams in made.items()]


def _beside(setup: Setup) -> Setup:
    return Setup(setup.calls, BY_CALL, setup.rule, setup.held, setup.lies)


def _line(source: str, setup: Setup, streams: list[Found], beside: list[Found]) -> Line:
    regret, error, bias, covered, caught = (list(of) for of in zip(*streams, strict=True))
    more = [one.regret - other.regret for one, other in zip(streams, beside, strict=True)]
    return Line(source, setup, over_seeds(regret), over_seeds(more), over_seeds(error), over_seeds(bias),
                over_seeds(covered), tuple(int(at) for at in caught if not np.isnan(at)))  # fmt: skip


def told_of_fall(calls: int) -> tuple[str, ...]:
    """What is said while a model falls."""
    return (BY_CALL,) if calls == 1 else (BY_TASK, NAIVE) if calls == MIXED else (BY_TASK,)


def falls(world: World, seeds: Sequence[int]) -> list[Falls]:
    """The best model at the commonest kind of work falls."""
    work = Work(world)
    kind = max(work.rows, key=lambda one: len(work.rows[one]))
    arm = int(work.rate[kind].argmax())
    made = []
    for calls in LENGTHS:
        for way in told_of_fall(calls):
            setup = Setup(calls, way)
            streams = [fell(work, arm, kind, setup, seed) for seed in seeds]
            after = tuple(int(one.after) for one in streams if not np.isnan(one.after))
            made.append(Falls(world.source, world.arms[arm].name, world.tasks[kind], setup, len(streams),
                              sum(one.false_alarm for one in streams), after))  # fmt: skip
    return made


def experiment(setting: Setting) -> Experiment:
    """Tasks of many calls."""
    able = [world for world in setting.worlds() if Work(world).rows]
    there = [world for world in able if world.source in SOURCES[:2]] or able
    seeds, found_lines, found_falls = range(setting.seeds), list[Line](), list[Falls]()
    for world in there:
        setting.say(f"tasks: {world.source}")
        found_lines += lines(world, seeds)
        found_falls += falls(world, seeds)
    return told(found_lines, found_falls, setting.seeds)


def told(found_lines: list[Line], found_falls: list[Falls], seeds: int) -> Experiment:
    """The tables and marks."""
    honest = [line for line in found_lines if not line.setup.lies]
    columns = ("source", "calls a task", "a wrong call spoils it", "chosen", "said of", "regret", "above each call's",
               "belief off by, points", "too high by, points", "in its interval, %")  # fmt: skip
    table = [
        (*_of(line.source, line.setup), shown(line.regret), shown(line.more), shown(line.error, 100),
         shown(line.bias, 100), shown(line.covered, 100)) for line in honest
    ]  # fmt: skip
    columns_2 = ("source", "model", "work", "calls a task", "said of", "false alarms", "found", "share",
                 "after, calls")  # fmt: skip
    table_2 = [
        (one.source, one.model, one.task_type, str(one.setup.calls), one.setup.way, f"{one.false_alarms}/{one.seeds}",
         f"{len(one.after)}/{one.seeds}", shown(share_found(len(one.after), one.seeds)), _middle(one.after))
        for one in found_falls
    ]  # fmt: skip
    columns_3 = ("source", "calls a task", "said of", "regret", "were all honest", "found out", "after, calls")
    liars = [line for line in found_lines if line.setup.lies]
    table_3 = [
        (line.source, str(line.setup.calls), line.setup.way, shown(line.regret),
         shown(next(one.regret for one in honest if (one.source, one.setup) == (line.source, _honest(line.setup)))),
         f"{len(line.caught)}/{seeds}", _middle(line.caught)) for line in liars
    ]  # fmt: skip
    sheets = [
        Sheet(f"Tasks: {CALLS} calls", columns, table, columns[5:]),
        Sheet(f"Tasks: a model falls by {DROP * 100:.0f} points", columns_2, table_2, columns_2[5:]),
        Sheet("Tasks: a tenth of the keys lies", columns_3, table_3, columns_3[3:]),
    ]
    of_tasks = [line for line in honest if line.setup.way == BY_TASK]
    quiet = [one for one in found_falls if one.setup.way == BY_TASK]
    caught = [line for line in liars if line.setup.way == BY_TASK]
    marks = [
        Mark("what is believed is no surer than it is right, by tasks' words: 9 of 10 in their intervals",
             ", ".join(f"{line.covered.value:.0%}" for line in of_tasks),
             bool(of_tasks) and all(line.covered.value >= COVERED for line in of_tasks)),
        Mark(f"at most 1 false alarm in {seeds} quiet runs, by tasks' words",
             ", ".join(str(one.false_alarms) for one in quiet),
             bool(quiet) and all(one.false_alarms <= 1 for one in quiet)),
        Mark("who lies is found out, by tasks' words", ", ".join(f"{len(line.caught)} of {seeds}" for line in caught),
             bool(caught) and all(len(line.caught) == seeds for line in caught)),
    ]  # fmt: skip
    notes = [
        "outcomes of calls are recorded ones; the tasks that they make up are synthetic, and so are falls and lies",
        f"a share of {EXPLORED} is drawn; a fall comes after {QUIET} calls, and {FALLEN} follow; {len(LIARS)} key of "
        f"{KEYS} lies",
    ]
    return Experiment("tasks", sheets, marks, notes, {"lines": found_lines, "falls": found_falls})


def _honest(setup: Setup) -> Setup:
    return Setup(setup.calls, setup.way, setup.rule, setup.held)


def _of(source: str, setup: Setup) -> tuple[str, ...]:
    spoils = "always" if setup.calls == 1 or RULES[setup.rule] == 1.0 else f"in {RULES[setup.rule]:.0%}"
    return source, str(setup.calls), spoils, "once a task" if setup.held else "for each call", setup.way


def _middle(after: Sequence[int]) -> str:
    return f"{np.median(after):.0f} (at most {max(after)})" if after else "-"
