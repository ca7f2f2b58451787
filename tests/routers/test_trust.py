"""How far measured slopes are believed elsewhere. Abilities are made up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routers.abilities import Ability, AbilityStack, AbilityWeights
from routers.artifact import Weights
from routers.facts import arm_of_name
from routers.learned import LearnedRouter
from routers.train import train
from routers.trust import TRUST, trusted, typical_slopes
from tests.routers.outcomes import MODELS, rows, weights

K = 5
numbers = st.floats(-6.0, 6.0)
vectors = st.lists(numbers, min_size=K, max_size=K).map(np.array)
shares = st.floats(0.0, 1.0)


def known() -> AbilityWeights:
    made: Weights = weights()
    return AbilityWeights.of(made.part("ability"))


@given(vectors, vectors, shares)
def test_general_ability_and_doubt_stay_and_slopes_lie_between(mean: np.ndarray, typical: np.ndarray, s: float) -> None:
    ability = Ability(mean, np.eye(K))
    found = trusted(ability, typical, s)
    assert found.mean[0] == mean[0]
    assert found.cov is ability.cov
    low, high = np.minimum(mean, typical), np.maximum(mean, typical)
    assert ((found.mean[1:] >= low[1:] - 1e-9) & (found.mean[1:] <= high[1:] + 1e-9)).all()
    assert ability.mean is mean


@given(vectors, vectors)
def test_full_trust_changes_nothing(mean: np.ndarray, typical: np.ndarray) -> None:
    assert trusted(Ability(mean, np.eye(K)), typical, 1.0).mean == pytest.approx(mean)


@given(st.lists(vectors, min_size=2, max_size=4), vectors, vectors)
def test_without_trust_every_request_ranks_models_alike(
    means: list[np.ndarray], typical: np.ndarray, u: np.ndarray
) -> None:
    """Whatever the request, the order is that of general ability: the static choice."""
    u = np.concatenate([[1.0], u[1:]])
    stack = AbilityStack([trusted(Ability(mean, np.eye(K)), typical, 0.0) for mean in means])
    p, _ = stack.predict(u)
    order = np.argsort([mean[0] for mean in means], kind="stable")
    assert (np.diff(p[order]) >= -1e-9).all()
    assert ((p >= 0.0) & (p <= 1.0)).all()


@given(vectors, vectors, vectors)
def test_differences_between_requests_shrink_in_proportion(a: np.ndarray, b: np.ndarray, typical: np.ndarray) -> None:
    one, other = (trusted(Ability(mean, np.eye(K)), typical, TRUST).mean for mean in (a, b))
    assert (one - other)[1:] == pytest.approx(TRUST * (a - b)[1:], abs=1e-9)


def test_a_typical_model_is_the_mean_of_known_ones() -> None:
    ability_weights = known()
    slopes = typical_slopes(ability_weights)
    assert slopes[0] == 0.0
    assert slopes[1:] == pytest.approx(ability_weights.known_mean[:, 1:].mean(axis=0))


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_trust_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        trusted(Ability(np.zeros(K), np.eye(K)), np.zeros(K), share)


def test_weights_say_how_far_they_are_to_be_believed() -> None:
    """Those of the traffic that they serve as they are; others' slopes are drawn to the typical ones."""
    own, others = LearnedRouter(train(rows(120), own=True)), LearnedRouter(train(rows(120)))
    arm = arm_of_name(next(iter(MODELS)))
    whole = own.ability(arm).mean
    typical = typical_slopes(own.ability_weights)
    assert others.ability(arm).mean == pytest.approx(trusted(Ability(whole, np.eye(K)), typical).mean)
    assert LearnedRouter(train(rows(120)), trust=1.0).ability(arm).mean == pytest.approx(whole)
