"""Exploring: whose calls, how many, for how much, and what it does to the decision and its probability."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.core.budget import Claim
from app.core.policy import HEURISTIC, LEARNED, Explore, Route
from app.gateway.decide import Decision, decide
from app.gateway.explore import NEAR, Explorer, explored
from app.gateway.limits import Limits
from app.gateway.target import resolve
from app.gateway.view import View
from app.stores.prices import Catalogue
from routers.base import Arm
from routers.features import Features
from routers.live import Drawn
from tests.gateway.policy_values import FixedRouter, model, policy, request

CHEAP, MID, DEAR = model("cheap", 10**6), model("mid", 10**7, tier=2), model("dear", 10**8, tier=4)
RULES = Route(
    "auto", ("cheap", "mid", "dear"), adequacy=0.8, fallback=("dear",), explore=Explore(0.3, 10**12)
)  # fmt: skip
SCORES = {"cheap": (0.9, 100.0), "mid": (0.95, 100.0), "dear": (0.99, 100.0)}
FREE = Limits((), None, "request")
TODAY = dt.date(2026, 11, 29)


class Purse:
    """A budget of one process, without a ledger."""

    def __init__(self, left_nano: int = 10**12) -> None:
        self.left_nano = left_nano

    def allows(self, route: str, day_nano: int, nano: int, today: dt.date) -> bool:
        return nano <= min(self.left_nano, day_nano)

    def spend(self, route: str, nano: int) -> None:
        self.left_nano -= nano


class Unsure(FixedRouter):
    """Of `cheap` it is not sure."""

    def drawn(self, features: Features, arms: Sequence[Arm]) -> Drawn:
        found = {"cheap": (1.6, 0.8), "mid": (1.9, 0.5), "dear": (3.0, 0.2)}
        return Drawn(*(np.array([found[arm.name][of] for arm in arms]) for of in (0, 1)))


def view_on(rules: Route, learned: FixedRouter | None = None) -> View:
    routers = {HEURISTIC: FixedRouter(SCORES), LEARNED: learned or Unsure(SCORES, "learned")}
    return View(policy([CHEAP, MID, DEAR], [rules]), routers, Catalogue(b"{}"))


def call(
    unit: str,
    rules: Route = RULES,
    explorer: Explorer | None = None,
    *,
    limits: Limits = FREE,
    today: dt.date = TODAY,
    on: View | None = None,
    open_: tuple[str, ...] = (),
    **asked: Any,
) -> Decision:
    of = on or view_on(rules)
    body = request(**asked)
    target = resolve(of, body.model)
    decision = decide(
        body, target, of, unit=unit, input_tokens=lambda _: 10,
        available=lambda name: name not in open_, capped=lambda _: False,
    )  # fmt: skip
    return explored(
        decision, target.arms, of, explorer or Explorer(Purse()), unit=unit, in_tool_loop=body.prompt.in_tool_loop,
        limits=limits, today=today,
    )  # fmt: skip


def test_a_share_is_drawn_and_its_probability_is_true() -> None:
    """Over many units each choice comes as often as its recorded probability says."""
    decisions = [call(f"k:{n}") for n in range(4_000)]
    drawn = [decision for decision in decisions if decision.explored]
    assert len(drawn) / len(decisions) == pytest.approx(0.3, abs=0.03)
    counts = Counter(decision.chosen.name for decision in decisions)
    told = {decision.chosen.name: decision.propensity for decision in decisions}
    assert sum(told.values()) == pytest.approx(1.0, abs=0.01)
    assert set(counts) == {"cheap", "mid", "dear"}
    for name, count in counts.items():
        assert count / len(decisions) == pytest.approx(told[name], abs=0.02)
        assert len({decision.propensity for decision in decisions if decision.chosen.name == name}) == 1


def test_what_is_explored_says_so_and_keeps_its_fallbacks() -> None:
    decision = next(d for n in range(500) if (d := call(f"k:{n}")).instead_of)
    assert (decision.instead_of, decision.explored) == ("cheap", True)
    assert decision.reason.startswith("explored")
    assert [c.name for c in decision.order] == list(dict.fromkeys([decision.chosen.name, "dear"]))
    verdicts = {seen.candidate.name: seen.verdict for seen in decision.considered}
    assert verdicts[decision.chosen.name] == "chosen"
    assert verdicts["cheap"] == "passed over to explore"


def test_a_unit_is_always_treated_alike() -> None:
    for n in range(50):
        assert call(f"k:{n}").order == call(f"k:{n}").order


ROOM_FOR_TWO = Limits((), 1_200 * NEAR, "request")
QUALITY = replace(RULES, objective="quality", max_expected_nano=10**12)
"""Takes `dear`."""
SHARED = Limits((Claim("task:k:t", 10**15),), None, "request")


def poor(scope: str) -> Explorer:
    explorer = Explorer(Purse())
    explorer.note_left(scope, 110 * NEAR - 1)
    return explorer


@pytest.mark.parametrize(
    "never",
    [
        {"rules": replace(RULES, explore=None)},
        {"rules": replace(RULES, pin={"*": "cheap"})},
        {"rules": replace(RULES, split={"learned": 0.5, "heuristic": 0.5})},
        {"name": "cheap"},
        {"prompt": {"in_tool_loop": True, "tools": 1}},
        {"limits": Limits((), 110 * NEAR - 1, "request")},
        {"limits": Limits((Claim("task:k:t", 110 * NEAR - 1),), None, "request")},
        {"limits": Limits((Claim("task:k:t", None, 110 * NEAR - 1),), None, "request")},
        {"limits": SHARED, "explorer": poor("task:k:t")},
        {"open_": ("cheap", "mid")},
        {"rules": replace(RULES, explore=Explore(0.3, 0))},
        {"rules": replace(RULES, explore=Explore(0.3, 10**12, frozenset({"chat", "question"})))},
        {"on": view_on(RULES, FixedRouter(SCORES, "learned"))},
        {"rules": replace(RULES, candidates=("cheap",), fallback=("mid", "dear")), "open_": ("cheap",)},
        {"rules": QUALITY, "limits": ROOM_FOR_TWO},
    ],
)
def test_what_is_risky_is_not_explored(never: dict[str, Any]) -> None:
    for n in range(60):
        decision = call(f"k:{n}", **never)
        assert (decision.explored, decision.instead_of) == (None, None)


def test_candidates_too_dear_for_what_is_left_are_not_drawn() -> None:
    """Where the cap leaves room for two of them, it is drawn among these."""
    names = {call(f"k:{n}", limits=ROOM_FOR_TWO).chosen.name for n in range(400)}
    assert names == {"cheap", "mid"}


def test_a_model_near_its_own_cap_is_not_drawn() -> None:
    near = model("mid", 10**7, tier=2, cap=1_100 * NEAR - 1)
    routers = {HEURISTIC: FixedRouter(SCORES), LEARNED: Unsure(SCORES, "learned")}
    view = View(policy([CHEAP, near, DEAR], [RULES]), routers, Catalogue(b"{}"))
    assert {call(f"k:{n}", on=view).chosen.name for n in range(400)} == {"cheap", "dear"}


def test_one_in_quarantine_is_not_drawn_though_it_changed_nothing() -> None:
    learned = Unsure(SCORES, "learned")
    fell = {"mid": (0.95, 0.7)}
    learned.down = {"chat": fell, "question": fell}  # type: ignore[attr-defined]
    view = view_on(RULES, learned)
    decisions = [call(f"k:{n}", on=view) for n in range(400)]
    assert {decision.chosen.name for decision in decisions} == {"cheap", "dear"}
    assert any(decision.instead_of for decision in decisions)


def test_the_budget_ends_it() -> None:
    rules = replace(RULES, explore=Explore(0.5, 40_000))
    purse = Purse(40_000)
    explorer, on = Explorer(purse), view_on(rules)
    first = [call(f"k:{n}", explorer=explorer, on=on) for n in range(300)]
    spent = sum(
        next(seen.expected_nano or 0 for seen in decision.usable if seen.candidate is decision.chosen)
        for decision in first
        if decision.instead_of
    )
    assert 0 < spent <= 40_000
    assert purse.left_nano == 40_000 - spent
    assert first[-1].explored is None


@pytest.mark.parametrize(
    "rules",
    [
        replace(RULES, objective="quality", max_expected_nano=2_000),
        replace(RULES, objective="utility", success_value_nano=100_000),
    ],
)
def test_other_objectives_are_drawn_by_their_own_rule(rules: Route) -> None:
    decisions = [call(f"k:{n}", rules=rules) for n in range(3_000)]
    counts = Counter(decision.chosen.name for decision in decisions)
    told = {decision.chosen.name: decision.propensity for decision in decisions}
    for name, count in counts.items():
        assert count / len(decisions) == pytest.approx(told[name], abs=0.025)
    if rules.objective == "quality":
        assert "dear" not in counts
