"""From words to labels: who is answerable, what each word says, and what a label teaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.feedback import Correction, Feedback, Speaker, Turned
from app.core.types import Outcome
from app.learner.credit import credits_of, spoken
from app.learner.labels import EXPECTED, Call, Evidence, Label, call_of, hint_of, label_of, told_of
from app.learner.sources import SIGNS, TASK, USER, VERIFIER, Sources, Told, prior_of
from routers.abilities import Ability
from tests.routers.one_model import predict, update

CALL = Call("req_1", "alice", "small", True, 10.0, 11.0, task_id="job", task_type="code", expected=0.7)
WORD = Feedback("req_1", "alice", Speaker.USER, Turned.SUCCESS, 20.0, "alice")
odds = st.floats(-4, 4)
chance = st.floats(0, 1)


def label(**changes: Any) -> Label:
    plain = Label("req_1", "small", "code", USER, "alice", 2.0, 2.0, 1.0, 0.7, 20.0)
    return replace(plain, **changes)


@pytest.mark.parametrize(
    ("high", "low", "share", "said"),
    [(0.1, 0.1, 1.0, 1.0), (-0.1, -0.1, 1.0, 0.0), (2.0, -2.0, 0.4, 0.4), (3.0, 1.0, 0.4, 1.0), (-1.0, -3.0, 0.4, 0.0)],
)
def test_what_was_said_stands_as_it_is(high: float, low: float, share: float, said: float) -> None:
    assert label(high=high, low=low, share=share).said == said
    of_task = Evidence(-said or 1.0, -said or 1.0, 1.0, 0.1)
    assert label(high=0.0, sides=(Evidence(high, low, share, 1.0), of_task)).said == said


def test_nobody_is_answerable_for_a_call_that_did_not_complete() -> None:
    for outcome in Outcome:
        record = {"request_id": "req_1", "key": "alice", "created_s": 1.0, "outcome": outcome, "model": "small"}
        call = call_of(record)
        assert call.completed is (outcome is Outcome.COMPLETED)
        told = spoken([call], [WORD])
        found = label_of(call, told.get("req_1", []), Sources(), 1.0)
        assert (found is not None) is call.completed


def test_a_call_is_read_from_its_trace() -> None:
    candidates = [
        {"model": "tiny", "p_success": 0.3, "expected_cost_usd": 0.001},
        {"model": "small", "p_success": 0.8, "expected_cost_usd": 0.002},
        {"model": "free", "p_success": 0.1, "expected_cost_usd": 0.0},
        {"model": "large", "p_success": 0.9, "expected_cost_usd": 0.02},
    ]
    record = {
        "request_id": "req_1", "key": "alice", "task_id": "job", "created_s": 10.0, "outcome": "completed",
        "model": "small", "requested_model": "auto", "timings": {"duration_ms": 1_500.0},
        "decision": {"task_type": "code", "route": "auto", "candidates": candidates},
        "seen": {"began": "b", "asked": "a", "finish": "stop", "refused": True},
    }  # fmt: skip
    call = call_of(record)
    assert (call.expected, call.cheaper, call.ended_s, call.task_type) == (0.8, "tiny", 11.5, "code")
    assert (call.by_hand, call.seen is not None and call.seen.refused) == (False, True)
    bare = call_of({**record, "decision": None, "seen": None})
    assert (bare.expected, bare.cheaper, bare.seen, bare.by_hand) == (0.5, None, None, True)


def test_what_each_word_says() -> None:
    assert told_of(WORD) == Told("user", 1.0, "alice")
    assert told_of(replace(WORD, outcome=Turned.PARTIAL_SUCCESS)).good == 0.5
    assert told_of(replace(WORD, score=0.7)).good == 0.7
    assert told_of(replace(WORD, outcome=Turned.PARTIAL_SUCCESS, score=0.3)).good == 0.3
    assert told_of(replace(WORD, score=0.3)).good == 0.5  # it was good enough for whoever says so
    assert told_of(replace(WORD, outcome=Turned.FAILURE, score=0.9)).good == 0.5
    assert told_of(replace(WORD, outcome=Turned.FALSE_DONE, score=0.9)).good == 0.0
    assert told_of(replace(WORD, outcome=Turned.BLOCKED)).strength < 0.5
    assert told_of(replace(WORD, correction=Correction.SHOULD_HAVE_USED_STRONGER)).good == 0.0
    assert told_of(replace(WORD, correction=Correction.STOPPED_TOO_EARLY)).good == 0.5
    assert told_of(replace(WORD, correction=Correction.TOOL_NOT_NEEDED)) == told_of(WORD)


@pytest.mark.parametrize("outcome", Turned)
def test_every_outcome_moves_what_is_expected_its_own_way(outcome: Turned) -> None:
    """A failure, however it is called, lowers it; of what is blocked the model is blamed least."""
    label = label_of(CALL, [told_of(replace(WORD, outcome=outcome))], Sources(), 0.0)
    assert label is not None
    good, weight = label.told(0.75)
    clear = label_of(CALL, [told_of(replace(WORD, outcome=Turned.FAILURE))], Sources(), 0.0)
    assert clear is not None
    if outcome is Turned.SUCCESS:
        assert good == 1.0
    elif outcome is Turned.PARTIAL_SUCCESS:
        assert 0.0 < good < 0.75
    else:
        assert good == 0.0
        by_blame = {Turned.BLOCKED: (0.01, 0.6), Turned.ESCALATED_HUMAN: (0.6, 0.99)}.get(outcome, (1.0, 1.0))
        assert by_blame[0] <= weight / clear.told(0.75)[1] <= by_blame[1]


def test_a_label_is_as_much_of_one_as_what_it_rests_on() -> None:
    sources, own = Sources(), Told(USER, 1.0, "alice")
    part = Told(TASK + USER, 0.0, "alice", part=0.25)
    whole, quarter, both = (label_of(CALL, told, sources, 1.0) for told in ([own], [part], [own, part]))
    assert whole is not None
    assert quarter is not None
    assert both is not None
    assert (whole.part, quarter.part) == (1.0, 0.25)
    assert both.part == 1.0
    assert quarter.weight == pytest.approx(0.25 * replace(quarter, part=1.0).weight)


def test_sources_add_up_and_a_half_word_is_half_way() -> None:
    sources = Sources()
    user = label_of(CALL, [Told(USER, 1.0, "alice")], sources, 1.0)
    both = label_of(CALL, [Told(USER, 1.0, "alice"), Told(VERIFIER, 1.0, "alice")], sources, 1.0)
    against = label_of(CALL, [Told(USER, 1.0, "alice"), Told(VERIFIER, 0.0, "alice")], sources, 1.0)
    partial = label_of(CALL, [Told(VERIFIER, 0.5, "alice")], sources, 1.0)
    assert user is not None
    assert both is not None
    assert against is not None
    assert partial is not None
    assert both.weight > user.weight > 0.3
    assert (user.outcome, both.outcome, against.outcome) == (1.0, 1.0, 0.0)  # the verifier is believed more
    assert (both.source, user.source) == (VERIFIER, USER)
    assert partial.told(0.5)[0] == pytest.approx(0.5, abs=0.02)
    assert partial.told(0.9)[0] < 0.9
    assert partial.told(0.1)[0] > 0.1


@given(odds, odds, chance, st.floats(0.01, 0.99), chance)
def test_what_a_label_teaches_is_an_outcome_and_a_weight(
    high: float, low: float, share: float, expected: float, scale: float
) -> None:
    one = label(high=max(high, low), low=min(high, low), share=share, scale=scale)
    outcome, weight = one.told(expected)
    assert 0.0 <= outcome <= 1.0
    assert 0.0 <= weight <= 1.0
    update(Ability(np.zeros(1), np.eye(1)), np.ones(1), outcome, weight)  # takes it


@given(odds, odds, chance, st.floats(*EXPECTED))
def test_its_gradient_is_that_of_the_likelihood(high: float, low: float, share: float, expected: float) -> None:
    outcome, weight = label(high=high, low=low, share=share).told(expected)

    def after(evidence: float) -> float:
        return float(1 / (1 + (1 - expected) / expected * np.exp(-evidence)))

    belief = share * after(high) + (1 - share) * after(low)
    assert weight * (outcome - expected) == pytest.approx(belief - expected, abs=1e-9)


@pytest.mark.parametrize("source", [VERIFIER, USER, TASK + USER])
def test_noisy_words_lead_to_the_true_rate(source: str) -> None:
    """Synthetic: a source exactly as reliable as is believed; "p of a success" per word would end nearer to 0.5."""
    rng, sources, trust = np.random.default_rng(5), Sources(), prior_of(source)
    true, u = 0.85, np.ones(1)
    ability = Ability(np.zeros(1), np.eye(1) * 4.0)
    for _ in range(4_000):
        good = rng.random() < (trust.says_good if rng.random() < true else 1 - trust.says_bad)
        p = predict(ability, u)[0]
        one = label_of(replace(CALL, expected=p), [Told(source, float(good), "alice")], sources, 1.0)
        assert one is not None
        ability = update(ability, u, *one.told(p))
    assert predict(ability, u)[0] == pytest.approx(true, abs=0.04)


def test_a_signs_silence_keeps_failures_from_being_all_that_counts() -> None:
    """Synthetic: 80 % of calls are good, and signs show as often as is believed; nobody says a word."""
    rng, sources, u = np.random.default_rng(6), Sources(), np.ones(1)
    ability = Ability(np.array([1.4]), np.eye(1))
    for _ in range(3_000):
        good = rng.random() < 0.8
        told = []
        for sign in SIGNS:
            trust = prior_of(sign)
            quiet = rng.random() < (trust.says_good if good else 1 - trust.says_bad)
            told.append(Told(sign, float(quiet), "alice"))
        p = predict(ability, u)[0]
        one = label_of(replace(CALL, expected=p), told, sources, 1.0)
        assert one is not None
        ability = update(ability, u, *one.told(p))
    assert predict(ability, u)[0] == pytest.approx(0.8, abs=0.06)


def test_stronger_not_needed_hints_at_the_next_cheaper() -> None:
    call = replace(CALL, cheaper="tiny")
    word = replace(WORD, correction=Correction.STRONGER_NOT_NEEDED)
    hint = hint_of(call, word, Sources())
    assert hint is not None
    assert (hint.model, hint.outcome) == ("tiny", 1.0)
    assert 0.0 < hint.weight < 0.4
    assert hint_of(call, WORD, Sources()) is None
    assert hint_of(replace(call, cheaper=None), word, Sources()) is None


@pytest.mark.parametrize("calls", [2, 6, 20])
def test_nothing_bad_in_many_calls_does_not_outweigh_what_their_task_came_to(calls: int) -> None:
    """That no sign of failure showed is a label of its own only where nobody has spoken: of a task that failed it would
    be one for each of its calls."""
    sources = Sources()
    quiet = [Told(sign, 1.0, "alice") for sign in SIGNS[:3]]
    credit = credits_of(calls)

    def pulled(good: float, signs: Sequence[Told]) -> float:
        outcomes = [
            label_of(CALL, [Told(TASK + VERIFIER, good, "alice", part=part), *signs], sources, 1.0) for part in credit
        ]
        told = [found.told(0.5) for found in outcomes if found is not None]
        return sum(weight * (outcome - 0.5) for outcome, weight in told)

    assert pulled(0.0, quiet) == pytest.approx(pulled(0.0, []), abs=0.05)
    assert pulled(1.0, quiet) == pytest.approx(pulled(1.0, []), abs=0.05)
    assert pulled(0.0, quiet) < -0.3
