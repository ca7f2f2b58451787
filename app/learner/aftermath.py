"""A snapshot in force on trial: do live outcomes since it was published say that the one before it was better? Pure.

Both predicted each call that was decided since; the difference of their log losses needs no hold-out, since neither was
told. It is looked at with every label, so that it takes more standard errors than a test that is made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Final

import msgspec

from app.learner.step import Learned, Learner
from app.learner.trial import loss_of
from routers.belief import Belief

MIN_LABELS: Final = 50
SIGNIFICANT: Final = 3.5
"""Standard errors. With 50 to 2,000 labels looked at one by one, a snapshot that is as good as the one before is taken
back in about 1 of 100 cases (synthetic normal differences, 2,000 runs)."""
LEAST_LOSS: Final = 0.005
"""Nats per label: a difference that is sure but smaller is not worth going back for."""


class Aftermath(msgspec.Struct):
    """Since the snapshot `number` was published at `since_s`: how many labels, and sums of weights, weighted
    differences and squares of these."""

    number: int = 0
    parent: int = 0
    since_s: float = 0.0
    labels: int = 0
    weight: float = 0.0
    difference: float = 0.0
    square: float = 0.0

    def hear(self, learner: Learner, learned: Sequence[Learned], now: Belief, before: Belief) -> None:
        """Take in labels of calls that were decided since."""
        for one in learned:
            lesson = learner.lessons.get(one.request_id)
            if not one.first or lesson is None or not lesson.labels or lesson.call.created_s < self.since_s:
                continue
            if lesson.call.model != one.model or one.model not in lesson.arms:
                continue
            if not learner.is_current(lesson, one.model):
                continue
            mine, weight = loss_of(learner, now, lesson)
            others, _ = loss_of(learner, before, lesson)
            self.labels += 1
            self.weight += weight
            self.difference += mine - others
            self.square += (mine - others) ** 2

    @property
    def worse(self) -> bool:
        """Whether the snapshot predicts worse than the one before it, by more than noise."""
        if self.labels < MIN_LABELS or self.weight <= 0.0:
            return False
        spread = sqrt(max(self.square - self.difference**2 / self.labels, 0.0))
        return self.difference > SIGNIFICANT * spread and self.difference / self.weight > LEAST_LOSS
