"""Runs out of calls and words: who passed, how long it took, what it is put down to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.feedback import Feedback, Speaker, Turned
from app.core.runs import NOT_MEASURED, TIMELY_S, UNKNOWN, CallPace, run_of
from app.core.types import Outcome

T0 = 1_795_176_000.0


def call(n: int, at_s: float = 0.0, duration_s: float = 1.0, outcome: str = "completed", **more: Any) -> CallPace:
    """The n-th call of a task, `at_s` after its begin."""
    about: dict[str, Any] = {
        "task_id": "t",
        "model": "small",
        "harness": "codex",
        "task_type": "code",
        "output_tokens": 10,
        **more,
    }
    return CallPace(f"req_{n}", "ci", created_s=T0 + at_s, duration_ms=duration_s * 1000, outcome=outcome, **about)


def word(
    outcome: Turned = Turned.SUCCESS,
    source: Speaker = Speaker.VERIFIER,
    *,
    at_s: float = 5.0,
    thing: str = "task:ci:t",
    by: str = "ci",
    admin: bool = False,
) -> Feedback:
    return Feedback(thing, by, source, outcome, T0 + at_s, key="ci", admin=admin)


def said(*words: Feedback) -> dict[str, list[Feedback]]:
    found: dict[str, list[Feedback]] = {}
    for one in words:
        found.setdefault(one.thing, []).append(one)
    return found


def test_a_task_from_its_first_arrival_to_its_last_end() -> None:
    run = run_of([call(2, at_s=4, duration_s=3), call(1, duration_s=2, cost_usd=0.25)], {})
    assert (run.began_s, run.duration_ms, run.calls, run.turns) == (T0, 7000.0, 2, 2)
    assert (run.passed, run.judged, run.success_ms, run.time_to_success_ms) == (True, False, NOT_MEASURED, 7000.0)
    assert run.cost_usd == 0.25


def test_firsts_are_the_tasks_and_not_the_calls() -> None:
    reading = call(1, duration_s=2, ttft_ms=300)
    writing = call(2, at_s=3, ttft_ms=100, first_attempt_ms=400)
    run = run_of([reading, writing, call(3, at_s=9, ttft_ms=1, first_attempt_ms=1)], {})
    assert (run.first_token_ms, run.first_attempt_ms) == (300.0, 3400.0)


def test_tokens_per_second_weigh_calls_by_their_time() -> None:
    old = call(3, at_s=5, output_tokens=1000)  # from before it was measured
    run = run_of(
        [call(1, output_tokens=100, generation_ms=1000), call(2, output_tokens=20, generation_ms=2000), old], {}
    )
    assert run.tokens_per_sec == pytest.approx(40.0)
    assert run_of([old], {}).tokens_per_sec == 0.0


def test_the_moment_of_success_comes_from_those_who_speak_when_it_happens() -> None:
    calls = [call(1), call(2, at_s=4, duration_s=2), call(3, at_s=20)]
    run = run_of(calls, said(word(at_s=6.5)))
    assert (run.success_ms, run.time_to_success_ms, run.turns, run.judged) == (6500.0, 6500.0, 2, True)
    for later in (word(source=Speaker.USER, at_s=6.5), word(at_s=21 + TIMELY_S + 1), word(at_s=-1)):
        run = run_of(calls, said(later))
        assert (run.passed, run.success_ms, run.time_to_success_ms) == (True, NOT_MEASURED, 21_000.0)
        assert run.turns == 3


@pytest.mark.parametrize("outcome", [o for o in Turned if o is not Turned.SUCCESS])
def test_every_other_word_is_not_passed(outcome: Turned) -> None:
    run = run_of([call(1)], said(word(outcome)))
    assert (run.passed, run.success_ms) == (False, NOT_MEASURED)


def test_the_better_witness_decides_then_the_later_and_the_tasks_word_first() -> None:
    fails, passes = word(Turned.FAILURE, Speaker.HUMAN, at_s=1), word(source=Speaker.USER, at_s=9)
    assert run_of([call(1)], said(fails, passes)).passed is False
    assert run_of([call(1)], said(word(Turned.FAILURE, at_s=1), word(at_s=9))).passed is True
    of_call = word(Turned.FAILURE, Speaker.HUMAN, thing="req_1")
    assert run_of([call(1)], said(of_call, word(source=Speaker.USER))).passed is True
    assert run_of([call(1)], said(of_call)).passed is False


def test_nobody_speaks_of_another_keys_calls_but_an_admin() -> None:
    assert run_of([call(1)], said(word(Turned.FAILURE, by="eve"))).judged is False
    assert run_of([call(1)], said(word(Turned.FAILURE, by="ops", admin=True))).passed is False


@pytest.mark.parametrize(
    ("outcome", "passed"),
    [
        (Outcome.COMPLETED, True),
        (Outcome.COST_KILLED, False),
        (Outcome.STEP_EXHAUSTED, False),
        (Outcome.THRASH_KILLED, False),
        (Outcome.TASK_TIMEOUT, False),
        (Outcome.TIMEOUT, False),
        (Outcome.QUOTA, None),
        (Outcome.RATE_LIMIT, None),
        (Outcome.API_ERROR, None),
        (Outcome.CLIENT_GONE, None),
        (Outcome.DENIED, None),
        (Outcome.GATEWAY_ERROR, None),
    ],
)
def test_where_nobody_spoke_the_end_tells(outcome: Outcome, passed: bool | None) -> None:
    run = run_of([call(1, outcome=outcome)], {})
    assert (run.passed, run.outcome, run.judged) == (passed, outcome, False)


def test_signs_of_failure_count_where_nobody_spoke() -> None:
    bad = call(1, failed_signs=True)
    assert run_of([bad], {}).passed is False
    assert run_of([bad], said(word())).passed is True
    assert run_of([bad, call(2, at_s=3)], {}).passed is True


def test_the_first_kill_names_the_end_and_counting_goes_on() -> None:
    cut = call(2, at_s=2, outcome="cost_killed", cost_usd=0.5, killed_usd=1.0)
    denied = call(3, at_s=4, outcome="denied", output_tokens=0, killed_usd=1.0)
    run = run_of([call(1, cost_usd=0.5), cut, denied], {})
    assert (run.outcome, run.passed, run.killed_usd, run.turns, run.calls) == ("cost_killed", False, 1.0, 2, 3)
    raised = run_of([cut, call(4, at_s=9, cost_usd=0.25)], {})
    assert (raised.passed, raised.killed_usd, raised.cost_usd) == (True, 1.0, 0.75)
    used_up = run_of([call(1), call(2, at_s=2, outcome="denied", killed_usd=0.9, output_tokens=0)], {})
    assert (used_up.outcome, used_up.passed, used_up.killed_usd) == ("denied", False, 0.9)


def test_a_run_is_put_down_to_whoever_made_most_of_it() -> None:
    title = call(1, model="tiny", task_type="summary", output_tokens=8)
    run = run_of([title, call(2, at_s=1, output_tokens=500), call(3, at_s=2, model="tiny", output_tokens=100)], {})
    assert (run.model, run.task_type, run.harness) == ("small", "code", "codex")
    silent = run_of([call(1, model="", harness="", task_type="", output_tokens=0, outcome="denied")], {})
    assert (silent.model, silent.harness, silent.task_type) == (UNKNOWN, UNKNOWN, UNKNOWN)
    assert run_of([call(1, model="a", output_tokens=0), call(2, at_s=1, model="b", output_tokens=0)], {}).model == "b"


def test_unknown_cost_is_not_zero_and_embeddings_are_no_turns() -> None:
    run = run_of([call(1, cost_usd=None), call(2, at_s=1, cost_usd=0.1)], {})
    assert run.cost_usd is None
    assert run_of([call(1), call(2, at_s=1, generates=False)], {}).turns == 1


@given(st.permutations([call(n, at_s=n * 3.0, output_tokens=n, model=f"m{n % 2}", cost_usd=0.1) for n in range(6)]))
def test_the_order_in_which_calls_are_read_changes_nothing(calls: list[CallPace]) -> None:
    assert run_of(calls, {}) == run_of(sorted(calls, key=lambda c: c.created_s), {})
