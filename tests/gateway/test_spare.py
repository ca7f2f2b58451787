"""A model in quarantine: passed over where another will do, probed now and then, and the record says so."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from app.core.policy import ANY_TASK, Route
from app.gateway.choose import IN_QUARANTINE
from app.gateway.decide import Decision
from app.gateway.view import View
from routers.probes import PROBE_SHARE, probes
from tests.gateway.policy_values import request
from tests.gateway.test_decide_routers import AUTO, CHEAP_WILL_DO, CODE, choose, learned, on

UNITS = [f"k:task {number}" for number in range(2_000)]
BEFORE, LEFT = 0.9, 0.7
"""Success of a model in quarantine before it fell and since."""
QUIET = next(unit for unit in UNITS if not probes(unit))
PROBE = next(unit for unit in UNITS if probes(unit))


def spared(route: Route = AUTO, *down: str, scores: dict[str, tuple[float, float]] = CHEAP_WILL_DO) -> View:
    router = learned(scores)
    left = dict.fromkeys(down, (BEFORE, LEFT))
    router.down = {"chat": left, "question": left}  # type: ignore[attr-defined]
    return on(route, router)


def verdicts(decision: Decision) -> dict[str, str]:
    return {seen.candidate.name: seen.verdict for seen in decision.considered}


def test_the_next_adequate_one_is_asked() -> None:
    decision = choose(spared(AUTO, "cheap"), unit=QUIET)
    assert decision.chosen.name == "mid"
    assert decision.reason.endswith(f"; cheap is {IN_QUARANTINE}")
    assert verdicts(decision)["cheap"] == IN_QUARANTINE
    assert decision.propensity == pytest.approx(1.0 - PROBE_SHARE)


def test_a_probe_says_so() -> None:
    decision = choose(spared(AUTO, "cheap"), unit=PROBE)
    assert decision.chosen.name == "cheap"
    assert "a probe" in decision.reason
    assert decision.propensity == pytest.approx(PROBE_SHARE)


def test_a_probe_does_not_ask_what_was_learned_of_the_fall() -> None:
    """The scores learn of it from the same labels: by them nobody would ever look whether it is back."""
    scores = {**CHEAP_WILL_DO, "cheap": (0.4, 100.0)}
    assert choose(spared(AUTO, scores=scores), unit=PROBE).chosen.name == "mid"
    probe = choose(spared(AUTO, "cheap", scores=scores), unit=PROBE)
    assert probe.chosen.name == "cheap"
    assert probe.propensity == pytest.approx(PROBE_SHARE)
    assert {seen.candidate.name: seen.score.p_success for seen in probe.considered}["cheap"] == 0.4
    quiet = choose(spared(AUTO, "cheap", scores=scores), unit=QUIET)
    assert quiet.chosen.name == "mid"
    assert quiet.propensity == pytest.approx(1.0 - PROBE_SHARE)


def test_a_twentieth_of_units_probe() -> None:
    counts = Counter(choose(spared(AUTO, "cheap"), unit=unit).chosen.name for unit in UNITS)
    assert counts["cheap"] / len(UNITS) == pytest.approx(PROBE_SHARE, abs=0.015)


def test_where_no_other_is_adequate_it_is_asked_all_the_same() -> None:
    scores = {"cheap": (0.9, 100.0), "mid": (0.5, 100.0), "dear": (0.6, 100.0)}
    decision = choose(spared(AUTO, "cheap", scores=scores), unit=QUIET)
    assert (decision.chosen.name, decision.propensity) == ("cheap", 1.0)
    decision = choose(spared(AUTO, "cheap", "mid", "dear"), unit=QUIET)
    assert (decision.chosen.name, decision.propensity) == ("cheap", 1.0)


def test_where_no_other_is_adequate_it_counts_for_what_it_fell_to() -> None:
    scores = {"cheap": (0.9, 100.0), "mid": (0.5, 100.0), "dear": (0.75, 100.0)}
    assert choose(spared(AUTO, "cheap", scores=scores), unit=QUIET).chosen.name == "dear"


def test_who_would_not_have_been_chosen_changes_nothing() -> None:
    decision = choose(spared(AUTO, "mid"), unit=QUIET)
    assert (decision.chosen.name, decision.propensity) == ("cheap", 1.0)
    assert verdicts(decision)["mid"] == IN_QUARANTINE


def test_other_work_is_not_concerned() -> None:
    code = request(prompt=CODE)
    decision = choose(spared(AUTO, "cheap"), code, unit=QUIET)
    assert decision.chosen.name == "cheap"


def test_utility_and_quality_take_the_best_of_the_others() -> None:
    useful = replace(AUTO, objective="utility", success_value_nano=10**6)
    assert choose(spared(useful), unit=QUIET).chosen.name == "dear"
    assert choose(spared(useful, "dear"), unit=QUIET).chosen.name == "mid"


def test_a_pin_and_a_name_are_the_clients_own() -> None:
    pinned = replace(AUTO, pin={ANY_TASK: "cheap"})
    assert choose(spared(pinned, "cheap"), unit=QUIET).chosen.name == "cheap"
    assert choose(spared(AUTO, "cheap"), request("cheap"), unit=QUIET).chosen.name == "cheap"
