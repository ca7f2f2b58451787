"""Which calls answer for what is said of a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.feedback import Correction, Feedback, Speaker, Turned, task_thing
from app.core.seen import Seen
from app.core.types import Outcome
from app.learner.credit import credits_of, spoken
from app.learner.labels import EXPECTED, Call, call_of, label_of, told_of
from app.learner.signs import LOOP
from app.learner.sources import TASK, USER, VERIFIER, Sources

CALL = Call("req_1", "alice", "small", True, 10.0, 11.0, task_id="job", task_type="code", expected=0.7)
WORD = Feedback("req_1", "alice", Speaker.USER, Turned.SUCCESS, 20.0, "alice")
OF_TASK = replace(WORD, thing=task_thing("alice", "job"), said_s=1_000.0)


def test_only_who_may_speak_is_heard() -> None:
    stranger = replace(WORD, by="bob", key="bob", matched=False)
    assert spoken([CALL], [stranger]) == {}
    assert set(spoken([CALL], [replace(stranger, admin=True)])) == {"req_1"}


def steps(n: int) -> list[Call]:
    return [replace(CALL, request_id=f"req_{place}", created_s=float(place)) for place in range(n)]


@given(st.integers(1, 60))
def test_a_tasks_credit_grows_towards_its_end_and_is_one_label(n: int) -> None:
    shares = credits_of(n)
    assert shares == sorted(shares)
    assert sum(shares) == pytest.approx(1.0)


def test_a_tasks_word_goes_to_its_completed_calls_in_order() -> None:
    calls = [*steps(3), replace(CALL, request_id="req_x", model="other", completed=False, created_s=9.0)]
    word = replace(WORD, thing=task_thing("alice", "job"), outcome=Turned.FAILURE)
    found = spoken(list(reversed(calls)), [word])
    assert set(found) == {"req_0", "req_1", "req_2"}
    assert [found[f"req_{place}"][0].part for place in range(3)] == credits_of(3)
    assert {(told.source, told.strength) for (told,) in found.values()} == {(TASK + USER, 1.0)}


def test_all_calls_of_a_long_task_share_its_word() -> None:
    """The learner leaves out what is next to nothing; a replay asks how the task of each decision went."""
    found = spoken(steps(200), [OF_TASK])
    assert len(found) == 200
    assert sum(told.part for (told,) in found.values()) == pytest.approx(1.0)


def test_what_a_task_does_after_a_word_on_it_has_no_part_in_that_word() -> None:
    """A session goes on under its name; what was said before is said of what was done by then."""
    calls = [*steps(2), replace(CALL, request_id="req_later", model="large", created_s=2_000.0)]
    failed = replace(OF_TASK, outcome=Turned.FAILURE)
    found = spoken(calls, [failed])
    assert {name: told.part for name, (told,) in found.items()} == dict(
        zip(("req_0", "req_1"), credits_of(2), strict=True)
    )
    cut = replace(calls[-1], completed=False, stopped=True)
    assert spoken([*calls[:2], cut], [failed]) == found  # nor has what ended it then
    assert set(spoken(calls, [replace(failed, said_s=3_000.0)])) == {"req_0", "req_1", "req_later"}
    assert set(spoken(calls[-1:], [failed])) == {"req_later"}  # it was said of what was to come


def test_a_probe_within_a_task_takes_no_part_of_its_word() -> None:
    first, probe = steps(2)
    probe = replace(probe, probe=True, model="large")
    assert spoken([first, probe], [OF_TASK]) == {"req_0": [told_of(OF_TASK)]}
    assert spoken([first, replace(probe, completed=False, stopped=True)], [OF_TASK]) == spoken([first], [OF_TASK])
    assert set(spoken([probe], [OF_TASK])) == {"req_1"}


def test_what_is_said_of_a_task_of_one_call_is_said_of_that_call() -> None:
    word = replace(WORD, thing=task_thing("alice", "job"), outcome=Turned.FAILURE)
    assert spoken(steps(1), [word])["req_0"] == [told_of(word)]


def test_calls_that_go_on_with_an_open_tool_loop_leave_the_credit_to_its_beginning() -> None:
    first, *going_on, last = steps(5)
    word = replace(WORD, thing=task_thing("alice", "job"), outcome=Turned.FAILURE)
    loop = [first, *(replace(call, goes_on=True) for call in (*going_on, last))]
    assert spoken(loop, [word]) == {"req_0": [told_of(word)]}
    found = spoken([*loop[:-1], last], [word])
    assert {name: told.part for name, (told,) in found.items()} == dict(
        zip(("req_0", "req_4"), credits_of(2), strict=True)
    )
    assert set(spoken(loop[1:], [word])) == {"req_1", "req_2", "req_3", "req_4"}  # its beginning is not known any more
    ((told,),) = spoken([first, *(replace(call, model="other") for call in loop[1:])], [word]).values()
    assert (told.source, told.part) == (USER, 1.0)


def test_a_task_of_several_models_tells_of_each_as_far_as_it_was_its() -> None:
    """The word is believed as ever, for what tasks come to is asked of each; it weighs less for who did little."""
    *calls, last = steps(8)
    word = replace(WORD, thing=task_thing("alice", "job"))
    found = spoken([*calls, replace(last, model="other")], [word])
    share = credits_of(8)[-1]
    parts = {name: told.part for name, (told,) in found.items()}
    assert {told.source for (told,) in found.values()} == {TASK + USER}
    assert parts["req_7"] == pytest.approx(share**2)
    assert sum(parts.values()) == pytest.approx(share**2 + (1.0 - share) ** 2)


def pull(words: Sequence[Feedback], calls: int, expected: float) -> float:
    """How far a task's calls together draw a belief: the gradients of their labels."""
    made = [replace(step, request_id=f"req_{place}") for place, step in enumerate(steps(calls))]
    told = spoken(made, words)
    labels = [label_of(call, told.get(call.request_id, []), Sources(), 1.0) for call in made]
    taught = [one.told(expected) for one in labels if one is not None]
    return sum(weight * (outcome - expected) for outcome, weight in taught)


@settings(deadline=None)
@given(st.integers(2, 12), st.booleans(), st.booleans(), st.floats(*EXPECTED))
def test_a_word_on_a_task_is_one_label_beside_words_on_its_calls(
    calls: int, good: bool, well: bool, expected: float
) -> None:
    """It takes nothing from what was said of the calls, whether it agrees or not, and adds what it would alone."""
    outcome = {True: Turned.SUCCESS, False: Turned.FAILURE}
    own = [replace(WORD, thing=f"req_{place}", outcome=outcome[good]) for place in range(calls)]
    of_task = replace(WORD, thing=task_thing("alice", "job"), outcome=outcome[well], source=Speaker.VERIFIER)
    apart = pull(own, calls, expected) + pull([of_task], calls, expected)
    assert pull([*own, of_task], calls, expected) == pytest.approx(apart)


def test_another_keys_task_of_the_same_name_is_another_task() -> None:
    word = replace(WORD, thing=task_thing("bob", "job"), by="bob", key="bob")
    assert spoken(steps(2), [word]) == {}


def test_a_call_that_was_spoken_of_takes_nothing_from_its_task() -> None:
    words = [WORD, replace(WORD, thing=task_thing("alice", "job"), outcome=Turned.FAILURE)]
    found = spoken(steps(2), words)
    assert [told.source for told in found["req_1"]] == [USER]
    assert [told.source for told in found["req_0"]] == [TASK + USER]
    assert found["req_0"][0].part < 0.5
    other = replace(words[1], source=Speaker.VERIFIER)
    assert [told.source for told in spoken(steps(2), [WORD, other])["req_1"]] == [USER, TASK + VERIFIER]


def stopped(at_s: float, outcome: str = Outcome.COST_KILLED) -> Call:
    """A call of the same task that this ended, as a trace tells."""
    record = {
        "request_id": f"req_{at_s:.0f}s", "key": "alice", "task_id": "job", "created_s": at_s, "outcome": outcome,
        "model": "small", "decision": {"task_type": "code", "route": "auto"},
    }  # fmt: skip
    return call_of(record)


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("turned", [Turned.SUCCESS, Turned.FAILURE, Turned.FALSE_DONE, Turned.ESCALATED_HUMAN])
def test_nobody_answers_for_a_task_that_was_broken_off(outcome: Outcome, turned: Turned) -> None:
    """Forty good calls, and a cap or an outage ends the last: whatever is said of the task, its models are not why."""
    found = spoken([*steps(40), stopped(50.0, outcome)], [replace(OF_TASK, outcome=turned)])
    assert bool(found) is (outcome in (Outcome.COMPLETED, Outcome.CLIENT_GONE))


def test_a_task_that_went_on_after_a_cut_is_answered_for() -> None:
    words = [replace(OF_TASK, outcome=Turned.FAILURE)]
    assert len(spoken([stopped(-1.0), *steps(4)], words)) == 4


def test_what_was_said_before_the_cut_stands() -> None:
    early = replace(OF_TASK, said_s=45.0)
    assert len(spoken([*steps(4), stopped(50.0)], [early])) == 4
    assert spoken([*steps(4), stopped(40.0)], [early]) == {}


def test_who_speaks_of_the_choice_or_of_a_call_is_heard_though_the_task_was_cut() -> None:
    stronger = replace(OF_TASK, outcome=Turned.FAILURE, correction=Correction.SHOULD_HAVE_USED_STRONGER)
    calls = [*steps(4), stopped(50.0)]
    assert sum(told.part for (told,) in spoken(calls, [stronger]).values()) == pytest.approx(1.0)
    assert set(spoken(calls, [OF_TASK, replace(WORD, thing="req_2")])) == {"req_2"}


def circles(first: int, count: int, **more: Any) -> list[Call]:
    """Calls that ask for the same tool again and again."""
    seen = Seen("conversation", "asked", "tool_calls", calls="the same")
    return [
        replace(CALL, request_id=f"req_{n}", created_s=float(n), seen=seen, **more) for n in range(first, first + count)
    ]


def test_who_went_in_circles_until_the_cap_answers_for_the_task_alone() -> None:
    good = [
        replace(step, seen=Seen("conversation", "asked", calls=f"tool {n}")) for n, step in enumerate(steps(10))
    ]  # fmt: skip
    failed = [replace(OF_TASK, outcome=Turned.FAILURE)]
    loop = circles(10, LOOP)
    found = spoken([*good, *loop, stopped(50.0)], failed)
    assert set(found) == {call.request_id for call in loop}
    assert sum(told.part for (told,) in found.values()) == pytest.approx(1.0)
    assert spoken([*good, *circles(10, LOOP - 1), stopped(50.0)], failed) == {}
    out_of_it = replace(good[-1], request_id="req_30", created_s=30.0)
    assert spoken([*good, *loop, out_of_it, stopped(50.0)], failed) == {}


def test_the_choice_that_a_loop_goes_on_with_answers_for_it() -> None:
    seen = Seen("conversation", "asked", calls="another")
    first, other, begins = (replace(step, seen=seen) for step in steps(3))
    other = replace(other, model="large")
    loop = circles(3, LOOP, goes_on=True)
    found = spoken([first, begins, *loop, stopped(50.0)], [replace(OF_TASK, outcome=Turned.FAILURE)])
    assert set(found) == {"req_2"}
    found = spoken([first, other, *loop, stopped(50.0)], [replace(OF_TASK, outcome=Turned.FAILURE)])
    assert set(found) == {"req_0"}  # another model's choice is none of this loop's
