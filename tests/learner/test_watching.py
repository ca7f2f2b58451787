"""Drift in live traffic: which labels move a watch, what an event says, and what is laid to whom."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from app.core.quarantined import MODEL, PROVIDER, TRAFFIC, Quarantined, kept_from
from app.learner.step import Learner
from app.learner.watching import Event, Watching, differ
from routers.quarantine import state_of
from tests.learner.calls import BASE, call_id, record, word


def heard(watching: Watching, rate: float, first: int, count: int, *, model: str = "small", **more: Any) -> list[Event]:
    """Calls with a verifier's word on each, synthetic successes at this rate; until something happens."""
    rng = np.random.default_rng(first)
    learner = Learner(BASE)
    for number in range(first, first + count):
        learner.saw([record(number, model)])
        learner.said([word(call_id(number), "success" if rng.random() < rate else "failure", **more)])
        if events := watching.hear(learner, learner.step(5_000.0)):
            return events
    return []


def test_a_model_that_falls_is_found_and_let_back_by_its_probes() -> None:
    watching = Watching()
    assert heard(watching, 0.92, 0, 400) == []
    assert watching.down() == ()
    (event,) = heard(watching, 0.6, 1_000, 300)
    assert (event.fell, event.cell.model, event.cell.task_type, event.cell.cause) == (True, "small", "chat", MODEL)
    assert event.cell.drop > 0.1
    assert event.cell.since_s == 5_000.0
    assert watching.down() == (event.cell,)
    (back,) = heard(watching, 0.95, 2_000, 400)
    assert (back.fell, back.cell.model, watching.down()) == (False, "small", ())


def test_when_a_model_is_back_the_time_of_its_fall_is_forgotten() -> None:
    """Else what was learned of it while it was down would keep it away from its work."""
    watching, learner, rng = Watching(), Learner(BASE), np.random.default_rng(3)

    def calls(first: int, count: int, rate: float) -> list[Event]:
        for n in range(first, first + count):
            at_s = 5_000.0 + n
            learner.saw([record(n, held=n % 10 == 0, at_s=at_s)])
            outcome = "success" if rng.random() < rate else "failure"
            learner.said([word(call_id(n, n % 10 == 0), outcome, said_s=at_s)])
            if events := watching.hear(learner, learner.step(at_s)):
                return events
        return []

    def p() -> float:
        demand = BASE.demand_of((), (), 1.0, "chat", plain=True, read=False)
        return learner.probability(learner.belief, "small", demand)

    calls(0, 300, 0.93)
    (fell,) = calls(1_000, 300, 0.45)
    assert fell.fell
    known = p()
    assert calls(2_000, 400, 0.45) == []
    assert p() < known - 0.1
    (back,) = calls(3_000, 300, 0.95)
    assert (back.fell, 8_000.0 <= back.rose_s <= 8_300.0) == (False, True)
    assert p() < known - 0.1
    learner.forget("small", "chat", back.cell.since_s, back.rose_s)
    assert p() == pytest.approx(known, abs=0.04)
    gone = [one for one in learner.lessons.values() if fell.cell.since_s <= one.call.created_s < back.rose_s]
    assert len(gone) >= 400
    assert not any(one.sites or one.labels or one.call.request_id in learner.held for one in gone)
    assert any(one.sites for one in learner.lessons.values() if one.call.created_s > back.rose_s)


def test_the_operator_lets_one_back() -> None:
    watching = Watching()
    heard(watching, 0.92, 0, 300)
    heard(watching, 0.5, 1_000, 300)
    assert not watching.release("large", "chat", 6_000.0)
    assert watching.release("small", "chat", 6_000.0)
    assert watching.down() == ()
    assert not watching.release("small", "chat", 6_000.0)


def test_what_one_taught_that_the_operator_lets_back_is_forgotten_once() -> None:
    watching, learner = Watching(), Learner(BASE)
    for number in range(20):
        learner.saw([record(number, at_s=5_000.0)])
        learner.said([word(call_id(number), "failure", said_s=5_000.0 + number)])
    learner.step(5_100.0)
    watching.let_back = [("small", "chat", 5_010.0, 5_100.0)]
    kept = Watching.of_state(json.loads(json.dumps(watching.state())))
    assert kept.forget(learner)
    assert [bool(learner.lessons[call_id(number)].labels) for number in range(20)] == [True] * 10 + [False] * 10
    assert not kept.forget(learner)
    assert kept.state()["let_back"] == []


def test_hints_and_second_words_count_for_nothing() -> None:
    watching, learner = Watching(), Learner(BASE)
    learner.saw([record(1, "large")])
    learner.said([word(call_id(1), correction="stronger_not_needed")])
    watching.hear(learner, learner.step(5_000.0))
    assert {name: watch.cell.labels for name, watch in watching.watches.items()} == {("large", "chat"): 1}
    learner.said([word(call_id(1), "failure", by="alice", source="user")])
    watching.hear(learner, learner.step(5_000.0))
    assert watching.watches["large", "chat"].cell.labels == 1


def test_state_survives_json() -> None:
    watching = Watching()
    watching.saw(record(1))
    heard(watching, 0.92, 0, 300)
    heard(watching, 0.5, 1_000, 300)
    again = Watching.of_state(json.loads(json.dumps(watching.state())))
    assert again.down() == watching.down() != ()
    assert again.providers == {"small": "a", "large": "a"}
    assert [state_of(w) for w in again.watches.values()] == [state_of(w) for w in watching.watches.values()]
    assert Watching.of_state({}).down() == ()


def test_what_is_laid_to_traffic_is_kept_from_nobody() -> None:
    found = [Quarantined("a", "code", 1.0, 0.9, 0.1, cause) for cause in (MODEL, TRAFFIC)]
    found.append(Quarantined("b", "math", 1.0, 0.9, 0.1, TRAFFIC))
    found.append(Quarantined("c", "code", 1.0, 0.9, 0.1, PROVIDER))
    assert kept_from(found) == {"code": {"a": (0.9, 0.8), "c": (0.9, 0.8)}}
    assert differ(found, found[1:])
    assert not differ(found, [*found])
