"""The choice among scored candidates: each objective, what is unpriced, ties, and what is said of the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.policy import Objective, Route
from app.gateway.choose import Considered, choose, passed_over, sure_of
from routers.base import Score
from tests.gateway.policy_values import model

UNPRICED = None
OVER = "over max_expected_cost_usd"


def option(name: str, p: float, nano: int | None, tier: int = 1) -> Considered:
    return Considered(model(name, tier=tier), Score(p, 1.0, 100.0), nano, "capable")


CHEAP, MID, DEAR = option("cheap", 0.5, 100), option("mid", 0.8, 1_000), option("dear", 0.95, 10_000)
FREE, BLANK = option("free", 0.3, 0), option("blank", 0.99, UNPRICED)
ALL = [CHEAP, MID, DEAR, FREE, BLANK]


def adequate(adequacy: float) -> Route:
    return Route("auto", (), adequacy=adequacy)


def quality(limit: int) -> Route:
    return Route("auto", (), objective="quality", max_expected_nano=limit)


def utility(value: int) -> Route:
    return Route("auto", (), objective="utility", success_value_nano=value)


@pytest.mark.parametrize(
    ("rules", "chosen", "reason"),
    [
        (adequate(0.0), FREE, "cheapest with P(success) at or above adequacy"),
        (adequate(0.5), CHEAP, "cheapest with P(success) at or above adequacy"),
        (adequate(0.9), DEAR, "cheapest with P(success) at or above adequacy"),
        (adequate(0.96), BLANK, "cheapest with P(success) at or above adequacy"),
        (adequate(1.0), BLANK, "none is adequate: likeliest to succeed"),
        (quality(20_000), DEAR, "likeliest to succeed within max_expected_cost_usd"),
        (quality(10_000), DEAR, "likeliest to succeed within max_expected_cost_usd"),
        (quality(9_999), MID, "likeliest to succeed within max_expected_cost_usd"),
        (quality(0), FREE, "likeliest to succeed within max_expected_cost_usd"),
        (utility(0), FREE, "largest P(success) * success_value_usd - expected cost"),
        (utility(1_000), CHEAP, "largest P(success) * success_value_usd - expected cost"),
        (utility(10_000), MID, "largest P(success) * success_value_usd - expected cost"),
        (utility(100_000), DEAR, "largest P(success) * success_value_usd - expected cost"),
    ],
)
def test_each_objective(rules: Route, chosen: Considered, reason: str) -> None:
    assert choose(rules, ALL) == (chosen, reason)
    assert choose(rules, ALL[::-1])[0] is chosen


def test_where_nothing_fits_the_cheapest_is_taken_and_it_is_said() -> None:
    found, reason = choose(quality(50), [DEAR, CHEAP, BLANK])
    assert (found, reason) == (CHEAP, "none is expected to cost less than max_expected_cost_usd: the cheapest")
    assert choose(quality(10**12), [BLANK])[0] is BLANK


def test_utility_of_what_has_no_price_is_not_known() -> None:
    assert choose(utility(10**12), [CHEAP, BLANK])[0] is CHEAP
    likelier = option("likelier", 0.999, UNPRICED)
    assert choose(utility(1), [BLANK, likelier]) == (likelier, "no price is known: likeliest to succeed")


def test_ties_go_to_the_cheaper_and_then_to_the_lower_tier() -> None:
    small, large = option("small", 0.9, 10, tier=1), option("large", 0.9, 10, tier=4)
    for rules in (adequate(0.8), adequate(0.95), quality(10), quality(5), utility(100)):
        assert choose(rules, [large, small])[0] is small
    cheaper = option("cheaper", 0.9, 9, tier=9)
    for rules in (adequate(0.8), adequate(0.95), quality(10), quality(5), utility(100)):
        assert choose(rules, [large, small, cheaper])[0] is cheaper


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (adequate(0.8), ["below adequacy", *["adequate, dearer"] * 3]),
        (quality(1_000), ["less likely to succeed", "less likely to succeed", OVER, OVER]),
        (utility(1), ["less useful", "less useful", "less useful", "no price"]),
        (None, ["not named"] * 4),
    ],
)
def test_what_is_said_of_who_was_passed_over(rules: Route | None, said: list[str]) -> None:
    assert [passed_over(rules, seen) for seen in (CHEAP, MID, DEAR, BLANK)] == said


costs = st.one_of(st.none(), st.integers(0, 10**6))
options = st.lists(st.builds(option, st.just("m"), st.floats(0, 1), costs), min_size=1, max_size=6)


@given(
    options,
    st.sampled_from(["cheapest_adequate", "quality", "utility"]),
    st.floats(0, 1),
    st.integers(0, 10**6),
)
def test_no_other_option_is_better(seen: list[Considered], objective: Objective, adequacy: float, nano: int) -> None:
    rules = Route(
        "auto", (), adequacy=adequacy, objective=objective, max_expected_nano=nano, success_value_nano=nano
    )  # fmt: skip
    best, _ = choose(rules, seen)
    for other in seen:
        p, q, cost, dearer = best.score.p_success, other.score.p_success, best.expected_nano, other.expected_nano
        if objective == "quality" and dearer is not None and dearer <= nano:
            assert cost is not None
            assert cost <= nano
            assert (p, -cost) >= (q, -dearer)
        if objective == "utility" and dearer is not None:
            assert cost is not None
            assert p * nano - cost >= q * nano - dearer
        if objective == "cheapest_adequate" and q >= adequacy:
            assert p >= adequacy
            assert dearer is None or (cost is not None and cost <= dearer)


def test_a_choice_for_want_of_a_better_has_to_know_the_others() -> None:
    def known(p: float, confidence: float) -> Considered:
        return Considered(model("one"), Score(p, confidence, 100.0), 100, "capable")

    rules = Route("auto", (), adequacy=0.8, min_confidence=0.7)
    failing, unknown, adequate_one = known(0.4, 0.9), known(0.3, 0.5), known(0.85, 0.9)
    assert sure_of(rules, adequate_one, [adequate_one, unknown])
    assert not sure_of(rules, failing, [failing, unknown])
    assert sure_of(rules, failing, [failing, known(0.3, 0.7)])
    assert not sure_of(rules, unknown, [unknown])
    best = Route("auto", (), objective="quality", max_expected_nano=1_000, adequacy=0.8, min_confidence=0.7)
    assert sure_of(best, failing, [failing, unknown])
