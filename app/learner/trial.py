"""Whether a belief may become a snapshot: it must not predict held-out outcomes worse than the one in force. Pure.

Held out are the tenth of the labels that the learner keeps aside, and, each in its turn, those that it has learned
since the snapshot in force: what one label taught is divided out of the belief, and what is left must foresee it. That
is leave-one-out validation at the price of one rank-one change a label (for expectation propagation: Opper and Winther
2000, https://doi.org/10.1162/089976600300014881), so that no label is kept from learning for it, and a house's first
snapshot needs no more than LEAST. The snapshot in force was told none of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from math import log, sqrt
from typing import Final

from app.learner.lesson import Lesson
from app.learner.step import Learner
from app.stores.snapshots import Status, Trial
from routers.belief import Belief

LEAST: Final = 20
"""Held-out labels that it takes to publish; by fewer any difference is noise."""
MOST_LEFT_OUT: Final = 400
"""Labels that were learned and are left out in turn: the latest."""
SIGNIFICANT: Final = 2.0
"""Standard errors by which the mean loss must be worse."""
CERTAIN: Final = 0.01
"""No prediction counts as surer than this."""


def verdict(trial: Trial) -> tuple[Status, str]:
    """What becomes of a belief that was tried so, and why."""
    if trial.labels < LEAST or trial.loss is None or trial.before is None or trial.error is None:
        return "postponed", f"too few held out: {trial.labels} of {LEAST}"
    if trial.loss - trial.before > SIGNIFICANT * trial.error:
        return "refused", "it predicts held-out outcomes worse than the one in force"
    return "published", ""


def tried(learner: Learner, in_force: Belief) -> Trial:
    """The learner's belief against the one in force, on what is held out."""
    losses, differences, weights = [], [], []
    for lesson, belief in _held_out(learner):
        now, weight = loss_of(learner, belief, lesson)
        if not weight:  # its speaker is found out
            continue
        before, _ = loss_of(learner, in_force, lesson)
        losses.append(now)
        differences.append(now - before)
        weights.append(weight)
    whole = sum(weights)
    if not whole:
        return Trial(len(losses))
    loss = sum(losses) / whole
    mean = sum(differences) / whole
    square = sum((d - mean * w) ** 2 for d, w in zip(differences, weights, strict=True))
    return Trial(len(losses), loss, loss - mean, sqrt(square) / whole)


def _held_out(learner: Learner) -> Iterator[tuple[Lesson, Belief]]:
    """Lessons with a belief that was not told of them, as the one in force was not."""
    for request_id in learner.held:
        lesson = learner.lessons.get(request_id)
        if lesson is not None and _is_judge(learner, lesson):
            yield lesson, learner.belief
    learned = (one for one in reversed(learner.lessons.values()) if one.sites and one.since == learner.term)
    for lesson in islice((one for one in learned if _is_judge(learner, one)), MOST_LEFT_OUT):
        yield lesson, learner.without(lesson)


def _is_judge(learner: Learner, lesson: Lesson) -> bool:
    model = lesson.call.model
    return bool(lesson.labels) and model in lesson.arms and learner.is_current(lesson, model)


def loss_of(learner: Learner, belief: Belief, lesson: Lesson) -> tuple[float, float]:
    """The weighted log loss on one label, and its weight. What was said is taken as evidence against even
    odds, so that it does not depend on who predicts."""
    label, arm = lesson.labels[0], lesson.arms[lesson.call.model]
    belief = learner.prior.joined(belief, arm, learner.base.ability(arm))
    p = min(max(learner.probability(belief, arm.name, lesson.demand), CERTAIN), 1.0 - CERTAIN)
    outcome, weight = label.told(0.5)
    return -weight * (outcome * log(p) + (1.0 - outcome) * log(1.0 - p)), weight
