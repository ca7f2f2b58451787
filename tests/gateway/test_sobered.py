"""What the heuristic believes where another router, that knows some of the candidates, leaves the decision to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.policy import Route
from app.gateway.choose import Considered
from app.gateway.sobered import sobered
from routers.base import Arm, Score
from routers.features import Features
from tests.gateway.policy_values import FixedRouter
from tests.gateway.test_decide_routers import AUTO, CHEAP, DEAR, MID, SPLIT, choose, on

KNOWN = {"cheap": (0.3, 0.9), "mid": (0.85, 0.4), "dear": (0.9, 0.4)}
"""P(success) and confidence: it knows `cheap`, and would choose `mid`."""


class Knowing(FixedRouter):
    """As sure of each candidate as it says."""

    def __init__(self, known: Mapping[str, tuple[float, float]] = KNOWN) -> None:
        super().__init__({name: (p, 100.0) for name, (p, _) in known.items()}, "learned")
        self.known = known

    def score(self, features: Features, arms: Sequence[Arm]) -> list[Score]:
        return [Score(*self.known[arm.name], 100.0) for arm in arms]


def test_what_the_router_is_sure_of_is_believed() -> None:
    decision = choose(on(AUTO, Knowing()))
    assert (decision.chosen, decision.deferred, decision.router) == (MID, True, "fixed@7&learned@7")
    assert "the router was believed, for it is sure, on cheap" in decision.reason
    assert [seen.score.p_success for seen in decision.considered] == [0.3, 0.95, 0.99]
    assert [seen.verdict for seen in decision.considered] == ["below adequacy", "chosen", "fallback"]
    assert [(other.router, other.chosen.candidate) for other in decision.others] == [
        ("learned@7", MID), ("fixed@7", CHEAP),
    ]  # fmt: skip


@pytest.mark.parametrize("dear", [(0.9, 0.4), (0.995, 0.9)], ids=["unsure of all", "thinks more of it"])
def test_nothing_else_is(dear: tuple[float, float]) -> None:
    decision = choose(on(AUTO, Knowing({**KNOWN, "cheap": (0.3, 0.69), "dear": dear})))
    assert (decision.chosen, decision.deferred, decision.router) == (CHEAP, True, "fixed@7")
    assert [other.router for other in decision.others] == ["learned@7"]


@pytest.mark.parametrize(
    "route",
    [
        replace(AUTO, objective="quality", max_expected_nano=10**12),
        replace(AUTO, objective="utility", success_value_nano=10**9),
    ],
)
def test_by_other_objectives_too(route: Route) -> None:
    decision = choose(on(route, Knowing({**KNOWN, "dear": (0.2, 0.9), "cheap": (0.2, 0.9)})))
    assert (decision.chosen, decision.deferred) == (MID, True)


def test_where_traffic_is_split_each_turns_probability_is_its_own() -> None:
    """The heuristic's own turn knows of nothing; the router's turn, left to it, does."""
    of, seen = on(SPLIT, Knowing()), set()
    for number in range(60):
        decision = choose(of, unit=f"k:{number}")
        seen.add((decision.assigned, decision.chosen.name, round(decision.propensity, 6)))
    assert seen == {("learned", "mid", 0.9), ("heuristic", "cheap", 0.1)}


chance = st.floats(0, 1)


@given(st.lists(st.tuples(chance, chance, chance), min_size=1, max_size=6), chance)
def test_no_candidate_gains_by_it(given_: list[tuple[float, float, float]], least: float) -> None:
    said = [Considered(DEAR, Score(p, 0.9, 1.0), 1, "") for p, _, _ in given_]
    known = [Considered(DEAR, Score(p, sure, 1.0), 1, "") for _, p, sure in given_]
    found = sobered(said, known, least)
    lower = [sure >= least and p < before for before, p, sure in given_]
    assert (found is not None) == any(lower)
    if found is not None:
        for score, one, other, lowered in zip(found[0], said, known, lower, strict=True):
            assert score is (other.score if lowered else one.score)
