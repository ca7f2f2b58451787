"""What a belief is tried by before it is published: what it was not told, and enough of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.learner.step import Learner
from app.learner.trial import LEAST, LEFT_OUT, LIKELIER, SIGNIFICANT, compared, tried, verdict
from app.stores.snapshots import Trial
from tests.learner.calls import call_id, of_task, record, word
from tests.learner.test_aftermath import believing
from tests.learner.test_step import NOW_S, learner, untaught

GOOD = {True: "success", False: "failure"}
losses = st.none() | st.floats(0.0, 5.0)


@given(st.builds(Trial, st.integers(0, 60), losses, losses, st.none() | st.floats(0.0, 2.0), st.floats(0.0, 60.0)))
def test_only_what_was_tried_enough_and_is_not_worse_is_published(trial: Trial) -> None:
    status, why = verdict(trial)
    if status == "published":
        assert trial.labels >= LEAST
        assert trial.loss is not None
        assert trial.before is not None
        assert trial.error is not None
        behind = trial.loss - trial.before
        assert behind <= SIGNIFICANT * trial.error or behind * trial.weight <= LIKELIER
    elif trial.labels < LEAST:
        assert (status, why) == ("postponed", f"too few held out: {trial.labels} of {LEAST}")
    assert (why == "") is (status == "published")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), min_size=2, max_size=25), st.data())
def test_a_label_that_was_learned_is_foreseen_as_if_it_had_not_been(good: list[bool], data: st.DataObject) -> None:
    left_out = data.draw(st.integers(0, len(good) - 1))
    calls = [record(n) for n in range(len(good))]
    words = [word(call_id(n), GOOD[good[n]]) for n in range(len(good))]
    whole = learner(calls, words)
    others = learner(calls, [said for n, said in enumerate(words) if n != left_out])
    lesson = whole.lessons[call_id(left_out)]
    without = whole.belief
    for site in lesson.sites:
        without = without.told(site, back=True)
    mine, theirs, weight, _ = compared(whole, without, others.belief, lesson)
    # Each was taken in against another expectation: 6 % where the first is the one that 24 others contradict.
    assert mine / weight == pytest.approx(theirs / weight, rel=0.065)
    assert mine > compared(whole, whole.belief, without, lesson).loss
    assert tried(whole, untaught(whole)).labels == len(good)


def test_who_is_tried_on_a_label_was_not_told_it() -> None:
    """Of one label what is left is what was known before it; told it, it would foresee it better."""
    for outcome in ("failure", "success"):
        made = learner([record(1)], [word(call_id(1), outcome)])
        trial = tried(made, untaught(made))
        assert trial.labels == 1
        assert trial.loss == pytest.approx(trial.before, rel=1e-6)
        (lesson,) = made.lessons.values()
        told, before = compared(made, made.belief, untaught(made), lesson)[:2]
        assert told < 0.95 * before


@pytest.mark.parametrize(("truth", "status"), [("failure", "refused"), ("success", "published")])
def test_a_belief_that_predicts_what_was_held_out_worse_is_refused(truth: str, status: str) -> None:
    count = 3 * LEAST
    held = [record(n, held=True) for n in range(count)]
    made = learner(held, [word(call_id(n, True), truth) for n in range(count)])
    before = untaught(made)
    assert verdict(tried(made, before))[0] == "published"  # it has learned nothing yet
    made.saw(record(n) for n in range(100, 130))
    made.said(word(call_id(n)) for n in range(100, 130))
    made.step(NOW_S)
    trial = tried(made, before)
    assert (trial.labels, verdict(trial)[0]) == (count + 30, status)
    assert trial.loss is not None
    assert trial.before is not None
    assert (trial.loss > trial.before) is (status == "refused")


def test_a_run_of_luck_refuses_nothing() -> None:
    made = learner([record(n, held=True) for n in range(25)], [word(call_id(n, True)) for n in range(25)])
    made.belief = believing(0.9, 200)
    trial = tried(made, believing(0.95, 200))
    assert trial.loss is not None
    assert trial.before is not None
    assert trial.loss > trial.before
    assert verdict(trial)[0] == "published"


def test_what_the_one_in_force_was_told_is_no_judge() -> None:
    made = learner([record(n) for n in range(30)], [word(call_id(n)) for n in range(30)])
    assert tried(made, untaught(made)).labels == 30
    made.published(1, left_out=False)
    assert verdict(tried(made, made.belief)) == ("postponed", f"too few held out: 0 of {LEAST}")
    made.said(word(call_id(n), "failure") for n in range(5))  # it was told another outcome of these
    made.saw(record(n) for n in range(30, 34))
    made.said(word(call_id(n)) for n in range(30, 34))
    made.step(NOW_S)
    assert tried(made, made.belief).labels == 4


def test_what_was_left_out_of_a_snapshot_judges_the_next() -> None:
    made = learner([record(n) for n in range(30)], [word(call_id(n)) for n in range(30)])
    made.published(1, left_out=True)
    assert (made.labels, tried(made, untaught(made)).labels) == (30, 30)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_as_good_is_published(seed: int) -> None:
    """A stationary house (synthetic, 7 of 10 succeed): its second fifty labels tell what its first did."""
    good = np.random.default_rng(seed).random(100) < 0.7
    made = learner([record(n) for n in range(50)], [word(call_id(n), GOOD[bool(good[n])]) for n in range(50)])
    made.published(1, left_out=False)
    before = made.belief
    made.saw(record(n) for n in range(50, 100))
    made.said(word(call_id(n), GOOD[bool(good[n])]) for n in range(50, 100))
    made.step(NOW_S)
    assert verdict(tried(made, before))[0] == "published"


def of_tasks(tasks: int, calls: int, good: Callable[[int], bool], first: int = 0) -> Learner:
    """A learner that was told how tasks of so many calls went."""
    numbers = range(first, first + tasks * calls)
    return learner(
        [record(n, task_id=f"t{n // calls}") for n in numbers],
        [of_task(f"t{n // calls}", GOOD[good(n // calls)]) for n in numbers[::calls]],
    )


def test_what_is_said_of_a_task_is_one_label_and_judges_nothing_that_it_taught() -> None:
    """Ten calls of each of two tasks are two labels; told a task's other calls, a call's outcome would be known."""
    made = of_tasks(2, 10, bool)
    assert verdict(tried(made, untaught(made))) == ("postponed", f"too few held out: 2 of {LEAST}")
    alone = of_tasks(1, 10, lambda _: False)
    trial = tried(alone, untaught(alone))
    assert trial.labels == 1
    assert trial.loss == pytest.approx(trial.before, rel=1e-6)


@pytest.mark.parametrize("calls", [1, 8])
def test_a_gate_for_tasks_is_as_strict_as_one_for_calls(calls: int) -> None:
    """A belief that chance made worse is refused, however many calls each task has."""
    made = of_tasks(40, calls, lambda task: task % 10 < 8)
    sober = tried(made, untaught(made))
    assert verdict(sober)[0] == "published"
    made.belief = believing(0.05, 300)
    spoiled = tried(made, untaught(made))
    assert (sober.labels, spoiled.labels, verdict(spoiled)[0]) == (40, 40, "refused")


def test_long_tasks_do_not_starve_the_trial() -> None:
    """Of the latest 400 calls alone, and as many that are held out, 18 tasks of 44 calls would be tried: too few."""
    made = of_tasks(60, 44, lambda task: task % 10 < 8)
    trial = tried(made, untaught(made))
    assert trial.labels >= LEFT_OUT
    assert verdict(trial)[0] == "published"


def test_whole_tasks_are_held_out() -> None:
    made = of_tasks(200, 4, lambda _: True)
    held = {made.lessons[name].call.task_id for name in made.held}
    assert 0.03 < len(held) / 200 < 0.2
    for lesson in made.lessons.values():
        assert (lesson.call.request_id in made.held) is (lesson.call.task_id in held)


def test_words_on_tasks_that_come_after_signs_have_spoken_judge_too() -> None:
    """Each call is learned by its signs first, and a snapshot holds that; then somebody says how its task went."""
    seen = {"began": "b", "finish": "stop"}
    calls = [
        record(n, held=n % 4 == 0, task_id=f"t{n // 4}", seen={**seen, "asked": f"a{n}"}, at_s=1_000.0)
        for n in range(160)
    ]
    made = learner(calls)
    made.step(1e6)
    assert made.labels == 120
    made.published(1, left_out=False)
    before = made.belief
    made.said(of_task(f"t{n}", GOOD[n % 10 < 8]) for n in range(40))
    made.step(1e6)
    assert tried(made, before).labels == 40
    assert verdict(tried(made, before))[0] == "published"
