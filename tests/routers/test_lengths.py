"""Lengths: learned where requests like it were seen, the heuristic's elsewhere, and always within the limits."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routers.base import Arm, RequestView
from routers.facts import arm_of_name
from routers.features import extract
from routers.heuristic import visible_tokens
from routers.lengths import (
    CALL,
    EXAM,
    OTHER,
    LengthWeights,
    arm_lengths,
    describe,
    expected_tokens,
    request_length,
    verbosity,
)
from routers.rows import Outcome
from routers.train_lengths import Lengths, fit_lengths

TERSE, CHATTY = "llama-3-8b-instruct", "qwen2.5-7b-instruct"


def exam(at: int) -> RequestView:
    words = " ".join(f"word{at}x{i}" for i in range(5 + at % 40))
    return RequestView(f"Which of these is a {words}?\nA) one\nB) two\nC) three\nD) four")


def call(at: int) -> RequestView:
    return RequestView(f"What is the weather in city {at}?", n_tools=1 + at % 3, tool_schema_chars=400)


def fitted() -> LengthWeights:
    """Synthetic lengths: exams take 200 tokens, calls 30; one model says half of it, the other twice."""
    rng = np.random.default_rng(0)
    features = [extract(view) for view in [*map(exam, range(200)), *map(call, range(200))]]
    request, arm = np.arange(400).repeat(2), np.tile([0, 1], 400)
    level = np.where(request < 200, 200.0, 30.0) * np.where(arm == 0, 0.5, 2.0)
    tokens = level * np.exp2(0.1 * rng.normal(size=800))
    seen = Lengths(request, arm, tokens, np.zeros(800, int))
    return LengthWeights.of(fit_lengths(features, [arm_of_name(TERSE), arm_of_name(CHATTY)], seen))


WEIGHTS = fitted()


def tokens_of(view: RequestView, *arms: Arm) -> list[float]:
    features = extract(view)
    request = request_length(features, WEIGHTS)
    return [float(n) for n in expected_tokens(request, arm_lengths(arms, WEIGHTS), features.max_output_tokens)]


def test_requests_like_those_seen_get_what_was_measured() -> None:
    terse, chatty = tokens_of(exam(7), arm_of_name(TERSE), arm_of_name(CHATTY))
    assert terse == pytest.approx(100, rel=0.25)
    assert chatty == pytest.approx(400, rel=0.25)
    assert tokens_of(call(5), arm_of_name(TERSE))[0] == pytest.approx(15, rel=0.25)


def test_a_new_model_is_of_middling_verbosity_and_leans_to_its_line() -> None:
    terse, new, chatty = (verbosity(arm_of_name(name), WEIGHTS)[0] for name in (TERSE, "who-knows", CHATTY))
    assert terse < new < chatty
    sibling = verbosity(arm_of_name("llama-3-9b-instruct"), WEIGHTS)[0]
    assert terse < sibling < new


def test_work_that_was_never_seen_is_the_heuristics() -> None:
    letter = RequestView("Write 500 words on the history of bread.")
    assert describe(extract(letter))[0] == OTHER
    assert tokens_of(letter, Arm("x", 2))[0] == pytest.approx(500 * 1.35, rel=0.2)
    translation = RequestView("Translate to French: " + "the cat sat on the mat. " * 50)
    expected = visible_tokens(extract(translation))
    assert tokens_of(translation, Arm("x", 2))[0] == pytest.approx(expected, rel=0.2)


def test_the_correction_fades_with_distance() -> None:
    near = describe(extract(exam(7)))[1]
    far = [value * 40 + 100 for value in near]
    assert WEIGHTS.corrected(EXAM, near, 10.0) < 9.5
    assert WEIGHTS.corrected(EXAM, far, 10.0) == pytest.approx(10.0, abs=1e-6)


def test_limits_hold_and_reasoning_is_added() -> None:
    plain = Arm("x", 3)
    thinking, limited = replace(plain, reasoning=True), replace(plain, reasoning=True, max_output_tokens=50)
    first, second, third = tokens_of(exam(3), plain, thinking, limited)
    assert second > first + 100
    assert third == 50
    assert tokens_of(msgspec.structs.replace(exam(3), max_output_tokens=7), plain, thinking) == [7, 7]


def test_kinds() -> None:
    assert describe(extract(call(1)))[0] == CALL
    assert describe(extract(exam(1)))[0] == EXAM
    assert describe(extract(RequestView("hello")))[0] == OTHER


@given(
    st.text(max_size=300),
    st.integers(0, 50),
    st.integers(0, 10**6),
    st.none() | st.integers(1, 10**6),
    st.none() | st.integers(1, 10**6),
    st.booleans(),
)
@settings(deadline=None)
def test_any_request_has_a_sane_length(
    text: str, tools: int, chars: int, most: int | None, arm_most: int | None, reasoning: bool
) -> None:
    view = RequestView(text, n_tools=tools, tool_schema_chars=chars, max_output_tokens=most)
    arm = Arm("x", 3, reasoning=reasoning, max_output_tokens=arm_most)
    [tokens] = tokens_of(view, arm)
    assert 1 <= tokens <= 60_000
    assert tokens <= (most or tokens)
    assert tokens <= (arm_most or tokens)


def test_no_arms_no_lengths() -> None:
    assert tokens_of(exam(1)) == []


def test_a_length_is_read_from_what_was_recorded() -> None:
    assert Outcome(1.0, out_tokens=30, out_chars=900).length_tokens == 30
    assert Outcome(1.0, out_tokens=0, out_chars=900).length_tokens == 0
    assert Outcome(1.0, out_chars=900).length_tokens == 225
    assert Outcome(1.0, cost_usd=0.0005).length_tokens is None
