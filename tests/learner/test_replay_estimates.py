"""Replay estimates: exactly unbiased where that can be counted, covering in a synthetic simulation, refusing."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.learner.replay_estimates import LEAST_EFFECTIVE, Logged, Replayed, estimate, ratio, student

SEED = 20_261_129


def logged(n: int, **given: Any) -> Logged:
    """Rows that the other policy would decide in the same way, each a unit of its own."""
    ones = np.ones(n)
    columns: dict[str, Any] = {
        "unit": np.arange(n), "propensity": ones, "target": ones, "unsupported": 0 * ones, "outcome": ones,
        "expected": 0 * ones, "expected_target": 0 * ones,
    }  # fmt: skip
    return Logged(**{**columns, **given})


def test_ips_and_dr_are_exactly_unbiased() -> None:
    """All draws of three decisions between two candidates, each with its probability."""
    p = np.array([[0.9, 0.1], [0.5, 0.5], [0.3, 0.7]])
    outcome = np.array([[1.0, 4.0], [0.0, 2.0], [3.0, 5.0]])
    expected = np.array([[2.0, 2.0], [1.0, 3.0], [0.0, 7.0]])
    target = np.array([[0.0, 1.0], [0.25, 0.75], [1.0, 0.0]])
    truth = float((target * outcome).sum(axis=1).mean())
    rows, means = np.arange(3), {"ips": 0.0, "dr": 0.0}
    for draw in itertools.product((0, 1), repeat=3):
        taken = np.array(draw)
        found = estimate(
            logged(
                3,
                propensity=p[rows, taken],
                target=target[rows, taken],
                outcome=outcome[rows, taken],
                expected=expected[rows, taken],
                expected_target=(target * expected).sum(axis=1),
            ),
            least_effective=0.0,
        )
        for name in means:
            means[name] += float(p[rows, taken].prod()) * getattr(found, name).value
    assert means == pytest.approx({"ips": truth, "dr": truth})


def test_the_same_policy_comes_to_what_was_recorded() -> None:
    outcome = np.random.default_rng(SEED).lognormal(size=200)
    found = estimate(logged(200, outcome=outcome, expected=outcome * 2, expected_target=outcome * 2))
    assert found.refusal is None
    assert found.ess == pytest.approx(200)
    for way in (found.ips, found.snips, found.dr, found.recorded):
        assert way.value == pytest.approx(float(outcome.mean()))
        assert way.low < way.value < way.high
    assert (found.change.low, found.change.value, found.change.high) == (0.0, 0.0, 0.0)


def drawn(rng: np.random.Generator, tasks: int, dollars: bool) -> tuple[Logged, float]:
    """Synthetic traffic: tasks of some calls that share one draw of the explorer; what the other policy would have
    come to on it."""
    unit = np.repeat(np.arange(tasks), 1 + rng.poisson(1.0, tasks))
    n, rows = len(unit), np.arange(len(unit))
    hard = rng.normal(size=tasks)[unit] + rng.normal(size=n)
    p_good = 1 / (1 + np.exp(hard[:, None] - np.array([0.0, 1.0, 2.0])))
    believed = np.clip(p_good + rng.normal(scale=0.1, size=p_good.shape), 0.02, 0.98)
    costs = np.array([1.0, 3.0, 10.0]) * np.exp(0.3 * hard)[:, None]
    taken_first, other = (np.where((believed >= a).any(axis=1), (believed >= a).argmax(axis=1), 2) for a in (0.8, 0.6))
    p = np.full((n, 3), 0.1)
    p[rows, taken_first] += 0.7
    taken = (p.cumsum(axis=1) < rng.random(tasks)[unit, None]).sum(axis=1).clip(max=2)
    mean, expected = (costs, costs * 1.3) if dollars else (p_good, believed)
    outcome = mean[rows, taken] * rng.lognormal(-0.125, 0.5, n) if dollars else rng.random(n) < p_good[rows, taken]
    found = logged(
        n,
        unit=unit,
        propensity=p[rows, taken],
        target=(taken == other).astype(float),
        outcome=outcome.astype(float),
        expected=expected[rows, taken],
        expected_target=expected[rows, other],
    )
    return found, float(mean[rows, other].mean())


@pytest.mark.parametrize("dollars", [False, True], ids=["success", "dollars"])
def test_intervals_cover_the_truth_of_synthetic_traffic(dollars: bool) -> None:
    """On 300 fresh draws of it: at a true 95 % the share that covers has a standard error of 1.3 %."""
    rng = np.random.default_rng(SEED)
    truth = drawn(rng, 100_000, dollars)[1]
    covered = {"ips": 0, "snips": 0, "dr": 0}
    widths = dict.fromkeys(covered, 0.0)
    for _ in range(300):
        found = estimate(drawn(rng, 500, dollars)[0], least=None if dollars else 0.0, most=None if dollars else 1.0)
        for name in covered:
            way = getattr(found, name)
            covered[name] += way.low <= truth <= way.high
            widths[name] += way.high - way.low
    assert all(0.92 * 300 <= times <= 0.98 * 300 for times in covered.values()), covered
    assert widths["dr"] < widths["ips"]


def test_without_support_it_refuses_and_says_how_much_is_missing() -> None:
    unsupported = np.zeros(1000)
    unsupported[:200] = 1.0
    found = estimate(logged(1000, unsupported=unsupported))
    assert found.unsupported == pytest.approx(0.2)
    assert found.refusal is not None
    assert "20.0%" in found.refusal
    assert np.isnan(found.dr.value)
    assert found.as_json()["dr"] == {"value": None, "low": None, "high": None}


def test_a_few_rows_without_support_are_left_out_of_both_sides() -> None:
    outcome = np.tile([1.0, 0.0], 500)
    unsupported = np.zeros(1000)
    outcome[:40], unsupported[:40] = 100.0, 1.0
    found = estimate(logged(1000, outcome=outcome, unsupported=unsupported))
    assert (found.refusal, found.rows, found.known) == (None, 1000, 960)
    assert found.recorded.value == found.dr.value == pytest.approx(0.5)


def test_what_was_possible_and_never_happened_is_no_support() -> None:
    """Half of the decisions would go where they could be drawn once in a million: none of them was."""
    target = np.tile([1.0, 0.0], 500)
    found = estimate(logged(1000, target=target, propensity=np.full(1000, 1.0 - 1e-6)))
    assert found.refusal is not None
    assert "average 0.50" in found.refusal


def test_little_data_is_said_to_be_little() -> None:
    assert "too little data" in (estimate(logged(10)).refusal or "")
    # A thousand calls of two tasks are two tasks.
    many = estimate(logged(1000, unit=np.repeat([0, 1], 500)))
    assert many.refusal is not None
    assert many.ess == pytest.approx(2.0)
    unknown = estimate(logged(1000, outcome=np.full(1000, np.nan)))
    assert (unknown.known, unknown.refusal is None) == (0, False)
    assert isinstance(estimate(logged(0)), Replayed)


def test_successes_without_a_failure_leave_some_doubt() -> None:
    found = estimate(logged(300), least=0.0, most=1.0)
    assert (found.dr.value, found.dr.high) == (1.0, 1.0)
    assert found.dr.low == pytest.approx(0.99)


def test_a_propensity_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="propensity"):
        estimate(replace(logged(3), propensity=np.array([1.0, 0.0, 1.0])))


def test_ess_counts_unequal_weights_for_less() -> None:
    p = np.where(np.arange(200) < 2, 0.01, 1.0)
    assert estimate(logged(200, propensity=p)).ess < 10 < LEAST_EFFECTIVE


def test_one_unit_says_nothing_of_its_own_spread() -> None:
    assert np.isnan(ratio(np.ones(5), np.ones(5), np.zeros(5, dtype=np.intp)).value)


@pytest.mark.parametrize(("freedom", "quantile"), [(3, 3.182), (5, 2.571), (10, 2.228), (100, 1.984)])
def test_students_quantiles(freedom: int, quantile: float) -> None:
    assert student(0.975, freedom) == pytest.approx(quantile, abs=0.025)
