"""Routes that keep to a baseline: left for nothing that is not surely better, by each objective, and said so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.policy import HEURISTIC, LEARNED, Baseline, Route
from app.gateway.baseline import Believed, baseline_of, surely_better
from app.gateway.choose import NOT_SURELY_BETTER, Considered, choose
from app.gateway.decide import Decision, decide
from app.gateway.explore import Explorer, explored
from app.gateway.target import resolve
from app.gateway.view import View
from app.stores.prices import Catalogue
from routers.base import Arm, Score
from routers.features import Features
from routers.live import Drawn
from tests.gateway.policy_values import FixedRouter, policy, request
from tests.gateway.test_explore import CHEAP, DEAR, FREE, MID, TODAY, Purse
from tests.gateway.test_explore import RULES as EXPLORING

RULES = Route("auto", ("cheap", "mid", "dear"), adequacy=0.8, fallback=("dear",), baseline=Baseline("dear"))
SURE = {"cheap": (0.2, 0.3), "mid": (2.4, 0.3), "dear": (3.0, 0.2)}
"""What is believed of logits: `mid` is adequate (1.39 and above) with .9996, `cheap` is not."""
DOUBTFUL = {**SURE, "mid": (2.4, 0.9)}
"""As much is expected of `mid`; it is adequate with .87."""


class Believing(FixedRouter):
    """Believes so of each arm's logit, and is as sure of itself as `confidence` says."""

    def __init__(
        self, beliefs: dict[str, tuple[float, float]], confidence: float = 0.0, heard: tuple[str, ...] = ("mid",)
    ) -> None:
        self.beliefs, self.of = beliefs, heard
        expected = {name: (float(1 / (1 + np.exp(-mean))), 100.0) for name, (mean, _) in beliefs.items()}
        super().__init__(expected, "learned", confidence)

    def drawn(self, features: Features, arms: Sequence[Arm]) -> Drawn:
        return Drawn(*(np.array([self.beliefs[arm.name][of] ** (of + 1) for arm in arms]) for of in (0, 1)))

    def heard(self, arms: Sequence[Arm]) -> list[bool]:
        return [arm.name in self.of for arm in arms]


def decided(
    rules: Route, learned: FixedRouter, *, open_: tuple[str, ...] = (), unit: str = "a", landing: bool = False,
    down: dict[str, dict[str, tuple[float, float]]] | None = None, loaded: bool = True,
) -> Decision:  # fmt: skip
    plain = FixedRouter({"cheap": (0.95, 100.0), "mid": (0.95, 100.0), "dear": (0.95, 100.0)})
    routers = {HEURISTIC: plain, LEARNED: learned} if loaded else {HEURISTIC: plain}
    of = View(policy([CHEAP, MID, DEAR], [rules]), routers, Catalogue(b"{}"))
    of.down = down or {}
    body = request()
    target = resolve(of, body.model)
    return decide(
        body, target.landing(None) if landing else target, of, unit=unit, input_tokens=lambda _: 10,
        available=lambda name: name not in open_, capped=lambda _: False,
    )  # fmt: skip


def verdicts(decision: Decision) -> list[str]:
    return [seen.verdict for seen in decision.considered]


def test_it_is_left_for_what_is_surely_better() -> None:
    decision = decided(RULES, Believing(SURE))
    assert (decision.chosen, decision.deferred, decision.router, decision.others) == (MID, False, "learned@7", ())
    assert decision.reason == (
        "cheapest with P(success) at or above adequacy, of those better than dear, the baseline, with a probability of "
        "0.95"
    )
    assert verdicts(decision) == ["below adequacy", "chosen", "fallback"]


def test_and_for_nothing_of_which_only_as_much_is_expected() -> None:
    decision = decided(replace(RULES, fallback=()), Believing(DOUBTFUL))
    assert (decision.chosen, decision.deferred, decision.propensity) == (DEAR, False, 1.0)
    assert decision.reason == "dear, the baseline: no other is better with a probability of 0.95"
    assert verdicts(decision) == ["below adequacy", NOT_SURELY_BETTER, "chosen"]
    assert [(other.router, other.chosen.candidate) for other in decision.others] == [("learned@7", MID)]
    assert decided(replace(RULES, baseline=Baseline("dear", 0.85)), Believing(DOUBTFUL)).chosen is MID


def test_before_anything_was_learned_it_stays() -> None:
    """Weights that know no outcome of this house are sure of nothing; without a baseline they decide."""
    weights = FixedRouter({"cheap": (0.99, 100.0), "mid": (0.95, 100.0), "dear": (0.99, 100.0)}, "learned")
    decision = decided(RULES, weights)
    assert (decision.chosen, decision.deferred) == (DEAR, False)
    assert decision.reason == "dear, the baseline: nothing was learned from outcomes yet"
    assert decided(replace(RULES, baseline=None), weights).chosen is CHEAP


def test_where_it_cannot_serve_the_route_decides_as_without() -> None:
    decision = decided(RULES, Believing(DOUBTFUL, confidence=1.0), open_=("dear",))
    assert (decision.chosen, verdicts(decision)) == (MID, ["below adequacy", "chosen", "circuit open"])


def test_a_task_that_lands_is_not_held_to_it() -> None:
    assert decided(RULES, Believing(DOUBTFUL, confidence=1.0), landing=True).chosen is MID


FELL = {"question": {"dear": (0.95, 0.6)}, "chat": {"dear": (0.95, 0.6)}}


def test_a_baseline_in_quarantine_is_none_but_is_probed() -> None:
    """It would have these calls, were it as it was; without probes nobody would see that it is back."""
    seen = {}
    for number in range(200):
        decision = decided(RULES, Believing(DOUBTFUL, confidence=1.0), down=FELL, unit=f"u{number}")
        seen[decision.chosen.name] = decision
    assert {name: round(decision.propensity, 6) for name, decision in seen.items()} == {"dear": 0.05, "mid": 0.95}
    assert seen["dear"].reason == "dear, the baseline; a probe: dear is in quarantine for this kind of work"
    assert not any(decision.deferred for decision in seen.values())


def test_and_is_not_probed_where_another_was_surely_better_than_it_ever_was() -> None:
    seen = [decided(RULES, Believing(SURE, 1.0), down=FELL, unit=f"u{number}") for number in range(100)]
    assert {(decision.chosen.name, decision.propensity) for decision in seen} == {("mid", 1.0)}


def test_where_the_heuristic_decides_instead_it_is_probed_too() -> None:
    seen = {
        (decision.chosen.name, decision.deferred, round(decision.propensity, 6))
        for decision in (decided(RULES, Believing(DOUBTFUL), down=FELL, unit=f"u{number}") for number in range(200))
    }
    assert seen == {("dear", False, 0.05), ("cheap", True, 0.95)}


def test_what_was_never_heard_of_is_not_surely_better() -> None:
    """All that is believed of it is from outcomes of others, of the baseline's own not least."""
    assert decided(RULES, Believing(SURE, heard=("dear", "mid"))).chosen is MID
    decision = decided(replace(RULES, fallback=()), Believing(SURE, heard=("dear", "cheap")))
    assert (decision.chosen, verdicts(decision)[1]) == (DEAR, NOT_SURELY_BETTER)
    decision = decided(RULES, Believing(SURE, heard=()))
    assert decision.reason == "dear, the baseline: nothing was learned from outcomes yet"


def test_without_the_learned_router_it_stays() -> None:
    """The heuristic has its turn then, and knows no outcome."""
    decision = decided(RULES, Believing(SURE), loaded=False)
    assert (decision.chosen, decision.deferred, decision.propensity) == (DEAR, False, 1.0)
    assert decision.reason == "dear, the baseline: nothing was learned from outcomes yet"


def test_one_in_quarantine_that_was_surely_better_is_probed() -> None:
    """Its fall is in what is believed of it; by that alone nobody would look whether it is back."""
    beliefs = {**SURE, "mid": (0.0, 0.3)}
    fell = {"question": {"mid": (0.92, 0.5)}, "chat": {"mid": (0.92, 0.5)}}
    seen = {}
    for number in range(200):
        decision = decided(RULES, Believing(beliefs), down=fell, unit=f"u{number}")
        seen[decision.chosen.name] = decision
    assert {name: round(decision.propensity, 6) for name, decision in seen.items()} == {"mid": 0.05, "dear": 0.95}
    assert "a probe: mid is in quarantine" in seen["mid"].reason
    assert seen["dear"].reason == (
        "dear, the baseline: no other is better with a probability of 0.95; mid is in quarantine for this kind of work"
    )


def test_what_is_explored_is_explored_from_it() -> None:
    rules = replace(EXPLORING, baseline=Baseline("dear"))
    seen: dict[str, set[float]] = {}
    for number in range(300):
        heuristic = FixedRouter({"cheap": (0.95, 100.0), "mid": (0.95, 100.0), "dear": (0.95, 100.0)})
        routers = {HEURISTIC: heuristic, LEARNED: Believing(DOUBTFUL)}
        of = View(policy([CHEAP, MID, DEAR], [rules]), routers, Catalogue(b"{}"))
        body, unit = request(), f"u{number}"
        target = resolve(of, body.model)
        decision = decide(body, target, of, unit=unit, input_tokens=lambda _: 10, available=lambda _: True,
                          capped=lambda _: False)  # fmt: skip
        found = explored(decision, target.arms, of, Explorer(Purse()), unit=unit, in_tool_loop=False, limits=FREE,
                         today=TODAY)  # fmt: skip
        seen.setdefault(found.chosen.name, set()).add(round(found.propensity, 4))
    assert set(seen) >= {"mid", "dear"}
    assert min(seen["dear"]) >= 0.7
    assert max(seen["mid"]) <= 0.3


def test_two_routers_in_turn_keep_to_it_in_the_learned_ones() -> None:
    rules = replace(RULES, fallback=(), split={"learned": 0.9, "heuristic": 0.1})
    seen = {
        (d.assigned, d.chosen.name, round(d.propensity, 6))
        for d in (decided(rules, Believing(DOUBTFUL), unit=f"u{number}") for number in range(100))
    }
    assert seen == {("learned", "dear", 0.9), ("heuristic", "cheap", 0.1)}


def test_and_where_one_is_probed_a_choice_has_its_probability_over_both() -> None:
    """The learned router chooses `mid` in any case, the heuristic unless it probes `cheap`."""
    rules = replace(RULES, fallback=(), split={"learned": 0.6, "heuristic": 0.4})
    fell = {"question": {"cheap": (0.92, 0.5)}, "chat": {"cheap": (0.92, 0.5)}}
    decisions = [decided(rules, Believing(SURE), down=fell, unit=f"u{number}") for number in range(400)]
    seen = {(decision.assigned, decision.chosen.name, round(decision.propensity, 6)) for decision in decisions}
    assert seen == {("learned", "mid", 0.98), ("heuristic", "mid", 0.98), ("heuristic", "cheap", 0.02)}


chances = st.floats(0.02, 0.98)
OBJECTIVES = (
    RULES,
    replace(RULES, objective="utility", success_value_nano=5 * 10**10),
    replace(RULES, objective="quality", max_expected_nano=2 * 10**10),
)


@pytest.mark.parametrize("rules", OBJECTIVES, ids=lambda rules: rules.objective)
@given(st.lists(st.tuples(chances, st.floats(0.05, 2.0), st.none() | st.integers(1, 3 * 10**10)), min_size=2,
                max_size=3), st.floats(0.5, 0.99))  # fmt: skip
def test_whoever_is_left_for_wins_so_often_when_drawn(
    rules: Route, believed: list[tuple[float, float, int | None]], sure: float
) -> None:
    """By a plain count of 4,000 draws, which knows nothing of integrals."""
    rules = replace(rules, baseline=Baseline("cheap", sure))
    options = [
        Considered(candidate, Score(p, 1.0, 1.0), cost, "")
        for candidate, (p, _, cost) in zip((CHEAP, MID, DEAR), believed, strict=False)
    ]
    means = [float(np.log(p / (1 - p))) for p, _, _ in believed]
    spreads = [s for _, s, _ in believed]
    drawn = {one.candidate.name: Believed(mean, s) for one, mean, s in zip(options, means, spreads, strict=True)}
    stays = baseline_of(rules, options)
    if stays is None:
        assert rules.objective != "cheapest_adequate"
        return
    left, unsure = surely_better(rules, stays, options, drawn, {})
    assert stays in left
    assert not any(one in unsure for one in left)
    rng, count = np.random.default_rng(5), 4_000
    for option in options[1:]:
        pair = [drawn[one.candidate.name] for one in (options[0], option)]
        logits = rng.normal([one.mean for one in pair], [one.spread for one in pair], (count, 2))
        chance = 1.0 / (1.0 + np.exp(-logits))
        wins = sum(
            choose(rules, [replace_score(options[0], a), replace_score(option, b)])[0].candidate is option.candidate
            for a, b in chance.tolist()
        ) / count  # fmt: skip
        slack = 4.0 * sqrt(max(wins * (1 - wins), 0.001) / count) + 1e-3
        if option in left:
            assert wins >= sure - slack
        elif option in unsure:
            assert wins <= sure + slack


def replace_score(option: Considered, p: float) -> Considered:
    return Considered(option.candidate, Score(p, 1.0, 1.0), option.expected_nano, "")
