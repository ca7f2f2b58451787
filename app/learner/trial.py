"""Whether a belief may become a snapshot: it must not predict held-out outcomes worse than the one in force. Pure."""

from __future__ import annotations

from math import log, sqrt
from typing import Final

from app.learner.lesson import Lesson
from app.learner.step import Learner
from app.stores.snapshots import Trial
from routers.belief import Belief

MIN_JUDGED: Final = 20
"""Held-out labels that it takes to refuse; with fewer any difference is noise."""
SIGNIFICANT: Final = 2.0
"""Standard errors by which the mean loss must be worse."""
CERTAIN: Final = 0.01
"""No prediction counts as surer than this."""


def worse(trial: Trial) -> bool:
    """Whether it predicts what was held out worse, by more than noise."""
    if trial.labels < MIN_JUDGED or trial.loss is None or trial.before is None or trial.error is None:
        return False
    return trial.loss - trial.before > SIGNIFICANT * trial.error


def tried(learner: Learner, in_force: Belief) -> Trial:
    """The learner's belief against the one in force, on what it holds out."""
    losses, differences, weights = [], [], []
    for request_id in learner.held:
        lesson = learner.lessons.get(request_id)
        if lesson is None or not lesson.labels or lesson.call.model not in lesson.arms:
            continue
        now, weight = loss_of(learner, learner.belief, lesson)
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


def loss_of(learner: Learner, belief: Belief, lesson: Lesson) -> tuple[float, float]:
    """The weighted log loss on one label, and its weight. What was said is taken as evidence against even
    odds, so that it does not depend on who predicts."""
    label, arm = lesson.labels[0], lesson.arms[lesson.call.model]
    belief = learner.prior.joined(belief, arm, learner.base.ability(arm))
    p = min(max(learner.probability(belief, arm.name, lesson.demand), CERTAIN), 1.0 - CERTAIN)
    outcome, weight = label.told(0.5)
    return -weight * (outcome * log(p) + (1.0 - outcome) * log(1.0 - p)), weight
