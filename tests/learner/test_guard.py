"""What one key can move, and how it is found out; the whole chain is in `test_poisoning.py`."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.learner.guard import CROWD, FREE, HALF_LIFE_S, TRIM, Guard
from app.learner.labels import CORRECTION, Call, Label
from app.learner.sources import USER

GOOD, BAD = 3.0, -3.0


def call(key: str, at_s: float = 0.0) -> Call:
    return Call("req_1", key, "small", True, at_s, at_s, task_type="code")


def label(key: str, odds: float, at_s: float = 0.0, source: str = USER) -> Label:
    return Label("req_1", "small", "code", source, key, odds, odds, 1.0, 0.5, at_s)


def speak(guard: Guard, key: str, odds: float, times: int = 1, at_s: float = 0.0) -> float:
    """Calls and says so; the weight that was admitted."""
    admitted = 0.0
    for _ in range(times):
        guard.saw(call(key, at_s))
        admitted += guard.admit(label(key, odds, at_s)).weight
    return admitted


def test_the_only_key_of_a_house_is_not_bound() -> None:
    guard = Guard()
    assert speak(guard, "me", GOOD, 100) == pytest.approx(100 * label("me", GOOD).weight)
    assert guard.trust("me") == 1.0


def test_words_without_calls_weigh_little() -> None:
    guard = Guard()
    for key in ("a", "b", "c"):
        speak(guard, key, GOOD, 50)
    guard.saw(call("talker"))
    admitted = sum(guard.admit(label("talker", GOOD)).weight for _ in range(500))
    others = 150 * label("a", GOOD).weight
    assert admitted <= FREE + TRIM / 151 / (1 - TRIM / 151) * (others + FREE) + 1e-6


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=200), st.integers(1, 8))
def test_nobody_is_made_heavier(words: list[tuple[str, bool]], often: int) -> None:
    guard = Guard()
    for place, (key, good) in enumerate(words):
        if place % often == 0:
            guard.saw(call(key, float(place)))
        one = label(key, GOOD if good else BAD, float(place))
        assert 0.0 <= guard.admit(one).scale <= 1.0
        assert 0.0 <= guard.trust(key) <= 1.0


def test_a_liar_is_found_out_and_comes_back() -> None:
    guard = Guard()
    for _ in range(20):
        for key in ("a", "b", "c"):
            speak(guard, key, GOOD)
    speak(guard, "liar", BAD, 6)
    assert guard.trust("liar") < 0.1
    assert min(guard.trust(key) for key in "abc") == 1.0
    assert speak(guard, "liar", BAD) < 0.1
    speak(guard, "liar", GOOD, 6)
    assert guard.trust("liar") > 0.9


def test_who_was_cleared_and_turns_is_found_out_as_soon_as_others() -> None:
    """What it said before, in 20 kinds of work, stays; what it says now weighs nothing after a dozen words."""
    guard = Guard()
    kinds = [f"kind-{n}" for n in range(20)]

    def one(key: str, kind: str, odds: float) -> float:
        guard.saw(replace(call(key), task_type=kind))
        weight = guard.admit(replace(label(key, odds), task_type=kind)).weight
        guard.sort_out()
        return weight

    for turn in range(3):
        for kind in kinds:
            for key in ("a", "b", "c", "d"):
                one(key, kind, GOOD if turn or kind != "kind-0" else BAD)
    assert guard.cleared == {"a", "b", "c", "d", CROWD}
    lies = [one("d", kind, BAD) for kind in kinds]
    assert max(lies[12:]) < 0.1
    assert guard.turned == {"d"}
    assert guard.cleared == {"a", "b", "c", CROWD}
    again = Guard.of_state(json.loads(json.dumps(guard.state())))
    assert (again.turned, again.cleared, again.out) == (guard.turned, guard.cleared, guard.out)
    for kind in kinds:
        one("d", kind, GOOD)
    assert guard.trust("d") > 0.9
    assert guard.turned == set()


def test_one_failure_among_successes_is_no_lie() -> None:
    guard = Guard()
    for number in range(30):
        for key in ("a", "b", "c"):
            speak(guard, key, BAD if number % 5 == 4 else GOOD)
    assert min(guard.trust(key) for key in "abc") > 0.9


def test_where_all_say_that_a_model_got_worse_they_are_believed() -> None:
    guard = Guard()
    for odds, times in ((GOOD, 60), (BAD, 40)):
        for _ in range(times):
            for key in ("a", "b", "c", "d"):
                speak(guard, key, odds)
    assert min(guard.trust(key) for key in "abcd") > 0.9


def test_an_admin_is_not_judged_and_hints_judge_nobody() -> None:
    guard = Guard()
    for key in ("a", "b", "c"):
        speak(guard, key, GOOD, 20)
    for _ in range(20):
        word = label("boss", BAD)
        assert guard.admit(word, admin=True) is word
        guard.admit(label("hinter", BAD, source=CORRECTION))
    assert guard.trust("boss") == guard.trust("hinter") == 1.0


def test_shares_fade_with_time() -> None:
    guard = Guard()
    for key in ("a", "b", "c"):
        speak(guard, key, GOOD, 50)
    for _ in range(100):
        guard.admit(label("talker", GOOD))
    assert guard.admit(label("talker", GOOD)).weight == pytest.approx(0.0, abs=1e-6)
    later = 3 * HALF_LIFE_S
    for key in ("a", "b", "c"):
        speak(guard, key, GOOD, 50, at_s=later)
    assert guard.admit(label("talker", GOOD, later)).weight > 0.5


def test_state_survives() -> None:
    guard = Guard()
    for key, odds in (("a", GOOD), ("b", GOOD), ("liar", BAD)):
        speak(guard, key, odds, 8)
    again = Guard.of_state(json.loads(json.dumps(guard.state())))
    assert again.trust("liar") == guard.trust("liar") < 1.0
    probe = replace(label("a", GOOD), said_s=5.0)
    assert again.admit(probe) == guard.admit(probe)


def test_the_operators_words_are_the_measure_where_there_are_enough() -> None:
    guard = Guard()
    for _ in range(10):
        guard.saw(call("boss"))
        guard.admit(label("boss", GOOD), admin=True)
    for key in ("a", "b", "c"):
        speak(guard, key, BAD, 10)
    assert max(guard.trust(key) for key in "abc") < 0.1
    speak(guard, "d", GOOD, 10)
    assert guard.trust("d") > 0.9


def test_young_keys_together_weigh_no_more_than_their_share_of_all_calls() -> None:
    guard = Guard()
    for key in ("a", "b", "c"):
        for number in range(100):
            kind = "code" if number < 20 else "math"
            guard.saw(replace(call(key), task_type=kind))
            guard.admit(replace(label(key, GOOD), task_type=kind))
    admitted = 0.0
    for number in range(60):
        guard.saw(call(f"new-{number}"))
        admitted += guard.admit(label(f"new-{number}", GOOD)).weight
    assert admitted <= FREE + 60 / 300 * (60 * label("a", GOOD).weight + FREE) + 1e-6


def test_many_small_keys_alone_are_the_house() -> None:
    guard = Guard()
    words = [label(f"key-{number}", GOOD) for number in range(60)]
    admitted = 0.0
    for word in words:
        guard.saw(call(word.key))
        admitted += guard.admit(word).weight
    assert admitted == pytest.approx(sum(word.weight for word in words))


@given(st.integers(0, 200))
def test_new_keys_that_chance_spoke_against_are_cleared_by_looking_back(seed: int) -> None:
    """Honest keys' first words, in 12 kinds of work: whatever trust word by word made of them, those that together fit
    what is known by now are believed."""
    rng, guard = Random(seed), Guard()
    kinds = {f"kind-{n}": rng.choice((0.15, 0.85)) for n in range(12)}

    def one(key: str) -> None:
        kind = rng.choice(list(kinds))
        guard.saw(replace(call(key), task_type=kind))
        guard.admit(replace(label(key, GOOD if rng.random() < kinds[kind] else BAD), task_type=kind))

    for turn in range(400):
        one(f"key-{turn % 8}")
    for number in range(40):
        one(f"new-{number % 20}")
    guard.sort_out()
    assert CROWD in guard.cleared
    assert guard.trust("never seen") == 1.0
    assert not guard.out


def test_new_keys_that_lie_together_are_not_cleared() -> None:
    guard = Guard()
    for key in ("a", "b", "c"):
        speak(guard, key, GOOD, 30)
    for number in range(30):
        speak(guard, f"new-{number}", BAD)
    guard.sort_out()
    assert CROWD in guard.out
    assert guard.trust("never seen") < 0.1
