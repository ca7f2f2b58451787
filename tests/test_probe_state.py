"""What `bursar probe` keeps: a run goes on only while it is the same and not long ago, and no word is lost."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from app.commands.ending import Refused
from app.commands.probe_state import GOES_ON_S, Answered, Begun, Kept, Round, State, Store, Told, new_run


def always(_: Begun) -> bool:
    return True


def answered(call: str, right: bool | None = True) -> Answered:
    return Answered(call, "m", f"{call}#1", right, "math", 5)


def broken_off(path: Path, at_s: float) -> Begun:
    """A run with three answers, of which one was told of, and one says nothing."""
    begun = msgspec.structs.replace(new_run("set", "auto", ["m"], 7), at_s=at_s)
    with Store(path).run(always, begun) as (_, journal):
        for line in (answered("a"), Told("a"), answered("b", False), answered("c", None)):
            journal.note(line)
    return begun


def test_a_run_goes_on_with_what_was_answered_and_what_is_untold(tmp_path: Path) -> None:
    path = tmp_path / "state"
    begun = broken_off(path, time.time() - 60.0)
    with Store(path).run(always, new_run("set", "auto", ["m"], 7)) as (state, journal):
        assert journal.begun == begun
        assert set(journal.answers) == {("m", "a#1"), ("m", "b#1"), ("m", "c#1")}
        assert (journal.untold, state.untold) == ({"b": False}, {})


@pytest.mark.parametrize("age_s", [GOES_ON_S + 60.0, -3600.0])
def test_one_of_long_ago_or_of_the_future_is_over_and_its_words_are_kept(tmp_path: Path, age_s: float) -> None:
    path = tmp_path / "state"
    begun = broken_off(path, time.time() - age_s)
    new = new_run("set", "auto", ["m"], 7)
    with Store(path).run(always, new) as (state, journal):
        assert journal.begun == new != begun
        assert (journal.answers, journal.untold, state.untold) == ({}, {}, {"b": False})
    assert Store(path).state().untold == {"b": False}


def test_another_run_does_not_go_on(tmp_path: Path) -> None:
    path = tmp_path / "state"
    broken_off(path, time.time())
    new = new_run("other set", "auto", ["m"], 7)
    with Store(path).run(lambda other: other.probes == new.probes, new) as (state, journal):
        assert (journal.begun, state.untold) == (new, {"b": False})


def test_one_that_was_reported_and_killed_then_is_over(tmp_path: Path) -> None:
    path = tmp_path / "state"
    begun = broken_off(path, time.time())
    done = Round(begun.run, begun.at_s, {"a#1": True})
    Store(path).keep(State(models={"m": Kept(done, done)}))
    new = new_run("set", "auto", ["m"], 7)
    with Store(path).run(always, new) as (state, journal):
        assert journal.begun == new
        assert state.models["m"].last == done


@pytest.mark.parametrize(
    ("text", "problem"), [("{", "is not what an earlier run has left"), ('{"format": 2}', "version")]
)
def test_a_state_that_cannot_be_read_is_refused_and_stays(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "state"
    path.write_text(text)
    with pytest.raises(Refused, match=problem), Store(path).run(always, new_run("set", "auto", ["m"], 7)):
        pass
    assert path.read_text() == text


def test_a_run_that_ended_leaves_its_state_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "state")
    with store.run(always, new_run("set", "auto", ["m"], 7)) as (state, journal):
        journal.note(answered("a"))
        store.keep(state)
        store.ended(journal)
    assert sorted(file.name for file in (tmp_path / "deep").iterdir()) == ["state", "state.run"]
    assert (tmp_path / "deep" / "state.run").read_bytes() == b""
