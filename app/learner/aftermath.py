"""A snapshot in force on trial: do live outcomes since it was published say that the one before it was better? Pure.

Neither was told of what became known since, whenever the call was: words come late, and signs speak ten minutes after
it. So the difference of their log losses needs no hold-out. It is looked at with every label, so that it takes more
standard errors than a test that is made once. Snapshots come faster than it can tell: one that is published meanwhile
is judged along with those before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Final

import msgspec

from app.learner.lesson import Learned, Lesson
from app.learner.signs import SETTLED_S
from app.learner.sources import SIGNS
from app.learner.step import Learner
from app.learner.trial import Compared, compared, together
from routers.belief import Belief

MIN_LABELS: Final = 50
SIGNIFICANT: Final = 3.5
"""Standard errors. With 50 to 2,000 labels looked at one by one, a snapshot that is as good as the one before is taken
back in about 1 of 100 cases (synthetic normal differences, 2,000 runs)."""
LEANING: Final = 1.0
"""Standard errors from which on it is worth listening further."""
MOST_LABELS: Final = 2_000
LEAST_LOSS: Final = 0.005
"""Nats per label: a difference that is sure but smaller is not worth going back for."""


class Aftermath(msgspec.Struct):
    """Since a snapshot was published at `since_s`, and up to `number` others after it: how many labels, and sums of
    weights, weighted differences, squares of these, and variances. `parent`: the one before them, which judges them."""

    number: int = 0
    parent: int = 0
    since_s: float = 0.0
    labels: int = 0
    weight: float = 0.0
    difference: float = 0.0
    square: float = 0.0
    variance: float = 0.0

    def hear(self, learner: Learner, learned: Sequence[Learned], now: Belief, before: Belief) -> None:
        """Take in labels that became known since; what was said of a task is one."""
        units: dict[str, Compared] = {}
        for one in learned:
            lesson = learner.lessons.get(one.request_id)
            if not one.first or lesson is None or not lesson.labels or _known_s(lesson, one) < self.since_s:
                continue
            if lesson.call.probe or lesson.call.model != one.model or one.model not in lesson.arms:
                continue
            if not learner.is_current(lesson, one.model):
                continue
            units[lesson.unit] = together(units.get(lesson.unit), compared(learner, now, before, lesson))
        for unit in units.values():
            change = unit.loss - unit.before
            self.labels += 1
            self.weight += unit.weight
            self.difference += change
            self.square += change**2
            self.variance += unit.variance

    @property
    def worse(self) -> bool:
        """Whether the snapshot predicts worse than the one before it, by more than noise."""
        if self.labels < MIN_LABELS or self.weight <= 0.0:
            return False
        return self.difference > SIGNIFICANT * self._spread and self.difference / self.weight > LEAST_LOSS

    @property
    def is_open(self) -> bool:
        """Whether something was heard, and it is too early to say that they are no worse."""
        if self.labels < MIN_LABELS:
            return self.labels > 0
        return self.labels < MOST_LABELS and self.difference > LEANING * self._spread

    @property
    def _spread(self) -> float:
        return sqrt(max(self.square - self.difference**2 / self.labels, self.variance))


def _known_s(lesson: Lesson, one: Learned) -> float:
    """When a label could be learned first."""
    spoken = any(told.source not in SIGNS for told in lesson.told)
    return one.said_s if spoken else lesson.call.ended_s + SETTLED_S
