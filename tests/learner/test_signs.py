"""What shows without anybody saying it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.core.seen import Seen
from app.learner.labels import Call
from app.learner.signs import AGAIN_S, LOOP, MOVE_S, signs_of
from app.learner.sources import (
    ASKED_AGAIN,
    EMPTY,
    MOVED_UP,
    REFUSAL,
    TOOL_LOOP,
    TRUNCATED,
    WRONG_ARGUMENTS,
    WRONG_SHAPE,
)

LATE = 1e6


def call(number: int, at_s: float = 0.0, *, completed: bool = True, key: str = "alice", **seen: Any) -> Call:
    base = {"began": "conversation", "asked": f"question {number}", "finish": "stop", "rate_nano": 100}
    return Call(
        f"req_{number}", key, "small", completed, at_s, at_s + 1.0, requested="auto", seen=Seen(**{**base, **seen})
    )


def shown(calls: list[Call], number: int, now_s: float = LATE) -> dict[str, bool]:
    return {told.source: told.good == 0.0 for told in signs_of(calls, now_s).get(f"req_{number}", [])}


@pytest.mark.parametrize(
    ("seen", "source"),
    [
        ({"refused": True}, REFUSAL),
        ({"empty": True}, EMPTY),
        ({"finish": "length"}, TRUNCATED),
        ({"shape_ok": False}, WRONG_SHAPE),
        ({"arguments_ok": False}, WRONG_ARGUMENTS),
    ],
)
def test_what_the_answer_shows(seen: dict[str, Any], source: str) -> None:
    found = shown([call(1, **seen)], 1)
    assert found[source] is True
    assert [name for name, bad in found.items() if bad] == [source]


def test_what_could_not_show_is_silent() -> None:
    found = shown([call(1)], 1)
    assert WRONG_SHAPE not in found
    assert WRONG_ARGUMENTS not in found
    assert TOOL_LOOP not in found
    assert not any(found.values())
    assert signs_of([call(1, completed=False), replace(call(2), seen=None)], LATE) == {}


def test_the_same_asked_again_at_once() -> None:
    first, again = call(1, asked="x"), call(2, 30.0, asked="x")
    assert shown([again, first], 1)[ASKED_AGAIN] is True
    assert shown([again, first], 2)[ASKED_AGAIN] is False
    assert shown([first, call(2, 30.0, asked="x", completed=False)], 1)[ASKED_AGAIN] is True
    assert shown([first, call(2, 2.0 + AGAIN_S, asked="x")], 1)[ASKED_AGAIN] is False
    assert shown([first, call(2, 30.0, asked="x", key="bob")], 1)[ASKED_AGAIN] is False


def test_samples_side_by_side_are_no_complaint() -> None:
    assert shown([call(1, asked="x"), call(2, 0.5, asked="x")], 1)[ASKED_AGAIN] is False
    many = [call(number, 2.0 * number, asked="x") for number in range(8)]
    assert ASKED_AGAIN not in shown(many, 1)


def test_signs_of_what_comes_next_wait_for_it() -> None:
    first = call(1, asked="x")
    assert ASKED_AGAIN not in shown([first], 1, now_s=5.0)
    assert MOVED_UP not in shown([first], 1, now_s=AGAIN_S + 2.0)
    assert {ASKED_AGAIN, MOVED_UP} <= shown([first], 1, now_s=MOVE_S + 2.0).keys()


def by_hand(number: int, at_s: float, **seen: Any) -> Call:
    return replace(call(number, at_s, **seen), by_hand=True, requested="large")


def test_a_move_to_a_dearer_model_by_hand() -> None:
    first, dearer = call(1), by_hand(2, 60.0, rate_nano=1_000)
    assert shown([first, dearer], 1)[MOVED_UP] is True
    assert shown([first, dearer], 2)[MOVED_UP] is False
    assert shown([first, replace(dearer, by_hand=False)], 1)[MOVED_UP] is False
    assert shown([first, by_hand(2, 60.0, rate_nano=110)], 1)[MOVED_UP] is False
    assert shown([first, by_hand(2, 60.0, rate_nano=1_000, began="another")], 1)[MOVED_UP] is False
    assert shown([first, by_hand(2, 60.0 + MOVE_S, rate_nano=1_000)], 1)[MOVED_UP] is False


def test_tool_loops() -> None:
    same = [call(number, 10.0 * number, calls="ls") for number in range(LOOP)]
    assert all(shown(same, number)[TOOL_LOOP] for number in range(LOOP))
    two = [*same[: LOOP - 1], call(9, 100.0, calls="cat")]
    assert not any(shown(two, int(c.request_id[4:]))[TOOL_LOOP] for c in two)
    failing = [call(number, 10.0 * number, calls=f"try {number}", tool_failed=number > 0) for number in range(LOOP)]
    assert all(shown(failing, number)[TOOL_LOOP] for number in range(LOOP))
    ended = [*same, call(9, 100.0)]
    assert TOOL_LOOP not in shown(ended, 9)
    assert shown(ended, 0)[TOOL_LOOP] is True
