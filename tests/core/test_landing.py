"""How near a task is to its limits, and what its next call may take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.budget import Balance
from app.core.landing import Approach, Landing, Left, approach_of, lefts_of, note_of
from app.core.terms import Terms

RULES = Landing(min_output_tokens=1)


def money(spent: int, limit: int | None = 1000, held: int = 0) -> Balance:
    return Balance(spent_nano=spent, held_nano=held, limit_nano=limit)


def test_a_task_lands_from_its_share_on() -> None:
    assert approach_of(RULES, [money(799)], 0) is None
    assert approach_of(RULES, [None, money(0, None)], 0) is None
    approach = approach_of(RULES, [money(800, held=150)], 0)
    assert approach is not None
    assert approach.nearest == Left("budget", 1000, 800, 50)
    assert approach.nearest.share == 0.8


def test_what_is_only_held_does_not_bring_it_nearer() -> None:
    assert approach_of(RULES, [money(100, held=900)], 0) is None


def test_every_limit_counts_and_those_of_the_tasks_above() -> None:
    terms = Terms(calls=10, tokens=1000, ms=60_000)
    own = Balance(calls=9, tokens=100, began_ms=1_000, terms=terms)
    assert {left.kind: (left.used, left.left) for left in lefts_of(own, 31_000)} == {
        "calls": (9, 1),
        "tokens": (100, 900),
        "time": (30_000, 30_000),
    }
    approach = approach_of(RULES, [own, money(10), money(990)], 31_000)
    assert approach is not None
    assert [left.kind for left in approach.limits[:2]] == ["budget", "calls"]
    assert approach.left("budget") == 10
    assert approach.left("tokens") == 900


def test_a_limit_that_is_passed_or_nothing_leaves_nothing() -> None:
    assert [left.left for left in lefts_of(money(1200), 0)] == [0]
    approach = approach_of(RULES, [Balance(limit_nano=0)], 0)
    assert approach is not None
    assert approach.nearest.share == 1.0


@given(
    left_nano=st.integers(0, 10**12),
    left_tokens=st.none() | st.integers(0, 10**6),
    input_tokens=st.integers(0, 10**5),
    rate=st.integers(1, 10**9),
    choices=st.integers(1, 4),
    share=st.sampled_from([0.1, 0.5, 1.0]),
    least=st.integers(1, 4096),
)
def test_a_call_takes_no_more_than_its_share_unless_that_is_too_little_to_say_anything(
    left_nano: int, left_tokens: int | None, input_tokens: int, rate: int, choices: int, share: float, least: int
) -> None:
    limits = [Left("budget", 10**13, 10**13 - left_nano, left_nano)]
    if left_tokens is not None:
        limits.append(Left("tokens", 10**7, 10**7 - left_tokens, left_tokens))
    approach = Approach(Landing(step_share=share, min_output_tokens=least), tuple(limits))
    input_nano = -(-input_tokens * rate // 10**6)
    tokens = approach.output_tokens(input_tokens, input_nano, rate, choices)
    assert tokens is not None
    assert tokens >= least
    if tokens > least:
        assert input_nano + choices * tokens * rate // 10**6 <= left_nano * share
        assert left_tokens is None or input_tokens + choices * tokens <= left_tokens * share


def test_calls_and_time_bound_no_output() -> None:
    approach = Approach(RULES, (Left("calls", 10, 9, 1), Left("time", 1000, 900, 100)))
    assert approach.output_tokens(100, 100, 1000, 1) is None
    free = Approach(RULES, (Left("budget", 10, 9, 1),))
    assert free.output_tokens(100, 0, 0, 1) is None


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (Left("budget", 500_000_000, 415_000_000, 84_999_999), ("83%", "cost cap", "$0.0849 is left")),
        (Left("calls", 10, 8, 2), ("80%", "limit of model calls", "2 calls are left")),
        (Left("tokens", 1000, 900, 100), ("90%", "limit of tokens", "100 tokens are left")),
        (Left("time", 60_000, 57_000, 3_000), ("95%", "limit of time", "3 seconds are left")),
    ],
)
def test_the_note_says_what_is_left_and_whose_word_it_is(left: Left, said: tuple[str, ...]) -> None:
    note = note_of(left)
    assert all(part in note for part in said)
    assert "not from the user" in note
    assert "\n" not in note
