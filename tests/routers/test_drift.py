"""The drift detector on synthetic labels: how often it finds a fall, how often it cries wolf, and what it can bear."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from routers.drift import BUCKET, LIMITS, WINDOWS, Cell, evidence, heard, least_labels, most_found, new_cell

RUNS = 150


def outcomes(level: float, drop: float, labels: int, at: int, seed: int) -> np.ndarray:
    """(labels, RUNS) synthetic outcomes that succeed at `level`, and from label `at` on at `drop` less."""
    rates = np.where(np.arange(labels) >= at, level - drop, level)
    return (np.random.default_rng(seed).random((labels, RUNS)) < rates[:, None]).astype(np.float64)


def alarms(y: np.ndarray, expected: np.ndarray | float, weight: float = 1.0) -> np.ndarray:
    """(labels / BUCKET, RUNS): whether the evidence passes a limit."""
    cell, found = new_cell(y.shape[1]), []
    for number, (row, logits) in enumerate(zip(y, np.broadcast_to(expected, y.shape), strict=True), 1):
        cell = heard(cell, logits, row, weight)
        if number % BUCKET == 0:
            found.append((evidence(cell)[0] > LIMITS).any(axis=-1))
    return np.array(found)


@pytest.mark.parametrize("level", [0.7, 0.9, 0.97])
def test_quiet_cells_are_left_alone(level: float) -> None:
    found = alarms(outcomes(level, 0.0, 4000, 9999, seed=71), 1.0).any(axis=0)
    assert found.mean() <= 0.04  # 0.015 and two standard errors


@pytest.mark.parametrize(
    ("level", "drop", "within", "least"),
    [(0.98, 0.05, 600, 0.95), (0.95, 0.05, 600, 0.65), (0.9, 0.05, 600, 0.35), (0.95, 0.15, 150, 0.9)],
)
def test_a_fall_is_found_in_time(level: float, drop: float, within: int, least: float) -> None:
    found = alarms(outcomes(level, drop, 2000 + within, 2000, seed=72), 1.0)[200:].any(axis=0).mean()
    assert found >= least
    assert found <= most_found(level, drop, within, false_alarms=0.05, labels=4000) + 0.05


def test_an_expectation_that_is_wrong_on_the_whole_is_no_fall() -> None:
    y = outcomes(0.6, 0.0, 2000, 9999, seed=73)
    assert alarms(y, 4.0).any(axis=0).mean() <= 0.06
    assert alarms(y, -3.0).any(axis=0).mean() <= 0.06


def test_harder_requests_that_were_expected_to_be_harder_are_no_fall() -> None:
    rng = np.random.default_rng(74)
    logits = np.where(np.arange(3000) >= 2000, 0.0, 2.0)[:, None] + rng.normal(size=(3000, RUNS))
    y = (rng.random(logits.shape) < 1.0 / (1.0 + np.exp(-logits))).astype(np.float64)
    assert alarms(y, logits).any(axis=0).mean() <= 0.09
    assert alarms(y, 1.0).any(axis=0).mean() >= 0.99  # without the expectation it would be one


def test_labels_noisier_than_their_weights_say_raise_no_alarm() -> None:
    rng = np.random.default_rng(75)
    y = outcomes(0.9, 0.0, 3000, 9999, seed=75)
    y = np.where(rng.random(y.shape) < 0.25, 1.0 - y, y)
    assert alarms(y, 2.2).any(axis=0).mean() <= 0.09


def test_light_labels_say_less() -> None:
    y = outcomes(0.95, 0.3, 2060, 2000, seed=76)
    clear, light = alarms(y, 1.0)[-6:].any(axis=0).mean(), alarms(y, 1.0, weight=0.2)[-6:].any(axis=0).mean()
    assert clear > 0.9 > light


def test_the_size_of_a_fall_is_told() -> None:
    cell = new_cell(RUNS)
    for row in outcomes(0.9, 0.15, 2600, 2000, seed=77):
        cell = heard(cell, 1.0, row)
    assert evidence(cell)[1][:, -1].mean() == pytest.approx(0.15, abs=0.01)


def test_windows_wait_until_they_are_full() -> None:
    cell = new_cell()
    for number in range(1, 150):
        cell = heard(cell, 1.0, 0.0 if number > 100 else 1.0)
    root = evidence(cell)[0]
    assert np.isfinite(root).tolist() == (WINDOWS <= 4).tolist()
    assert root[0] > LIMITS[0]


def test_a_fall_does_not_lower_its_own_base_while_it_is_young() -> None:
    def offset(drop: float) -> float:
        cell: Cell = new_cell(RUNS)
        for row in outcomes(0.9, drop, 2000 + BUCKET * int(WINDOWS[-1]), 2000, seed=78):
            cell = heard(cell, 1.0, row)
        return float(np.mean(cell.offset))

    assert offset(0.3) == pytest.approx(offset(0.0), abs=1e-9)


def test_the_bound_is_the_binomial_tests() -> None:
    # n = 1: alarms may be given to a failure with probability allowed / P(failure).
    assert most_found(0.9, 0.1, 1, false_alarms=0.05, labels=1) == pytest.approx(0.2 * 0.05 / 0.1)
    assert most_found(0.9, 0.05, 600, false_alarms=0.05, labels=4000) == pytest.approx(0.908, abs=0.005)
    assert most_found(0.9, 0.3, 600, false_alarms=0.05, labels=4000) > 0.9999


@pytest.mark.parametrize(("level", "drop"), [(0.98, 0.05), (0.9, 0.05), (0.9, 0.15), (0.6, 0.3)])
def test_fewer_labels_than_the_least_find_less(level: float, drop: float) -> None:
    alarms_in: dict[str, Any] = {"false_alarms": 0.05, "labels": 4000}
    least = least_labels(level, drop, 0.95, **alarms_in)
    assert most_found(level, drop, least, **alarms_in) >= 0.95 > most_found(level, drop, least - 1, **alarms_in)
    assert least_labels(level, drop, 0.99, **alarms_in) > least


def test_a_cell_is_a_value() -> None:
    cell = new_cell()
    before = replace(cell, closed=cell.closed.copy())
    heard(cell, 0.0, 1.0)
    assert cell.labels == before.labels
    assert (cell.closed == before.closed).all()
