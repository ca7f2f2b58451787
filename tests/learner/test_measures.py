"""The ten measures: what each counts above and below the line, when it is told, and how it stands to its target."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from app.core.feedback import Correction, Feedback, Speaker, Turned, task_thing
from app.core.policy import MEASURES as NAMES
from app.learner.measures import (
    LEAST,
    MEASURES,
    MET,
    MISSED,
    NO_TARGET,
    NOT_ENOUGH,
    OPEN,
    Judged,
    Measure,
    Step,
    measured,
)

T0 = 1_795_176_000.0
CHEAP: dict[str, Any] = {"routed": True, "tier": 1, "top_tier": 4}


def step(n: int = 1, at_s: float = 0.0, outcome: str = "completed", **more: Any) -> Step:
    about = {"task_id": "t", "model": "small", "task_type": "code", "output_tokens": 10, "first_attempt_ms": 50.0}
    given = {**about, "cost_usd": 0.01, **more}
    return Step(f"req_{n}", "ci", created_s=T0 + at_s, duration_ms=1000.0, outcome=outcome, **given)


def word(outcome: Turned, source: Speaker = Speaker.VERIFIER, at_s: float = 9.0, **more: Any) -> Feedback:
    thing = more.pop("thing", task_thing("ci", "t"))
    return Feedback(thing, "ci", source, outcome, T0 + at_s, "ci", **more)


def run(steps: Sequence[Step], *words: Feedback) -> Judged:
    said: dict[str, list[Feedback]] = {}
    for one in words:
        said.setdefault(one.thing, []).append(one)
    return Judged.of(steps, said)


def part(name: str, steps: Sequence[Step], *words: Feedback) -> tuple[float, float] | None:
    return MEASURES[name].count(run(steps, *words))


GOOD, BAD, FALSE = word(Turned.SUCCESS), word(Turned.FAILURE), word(Turned.FALSE_DONE)


def test_the_policy_knows_them_all() -> None:
    assert tuple(MEASURES) == NAMES


@pytest.mark.parametrize(
    ("steps", "words", "counted"),
    [
        ([step(), step(2, 2.0)], [GOOD], (0.02, 1.0)),
        ([step()], [BAD], (0.01, 0.0)),
        ([step(outcome="cost_killed", killed_usd=0.01)], [], (0.01, 0.0)),
        ([step()], [], None),  # nobody spoke: nothing is known
        ([step(cost_usd=None)], [GOOD], None),
    ],
)
def test_cost_per_successful_task(steps: list[Step], words: list[Feedback], counted: object) -> None:
    assert part("cost_per_successful_task", steps, *words) == counted


def test_cost_per_artifact_counts_whole_answers_that_can_be_used() -> None:
    of_no_use = [
        step(2, outcome="cost_killed"), step(3, failed_signs=True), step(4, truncated=True),
        step(5, first_attempt_ms=0.0),
    ]  # fmt: skip
    assert part("cost_per_artifact", [step(), *of_no_use]) == pytest.approx((0.05, 1.0))


def test_false_done_is_said_or_told_apart_by_who_knows_better() -> None:
    program = word(Turned.SUCCESS, Speaker.PROGRAM)
    assert part("false_done_rate", [step()], FALSE) == (1.0, 1.0)
    assert part("false_done_rate", [step()], program, BAD) == (1.0, 1.0)
    assert part("false_done_rate", [step()], program, GOOD) == (0.0, 1.0)
    assert part("false_done_rate", [step()], BAD) is None  # nobody called it done
    assert part("false_done_rate", [step()]) is None


def test_an_unsafe_miss_is_a_cheap_models_error_that_nothing_caught() -> None:
    name, corrected = "unsafe_cheap_miss_rate", replace(BAD, correction=Correction.SHOULD_HAVE_USED_STRONGER)
    assert part(name, [step(**CHEAP)], FALSE) == (1.0, 1.0)
    assert part(name, [step(**CHEAP)], corrected) == (1.0, 1.0)
    assert part(name, [step(**CHEAP)], BAD) == (0.0, 1.0)  # it failed, and was not passed off as done
    assert part(name, [step(**CHEAP)], GOOD) == (0.0, 1.0)
    assert part(name, [step(routed=True, tier=4, top_tier=4)], FALSE) is None
    assert part(name, [step(tier=1, top_tier=4)], FALSE) is None  # the client named it
    assert part(name, [step(**CHEAP), step(2, 2.0, tier=4, top_tier=4)], FALSE) is None


def test_missed_escalations_are_of_those_that_needed_one() -> None:
    name, stronger = "missed_escalation_rate", step(2, 2.0, tier=4, top_tier=4)
    assert part(name, [step(**CHEAP)], BAD) == (1.0, 1.0)
    assert part(name, [step(**CHEAP), stronger], GOOD) == (0.0, 1.0)
    assert part(name, [step(**CHEAP), stronger], BAD) == (0.0, 1.0)
    assert part(name, [step(**CHEAP)], GOOD) is None
    assert part(name, [step(**CHEAP)]) is None


def test_cache_hits_are_tokens() -> None:
    steps = [step(input_tokens=100, cache_read_tokens=60), step(2, input_tokens=300), step(3, outcome="api_error")]
    assert part("cache_hit_rate", steps) == (60.0, 400.0)
    assert part("cache_hit_rate", [*steps, step(4, saved_tokens=100)]) == (160.0, 500.0), "the policy's own cache"
    assert part("cache_hit_rate", [step()]) is None


def test_tool_calls_are_useful_once_and_where_they_work() -> None:
    steps = [
        step(1, 1.0, tools="a"),
        step(2, 2.0, tools="a"),  # the same again
        step(3, 3.0, tools="b"),  # the next request says that it failed
        step(4, 4.0, tools="c", tool_failed=True, arguments_ok=False),
        step(5, 5.0, tools="d"),
        step(6, 6.0, tools="e"),
        step(7, 7.0),
    ]
    needless = word(Turned.SUCCESS, thing="req_6", correction=Correction.TOOL_NOT_NEEDED)
    assert part("tool_call_efficiency", steps, needless) == (2.0, 6.0)
    assert part("tool_call_efficiency", [step()]) is None


def test_verifiers_latest_words() -> None:
    words = [
        BAD,
        replace(GOOD, said_s=T0 + 20),
        word(Turned.FAILURE, thing="req_1"),
        word(Turned.FAILURE, Speaker.USER),
    ]
    assert part("verifier_pass_rate", [step()], *words) == (1.0, 2.0)


def test_latency_is_from_the_first_arrival_to_the_last_end() -> None:
    assert part("latency_per_task", [step(), step(2, 5.0)]) == (6.0, 1.0)
    assert part("latency_per_task", [step(outcome="api_error")]) is None


def many(good: int, bad: int) -> list[Judged]:
    return [run([step(**CHEAP)], GOOD)] * good + [run([step(**CHEAP)], FALSE)] * bad


def test_little_data_is_no_number() -> None:
    found = measured(many(LEAST - 1, 0))
    assert {measure.status for measure in found.values()} == {NOT_ENOUGH}
    assert all(measure.value is measure.low is measure.high is None for measure in found.values())
    assert found["task_success_rate"].denominator == LEAST - 1
    assert set(measured([])) == set(NAMES)


def test_the_tokens_of_a_few_calls_are_few_cases() -> None:
    def cache_hits(calls: int) -> Measure:
        steps = [step(n, float(n), input_tokens=9_000, cache_read_tokens=3_000) for n in range(calls)]
        return measured([run(steps[n::4]) for n in range(4)])["cache_hit_rate"]

    assert (cache_hits(LEAST - 1).value, cache_hits(LEAST - 1).status) == (None, NOT_ENOUGH)
    assert cache_hits(LEAST).value == pytest.approx(1 / 3)


@pytest.mark.parametrize(("good", "bad", "status"), [(500, 0, MET), (60, 1, OPEN), (60, 10, MISSED)])
def test_a_target_is_met_where_the_interval_says_so(good: int, bad: int, status: str) -> None:
    found = measured(many(good, bad))["unsafe_cheap_miss_rate"]
    assert (found.target, found.status) == (0.02, status)
    assert found.value is not None
    assert found.value == pytest.approx(bad / (good + bad))
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.value <= found.high


def test_targets_of_the_operator_and_measures_of_which_more_is_better() -> None:
    found = measured(many(500, 0), {"task_success_rate": 0.9, "unsafe_cheap_miss_rate": 0.001})
    assert (found["task_success_rate"].status, found["unsafe_cheap_miss_rate"].status) == (MET, OPEN)
    assert found["cost_per_successful_task"].status == NO_TARGET
    assert found["cost_per_successful_task"].value == pytest.approx(0.01)


def test_costs_of_failures_are_borne_by_successes() -> None:
    found = measured(many(50, 50))["cost_per_successful_task"]
    assert found.value == pytest.approx(0.02)
    assert found.unit == "usd"
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.02 < found.high


def test_all_of_it_is_json() -> None:
    told = {name: measure.as_json() for name, measure in measured(many(30, 3)).items()}
    assert not any(isinstance(x, float) and math.isnan(x) for one in told.values() for x in one.values())
    assert json.loads(json.dumps(told, allow_nan=False)) == told
