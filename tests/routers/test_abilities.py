"""Abilities: a prediction integrates what is uncertain, and the prior knows what it lacks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routers.abilities import (
    FACTS,
    Ability,
    AbilityStack,
    AbilityWeights,
    completed,
    prior,
    regressed,
    regressors,
)
from routers.base import Arm, tier_of_rates
from routers.facts import arm_of_name
from routers.train_abilities import Observations, anchored, fit_abilities
from tests.routers.one_model import predict

K = 3


def test_a_prediction_integrates_what_is_uncertain() -> None:
    ability, u = Ability(np.array([2.0, 0.0]), np.eye(2) * 0.01), np.array([1.0, 0.5])
    sure, little = predict(ability, u)
    unsure, much = predict(ability, u, np.array([1.0, 1.0]), offset_var=1.0)
    assert 0.5 < unsure < sure < 1
    assert much > little + 1
    wide, _ = predict(Ability(ability.mean, np.eye(2) * 9), u)
    # The probit approximation, against the integral itself.
    x = 2.0 + np.sqrt(9 * 1.25) * np.random.default_rng(0).normal(size=200_000)
    assert wide == pytest.approx((1 / (1 + np.exp(-x))).mean(), abs=0.02)


def test_a_stack_is_its_arms() -> None:
    rng = np.random.default_rng(1)
    abilities = [Ability(rng.normal(size=K), np.eye(K) * (1 + i)) for i in range(4)]
    u, u_var = rng.normal(size=K), rng.random(K)
    p, variance = AbilityStack(abilities).predict(u, u_var, offset=0.3, offset_var=0.2)
    for at, ability in enumerate(abilities):
        alone = AbilityStack([ability]).predict(u, u_var, offset=0.3, offset_var=0.2)
        assert (p[at], variance[at]) == pytest.approx((alone[0][0], alone[1][0]))


SIZES = (1, 2, 4, 7, 8, 13, 30, 34, 70, 72, 110, 200, 405)


def fitted() -> tuple[AbilityWeights, list[Arm]]:
    """Weights of a synthetic world where ability is the logarithm of size, and nothing but llamas and qwens live."""
    rng = np.random.default_rng(0)
    arms = [arm_of_name(f"{line}-{size}b-instruct") for size in SIZES for line in ("llama-3", "qwen2.5")]
    theta = np.array([[np.log2(regressors(arm)[2] + 4) - 2, 0.2 * rng.normal()] for arm in arms])
    n = 400
    arm = np.repeat(np.arange(len(arms)), n)
    u = np.column_stack([np.ones(len(arm)), rng.normal(size=len(arm)) * 0.5])
    p = 1 / (1 + np.exp(-(u * theta[arm]).sum(axis=1)))
    seen = Observations(arm, u, (rng.random(len(arm)) < p).astype(float), np.zeros(len(arm)), np.ones(len(arm)))
    return AbilityWeights.of(fit_abilities(arms, seen, rounds=10)), arms


WEIGHTS, ARMS = fitted()


def test_the_prior_has_learned_what_size_is_worth() -> None:
    means = [prior(arm_of_name(f"gemma-2-{size}b-it"), WEIGHTS).mean[0] for size in (1, 9, 27, 300)]
    assert means == sorted(means)
    assert means[-1] - means[0] > 0.5


def test_a_known_model_starts_from_what_was_measured() -> None:
    at = WEIGHTS.known_at("meta-llama/Llama-3-70B-Instruct")
    assert at is not None
    known, guess = prior(ARMS[0], WEIGHTS), regressed(ARMS[0], WEIGHTS)
    assert np.trace(known.cov) < np.trace(guess.cov)
    assert WEIGHTS.known_at("gpt-99") is None


def test_unknown_facts_widen_the_prior() -> None:
    named, nameless = regressed(arm_of_name("llama-3-13b-instruct"), WEIGHTS), regressed(Arm("x", 2), WEIGHTS)
    assert nameless.cov[0, 0] > named.cov[0, 0]
    for ability in (named, nameless):
        assert np.linalg.eigvalsh(ability.cov).min() > 0
    higher = regressed(Arm("x", 4), WEIGHTS)
    assert higher.mean[0] > nameless.mean[0]


def test_a_tier_that_was_taken_from_the_price_is_no_second_fact() -> None:
    tier = FACTS.index("tier")
    rates: dict[str, Any] = {"input_rate": 10 * 10**9, "output_rate": 10 * 10**9}
    by_price = arm_of_name("model-a", (10.0, 10.0))
    assert by_price == Arm("model-a", tier_of_rates(10 * 10**9, 10 * 10**9), model="model-a", **rates)
    assert np.isnan(regressors(by_price)[tier])
    assert np.isnan(regressors(arm_of_name("model-a"))[tier])
    assert regressors(Arm("model-a", by_price.tier + 1, **rates))[tier] == by_price.tier + 1  # somebody's judgement
    named = arm_of_name("gpt-4o")
    assert regressors(named)[tier] == named.tier


def test_rates_of_the_arm_go_before_recalled_ones() -> None:
    price = FACTS.index("price")
    assert regressors(Arm("gpt-4o", 4, input_rate=10**9, output_rate=10**9))[price] == pytest.approx(0.0)
    assert regressors(Arm("mine", 4, model="gpt-4o-2024-08-06"))[price] == pytest.approx(np.log2(4.375))
    assert np.isnan(regressors(Arm("mine", 4, input_rate=0, output_rate=0))[price])


@given(st.lists(st.floats(-50, 50) | st.just(float("nan")), min_size=len(FACTS) - 1, max_size=len(FACTS) - 1))
@settings(deadline=None)
def test_gaps_in_facts_are_filled(values: list[float]) -> None:
    z, cov = completed(np.array([2.0, *values]), WEIGHTS)
    assert np.isfinite(z).all()
    assert np.linalg.eigvalsh(cov).min() > -1e-9


def test_fitting_is_deterministic() -> None:
    again, _ = fitted()
    assert np.array_equal(again.coef, WEIGHTS.coef)
    assert again.known == WEIGHTS.known


def test_a_hard_benchmark_is_not_taken_for_weak_models() -> None:
    """Two families that share no models, of the same sizes: what differs is the families. Synthetic."""
    rng = np.random.default_rng(3)
    arms = [arm_of_name(f"{line}-{size}b-instruct") for line in ("llama-3", "qwen2.5") for size in SIZES]
    theta = np.array([0.4 * (regressors(arm)[2] - 4) for arm in arms])
    arm = np.repeat(np.arange(len(arms)), 200)
    family = (arm >= len(SIZES)).astype(np.int64)
    p = 1 / (1 + np.exp(-(theta[arm] + np.array([1.5, -1.5])[family])))
    ability, level = anchored(arms, arm, family, (rng.random(len(arm)) < p).astype(float))
    assert level[0] - level[1] == pytest.approx(3.0, abs=0.6)
    assert abs(ability[: len(SIZES)].mean() - ability[len(SIZES) :].mean()) < 0.5
    assert np.corrcoef(ability, theta)[0, 1] > 0.95
