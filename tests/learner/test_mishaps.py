"""What may go wrong around a learner, and must neither stop it nor mislead it: records that are none, a flood of words
on nothing, another model under an old name, bytes that were damaged."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.learner import step
from app.learner.pack import Unreadable, pack_belief, pack_learner, unpack_belief, unpack_learner
from app.learner.signs import SETTLED_S
from app.learner.step import Learner
from app.learner.watching import Watching
from tests.learner.calls import BASE, call_id, record, word
from tests.learner.test_step import NOW_S, learner, p

NO_RECORDS: list[dict[str, Any]] = [
    {"request_id": call_id(5)},
    record(5, created_s=None),
    record(5, key=None),
    {**record(5), "request_id": "req_x"},
    {**record(5), "request_id": 5},
    record(5, decision=[]),
    record(5, decision={"candidates": [{}]}),
    record(5, decision={"candidates": 3}),
    record(5, timings=7),
    record(5, u=[1.0, 0.2, 0.1, 0.0, float("inf")]),
    record(5, u=["a", 0.2, 0.1, 0.0, 1.0]),  # type: ignore[list-item]
    record(5, u=[1.0, 1e300, 0.1, 0.0, 1.0]),
    record(5, seen={"finish": 3, "calls": {}}),
]


@pytest.mark.parametrize("broken", NO_RECORDS)
def test_a_record_that_is_none_is_passed_over(broken: dict[str, Any]) -> None:
    made, watching = Learner(BASE), Watching()
    for one in made.saw([record(1), broken, record(2)]):
        watching.saw(one)
    made.said(word(call_id(n)) for n in (1, 2, 5))
    made.step(NOW_S + 2 * SETTLED_S)
    assert set(made.lessons) >= {call_id(1), call_id(2)}
    assert (made.labels, made.malformed) == (2, 1)


def test_what_the_cache_answered_teaches_nothing_and_takes_no_place() -> None:
    """Whatever is said of it: its answer is that of a call which was learned of."""
    made = Learner(BASE)
    told = {"request_id": call_id(1), "model": "small", "provider": "a", "task_type": "chat", "input_tokens": 9}
    hit = record(2, model=None, decision=None, cached={**told, "saved_usd": None})  # type: ignore[arg-type]
    assert made.saw([record(1), hit]) == [record(1), hit]
    made.said([word(call_id(1)), word(call_id(2), "failure")])
    made.step(NOW_S + 2 * SETTLED_S)
    assert (set(made.lessons), made.labels, made.malformed) == ({call_id(1)}, 1, 0)
    asked = made.late.due(NOW_S + 2 * SETTLED_S, all_read=True)
    made.recall(asked, [hit])
    assert (asked, made.late.ignored, set(made.words)) == ([call_id(2)], 0, {call_id(1)})


@given(st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(sorted({*record(1), "candidates", "item", "u", "model"})), inner, max_size=6),
    max_leaves=12,
))  # fmt: skip
@settings(deadline=None, max_examples=150)
def test_whatever_a_record_holds_the_learner_lives(odd: Any) -> None:
    made, watching = Learner(BASE), Watching()
    for part in ("decision", "seen", "timings", "created_s", "key", "model", "task_id"):
        broken = record(5, **{part: odd})
        for one in made.saw([broken]):
            watching.saw(one)
    made.said([word(call_id(5))])
    made.step(NOW_S + 2 * SETTLED_S)
    assert np.isfinite(p(made)) if "small" in made.belief.own else True


def test_words_on_nothing_do_not_crowd_out_what_was_said_of_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "MAX_THINGS", 5)
    made = learner([record(1)], [word(call_id(1), "failure")])
    before = p(made)
    made.said(word(call_id(n), matched=False) for n in range(100, 120))
    made.step(NOW_S + 2 * SETTLED_S)  # its signs have spoken: it is looked at once more
    assert made.lessons[call_id(1)].told
    assert p(made) == pytest.approx(before, abs=0.05)
    assert [name for name in made.words if name != call_id(1)] == [call_id(n) for n in range(115, 120)]
    # Their calls come: what is still there is heard, and is no stranger any more.
    made.saw(record(n) for n in range(115, 120))
    made.said(word(call_id(n), matched=False) for n in range(200, 205))
    made.step(NOW_S)
    assert all(made.lessons[call_id(n)].labels for n in range(115, 120))


def other_model(number: int, **more: Any) -> dict[str, Any]:
    """A call of what `small` stands for by now."""
    made = record(number, **more)
    made["decision"]["candidates"][0]["stands_for"] = "small-v2"
    return made


def test_another_model_under_the_same_name_is_another() -> None:
    made = learner([record(n) for n in range(30)], [word(call_id(n)) for n in range(30)])
    assert p(made) > 0.9
    made.saw(other_model(n) for n in range(100, 130))
    made.said(word(call_id(n), "failure") for n in range(100, 130))
    made.step(NOW_S)
    after = p(made)
    assert after < 0.5
    assert made.belief.own["small"].arm.model == "small-v2"
    # What comes late of the old one is not taken for the new one's, and takes nothing away from it.
    made.saw([record(50)])
    made.said([word(call_id(50)), *(word(call_id(n), "failure") for n in range(5))])
    made.step(NOW_S + 2 * SETTLED_S)
    assert p(made) == pytest.approx(after, abs=0.02)
    assert made.belief.own["small"].arm.model == "small-v2"
    again = unpack_learner(pack_learner(made), BASE)
    again.said([word(call_id(n), "failure") for n in range(5, 10)])
    again.step(NOW_S)
    assert p(again) == pytest.approx(p(made), abs=1e-9)


def test_another_model_under_the_same_name_is_watched_anew() -> None:
    watching, made = Watching(), Learner(BASE)
    for n in range(300):
        made.saw([record(n)])
        watching.saw(record(n))
        made.said([word(call_id(n), "success" if n < 150 or n % 2 else "failure")])
        watching.hear(made, made.step(NOW_S))
    assert [one.model for one in watching.down()] == ["small"]
    watching = Watching.of_state(msgspec.json.decode(msgspec.json.encode(watching.state())))
    watching.saw(record(300))
    assert [one.model for one in watching.down()] == ["small"]
    watching.saw(other_model(301))
    assert watching.down() == ()


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_damaged_bytes_are_unreadable_or_finite(data: st.DataObject) -> None:
    of = learner([record(1), record(2, "large")], [word(call_id(1)), word(call_id(2))])
    packed = bytearray(pack_belief(of.belief, BASE))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(packed)))
    for damaged in (bytes(packed), bytes(packed[:cut])):
        try:
            belief = unpack_belief(damaged, BASE)
        except Unreadable:
            continue
        assert np.isfinite(belief.mean).all()
        assert all(np.isfinite(own.cov).all() for own in belief.own.values())
        assert len(belief.mean) == of.prior.size


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_a_damaged_state_is_unreadable_or_read(data: st.DataObject) -> None:
    packed = bytearray(pack_learner(learner([record(1)], [word(call_id(1))])))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        unpack_learner(bytes(packed), BASE)
    except Unreadable:
        return
