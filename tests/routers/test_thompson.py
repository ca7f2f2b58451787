"""Thompson sampling: the exact probabilities are those of the draws."""

from __future__ import annotations

from collections.abc import Callable
from math import erfc, pi, prod, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from routers.abilities import Vector
from routers.thompson import _NODES, _rule, drawn, first_adequate, likeliest, logit, most_useful

MEANS = (
    (0.5, 1.5, 2.5),
    (-3.0, -2.0, 4.0),
    (1.4, 1.4, 1.4),
    (-4.0, -4.5, -5.0),
    (2.0, -1.0, 0.5),
)
SPREADS = np.sqrt([0.6, 0.2, 1.5]).tolist()
ADEQUACY, VALUE, COSTS = 0.8, 1_000.0, (10, 100, 600)
DRAWS = 20_000


def chosen(p: Vector, rule: str) -> NDArray[np.intp]:
    """The arm that each row of drawn probabilities chooses, cheapest first."""
    if rule == "likeliest":
        return np.asarray(p.argmax(axis=1))
    if rule == "useful":
        return np.asarray((p * VALUE - np.array(COSTS)).argmax(axis=1))
    adequate = p >= ADEQUACY
    return np.asarray(np.where(adequate.any(axis=1), adequate.argmax(axis=1), p.argmax(axis=1)))


RULES: dict[str, Callable[[tuple[float, ...], int], float]] = {
    "adequate": lambda means, at: first_adequate(means, SPREADS, at, ADEQUACY),
    "likeliest": lambda means, at: likeliest(means, SPREADS, at),
    "useful": lambda means, at: most_useful(means, SPREADS, at, COSTS, VALUE),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("means", MEANS)
def test_the_probability_is_that_of_the_draws(rule: str, means: tuple[float, ...]) -> None:
    rng = np.random.default_rng(1)
    p = np.array([drawn(means, SPREADS, row.tolist()) for row in rng.normal(size=(DRAWS, 3))])
    shares = np.bincount(chosen(p, rule), minlength=3) / DRAWS
    exact = [RULES[rule](means, at) for at in range(3)]
    assert sum(exact) == pytest.approx(1.0, abs=2e-3)
    for share, probability in zip(shares, exact, strict=True):
        assert share == pytest.approx(probability, abs=4.0 * np.sqrt(probability * (1 - probability) / DRAWS) + 2e-3)


@given(
    st.lists(st.tuples(st.floats(-8, 8), st.floats(0.05, 4)), min_size=2, max_size=8),
    st.floats(0, 1),
    st.floats(0, 1e6),
)
@settings(deadline=None)
def test_they_add_up_to_one(arms: list[tuple[float, float]], adequacy: float, value: float) -> None:
    means, spreads = [mean for mean, _ in arms], [sqrt(variance) for _, variance in arms]
    costs = [10 * place for place in range(len(arms))]
    rules: tuple[tuple[Callable[[int], float], float], ...] = (
        (lambda at: first_adequate(means, spreads, at, adequacy), 1e-4),
        (lambda at: likeliest(means, spreads, at), 1e-4),
        (lambda at: most_useful(means, spreads, at, costs, value), 3e-3),
    )
    for rule, within in rules:
        assert sum(rule(at) for at in range(len(arms))) == pytest.approx(1.0, abs=within)


@given(
    st.lists(st.tuples(st.floats(-4, 4), st.floats(0.2, 2)), min_size=2, max_size=6),
    st.floats(0.05, 0.95),
    st.integers(0, 5),
)
@settings(deadline=None, max_examples=60)
def test_few_nodes_say_what_many_do(arms: list[tuple[float, float]], adequacy: float, place: int) -> None:
    (mean, spread), means, spreads = np.array(arms).T, [m for m, _ in arms], [s for _, s in arms]
    at, threshold = place % len(arms), logit(adequacy)
    under = [0.5 * erfc((threshold - m) / -s / sqrt(2.0)) for m, s in arms]
    z = np.linspace(-7.0, min((threshold - mean[at]) / spread[at], 7.0), 20_001)
    rest = np.exp(-0.5 * z * z) / sqrt(2.0 * pi)
    for other in range(len(arms)):
        if other != at:
            apart = (mean[at] + spread[at] * z - mean[other]) / spread[other]
            rest *= np.array([0.5 * erfc(-x / sqrt(2.0)) for x in apart.tolist()])
    exact = (1.0 - under[at]) * prod(under[:at]) + (float(np.trapezoid(rest, z)) if z[-1] > -7.0 else 0.0)
    assert first_adequate(means, spreads, at, adequacy) == pytest.approx(exact, abs=2e-5)


@pytest.mark.parametrize("value", [200.0, 500.0, 2_000.0, 50_000.0])
@pytest.mark.parametrize("at", range(4))
def test_where_a_dearer_one_cannot_win_the_most_useful_is_told_exactly(value: float, at: int) -> None:
    mean, spread, costs = np.array([2.05, 3.56, 1.0, 2.5]), np.array([1.31, 1.4, 0.6, 1.0]), [61, 174, 174, 411]
    z = np.linspace(-7.0, 7.0, 100_001)
    p = 1.0 / (1.0 + np.exp(-(mean[at] + spread[at] * z)))
    rest = np.exp(-0.5 * z * z) / sqrt(2.0 * pi)
    for other in range(4):
        if other != at:
            level = np.array([logit(x) for x in (p + (costs[other] - costs[at]) / value).tolist()])
            apart = (level - mean[other]) / spread[other]
            rest *= np.array([0.5 * erfc(-x / sqrt(2.0)) for x in apart.tolist()])
    exact = float(np.trapezoid(rest, z))
    assert most_useful(mean.tolist(), spread.tolist(), at, costs, value) == pytest.approx(exact, abs=2e-5)


def test_a_draw_at_the_mean_is_the_mean() -> None:
    assert drawn([0.0, 800.0, -800.0], [1.0] * 3, [0.0] * 3) == [0.5, 1.0, pytest.approx(0.0)]


@pytest.mark.parametrize("count", _NODES)
def test_nodes_and_weights_are_those_of_gauss_and_legendre(count: int) -> None:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    mine = np.array(sorted(_rule(count)))
    assert mine[:, 0] == pytest.approx(nodes, abs=1e-13)
    assert mine[:, 1] * sqrt(2.0 * pi) == pytest.approx(weights, abs=1e-13)
