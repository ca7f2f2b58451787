"""Predictions against outcomes, the sides of a split, what exploring costs."""

from __future__ import annotations

import pytest

from app.core.feedback import Feedback, Speaker, Turned
from app.core.runs import run_of
from app.learner.scorecard import Decided, Sent, scorecard


def decided(
    name: str,
    *,
    p: float | None = 0.8,
    passed: bool | None = True,
    router: str = "learned@3",
    share: float | None = None,
    explored: bool | None = None,
    instead_of: str | None = None,
    usd: float = 0.01,
    model: str = "m",
) -> Decided:
    call = Sent(
        request_id=name, key="k", task_id=None, created_s=100.0, duration_ms=1_000.0, outcome="completed", model=model,
        cost_usd=usd, route="auto", router=router, assigned=router.partition("@")[0], share=share,
        p=p, explored=explored, instead_of=instead_of,
    )  # fmt: skip
    words = {}
    if passed is not None:
        turned = Turned.SUCCESS if passed else Turned.FAILURE
        words[name] = [Feedback(name, "k", Speaker.VERIFIER, turned, 101.0, "k")]
    return Decided(run_of([call], words), (call,))


def test_what_was_predicted_and_what_came_of_it() -> None:
    runs = [decided(f"a{n}", p=0.85, passed=n < 6) for n in range(10)]
    runs += [decided(f"b{n}", p=0.15, passed=n < 1) for n in range(10)]
    runs += [decided("unjudged", passed=None), decided("unscored", p=None)]
    found = scorecard(runs)
    assert (found["runs"], found["judged"]) == (22, 21)
    (learned,) = found["calibration"]
    low, high = learned["bins"]
    assert (low["predicted"], low["observed"], low["runs"]) == (pytest.approx(0.15), 0.1, 10)
    assert (high["predicted"], high["observed"], high["from"]) == (pytest.approx(0.85), 0.6, 0.8)
    assert low["low"] < 0.1 < low["high"]
    # |0.15 - 0.1| and |0.85 - 0.6|, half of the runs each.
    assert learned["error"] == pytest.approx(0.15)
    assert learned["brier"] == pytest.approx((6 * 0.15**2 + 4 * 0.85**2 + 0.85**2 + 9 * 0.15**2) / 20)


def test_a_certain_prediction_is_in_the_last_bin() -> None:
    (learned,) = scorecard([decided("a", p=1.0), decided("b", p=0.0)])["calibration"]
    assert [one["to"] for one in learned["bins"]] == [0.1, 1.0]


def test_what_two_routers_predict_together_is_told_of_neither() -> None:
    runs = [decided("a", router="heuristic@1"), decided("b", router="heuristic@1&learned@w+3"), decided("c")]
    assert {one["router"] for one in scorecard(runs)["calibration"]} == {"heuristic", "heuristic&learned", "learned"}


def test_the_sides_of_a_split() -> None:
    runs = [decided(f"a{n}", share=0.8, passed=n > 0, usd=0.02) for n in range(4)]
    runs += [decided("b", router="heuristic@2", share=0.2, passed=None), decided("c")]
    heuristic, learned = scorecard(runs)["splits"]
    assert (heuristic["router"], heuristic["runs"], heuristic["counted"]) == ("heuristic", 1, 1)
    assert (learned["share"], learned["passed"], learned["counted"]) == (0.8, 3, 4)
    assert learned["cost_per_success_usd"] == pytest.approx(0.08 / 3)
    assert learned["low"] < 0.75 < learned["high"]


def test_what_went_elsewhere_to_learn_from_it() -> None:
    runs = [
        decided("a", usd=0.5, model="new", explored=True, instead_of="m"),
        decided("b", usd=0.25, model="new", explored=True, instead_of="m"),
        decided("c", explored=True),
        decided("d", explored=False),
        decided("e"),
    ]
    found = scorecard(runs)["exploration"]
    assert (found["of_calls"], found["drawn"], found["calls"], found["usd"]) == (5, 3, 2, 0.75)
    assert found["models"] == [{"model": "new", "instead_of": "m", "calls": 2, "usd": 0.75}]
    assert found["days"] == [(0, 0.75)]


def test_nothing_has_an_answer_too() -> None:
    found = scorecard([])
    assert (found["calibration"], found["splits"], found["exploration"]["calls"]) == ([], [], 0)
