"""What a run of `bursar probe` says and keeps, on made-up answers."""

from __future__ import annotations

import random
from collections.abc import Mapping

from app.commands.probe_checks import Check
from app.commands.probe_report import ALL_WORK, kept_after, report, sorted_otherwise, told_by_name
from app.commands.probe_set import Probe
from app.commands.probe_state import Answered, Begun, State

ALPHA = 0.01


def a_set(count: int) -> list[Probe]:
    return [Probe(f"p{n}", "", {}, Check(equals="x"), f"p{n}#1") for n in range(count)]


def answers(
    probes: list[Probe], wrong: set[int], works: int = 1, cost: int | None = 7
) -> dict[tuple[str, str], Answered]:
    return {
        ("m", probe.name): Answered(f"req_{n}", "m", probe.name, n not in wrong, f"work {n % works}", cost, "math")
        for n, probe in enumerate(probes)
    }


def begun(run: str = "probe-1") -> Begun:
    return Begun(run, 1.0, "set", "auto", ["m"], 10**9)


def after(
    probes: list[Probe], said: Mapping[tuple[str, str], Answered], before: State, run: str, *, accept: bool = False
) -> State:
    return kept_after(probes, begun(run), said, before, ALPHA, accept=accept)


def test_a_little_lost_at_each_kind_of_work_is_seen_in_all_together() -> None:
    probes = a_set(60)
    first = after(probes, answers(probes, set(), 4), State(), "probe-1")
    found = report(probes, ["m"], answers(probes, set(range(12)), 4), first, ALPHA)
    assert [(line.work, len(line.lost), line.worse) for line in found.lines] == [
        ("work 0", 3, False), ("work 1", 3, False), ("work 2", 3, False), ("work 3", 3, False), (ALL_WORK, 12, True),
    ]  # fmt: skip
    assert found.worse == ("m",)
    assert [text.partition(":")[0] for text in told_by_name(found)] == [f"m work {n}" for n in range(4)]
    assert sum(line.cost_nano or 0 for line in found.lines[:-1]) == found.lines[-1].cost_nano == 7 * 60


def test_seven_lost_of_one_kind_are_enough_alone_and_not_among_many() -> None:
    probes = a_set(60)
    first = after(probes, answers(probes, set()), State(), "probe-1")
    (line,) = report(probes, ["m"], answers(probes, set(range(7))), first, ALPHA).lines
    assert (line.worse, line.p) == (True, 1 / 128)
    kinds = after(probes, answers(probes, set(), 6), State(), "probe-1")
    lost = {n for n in range(42) if n % 6 == 0}
    found = report(probes, ["m"], answers(probes, lost, 6), kinds, ALPHA)
    assert len(lost) == 7
    assert not found.worse


def test_each_run_is_compared_with_the_first_until_one_after_a_better_one() -> None:
    probes = a_set(40)
    state = after(probes, answers(probes, set(range(10))), State(), "probe-1")
    state = after(probes, answers(probes, set(range(11))), state, "probe-2")
    assert (state.models["m"].base.run, state.models["m"].last.run) == ("probe-1", "probe-2")
    state = after(probes, answers(probes, set()), state, "probe-3")
    assert state.models["m"].base.run == "probe-1"
    fallen = after(probes, answers(probes, set(range(20))), state, "probe-4")
    assert fallen.models["m"].base.run == "probe-1"
    state = after(probes, answers(probes, {0, 1}), state, "probe-4")
    assert state.models["m"].base.run == "probe-4"
    state = after(probes, answers(probes, set(range(20))), state, "probe-5")
    assert state.models["m"].base.run == "probe-4"
    assert (
        after(probes, answers(probes, set(range(20))), state, "probe-6", accept=True).models["m"].base.run == "probe-6"
    )


def test_a_model_that_stays_as_it_is_looks_no_worse_the_longer_it_is_watched() -> None:
    """Of many runs one is lucky. Compared with that one, all later ones would look like a fall."""
    probes, rng = a_set(40), random.Random(2)
    alarms = 0
    for _ in range(200):
        state = State()
        for day in range(100):
            said = answers(probes, {n for n in range(40) if rng.random() < 0.5})
            alarms += bool(report(probes, ["m"], said, state, ALPHA).worse)
            state = after(probes, said, state, f"probe-{day}")
    assert 0 < alarms <= ALPHA * 200 * 100


def test_requests_that_are_new_join_and_those_that_are_gone_leave() -> None:
    state = after(a_set(3), answers(a_set(3), {0}), State(), "probe-1")
    state = after(a_set(5)[1:], answers(a_set(5)[1:], {3}), state, "probe-2")
    assert state.models["m"].base.right == {"p1#1": True, "p2#1": True, "p3#1": True, "p4#1": False}
    (line,) = report(a_set(5), ["m"], answers(a_set(5), {4}), state, ALPHA).lines
    assert (line.lost, line.won) == ((), ())


def test_what_is_not_known_is_not_made_up() -> None:
    probes = a_set(4)
    said = answers(probes, set(), cost=None)
    said["m", "p0#1"] = Answered("req_0", "m", "p0#1", None, "work 0", None, "", "timeout")
    del said["m", "p3#1"]
    found = report(probes, ["m", "other"], said, State(), ALPHA)
    assert [(line.model, line.asked, line.cost_nano) for line in found.lines] == [("m", 2, None), ("other", 0, 0)]
    assert found.lines[0].row()[-2] == "unknown"
    assert (found.unjudged, found.unasked) == ({("m", "timeout"): 1}, {"m": 1, "other": 4})
    assert found.silent == ("other",)
    state = after(probes, said, State(), "probe-1")
    assert state.models["m"].last.cost_nano is None
    assert "other" not in state.models


def test_where_the_gateway_sorts_otherwise_it_is_said() -> None:
    said = answers(a_set(3), set())
    assert sorted_otherwise(said.values()) == ["work 0: the gateway sorts it as math (3)"]
    assert sorted_otherwise([Answered("r", "m", "p", True, "math", 0, "math")]) == []
