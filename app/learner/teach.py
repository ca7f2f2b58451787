"""From all recorded calls and words to what a house's traffic teaches: `bursar train --traces`. Pure.

The same learner as beside a gateway, from the first call to the last. Every label is foreseen before it is learned, by
the weights as they were and by what the calls before it taught: that is the test, and no label is both learned from and
tested on (progressive validation: Blum, Kalai, Langford 1999, https://doi.org/10.1145/307400.307439).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log, sqrt
from typing import Any, Final

from app.core.feedback import Feedback, task_thing
from app.learner.lesson import Learned, Lesson
from app.learner.step import Learner
from app.learner.trial import CERTAIN
from routers.artifact import Weights
from routers.house import House
from routers.learned import LearnedRouter

MIN_LABELS: Final = 50
"""Fewer teach too little to be told from chance."""
SURE: Final = 1.96
BATCH: Final = 1_000


class TooLittle(ValueError):
    """The traces teach too little, or nothing that helps; the message says what there was."""


@dataclass
class Cell:
    """One model at one kind of work: labels (what was said of a task is one, in each cell that its calls are of), the
    sum of their weights, and of weighted outcomes."""

    labels: int = 0
    weight: float = 0.0
    good: float = 0.0


@dataclass(frozen=True)
class Taught:
    """`calls`: read, from `first_s` (Unix time) on; `labels`: what was said of a task is one; `sources`: labels by who
    spoke. `before`, `after`: mean log loss in nats of foreseeing each label by the weights as they were, and as taught
    until then; `gain` between them, with its standard `error`."""

    house: House
    calls: int
    labels: int
    sources: dict[str, int]
    cells: dict[tuple[str, str], Cell]
    before: float
    after: float
    gain: float
    error: float
    first_s: float

    @property
    def helps(self) -> bool:
        """Whether what was learned foresees labels better, beyond chance."""
        return self.gain > SURE * self.error


def teach(base: LearnedRouter, records: Sequence[Mapping[str, Any]], words: Iterable[Feedback]) -> Taught:
    """What these records (of calls, whole traces) and words teach beyond what `base` knows; calls that its house was
    already taught by are left out. Deterministic. Raises TooLittle for less than MIN_LABELS, and where what is learned
    foresees labels worse, beyond chance."""
    learner, after_s = Learner(base), base.house.until_s if base.house else float("-inf")
    new = sorted((r for r in records if r["created_s"] > after_s), key=lambda r: (r["created_s"], r["request_id"]))
    by_thing: dict[str, list[Feedback]] = {}
    for word in words:
        by_thing.setdefault(word.thing, []).append(word)
    now_s = max((float(r["created_s"]) for r in new), default=0.0)
    now_s = max([now_s, *(word.said_s for of in by_thing.values() for word in of)])
    losses = _Losses(learner)
    for at in range(0, len(new), BATCH):
        batch = new[at : at + BATCH]
        learner.said(word for thing in _things(batch) for word in by_thing.pop(thing, ()))
        learner.saw(batch)
        for learned in learner.step(now_s):
            losses.hear(learned, learner.lessons.get(learned.request_id))
    learner.learn_held()
    first_s, until_s = (new[0]["created_s"], new[-1]["created_s"]) if new else (now_s, now_s)
    return losses.taught(len(new), float(first_s), float(until_s))


def with_house(weights: Weights, house: House) -> Weights:
    """The same weights for a house that has taught this."""
    return Weights({**weights.without("house").arrays, **house.arrays()})


def _things(batch: Iterable[Mapping[str, Any]]) -> dict[str, None]:
    """What words may be of, in order: the calls, and their tasks."""
    found: dict[str, None] = {}
    for record in batch:
        found[record["request_id"]] = None
        if record.get("task_id") is not None:
            found[task_thing(record["key"], record["task_id"])] = None
    return found


@dataclass(slots=True)
class _Foreseen:
    """A call's label: P(success) by the weights as they were, and as taught before anything was learned of its unit;
    and what it came to when it was heard last."""

    model: str
    task_type: str
    source: str
    untaught: float
    taught: float
    unit: str = ""
    outcome: float = 0.0
    weight: float = 0.0


class _Losses:
    """How well each label was foreseen; what was said of a task is one, and shared by its calls."""

    def __init__(self, learner: Learner) -> None:
        self._learner, self._untaught = learner, learner.prior.begin()
        self._calls: dict[str, _Foreseen] = {}

    def hear(self, learned: Learned, lesson: Lesson | None) -> None:
        arm = None if lesson is None else lesson.arms.get(learned.model)
        if arm is None or lesson is None or not lesson.labels or lesson.call.probe:
            return
        if learned.model != lesson.call.model:
            return
        call = self._calls.get(learned.request_id)
        if learned.first:
            learner = self._learner
            self._untaught = learner.prior.joined(self._untaught, arm, learner.base.ability(arm))
            untaught = learner.probability(self._untaught, arm.name, learned.demand)
            call = _Foreseen(learned.model, learned.task_type, learned.source, untaught, learned.expected)
            self._calls[learned.request_id] = call
        if call is not None:
            call.unit, (call.outcome, call.weight) = lesson.unit, lesson.labels[0].told(0.5)

    def taught(self, calls: int, first_s: float, until_s: float) -> Taught:
        units: dict[str, list[_Foreseen]] = {}
        cells: dict[tuple[str, str], Cell] = {}
        for one in self._calls.values():
            units.setdefault(one.unit, []).append(one)
        for unit in units.values():
            for name in dict.fromkeys((one.model, one.task_type) for one in unit):
                cells.setdefault(name, Cell()).labels += 1
            for one in unit:
                cell = cells[one.model, one.task_type]
                cell.weight, cell.good = cell.weight + one.weight, cell.good + one.weight * one.outcome
        sources = Counter(unit[0].source for unit in units.values())
        before, after, gain, error = judged([_of_unit(unit) for unit in units.values()], calls)
        return Taught(
            House(self._learner.belief, float(until_s)), calls, len(units), dict(sorted(sources.items())),
            dict(sorted(cells.items())), before, after, gain, error, first_s,
        )  # fmt: skip


def _of_unit(unit: Sequence[_Foreseen]) -> tuple[float, float, float]:
    """One label's mean losses before and after, and its weight."""
    weight = sum(one.weight for one in unit)
    before = sum(one.weight * _loss(one.untaught, one.outcome) for one in unit)
    after = sum(one.weight * _loss(one.taught, one.outcome) for one in unit)
    return (before / weight, after / weight, weight) if weight else (0.0, 0.0, 0.0)


def judged(pairs: Sequence[tuple[float, float, float]], calls: int) -> tuple[float, float, float, float]:
    """Mean losses before and after, their difference and its standard error, of labels with (loss before, loss after,
    weight). Raises TooLittle."""
    whole = sum(weight for _, _, weight in pairs)
    if len(pairs) < MIN_LABELS or whole <= 0.0:
        raise TooLittle(
            f"{calls} calls with {len(pairs)} labels: fewer than {MIN_LABELS} teach too little to be told from chance. "
            "What is said of a task is one. Labels come from POST /v1/feedback and from what clients do after an answer"
        )
    before, after = (sum(pair[at] * pair[2] for pair in pairs) / whole for at in (0, 1))
    gain = before - after
    error = sqrt(sum(((b - a - gain) * weight) ** 2 for b, a, weight in pairs)) / whole
    if gain < -SURE * error:
        raise TooLittle(
            f"{len(pairs)} labels: what they teach foresees the next ones worse than the weights as they are "
            f"({after:.4f} against {before:.4f} nats a label): it changes too fast, or the labels tell nothing"
        )
    return before, after, gain, error


def _loss(p: float, outcome: float) -> float:
    p = min(max(p, CERTAIN), 1.0 - CERTAIN)
    return -(outcome * log(p) + (1.0 - outcome) * log(1.0 - p))
