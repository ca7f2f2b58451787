"""Estimates count every delta, stay near a real tokenizer, and lean to the safe side once calibrated."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.tokens import MAX_RATIO, Calibration, Ratio, estimate_input, pieces

PROSE = (
    "The quick brown fox jumps over the lazy dog, and then it sleeps for several hours because nobody asked it to do "
    "anything else. Later that evening the owner returns, lights a fire and reads a book about the history of printing."
)
CODE = 'def area(radius: float) -> float:\n    """Area of a circle."""\n    return math.pi * radius ** 2\n'


@given(st.text())
def test_a_delta_counts_at_least_one_and_nothing_counts_nothing(text: str) -> None:
    assert (pieces(text) >= 1) == bool(text)
    assert pieces(text) <= len(text)


@pytest.mark.parametrize(
    "token", ["Hello", " world", "\n\n", "'m", "}", " 1234", "        ", "    " * 8, ".", " (", "ing"]
)
def test_a_token_of_a_stream_is_one(token: str) -> None:
    assert pieces(token) == 1


@pytest.mark.parametrize(
    ("text", "tokens"),
    [(PROSE, 46), (CODE, 26), ("1234567890" * 5, 17), ("是的。我们想想", 6), ('{"a": [1, 2], "b": "c"}', 15)],
)
def test_estimates_are_within_a_factor_of_two_of_o200k(text: str, tokens: int) -> None:
    """`tokens` were counted with tiktoken's o200k_base."""
    assert tokens / 2 <= pieces(text) <= tokens * 2


def test_a_long_delta_costs_no_time_to_speak_of() -> None:
    started = time.perf_counter()
    assert pieces(PROSE * 5000) > 100_000
    assert pieces("é" * 1_000_000) == 1_000_000
    assert time.perf_counter() - started < 0.5


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=40))
def test_a_ratio_stays_within_its_bounds(values: list[float]) -> None:
    ratio = Ratio(1.0, 0.125)
    for value in values:
        ratio.learn(value)
    assert 1 / MAX_RATIO <= ratio.mean <= MAX_RATIO
    assert 0 <= ratio.spread <= MAX_RATIO
    assert ratio.upper >= ratio.mean


@settings(max_examples=30)
@given(st.floats(0.3, 4.0))
def test_calibration_finds_a_steady_ratio(true: float) -> None:
    calibration = Calibration.fresh()
    for _ in range(60):
        calibration.learn(out_pieces=1000, out_tokens=int(1000 * true), in_estimate=1000, in_tokens=int(1000 * true))
    assert 0.99 * true <= calibration.output_permille / 1000 <= 1.1 * true + 0.01
    assert 0.99 * true <= calibration.input_tokens(1000) / 1000 <= 1.1 * true + 0.01


def test_a_varying_ratio_is_taken_at_its_upper_end() -> None:
    calibration = Calibration.fresh()
    for i in range(60):
        calibration.learn(out_pieces=100, out_tokens=80 if i % 2 else 120, in_estimate=0, in_tokens=0)
    assert 1200 <= calibration.output_permille <= 1600


def test_small_or_empty_samples_teach_nothing() -> None:
    calibration = Calibration.fresh()
    calibration.learn(out_pieces=7, out_tokens=700, in_estimate=7, in_tokens=700)
    calibration.learn(out_pieces=100, out_tokens=0, in_estimate=100, in_tokens=0)
    assert calibration == Calibration.fresh()
    assert (calibration.output_permille, calibration.input_tokens(1000)) == (1000, 1251)


def test_the_permille_is_a_whole_number_above_zero() -> None:
    assert Calibration(Ratio(0.0, 0.0), Ratio(0.0, 0.0)).output_permille == 1


def test_input_counts_text_messages_and_pictures() -> None:
    assert estimate_input(330, 2, 0) == 100 + 10 + 3
    assert estimate_input(0, 1, 2) == 5 + 2 * 1105 + 3
