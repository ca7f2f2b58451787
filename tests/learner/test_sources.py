"""How far sources are believed, and how that is learned."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.learner.sources import (
    _PRIORS,
    HUMAN,
    KEY_COUNTS,
    SIGNS,
    TASK,
    USER,
    VERIFIER,
    WRONG_SHAPE,
    Reliability,
    Sources,
    Told,
    prior_of,
    strongest,
)

rate = st.floats(0.01, 0.99)


def test_people_and_checks_are_believed_more_than_users_and_these_more_than_signs() -> None:
    order = [prior_of(source).informed for source in (HUMAN, VERIFIER, USER, TASK + USER)]
    assert order == sorted(order, reverse=True)
    assert max(prior_of(sign).informed for sign in SIGNS) < order[-1]
    assert strongest([Told(USER, 1.0, "a"), Told(HUMAN, 0.0, "b")]) == Told(HUMAN, 0.0, "b")
    assert strongest([]) is None


@given(rate, rate)
def test_words_push_the_way_they_say_or_not_at_all(a: float, b: float) -> None:
    trust = Reliability(a, b)
    assert trust.log_odds(True) >= 0.0 >= trust.log_odds(False)
    if a + b <= 1.0:
        assert trust.log_odds(True) == trust.log_odds(False) == 0.0


def teach(sources: Sources, key: str, right: float, seed: int = 0, n: int = 1_500) -> None:
    """A verifier speaks of the same calls as this key's users, who are right this often; synthetic."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        good = bool(rng.random() < 0.7)
        told = good if rng.random() < right else not good
        sources.learn([Told(VERIFIER, float(good), key), Told(USER, float(told), key)], 0.7)


@pytest.mark.parametrize("right", [0.9, 0.8, 0.6])
def test_users_are_learned_where_a_verifier_spoke_too(right: float) -> None:
    sources = Sources()
    teach(sources, "alice", right)
    found = sources.reliability(USER, "alice")
    assert found.says_good == pytest.approx(right, abs=0.06)
    assert found.says_bad == pytest.approx(right, abs=0.08)


def test_one_key_is_judged_by_its_own_words() -> None:
    sources = Sources()
    teach(sources, "liar", 0.0)
    assert sources.log_odds(Told(USER, 1.0, "liar"), True) == 0.0
    assert sources.reliability(USER, "alice") == prior_of(USER)


def test_nobody_is_judged_by_weaker_ones() -> None:
    sources = Sources()
    for _ in range(100):
        sources.learn([Told(VERIFIER, 1.0, "a"), Told(USER, 0.0, "a"), Told(WRONG_SHAPE, 0.0, "a")], 0.2)
    assert sources.reliability(VERIFIER, "a") == prior_of(VERIFIER)
    alone = Sources()
    alone.learn([Told(USER, 1.0, "a")], 0.9)
    assert alone.reliability(USER, "a") == prior_of(USER)


def test_a_sign_is_learned_from_all_keys_and_no_key_has_more_than_its_part() -> None:
    sources = Sources()
    for _ in range(5_000):  # one key's wrong shapes are all good, it says
        sources.learn([Told(WRONG_SHAPE, 0.0, "odd"), Told(HUMAN, 1.0, "odd")], 0.5)
    after_one = sources.reliability(WRONG_SHAPE, "any").says_good
    assert after_one > 30.0 * 0.99 / (30.0 + KEY_COUNTS + 1.0) - 0.01
    for key in range(40):
        for _ in range(50):
            sources.learn([Told(WRONG_SHAPE, 0.0, f"k{key}"), Told(HUMAN, 0.0, f"k{key}")], 0.5)
    assert sources.reliability(WRONG_SHAPE, "any").says_bad > 0.9


@given(st.lists(st.tuples(st.sampled_from(sorted(_PRIORS)), st.floats(0, 1), st.sampled_from("ab")), max_size=6))
def test_state_survives_and_reliabilities_stay_probabilities(words: list[tuple[str, float, str]]) -> None:
    sources = Sources()
    for _ in range(3):
        sources.learn([Told(*word) for word in words], 0.6)
    again = Sources.of_state(json.loads(json.dumps(sources.state())))
    for source in _PRIORS:
        trust = sources.reliability(source, "a")
        assert again.reliability(source, "a") == trust
        assert 0.0 < trust.says_good < 1.0
        assert 0.0 < trust.says_bad < 1.0
