"""Every metric on cases small enough to work out by hand, and RouteLLM's protocol against a literal reading of it."""

from __future__ import annotations

import tracemalloc
from math import gcd

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routers.eval_bootstrap import Resamples, estimate, estimate_of_size
from routers.eval_metrics import (
    aiq,
    arena,
    at_spend,
    budgets,
    calibration,
    hull,
    median_log2_error,
    pair_metrics,
    saved,
)
from routers.eval_table import Floats


def alone(rows: int, resamples: int = 0) -> Resamples:
    return Resamples(np.arange(rows), resamples, 0)


def array(*values: float) -> Floats:
    return np.array(values, dtype=np.float64)


STRONG = array(*[1.0] * 100)
WEAK = np.tile([0.0, 1.0], 50)


def test_an_interval_of_calibration_holds_its_value() -> None:
    p, score = np.tile([0.3, 0.5, 0.9], (100, 1)), np.zeros((100, 3))
    for column, rate in enumerate((30, 50, 90)):
        score[:rate, column] = 1.0
    ece = calibration(p, score, alone(100, 400)).ece
    assert ece[0] == pytest.approx(0.0, abs=1e-6)
    assert estimate(ece).low > 0.001  # resamples add noise of their own
    found = estimate_of_size(ece)
    assert 0.0 <= found.low <= found.value
    assert 0.0 < found.high < estimate(ece).high
    assert np.isnan(estimate_of_size(array(0.5)).low)


def test_a_perfect_order_recovers_everything_with_the_calls_that_matter() -> None:
    found = pair_metrics(1.0 - WEAK, STRONG, WEAK, alone(100))
    # Ties are routed alike: the only cuts are 0, the needed half, everything.
    assert found.apgr[0] == pytest.approx(0.75)
    assert found.cpt50[0] == pytest.approx(0.25)
    assert found.cpt80[0] == pytest.approx(0.40)


def test_a_perfect_order_of_distinct_scores() -> None:
    order = np.argsort(np.argsort(1.0 - WEAK, kind="stable")).astype(np.float64)
    found = pair_metrics(order, STRONG, WEAK, alone(100))
    # Accuracy rises with the share of strong calls until all 50 are made, at deciles.
    assert found.apgr[0] == pytest.approx(0.75, abs=0.01)
    assert found.cpt50[0] == pytest.approx(0.25, abs=0.01)


def test_an_inverted_order_pays_for_nothing_first() -> None:
    found = pair_metrics(WEAK, STRONG, WEAK, alone(100))
    assert found.apgr[0] == pytest.approx(0.25)
    assert found.cpt50[0] == pytest.approx(0.75)


def test_a_score_that_says_nothing_is_a_half() -> None:
    found = pair_metrics(np.zeros(100), STRONG, WEAK, alone(100))
    assert (found.apgr[0], found.cpt50[0], found.cpt80[0]) == pytest.approx((0.5, 0.5, 0.8))


def test_random_scores_are_a_half_within_their_interval() -> None:
    rng = np.random.default_rng(1)
    strong, weak = (rng.random(2000) < 0.8).astype(float), (rng.random(2000) < 0.5).astype(float)
    found = estimate(pair_metrics(rng.random(2000), strong, weak, alone(2000, 300)).apgr)
    assert found.low < 0.5 < found.high
    assert found.high - found.low < 0.2


def test_models_of_like_quality_have_no_gap_to_recover() -> None:
    found = pair_metrics(np.arange(10.0), np.ones(10), np.ones(10), alone(10))
    assert np.isnan(found.apgr[0])
    assert np.isnan(found.cpt50[0])


def literally(needed: Floats, strong: Floats, weak: Floats) -> float:
    """RouteLLM's protocol as its description reads: thresholds at deciles, >= but > for the last, trapezoids."""
    thresholds = np.quantile(needed, np.linspace(0, 1, 11))
    points = []
    for i, threshold in enumerate(thresholds):
        chosen = needed >= threshold if i < len(thresholds) - 1 else needed > threshold
        points.append((chosen.mean(), np.where(chosen, strong, weak).mean()))
    xs, ys = np.array(sorted(points)).T
    area = float(((ys[1:] + ys[:-1]) * np.diff(xs)).sum() / 2)
    width = xs[-1] - xs[0]
    return float((area - weak.mean() * width) / ((strong.mean() - weak.mean()) * width))


UNEVEN = [rows for rows in range(20, 80) if gcd(rows - 1, 10) == 1]
"""No inner decile falls on a value, where a literal reading depends on how floats round."""


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from(UNEVEN), st.sampled_from([3, 8, 1000]))
def test_apgr_is_routellms(seed: int, rows: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    needed = rng.integers(0, levels, rows).astype(np.float64)
    strong, weak = (rng.random(rows) < 0.8).astype(float), (rng.random(rows) < 0.4).astype(float)
    if strong.mean() == weak.mean() or len(set(needed)) == 1:
        return
    assert pair_metrics(needed, strong, weak, alone(rows)).apgr[0] == pytest.approx(literally(needed, strong, weak))


def test_resamples_draw_whole_groups() -> None:
    drawn = Resamples(np.array([7, 7, 9, 4]), 50, 3)
    assert (drawn.weights[0] == 1).all()
    assert (drawn.weights[:, 0] == drawn.weights[:, 1]).all()
    assert (drawn.weights[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert np.array_equal(drawn.weights, Resamples(np.array([7, 7, 9, 4]), 50, 3).weights)


def test_means_are_over_what_is_known() -> None:
    values = np.array([[1.0, np.nan], [0.0, 0.5]])
    assert alone(2).mean(values)[0].tolist() == [0.5, 0.5]
    assert np.isnan(alone(2).mean(array(np.nan, np.nan))[0])


def test_an_interval_holds_the_middle_95_percent() -> None:
    found = estimate(np.concatenate([[0.5], np.linspace(0, 1, 1001)]))
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.025, 0.975))
    assert np.isnan(estimate(array(0.5)).low)


def test_the_hull_rises_and_bends_down() -> None:
    xs, ys = hull(array(1, 2, 3, 4, 2.5), array(0.2, 0.6, 0.5, 0.7, 0.61))
    assert xs == [1, 2, 4]
    assert ys == pytest.approx([0.2, 0.6, 0.7])


def test_aiq_is_the_mean_height_of_the_hull() -> None:
    quality, cost = np.array([[0.4, 0.8]]), np.array([[1.0, 3.0]])
    assert aiq(quality, cost, array(1.0), array(3.0))[0] == pytest.approx(0.6)
    # Above its last corner quality stays; below its first it falls to 0 at no cost.
    assert aiq(quality, cost, array(1.0), array(5.0))[0] == pytest.approx(0.7)
    assert aiq(np.array([[0.8]]), np.array([[2.0]]), array(0.0), array(2.0))[0] == pytest.approx(0.4)
    assert np.isnan(aiq(quality, cost, array(1.0), array(1.0))[0])


def test_savings_are_read_between_settings() -> None:
    quality, cost = np.array([[0.5, 0.7, 0.9]]), np.array([[1.0, 2.0, 4.0]])
    best = array(0.9), array(10.0)
    assert saved(quality, cost, *best, 1.0)[0] == pytest.approx(0.6)
    assert saved(quality, cost, *best, 8 / 9)[0] == pytest.approx(0.7)
    assert saved(quality, cost, *best, 0.5)[0] == pytest.approx(0.9)


def test_nothing_is_saved_where_the_quality_is_never_reached_or_costs_more() -> None:
    assert saved(np.array([[0.5]]), np.array([[1.0]]), array(0.9), array(10.0), 1.0)[0] == 0.0
    assert saved(np.array([[0.9]]), np.array([[20.0]]), array(0.9), array(10.0), 1.0)[0] == 0.0


def test_a_spend_between_two_settings_mixes_them() -> None:
    quality, cost = np.array([[0.8, 0.2]]), np.array([[3.0, 1.0]])
    spends = np.array([[0.5, 1.0, 1.5, 3.0, 9.0]])
    assert at_spend(spends, quality, cost)[0] == pytest.approx([0.2, 0.2, 0.35, 0.8, 0.8])
    assert at_spend(spends, np.array([[0.4]]), np.array([[1.0]]))[0] == pytest.approx([0.4] * 5)


def test_budgets_run_from_the_cheapest_to_the_best() -> None:
    found = budgets(array(1.0), array(16.0))[0]
    assert found[[0, 4, 8]] == pytest.approx([1.0, 4.0, 16.0])


def test_the_arenas_score_rewards_quality_and_thrift() -> None:
    # Dollars a request: 0.0044 per 1,000 is rated 1, 200 per 1,000 is rated 0.
    assert arena(array(0.8), array(4.4e-6))[0] == pytest.approx(1.1 * 0.8 / (0.08 + 1.0))
    assert arena(array(0.8), array(0.2))[0] == 0.0


def test_ece_by_hand() -> None:
    p, score = np.array([[0.9], [0.9], [0.1], [0.1]]), np.array([[1.0], [0.0], [0.0], [0.0]])
    found = calibration(p, score, alone(4))
    # |0.9 - 0.5| for a half of the forecasts, |0.1 - 0| for the other.
    assert found.ece[0] == pytest.approx(0.25)
    assert found.count.sum() == 4
    assert found.observed[found.count > 0] == pytest.approx([0.0, 0.5])


def test_ece_leaves_out_what_is_not_known() -> None:
    p, score = np.array([[1.0, 0.3], [np.nan, 0.3]]), np.array([[1.0, np.nan], [1.0, np.nan]])
    assert calibration(p, score, alone(2)).ece[0] == 0.0


def test_length_error_is_the_median_of_doublings() -> None:
    expected, actual = np.array([[100.0, 100.0, 100.0]]), np.array([[200.0, 100.0, np.nan]])
    assert median_log2_error(expected, actual, alone(1))[0] == pytest.approx(0.5)
    assert median_log2_error(np.array([[400.0]]), np.array([[100.0]]), alone(1, 5)) == pytest.approx(2.0, abs=0.01)
    assert np.isnan(median_log2_error(expected, np.full((1, 3), np.nan), alone(1))[0])


def test_an_interval_of_lengths_holds_its_value_and_takes_little_memory() -> None:
    """Of many rows it is narrower than a bin of the histogram; all rows' histograms at once would take 240 MB."""
    rng, rows = np.random.default_rng(0), 30_000
    actual = np.full((rows, 2), 100.0)
    expected = actual * 2.0 ** rng.normal(0.0, 1.5, (rows, 2))
    actual[::7, 1] = np.nan
    error = np.abs(np.log2(expected / actual))
    drawn = Resamples(np.arange(rows), 20, seed=0)
    tracemalloc.start()
    try:
        found = median_log2_error(expected, actual, drawn)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    known = np.isfinite(error)
    for b in range(21):
        times = np.repeat(drawn.weights[b].astype(int)[:, None], 2, axis=1)
        assert found[b] == pytest.approx(np.median(np.repeat(error[known], times[known])), abs=0.001)
    interval = estimate(found)
    assert interval.low < interval.value < interval.high
    assert peak < 100e6


def test_many_rows_are_routed_in_little_memory() -> None:
    """All resamples at once would take 200 MB here, and 10 GB for 300,000 rows and 1,000 resamples."""
    rng, rows = np.random.default_rng(0), 20_000
    resamples = Resamples(np.arange(rows), 300, seed=0)
    needed, strong, weak = (
        rng.random(rows),
        rng.integers(0, 2, rows).astype(float),
        rng.integers(0, 2, rows).astype(float),
    )
    tracemalloc.start()
    try:
        found = pair_metrics(needed, strong, weak, resamples)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.apgr.shape == (301,)
    assert peak < 100e6
