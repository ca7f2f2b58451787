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


def asked(watching: Watching, rounds: int, first: int, *, fails: int = 0) -> list[Event]:
    """Rounds of 60 requests, the same in each, of which 54 are right by the operator's program, so many of them no
    more; until something happens."""
    learner = Learner(BASE)
    for number in range(first, first + 60 * rounds):
        probe = number * 37 % 60
        seen = {"began": "b", "asked": f"a{probe}"}
        learner.saw([record(number, seen=seen)])
        outcome = "success" if fails <= probe < 54 else "failure"
        learner.said([word(call_id(number), outcome, source="program")])
        if events := watching.hear(learner, learner.step(5_000.0)):
            return events
    return []


def test_a_few_probe_requests_show_a_small_fall_and_its_end() -> None:
    """Six probes of sixty fail from one round to the next; and are right again."""
    watching = Watching()
    assert asked(watching, 12, 0) == []
    (event,) = asked(watching, 6, 10_020, fails=6)
    assert (event.fell, event.cell.model) == (True, "small")
    assert event.cell.paired > 0.9
    assert watching.requests["small", "chat"].since == {}
    assert asked(watching, 2, 20_040, fails=6) == []
    known = watching.requests["small", "chat"]
    assert len(known.since) == 60
    before = dict(known.again)
    (back,) = asked(watching, 30, 30_060)
    assert not back.fell
    assert (known.again, known.since) == (before, {})


def probed(watching: Watching, learner: Learner, rounds: int, first: int, right: int) -> list[Event]:
    """Rounds of 60 probes, the same in each, of which so many are right."""
    events = []
    for number in range(first, first + 60 * rounds):
        probe = number * 37 % 60
        learner.saw([record(number, seen={"began": "b", "asked": f"a{probe}"}, probe=True)])
        learner.said([word(call_id(number), "success" if probe < right else "failure", source="program", by="alice")])
        events += watching.hear(learner, learner.step(5_000.0))
    return events


def test_a_set_of_probes_that_is_harder_than_users_requests_is_no_fall() -> None:
    """What was never asked before is held against nothing; from then on each is held to what it was."""
    watching = Watching()
    assert heard(watching, 0.97, 0, 700) == []
    assert probed(watching, Learner(BASE), 12, 10_020, 30) == []
    (event,) = probed(watching, Learner(BASE), 4, 20_040, 24)
    assert (event.fell, event.cell.model) == (True, "small")
    assert event.cell.paired > 0.9
    heard_of = watching.watches["small", "chat"].cell.labels
    new = record(30_000, seen={"began": "b", "asked": "other"}, probe=True)
    learner = Learner(BASE)
    learner.saw([new])
    learner.said([word(call_id(30_000), "success", source="program")])
    assert watching.hear(learner, learner.step(5_000.0)) == []
    assert watching.watches["small", "chat"].cell.labels == heard_of
    assert len(watching.requests["small", "chat"].since) == 61


def test_who_lost_a_few_requests_for_good_is_not_let_back_by_all_the_others() -> None:
    """Synthetic: 200 probes in rounds, 180 of them right; from the eleventh on ten more are wrong, each time."""
    watching, learner, rng, events, number = Watching(), Learner(BASE), np.random.default_rng(5), [], 0
    for lap in range(20):
        for probe in rng.permutation(200).tolist():
            right = probe >= (20 if lap < 10 or lap >= 17 else 30)
            learner.saw([record(number, seen={"began": "b", "asked": f"a{probe}"}, probe=True)])
            learner.said([word(call_id(number), "success" if right else "failure", source="program")])
            events += [(lap, event.fell) for event in watching.hear(learner, learner.step(5_000.0))]
            number += 1
    assert events == [(10, True), (17, False)]


def test_other_speakers_and_signs_are_no_repeats() -> None:
    watching = Watching()
    assert asked(watching, 3, 0) == []
    known = watching.requests["small", "chat"]
    assert (len(known.once), len(known.again)) == (0, 60)
    learner = Learner(BASE)
    seen = {"began": "b", "asked": "a1"}
    for number, source in enumerate(("user", "verifier"), 50_000):
        learner.saw([record(number, seen=seen)])
        learner.said([word(call_id(number), source=source)])
    learner.saw([record(60_000, seen=seen, key="bob"), record(60_001, seen=seen)])
    learner.said([word(call_id(60_000), by="bob", source="program")])
    assert watching.hear(learner, learner.step(900_000.0)) == []
    assert watching.watches["small", "chat"].cell.labels == 184
    assert (len(known.once), len(known.again)) == (3, 60)  # of a call with signs alone nothing is remembered


def test_all_cells_together_remember_no_more_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those too that are not heard of any more when others come."""
    monkeypatch.setattr("app.learner.watching.IN_ALL", 60)
    watching = Watching()
    asked(watching, 1, 0)
    known = watching.requests["small", "chat"]
    for name in map(str, range(60)):
        known.probed(name, 1.0, 60)
    assert (len(known.once), len(known.since)) == (60, 60)
    assert heard(watching, 1.0, 20_000, 1, model="large") == []
    assert (len(known.once), len(known.since)) == (30, 30)


def test_another_model_under_an_old_name_has_no_past() -> None:
    watching = Watching()
    watching.saw(record(1))
    asked(watching, 2, 0)
    renamed = record(2)
    renamed["decision"]["candidates"][0]["stands_for"] = "small-v2"
    watching.saw(renamed)
    assert watching.requests == {}


def test_state_survives_json() -> None:
    watching = Watching()
    watching.saw(record(1))
    heard(watching, 0.92, 0, 300)
    heard(watching, 0.5, 1_000, 300)
    again = Watching.of_state(json.loads(json.dumps(watching.state())))
    assert again.down() == watching.down() != ()
    assert again.providers == {"small": "a", "large": "a"}
    asked(watching, 2, 10_020)
    watching.requests["small", "chat"].probed("x", 1.0, 10)
    again = Watching.of_state(json.loads(json.dumps(watching.state())))
    assert again.requests == watching.requests
    assert list(again.requests["small", "chat"].again) == list(watching.requests["small", "chat"].again)
    assert [state_of(w) for w in again.watches.values()] == [state_of(w) for w in watching.watches.values()]
    assert Watching.of_state({}).down() == ()


def test_what_is_laid_to_traffic_is_kept_from_nobody() -> None:
    found = [Quarantined("a", "code", 1.0, 0.9, 0.1, cause) for cause in (MODEL, TRAFFIC)]
    found.append(Quarantined("b", "math", 1.0, 0.9, 0.1, TRAFFIC))
    found.append(Quarantined("c", "code", 1.0, 0.9, 0.1, PROVIDER))
    assert kept_from(found) == {"code": {"a": (0.9, 0.8), "c": (0.9, 0.8)}}
    assert differ(found, found[1:])
    assert not differ(found, [*found])
