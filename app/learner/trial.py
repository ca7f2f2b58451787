"""Whether a belief may become a snapshot: it must not predict held-out outcomes worse than the one in force. Pure.

Held out are the tenth of the labels that the learner keeps aside, and, each in its turn, those that it has learned
since the snapshot in force: what one label taught is divided out of the belief, and what is left must foresee it. That
is leave-one-out validation at the price of one rank-one change a label (for expectation propagation: Opper and Winther
2000, https://doi.org/10.1162/089976600300014881), so that no label is kept from learning for it, and a house's first
snapshot needs no more than LEAST. The snapshot in force was told none of these.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from math import log, sqrt
from typing import Final, NamedTuple

from app.learner.lesson import Lesson
from app.learner.sources import logit
from app.learner.step import Learner
from app.stores.snapshots import Status, Trial
from routers.belief import Belief

LEAST: Final = 20
"""Held-out labels that it takes to publish; by fewer any difference is noise."""
MOST_LEFT_OUT: Final = 400
"""Calls that were learned of and are left out in turn: the latest."""
LEFT_OUT: Final = 2 * LEAST
"""Outcomes that are left out at the least, however many calls share each: long tasks must not starve the trial."""
SIGNIFICANT: Final = 2.0
"""Standard errors by which the mean loss must be worse."""
LIKELIER: Final = log(20.0)
"""Nats, all labels together, by which the one in force must have foreseen them better. A label that is left out draws
the belief away from itself, which costs some tenths of a nat in all and hardly varies: of 480 honest trials (synthetic)
standard errors alone would refuse 52, and the most that any was behind is 0.9."""
CERTAIN: Final = 0.01
"""No prediction counts as surer than this."""


def verdict(trial: Trial) -> tuple[Status, str]:
    """What becomes of a belief that was tried so, and why."""
    if trial.labels < LEAST or trial.loss is None or trial.before is None or trial.error is None:
        return "postponed", f"too few held out: {trial.labels} of {LEAST}"
    behind = trial.loss - trial.before
    if behind > SIGNIFICANT * trial.error and behind * trial.weight > LIKELIER:
        return "refused", "it predicts held-out outcomes worse than the one in force"
    return "published", ""


def tried(learner: Learner, in_force: Belief) -> Trial:
    """The learner's belief against the one in force, on what is held out."""
    units: dict[str, Compared] = {}
    for lesson, belief in _held_out(learner):
        one = compared(learner, belief, in_force, lesson)
        if one.weight:  # the speakers of the others are found out
            units[lesson.unit] = together(units.get(lesson.unit), one)
    found = list(units.values())
    whole = sum(one.weight for one in found)
    if not whole:
        return Trial(len(found))
    loss, before = (sum(losses) / whole for losses in zip(*[(one.loss, one.before) for one in found], strict=True))
    mean = loss - before
    seen = sum((one.loss - one.before - mean * one.weight) ** 2 for one in found)
    return Trial(len(found), loss, before, sqrt(max(seen, sum(one.variance for one in found))) / whole, whole)


def _held_out(learner: Learner) -> Iterator[tuple[Lesson, Belief]]:
    """Lessons with a belief that was not told of them, as the one in force was not."""
    known: dict[str, Belief] = {}
    held = (learner.lessons[name] for name in learner.held if name in learner.lessons)
    learned = (one for one in reversed(learner.lessons.values()) if one.sites and one.since == learner.term)
    for lesson in itertools.chain(_judges(learner, held), _latest(_judges(learner, learned))):
        told = learner.told_with(lesson)
        if all(mate.since == learner.term for mate in told):
            if lesson.unit not in known:
                known[lesson.unit] = learner.without(*told)
            yield lesson, known[lesson.unit]
        else:  # the one in force was told of some: then this one may know of them, too
            yield lesson, learner.without(lesson)


def _judges(learner: Learner, lessons: Iterable[Lesson]) -> Iterator[Lesson]:
    for lesson in lessons:
        model = lesson.call.model
        if lesson.labels and model in lesson.arms and learner.is_current(lesson, model):
            yield lesson


def _latest(lessons: Iterable[Lesson]) -> Iterator[Lesson]:
    units = set[str]()
    for count, lesson in enumerate(lessons):
        if count >= MOST_LEFT_OUT and len(units) >= LEFT_OUT:
            return
        units.add(lesson.unit)
        yield lesson


class Compared(NamedTuple):
    """The weighted log losses of two beliefs on one label, its weight, and the variance that the difference has where
    the first is right. What is seen of a difference varies too little where failures are rare and none came yet."""

    loss: float
    before: float
    weight: float
    variance: float


def together(one: Compared | None, other: Compared) -> Compared:
    """Two labels of one outcome, as one."""
    if one is None:
        return other
    spread = sqrt(one.variance) + sqrt(other.variance)
    return Compared(one.loss + other.loss, one.before + other.before, one.weight + other.weight, spread * spread)


def compared(learner: Learner, now: Belief, before: Belief, lesson: Lesson) -> Compared:
    """How two beliefs foresaw a label. What was said is taken as evidence against even odds, so that it does not
    depend on who predicts."""
    outcome, weight = lesson.labels[0].told(0.5)
    p, q = (_foreseen(learner, belief, lesson) for belief in (now, before))
    mine, others = (-weight * (outcome * log(x) + (1.0 - outcome) * log(1.0 - x)) for x in (p, q))
    return Compared(mine, others, weight, (weight * (logit(p) - logit(q))) ** 2 * p * (1.0 - p))


def _foreseen(learner: Learner, belief: Belief, lesson: Lesson) -> float:
    arm = lesson.arms[lesson.call.model]
    belief = learner.prior.joined(belief, arm, learner.base.ability(arm))
    return min(max(learner.probability(belief, arm.name, lesson.demand), CERTAIN), 1.0 - CERTAIN)
