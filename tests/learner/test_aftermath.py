"""Whether live outcomes since a snapshot speak for the one before it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from app.core.seen import Seen
from app.learner.aftermath import MIN_LABELS, Aftermath
from app.learner.step import Learner
from routers.belief import Belief
from tests.learner.calls import BASE, call_id, record, word


def believing(rate: float, labels: int) -> Belief:
    """A belief after synthetic labels at this rate."""
    learner, rng = Learner(BASE), np.random.default_rng(3)
    for number in range(labels):
        learner.saw([record(number)])
        learner.said([word(call_id(number), "success" if rng.random() < rate else "failure")])
    learner.step(5_000.0)
    return learner.belief


@pytest.mark.parametrize(("rate", "worse"), [(0.9, True), (0.2, False)])
def test_live_outcomes_decide(rate: float, worse: bool) -> None:
    good, bad = believing(0.9, 200), believing(0.2, 200)
    after, learner, rng = Aftermath(2, 1, since_s=1_500.0), Learner(BASE), np.random.default_rng(4)
    for number in range(1_000, 1_200):
        learner.saw([record(number)])
        learner.said([word(call_id(number), "success" if rng.random() < rate else "failure")])
        after.hear(learner, learner.step(5_000.0), now=bad, before=good)
        assert not (after.worse and after.labels < MIN_LABELS)
    assert (after.labels, after.worse) == (200, worse)


def test_a_run_of_luck_takes_nothing_back() -> None:
    """Until the first failure differences hardly vary, and that is no certainty."""
    hopeful, sober = believing(0.95, 200), believing(0.9, 200)
    after, learner = Aftermath(2, 1, since_s=1_500.0), Learner(BASE)
    for number in range(1_000, 1_000 + MIN_LABELS + 10):
        learner.saw([record(number)])
        learner.said([word(call_id(number))])
        after.hear(learner, learner.step(5_000.0), now=sober, before=hopeful)
    assert (after.labels, after.worse) == (MIN_LABELS + 10, False)
    assert after.difference > 0.0


@pytest.mark.parametrize(("since_s", "labels"), [(4_999.0, 1), (5_001.0, 0)])
def test_what_was_said_before_the_snapshot_counts_for_nothing(since_s: float, labels: int) -> None:
    after, learner = Aftermath(2, 1, since_s=since_s), Learner(BASE)
    learner.saw([record(1)])
    learner.said([word(call_id(1), said_s=5_000.0)])
    after.hear(learner, learner.step(5_000.0), now=learner.belief, before=learner.belief)
    assert after.labels == labels


@pytest.mark.parametrize(("since_s", "labels"), [(1_500.0, 1), (1_700.0, 0)])
def test_signs_count_from_when_they_speak(since_s: float, labels: int) -> None:
    """The call ended at 1,001.5 and its signs settle 600 s later."""
    after, learner = Aftermath(2, 1, since_s=since_s), Learner(BASE)
    learner.saw([record(1, seen=msgspec.to_builtins(Seen("b", "a", empty=True)))])
    after.hear(learner, learner.step(5_000.0), now=learner.belief, before=learner.belief)
    assert after.labels == labels
