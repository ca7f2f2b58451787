"""Which requests are remembered, under what names, and that memory stays bounded."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from app.core.seen import Seen
from app.learner.again import SPEAKERS, Requests, name_of
from app.learner.labels import Call, Label
from app.learner.sources import SIGNS, TASK, VERIFIER
from routers.paired import NEW, then
from routers.quarantine import Past

CALL = Call("req", "alice", "m", True, 0.0, 1.0, seen=Seen("began", "asked"))
LABEL = Label("req", "m", "chat", VERIFIER, "alice", 2.0, 2.0, 1.0, 0.5, 1.0)


def after(*outcomes: float) -> int:
    history = NEW
    for outcome in outcomes:
        history = int(then(history, outcome))
    return history


def test_a_name_is_of_what_was_asked_and_of_who_speaks() -> None:
    name = name_of(CALL, LABEL)
    assert name == name_of(replace(CALL, request_id="other", created_s=9.0), replace(LABEL, share=0.0, said_s=9.0))
    others = [
        name_of(replace(CALL, seen=Seen("began", "other")), LABEL),
        name_of(replace(CALL, seen=Seen("other", "asked")), LABEL),
        name_of(CALL, replace(LABEL, key="bob")),
        name_of(CALL, replace(LABEL, source="user")),
    ]
    assert len({name, *others}) == 5
    assert "asked" not in name


@pytest.mark.parametrize("source", [*SIGNS, TASK + VERIFIER])
def test_what_is_not_clearly_of_one_answer_has_no_name(source: str) -> None:
    assert source not in SPEAKERS
    assert name_of(CALL, replace(LABEL, source=source)) == ""
    assert name_of(replace(CALL, seen=None), LABEL) == ""


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_what_is_no_evidence_has_no_name(share: float) -> None:
    """A speaker who is no better than chance: his good words must not be taken for failures."""
    assert name_of(CALL, replace(LABEL, high=0.0, low=0.0, share=share)) == ""


def test_histories_grow_and_nameless_requests_are_always_new() -> None:
    known = Requests()
    for outcome in (1.0, 0.0, 1.0):
        known.heard("a", outcome, 10, 0)
        known.heard("", outcome, 10, 0)
    assert known.past("a") == Past(after(1.0, 0.0, 1.0))
    assert known.past("") == known.past("b") == Past()
    assert len(known.once) + len(known.again) == 1


def test_in_quarantine_what_was_known_before_stays() -> None:
    known = Requests()
    known.heard("a", 1.0, 10, 0)
    for outcome in (0.0, 1.0, 0.0):
        known.probed("a", outcome, 10)
    known.probed("", 0.0, 10)
    assert known.past("a") == Past(after(1.0), 1, 3)
    assert list(known.since) == ["a"]


def test_memory_is_bounded_and_what_came_again_stays() -> None:
    known, probes = Requests(), [f"probe {n}" for n in range(20)]
    for _ in range(2):
        for probe in probes:
            known.heard(probe, 1.0, 100, 0)
    for number in range(5_000):
        known.heard(f"other {number}", 1.0, 100, 0)
        known.probed(f"other {number}", 1.0, 100)
    assert len(known.once) + len(known.again) == len(known.since) == 100
    assert all(known.past(probe) == Past(after(1.0, 1.0)) for probe in probes)
    assert [known.past(f"other {n}").history == NEW for n in (0, 4_919, 4_920, 4_999)] == [True, True, False, False]


def test_of_those_that_came_again_the_oldest_go_first() -> None:
    known = Requests()
    for number in range(200):
        known.heard(f"{number}", 1.0, 100, 0)
        known.heard(f"{number}", 1.0, 100, 0)
    assert (len(known.again), len(known.once)) == (50, 50)
    assert list(known.again) == [f"{n}" for n in range(150, 200)]
    assert list(known.once) == [f"{n}" for n in range(100, 150)]
    known.heard("0", 1.0, 20, 0)
    assert (len(known.again), len(known.once)) == (10, 10)


def test_outcomes_of_the_labels_in_which_a_cell_fell_are_taken_back() -> None:
    known = Requests()
    for at, name, outcome in ((1, "a", 1.0), (2, "b", 1.0), (3, "a", 1.0), (4, "a", 0.0), (5, "b", 0.0), (6, "c", 0.0)):
        known.heard(name, outcome, 10, at)
    again = Requests.of_state(json.loads(json.dumps(known.state())))
    again.take_back(3)
    assert (again.again, again.once) == ({"a": after(1.0, 1.0)}, {"b": after(1.0)})
    assert not again.latest
    for number in range(30):
        known.heard(f"{number}", 1.0, 8, 7 + number)
    assert len(known.latest) == 8
    known.take_back(0)
    assert (known.once, known.again) == ({}, {"a": after(1.0, 1.0, 0.0), "b": after(1.0, 0.0)})
