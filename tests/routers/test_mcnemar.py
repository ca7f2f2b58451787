"""The exact test on requests that turned out differently, and several of them at a time."""

from __future__ import annotations

from math import isclose

import numpy as np
import pytest

from routers.mcnemar import p_fallen, rejected


@pytest.mark.parametrize(
    ("lost", "won", "p"),
    [(0, 0, 1.0), (0, 5, 1.0), (1, 0, 0.5), (7, 0, 1 / 128), (12, 2, 106 / 2**14), (3, 3, 42 / 64)],
)
def test_the_chance_of_so_many_lost(lost: int, won: int, p: float) -> None:
    assert isclose(p_fallen(lost, won), p)


def test_without_a_change_it_says_no_more_than_it_may() -> None:
    """Synthetic: two rounds of 200 requests, each right with a chance of its own, the same in both."""
    rng = np.random.default_rng(1)
    chance = rng.beta(8, 1, (2_000, 200))
    one, other = (rng.random(chance.shape) < chance for _ in range(2))
    lost, won = (one & ~other).sum(axis=1), (other & ~one).sum(axis=1)
    said = np.mean([p_fallen(int(a), int(b)) <= 0.05 for a, b in zip(lost, won, strict=True)])
    assert 0.005 < said < 0.05


def test_many_differing_requests_are_no_trouble() -> None:
    assert p_fallen(10_000, 10_000) == pytest.approx(0.5, abs=0.01)
    assert p_fallen(2_000, 0) == 0.0 or p_fallen(2_000, 0) < 1e-300


def test_the_more_tests_the_surer_each_must_be() -> None:
    assert rejected([0.009], 0.01) == [True]
    assert rejected([0.009, 0.009], 0.01) == [False, False]
    assert rejected([0.009, 0.004, 0.5], 0.01) == [False, False, False]
    assert rejected([0.009, 0.003, 0.004], 0.01) == [True, True, True]
    assert rejected([], 0.01) == []
