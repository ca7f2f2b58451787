"""Which router decides: the learned one, the heuristic where that is not sure, either on a split; pins ask neither."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from app.core.errors import UpstreamError
from app.core.policy import ANY_TASK, Candidate, Route
from app.core.types import ChatRequest
from app.gateway.decide import Decision, decide
from app.gateway.target import resolve
from app.gateway.view import View
from routers.base import Arm, Score
from routers.features import Features
from tests.gateway.policy_values import FixedRouter, model, policy, request, view

CHEAP, MID, DEAR = model("cheap", 10**6), model("mid", 10**7, tier=2), model("dear", 10**8, tier=4)
AUTO = Route("auto", ("cheap", "mid", "dear"), adequacy=0.8, min_confidence=0.7, fallback=("dear",))
SPLIT = replace(AUTO, split={"learned": 0.9, "heuristic": 0.1})
CODE = {"last_user": "def f(x):\n    return x\n\nFix the bug in this python function: it raises an exception."}
CHEAP_WILL_DO = {"cheap": (0.9, 100.0), "mid": (0.95, 100.0), "dear": (0.99, 100.0)}
ONLY_MID_WILL_DO = {"cheap": (0.2, 300.0), "mid": (0.85, 300.0), "dear": (0.9, 300.0)}


def learned(scores: Mapping[str, tuple[float, float]] = ONLY_MID_WILL_DO, confidence: float = 0.9) -> FixedRouter:
    return FixedRouter(scores, "learned", confidence)


def on(route: Route, router: FixedRouter | None = None) -> View:
    """The heuristic would take `cheap`."""
    return view(policy([CHEAP, MID, DEAR], [route]), CHEAP_WILL_DO, router)


def choose(of: View, asked: ChatRequest | None = None, unit: str = "k:task", open_: tuple[str, ...] = ()) -> Decision:
    asked = asked or request()
    return decide(
        asked,
        resolve(of, asked.model),
        of,
        unit=unit,
        input_tokens=lambda candidate: 10,
        available=lambda name: name not in open_,
        capped=lambda candidate: False,
    )


def names(candidates: tuple[Candidate, ...]) -> list[str]:
    return [candidate.name for candidate in candidates]


def test_the_learned_router_decides_and_the_heuristic_is_not_asked() -> None:
    of = on(AUTO, learned())
    decision = choose(of)
    assert (decision.chosen, decision.router, decision.assigned) == (MID, "learned@7", "learned")
    assert (decision.deferred, decision.others, decision.share, decision.propensity) == (False, (), None, 1.0)
    assert of.routers["heuristic"].asked == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("route", [AUTO, replace(AUTO, router="learned"), SPLIT])
def test_without_weights_the_heuristic_decides(route: Route) -> None:
    decision = choose(on(route))
    assert (decision.chosen, decision.router, decision.assigned) == (CHEAP, "fixed@7", "heuristic")
    assert (decision.deferred, decision.propensity) == (False, 1.0)
    assert decision.share == (1.0 if route is SPLIT else None)


def test_a_route_may_ask_for_the_heuristic() -> None:
    router = learned()
    decision = choose(on(replace(AUTO, router="heuristic"), router))
    assert (decision.chosen, decision.router, decision.assigned, router.asked) == (CHEAP, "fixed@7", "heuristic", 0)


def test_below_min_confidence_the_heuristic_decides_and_both_opinions_are_kept() -> None:
    decision = choose(on(AUTO, learned(confidence=0.69)))
    assert (decision.chosen, decision.router, decision.assigned, decision.deferred) == (
        CHEAP,
        "fixed@7",
        "learned",
        True,
    )
    assert decision.reason == (
        "cheapest with P(success) at or above adequacy; the heuristic decided, for the router's confidence in its own "
        "choice was below min_confidence"
    )
    (other,) = decision.others
    assert (other.router, other.chosen.candidate, other.chosen.score.confidence) == ("learned@7", MID, 0.69)
    assert [seen.score.p_success for seen in other.considered] == [0.2, 0.85, 0.9]
    assert [seen.score.p_success for seen in decision.considered] == [0.9, 0.95, 0.99]
    assert [seen.expected_nano for seen in other.considered] == [310, 3_100, 31_000]
    assert not choose(on(AUTO, learned(confidence=0.7))).deferred


def test_a_router_that_cannot_be_sure_enough_is_not_asked() -> None:
    class Unsure(FixedRouter):
        def surest(self, features: Features) -> float:
            return 0.5

    router = Unsure(ONLY_MID_WILL_DO, "learned", confidence=0.5)
    decision = choose(on(AUTO, router))
    assert (decision.chosen, decision.router, decision.assigned) == (CHEAP, "fixed@7", "learned")
    assert (decision.deferred, decision.others, router.asked) == (True, (), 0)
    assert "cannot be as sure" in decision.reason
    assert choose(on(replace(AUTO, min_confidence=0.5), router)).chosen is MID
    mixed = choose(on(SPLIT, router))
    assert (mixed.chosen, mixed.propensity) == (CHEAP, 1.0)


def test_the_confidence_that_counts_is_that_of_the_choice() -> None:
    class Uneven(FixedRouter):
        def score(self, features: Features, arms: Sequence[Arm]) -> list[Score]:
            found = super().score(features, arms)
            return [
                structs.replace(s, confidence=0.9 if arm.name == "mid" else 0.1)
                for s, arm in zip(found, arms, strict=True)
            ]

    assert not choose(on(AUTO, Uneven(ONLY_MID_WILL_DO, "learned"))).deferred
    assert choose(on(AUTO, Uneven(CHEAP_WILL_DO, "learned"))).deferred


def test_a_tier_asks_for_no_confidence() -> None:
    of = view(policy([CHEAP, MID]), CHEAP_WILL_DO, learned(confidence=0.0))
    assert choose(of, request("tier:2")).router == "learned@7"


def test_a_split_keeps_a_task_with_one_router_and_both_opinions() -> None:
    of = on(SPLIT, learned())
    arms = Counter(choose(of, unit=f"k:{i}").assigned for i in range(300))
    assert 240 <= arms["learned"] <= 290
    for i in range(30):
        decision = choose(of, unit=f"k:{i}")
        assert choose(of, unit=f"k:{i}", asked=request(prompt=CODE)).assigned == decision.assigned
        shares = {"learned": (MID, 0.9, "fixed@7"), "heuristic": (CHEAP, 0.1, "learned@7")}
        assert (decision.chosen, decision.share, decision.others[0].router) == shares[decision.assigned or ""]
        assert decision.propensity == pytest.approx(decision.share)


def test_where_both_routers_agree_the_choice_was_certain() -> None:
    for i in range(20):
        decision = choose(on(SPLIT, learned(CHEAP_WILL_DO)), unit=f"k:{i}")
        assert (decision.chosen, decision.propensity) == (CHEAP, 1.0)
        assert decision.share in (0.9, 0.1)
    unsure = choose(on(SPLIT, learned(confidence=0.1)))
    assert (unsure.chosen, unsure.propensity) == (CHEAP, 1.0)


@settings(max_examples=50, deadline=None)
@given(
    st.fixed_dictionaries({name: st.tuples(st.floats(0, 1), st.floats(1, 1000)) for name in ("cheap", "mid", "dear")}),
    st.floats(0.05, 0.95),
    st.floats(0, 1),
)
def test_propensities_are_true(scores: dict[str, tuple[float, float]], share: float, confidence: float) -> None:
    """Over all assignments, each candidate is chosen as often as the decisions that choose it say."""
    split = {"learned": share, "heuristic": 1 - share}
    of = on(replace(SPLIT, split=split), learned(scores, confidence))
    by_arm = {}
    for i in range(200):
        decision = choose(of, unit=f"k:{i}")
        by_arm[decision.assigned] = decision
        if len(by_arm) == 2:
            break
    for decision in by_arm.values():
        same = sum(split[arm or ""] for arm, other in by_arm.items() if other.chosen is decision.chosen)
        if len(by_arm) == 2:
            assert decision.propensity == pytest.approx(same)


def test_a_pinned_route_asks_its_model_and_then_its_fallback() -> None:
    of = on(replace(SPLIT, pin={ANY_TASK: "mid"}, fallback=("dear", "cheap")), router := learned())
    decision = choose(of)
    assert names(decision.order) == ["mid", "dear", "cheap"]
    assert (decision.reason, decision.assigned, decision.share) == ("the policy pins this route to mid", None, None)
    assert (decision.route, decision.spare, decision.rules, decision.propensity) == ("auto", (), None, 1.0)
    assert router.asked == 0
    assert names(choose(of, open_=("mid",)).order) == ["dear", "cheap"]
    assert names(choose(of, open_=("mid", "dear")).order) == ["cheap"]


def test_a_pin_goes_nowhere_else_and_may_be_no_candidate() -> None:
    of = view(policy([CHEAP, MID, DEAR], [Route("auto", ("cheap", "mid"), pin={ANY_TASK: "dear"})]))
    decision = choose(of)
    assert (names(decision.order), decision.spare) == (["dear"], ())
    assert [seen.candidate for seen in decision.considered] == [DEAR]
    with pytest.raises(UpstreamError):
        choose(of, open_=("dear",))


def test_a_pin_of_one_task_type_leaves_the_others_alone() -> None:
    of = on(replace(AUTO, pin={"code": "dear"}), learned())
    decision = choose(of, request(prompt=CODE))
    assert (decision.task_type, decision.chosen, decision.reason) == ("code", DEAR, "the policy pins code to dear")
    assert decision.retries == AUTO.retries
    plain = choose(of, request(prompt={"last_user": "hello"}))
    assert (plain.chosen, plain.rules is not None, plain.assigned) == (MID, True, "learned")


def test_embeddings_know_only_the_pin_of_all_tasks() -> None:
    whole = on(replace(AUTO, pin={ANY_TASK: "mid"}))
    assert names(resolve(whole, "auto").of_task(None).candidates) == ["mid"]
    by_task = on(replace(AUTO, pin={"code": "mid"}))
    assert names(resolve(by_task, "auto").of_task(None).candidates) == ["cheap", "mid", "dear"]


@pytest.mark.parametrize(
    ("rules", "chosen", "verdicts"),
    [
        ({}, MID, ["below adequacy", "chosen", "fallback"]),
        (
            {"objective": "quality", "max_expected_nano": 3_100},
            MID,
            ["less likely to succeed", "chosen", "fallback"],
        ),
        (
            {"objective": "quality", "max_expected_nano": 100},
            CHEAP,
            ["chosen", "over max_expected_cost_usd", "fallback"],
        ),
        ({"objective": "utility", "success_value_nano": 10**7}, DEAR, ["less useful", "less useful", "chosen"]),
        ({"objective": "utility", "success_value_nano": 10}, CHEAP, ["chosen", "less useful", "fallback"]),
    ],
)
def test_objectives_reach_the_decision(rules: dict[str, Any], chosen: Candidate, verdicts: list[str]) -> None:
    decision = choose(on(replace(AUTO, **rules), learned()))
    assert decision.chosen is chosen
    assert [seen.verdict for seen in decision.considered] == verdicts
    assert decision.rules is not None
