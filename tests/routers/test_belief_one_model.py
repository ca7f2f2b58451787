"""The learner's belief about one model: bounded, and near the posterior of all its outcomes. Outcomes are made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from routers.abilities import Ability, Vector
from routers.train_abilities import Observations, posterior
from tests.routers.one_model import predict, update

K = 3
coordinates = st.lists(st.floats(-30, 30), min_size=K, max_size=K).map(np.array)
outcomes = st.tuples(coordinates, st.floats(0, 1), st.floats(0, 50), st.floats(0, 10))


def start(k: int = K) -> Ability:
    return Ability(np.zeros(k), np.eye(k))


def drawn(rng: np.random.Generator, n: int, k: int = K) -> tuple[Any, Any]:
    """Outcomes of a model with some abilities; synthetic."""
    u = np.column_stack([np.ones(n), rng.normal(size=(n, k - 1)) * 0.7])
    theta = rng.normal(size=k) * 0.7
    return u, (rng.random(n) < 1 / (1 + np.exp(-u @ theta))).astype(float)


@given(st.lists(outcomes, max_size=30))
@settings(deadline=None)
def test_updates_stay_finite_and_positive_definite(seen: list[tuple[Vector, float, float, float]]) -> None:
    ability = start()
    for u, outcome, weight, noise in seen:
        ability = update(ability, u, outcome, weight, noise=noise)
    assert np.isfinite(ability.mean).all()
    assert np.allclose(ability.cov, ability.cov.T, atol=1e-9)
    assert np.linalg.eigvalsh(ability.cov).min() > 0
    assert np.diag(ability.cov).max() <= 1 + 1e-9


@given(coordinates, st.floats(0, 1), st.floats(0, 50))
@example(np.zeros(K), 2.2250738585e-313, 1.0)
@settings(deadline=None)
def test_a_success_never_lowers_p_and_a_failure_never_raises_it(u: Vector, noise: float, weight: float) -> None:
    before, _ = predict(start(), u)
    assert predict(update(start(), u, 1.0, weight, noise=noise), u)[0] >= before - 1e-9
    assert predict(update(start(), u, 0.0, weight, noise=noise), u)[0] <= before + 1e-9


@given(coordinates)
@settings(deadline=None)
def test_no_weight_is_no_change_and_noise_weakens_an_outcome(u: Vector) -> None:
    ability = start()
    unmoved = update(ability, u, 1.0, 0.0)
    assert np.array_equal(unmoved.mean, ability.mean)
    assert np.array_equal(unmoved.cov, ability.cov)
    clear, noisy = (update(ability, u, 1.0, noise=noise).mean @ u for noise in (0.0, 5.0))
    assert clear >= noisy - 1e-9


@pytest.mark.parametrize("n", [5, 20, 100])
def test_one_by_one_is_nearly_the_posterior_of_the_batch(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(5):
        u, y = drawn(rng, n)
        sequential = start()
        for row, outcome in zip(u, y, strict=True):
            sequential = update(sequential, row, outcome)
        mode = np.zeros(K)
        for _ in range(5):
            mode, cov = posterior(
                Observations(np.zeros(n, int), u, y, np.zeros(n), np.ones(n)), mode * 0, np.eye(K), mode
            )
        sd = np.sqrt(np.diag(cov))
        # The mode of a skewed posterior is not its mean, so that these are not expected to meet exactly.
        assert (np.abs(sequential.mean - mode) / sd).max() < 0.45
        assert np.abs(np.sqrt(np.diag(sequential.cov)) / sd - 1).max() < 0.25


def test_the_order_of_outcomes_matters_little() -> None:
    rng = np.random.default_rng(4)
    u, y = drawn(rng, 60)
    ends = []
    for order in (np.arange(60), rng.permutation(60), np.arange(60)[::-1]):
        ability = start()
        for at in order:
            ability = update(ability, u[at], y[at])
        ends.append(ability)
    for end in ends[1:]:
        assert (np.abs(end.mean - ends[0].mean) / np.sqrt(np.diag(end.cov))).max() < 0.3


def test_one_dimension_is_exact() -> None:
    ability = update(Ability(np.zeros(1), np.array([[4.0]])), np.ones(1), 0.7, 2.0)
    x = np.linspace(-15, 15, 20001)
    density = np.exp(2 * (0.7 * x - np.logaddexp(0, x)) - x**2 / 8)
    density /= density.sum()
    mean = density @ x
    assert ability.mean[0] == pytest.approx(mean, abs=2e-3)
    assert ability.cov[0, 0] == pytest.approx(density @ (x - mean) ** 2, rel=5e-3)


def test_bad_outcomes_are_refused() -> None:
    for outcome, weight in ((1.5, 1.0), (-0.1, 1.0), (float("nan"), 1.0), (1.0, -1.0), (1.0, float("inf"))):
        with pytest.raises(ValueError, match="outcome"):
            update(start(), np.ones(K), outcome, weight)
    with pytest.raises(ValueError, match="finite"):
        update(start(), np.array([1.0, np.nan, 0.0]), 1.0)
