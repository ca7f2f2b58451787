"""Words that come late, and houses of which more calls come than the learner keeps."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.core.seen import Seen
from app.learner import late, step
from app.learner.late import LOOK_AFTER_S, Late
from app.learner.lesson import Learned
from app.learner.pack import pack_learner, unpack_learner
from app.learner.signs import SETTLED_S
from app.learner.sources import SIGNS
from app.learner.step import Learner
from tests.learner.calls import BASE, call_id, of_task, record, word

SEEN = msgspec.to_builtins(Seen("b", "a", empty=True))
WINDOW = 50


def call(number: int, **more: Any) -> dict[str, Any]:
    """An answer with nothing in it, a second after the one before it."""
    return record(number, seen={**SEEN, "asked": f"a{number}", "began": f"b{number}"}, **more)


def spoken(learned: list[Learned]) -> list[Learned]:
    """What somebody said, without the signs of calls that leave."""
    return [one for one in learned if one.source not in SIGNS]


@pytest.fixture(autouse=True)
def window(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds less than comes before signs speak."""
    monkeypatch.setattr(step, "WINDOW", WINDOW)


def test_signs_of_a_busy_house_are_heard() -> None:
    made = Learner(BASE)
    found = []
    for first in range(0, 3_000, 20):
        made.saw([call(n) for n in range(first, first + 20)])
        found += made.step(1_000.0 + first + 20)
        assert len(made.lessons) <= WINDOW
    assert {one.source for one in found} <= set(SIGNS)
    stretches = 3_000 / (SETTLED_S + WINDOW)
    assert WINDOW * (stretches - 1) <= len(found) <= WINDOW * (stretches + 1)


def test_signs_of_a_busy_house_of_tasks_are_heard_before_its_calls_leave() -> None:
    """Words on tasks come later, so that their calls are kept as long as they can be; what shows by then is heard."""
    made = Learner(BASE)
    found = []
    for first in range(0, 1_000, 20):
        made.saw([call(n, task_id=f"job-{n // 7}") for n in range(first, first + 20)])
        found += made.step(1_000.0 + first + 20)
        assert len(made.lessons) <= WINDOW
    assert [one.request_id for one in found] == [call_id(n) for n in range(1_000 - WINDOW)]
    assert {one.source for one in found} <= set(SIGNS)
    assert made.unheard == 1_000 - WINDOW
    assert unpack_learner(pack_learner(made), BASE).unheard == made.unheard
    # What is said of a task whose calls have left is too late; of one that is there it is heard as ever.
    made.said([of_task("job-0"), of_task("job-142")])
    assert {one.request_id for one in made.step(2_001.0)} == {call_id(n) for n in range(142 * 7, 1_000)}


def test_a_clock_that_was_ahead_for_a_while_makes_nobody_deaf() -> None:
    """What it called tomorrow fills the window, and would have its signs tomorrow."""
    made = Learner(BASE)
    made.saw(call(n, at_s=1_000.0 + 86_400.0 + n) for n in range(WINDOW))
    found = []
    for first in range(0, 1_000, 20):
        made.saw(call(first + n, at_s=1_000.0 + first + n) for n in range(20))
        found += made.step(1_000.0 + first + 20)
    assert len({one.request_id for one in found}) > WINDOW


def test_calls_that_are_passed_over_are_counted() -> None:
    made = Learner(BASE)
    made.saw(call(n) for n in range(WINDOW + 30))
    made.step(1_080.0)
    assert made.unheard == 30


def test_who_is_spoken_of_is_kept_however_busy_it_is() -> None:
    made = Learner(BASE)
    made.saw(call(n) for n in range(WINDOW))
    made.said([word(call_id(60)), of_task("job")])
    made.saw([call(n) for n in range(WINDOW, 70)] + [call(n, task_id="job") for n in (70, 71)])
    assert {name for name in made.lessons if name >= call_id(WINDOW)} == {call_id(n) for n in (60, 70, 71)}
    assert {one.request_id for one in spoken(made.step(1_080.0))} == {call_id(n) for n in (60, 70, 71)}


def test_a_call_that_was_passed_over_is_learned_once_it_is_looked_up() -> None:
    made = Learner(BASE)
    made.saw(call(n) for n in range(80))
    made.said([word(call_id(70), "failure", said_s=1_090.0)])
    assert made.step(1_090.0) == []
    assert made.late.due(1_090.0, all_read=True) == []
    asked = made.late.due(1_090.0 + LOOK_AFTER_S, all_read=True)
    assert asked == [call_id(70)]
    calls = made.guard.state()["tenure"]
    made.recall(asked, [call(70)])
    (learned,) = spoken(made.step(1_200.0))
    assert (learned.request_id, learned.source, learned.outcome < 0.1) == (call_id(70), "verifier", True)
    assert (made.late.wanted, made.late.ignored) == ({}, 0)
    # It was counted when it was seen, and its signs are nobody's: they may have been heard before it left.
    assert made.guard.state()["tenure"] == calls
    assert {told.source for told in made.lessons[call_id(70)].told} == {"verifier"}
    made.step(1_300.0 + SETTLED_S)
    assert {told.source for told in made.lessons[call_id(70)].told} == {"verifier"}
    # A later word takes its place, as ever.
    made.said([word(call_id(70), said_s=1_400.0)])
    (learned,) = made.step(1_400.0 + SETTLED_S)
    assert learned.outcome > 0.9


def test_what_left_with_what_was_said_of_it_is_not_learned_twice() -> None:
    made = Learner(BASE)
    made.saw([call(1), call(2)])
    made.said([word(call_id(1))])
    made.step(1_010.0)
    for n in range(700, 700 + WINDOW):
        made.saw([call(n, task_id="job")])
        made.step(1_010.0)
    assert not {call_id(1), call_id(2)} & set(made.lessons)
    made = unpack_learner(pack_learner(made), BASE)
    belief = made.belief
    made.said([word(call_id(1), "failure"), word(call_id(2), "failure")])
    assert (list(made.late.wanted), made.late.ignored) == ([call_id(2)], 1)
    assert call_id(1) not in made.words
    made.recall([call_id(2)], [call(2)])
    assert [one.request_id for one in spoken(made.step(1_010.0))] == [call_id(2)]
    assert made.belief is not belief


def test_a_word_whose_trace_is_gone_is_forgotten() -> None:
    made = Learner(BASE)
    made.said([word("req_" + "0" * 27), word("req_" + "1" * 27), word(call_id(9), matched=False), of_task("job")])
    asked = made.late.due(1e9, all_read=True)
    assert asked == ["req_" + "0" * 27, "req_" + "1" * 27]  # of the others there was nothing when they were said
    made.recall(asked, [{"request_id": "req_" + "1" * 27}])
    assert (made.late.ignored, made.late.wanted) == (1, {}), (
        "the trace of the other is there, though nobody can read it"
    )
    assert set(made.words) == {call_id(9), "task:alice:job"}


def test_a_word_on_a_call_that_teaches_nothing_is_forgotten_and_is_not_late() -> None:
    """Such as an embedding, or one to a model that the policy does not list."""
    made = Learner(BASE)
    plain = call(1)
    plain["decision"] = {**plain["decision"], "candidates": None}
    made.saw([plain])
    made.said([word(call_id(1))])
    asked = made.late.due(1e9, all_read=True)
    assert asked == [call_id(1)]
    made.recall(asked, [plain])
    assert (made.late.ignored, made.late.wanted, made.words) == (0, {}, {})


def test_what_is_wanted_survives_a_restart_and_goes_with_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "MAX_THINGS", 3)
    made = Learner(BASE)
    made.said(word(call_id(n), said_s=float(n)) for n in range(5))
    again = unpack_learner(pack_learner(made), BASE)
    assert again.late.wanted == made.late.wanted == {call_id(n): float(n) for n in (2, 3, 4)}
    again.saw([call(3)])
    assert list(again.late.wanted) == [call_id(2), call_id(4)]


def test_calls_are_looked_up_when_their_traces_would_have_come(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Late(wanted={"early": 1_000.0, "late": 2_000.0, "ahead": 9_000.0}, read_until_s=900.0)
    # What was said when the clock was ahead would not be late for long.
    assert wanted.due(3_000.0, all_read=False) == ["ahead"]
    wanted.read_until_s = 1_500.0
    assert wanted.due(3_000.0, all_read=False) == ["early", "ahead"]
    assert wanted.due(2_000.0 + LOOK_AFTER_S - 1, all_read=True) == ["early", "ahead"]
    monkeypatch.setattr(late, "MOST", 1)
    assert wanted.due(3_000.0, all_read=True) == ["early"]


def test_those_that_left_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "MAX_GONE", 2)
    found = Late()
    for n in range(4):
        found.left(call_id(n))
    found.left("req_of another maker's")
    assert [found.missed(word(call_id(n))) for n in range(4)] == [True, True, False, False]
