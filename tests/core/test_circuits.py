"""Circuits among processes: one that opens opens the others', probes go by turns, an answer closes all, and nobody's
word keeps a circuit open."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.circuits import HELD_S, TURN_S, CircuitsWord, Open, SharedCircuits
from app.core.health import COOLDOWN_S, FAILURES_TO_OPEN, MAX_COOLDOWN_S, Circuit, Health

EVERY_S, TICK_S = 0.5, 0.1
FRESH_S = 3.5


@dataclasses.dataclass
class Process:
    """One process: its breakers, and what it is heard to say. `off_s`: when in each half second it tells and hears."""

    name: str
    off_s: float = 0.0
    alive: bool = True
    health: Health = dataclasses.field(default_factory=Health)
    told: tuple[float, CircuitsWord] | None = None
    probing_until_s: float | None = None

    def __post_init__(self) -> None:
        self.shared = SharedCircuits(self.name, self.health, lambda name: name == "m")

    def state(self, now_s: float) -> Circuit:
        return self.health.of("m").state(now_s)


class House:
    """Processes under one ledger (or each alone), whose calls take `takes_s` to fail or to be answered."""

    def __init__(self, count: int, *, alone: bool = False, takes_s: float = 0.0, seed: int = 0) -> None:
        chance = random.Random(seed)
        self.processes = [Process(f"p{n}", chance.choice((0.0, 0.1, 0.2, 0.3, 0.4))) for n in range(count)]
        self.alone, self.takes_s = alone, takes_s
        self.now_s, self.dead = 0.0, True
        self.failed: list[float] = []
        self.most_at_once = 0

    def talk(self, process: Process) -> None:
        if self.alone or not process.alive:
            return
        word = process.shared.word(self.now_s)
        if word is not None or process.told is not None:
            process.told = (self.now_s, word or CircuitsWord(process.name, {}, {}))
        fresh = [p.told for p in self.processes if p is not process and p.told is not None]
        process.shared.hear([word for at_s, word in fresh if self.now_s - at_s < FRESH_S], self.now_s)

    def call(self, process: Process) -> bool:
        """A call of this process, where its circuit lets one through. True: it was sent."""
        breaker = process.health.of("m")
        if not process.alive or not breaker.available(self.now_s) or process.probing_until_s is not None:
            return False
        breaker.sent(self.now_s)
        process.probing_until_s = self.now_s + self.takes_s
        under_way = sum(p.probing_until_s is not None and p.health.of("m").opened > 0 for p in self.processes)
        self.most_at_once = max(self.most_at_once, under_way)
        self._end(process)
        return True

    def _end(self, process: Process) -> None:
        if process.probing_until_s is None or self.now_s < process.probing_until_s - 1e-9:
            return
        process.probing_until_s = None
        if self.dead:
            process.health.of("m").failed(self.now_s)
            self.failed.append(self.now_s)
        else:
            process.health.of("m").succeeded()

    def run(self, seconds: float, callers: list[Process] | None = None) -> None:
        """Time passes; each of these processes sends whenever it may."""
        for _ in range(round(seconds / TICK_S)):
            self.now_s = round(self.now_s + TICK_S, 6)
            for process in self.processes:
                self._end(process)
            for process in self.processes if callers is None else callers:
                self.call(process)
            for process in self.processes:
                if round((self.now_s - process.off_s) / TICK_S) % round(EVERY_S / TICK_S) == 0:
                    self.talk(process)

    def open(self, process: Process) -> None:
        for _ in range(FAILURES_TO_OPEN):
            self.call(process)
        assert process.state(self.now_s) is Circuit.OPEN


@pytest.mark.parametrize("seed", range(20))
def test_one_open_circuit_opens_all_others_within_a_second(seed: int) -> None:
    house = House(4, seed=seed)
    house.open(house.processes[2])
    house.run(1.0, [])
    assert {process.state(house.now_s) for process in house.processes} == {Circuit.OPEN}
    assert len(house.failed) == FAILURES_TO_OPEN
    # Not for longer than where it opened, but for what a word takes.
    house.run(COOLDOWN_S, [])
    assert {process.state(house.now_s) for process in house.processes} == {Circuit.HALF_OPEN}


@pytest.mark.parametrize("takes_s", [0.0, 3.0])
@pytest.mark.parametrize("count", [2, 5, 12])
def test_probes_do_not_multiply_by_processes(count: int, takes_s: float) -> None:
    """An outage of ten minutes that one process sees first, all with calls enough to probe whenever they may; each of
    the others sees for itself once."""
    one, house, alone = House(1, takes_s=takes_s), House(count, takes_s=takes_s), House(count, alone=True)
    for each in (one, house, alone):
        each.takes_s, takes = 0.0, each.takes_s
        each.open(each.processes[0])
        each.takes_s = takes
        each.run(1.0, [])
        each.run(600.0)
    assert len(house.failed) <= len(one.failed) + count - 1
    assert house.most_at_once == 1
    assert len(alone.failed) >= count * len(one.failed)


@pytest.mark.parametrize("seed", range(10))
def test_an_answer_closes_all_within_a_second(seed: int) -> None:
    house = House(5, seed=seed)
    house.open(house.processes[0])
    house.run(4.0)
    house.dead = False
    house.run(COOLDOWN_S, [house.processes[3]])  # the others have no calls
    house.run(1.0 + 3 * TURN_S, [house.processes[3]])
    assert {process.state(house.now_s) for process in house.processes} <= {Circuit.CLOSED, Circuit.HALF_OPEN}
    assert all(process.health.of("m").available(house.now_s) for process in house.processes)
    house.run(2.0)
    assert {process.state(house.now_s) for process in house.processes} == {Circuit.CLOSED}
    failed = len(house.failed)
    house.run(30.0)
    assert {process.state(house.now_s) for process in house.processes} == {Circuit.CLOSED}
    assert len(house.failed) == failed


def test_who_has_had_an_answer_believes_that() -> None:
    """One process's own network may be what fails."""
    sick, well = (house := House(2)).processes
    for _ in range(60):
        house.dead = True
        house.call(sick)
        house.dead = False
        assert house.call(well)
        house.run(0.5, [])
    assert sick.state(house.now_s) is not Circuit.CLOSED
    assert well.state(house.now_s) is Circuit.CLOSED


@pytest.mark.parametrize("gap_s", [0.5, 2.0, 20.0])
@pytest.mark.parametrize("takes_s", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_one_process_with_a_network_that_fails_does_not_stop_another(gap_s: float, takes_s: float, seed: int) -> None:
    """Ten minutes in which the calls of one fail and those of the other, which come by chance, are answered."""
    sick, well = (house := House(2, takes_s=takes_s, seed=seed)).processes
    chance, refused = random.Random(seed), 0
    for _ in range(6000):
        house.now_s = round(house.now_s + TICK_S, 6)
        for process, house.dead in ((sick, True), (well, False)):
            house._end(process)
            if process is sick:
                house.call(process)
            elif chance.random() < TICK_S / gap_s and process.probing_until_s is None:
                refused += not house.call(process)
            if round((house.now_s - process.off_s) / TICK_S) % round(EVERY_S / TICK_S) == 0:
                house.talk(process)
    assert sick.state(house.now_s) is not Circuit.CLOSED
    assert refused <= 2 + 3 * COOLDOWN_S / gap_s


def test_a_process_whose_calls_fail_is_not_closed_by_anothers_answers_but_may_probe_at_once() -> None:
    one, other = (house := House(2)).processes
    for process in house.processes:
        house.open(process)
    assert not one.health.of("m").adopted
    house.run(COOLDOWN_S, [])
    house.dead = False
    house.call(other if other.health.of("m").available(house.now_s) else one)
    house.run(1.0, [])
    assert all(process.health.of("m").available(house.now_s) for process in house.processes)
    assert Circuit.HALF_OPEN in {process.state(house.now_s) for process in house.processes}


def test_who_dies_while_it_probes_leaves_the_probe_to_others() -> None:
    house = House(3, takes_s=20.0)
    prober, *rest = house.processes
    house.takes_s = 0.0
    house.open(prober)
    house.takes_s = 20.0
    house.run(COOLDOWN_S + 1, [prober])
    assert prober.probing_until_s is not None
    house.run(2.0)
    assert all(process.probing_until_s is None for process in rest)  # it is under way
    prober.alive, prober.probing_until_s = False, None
    house.run(FRESH_S + HELD_S + 2 * TURN_S, rest)
    assert sum(process.probing_until_s is not None for process in rest) == 1


def test_where_nobody_is_heard_each_goes_alone() -> None:
    told, alone = House(3), House(3, alone=True)
    for house in (told, alone):
        house.open(house.processes[0])
        house.run(1.0, [])
    told.alone = True  # the store has died
    for process in told.processes[1:]:
        assert process.state(told.now_s) is Circuit.OPEN
    told.run(COOLDOWN_S + HELD_S + 2 * TURN_S, [])
    assert all(process.health.of("m").available(told.now_s) for process in told.processes)
    told.run(60.0)
    alone.run(60.0)
    assert len(told.failed) <= len(alone.failed)


def test_words_that_go_round_do_not_keep_a_circuit_open() -> None:
    house = House(6)
    for process in house.processes:
        house.open(process)
    until_s = [process.health.of("m").open_until_s for process in house.processes]
    house.run(COOLDOWN_S - 0.5, [])
    assert [process.health.of("m").open_until_s for process in house.processes] == until_s


def test_nobodys_word_is_taken_of_a_candidate_that_is_not_known() -> None:
    process = Process("p")
    process.shared.hear([CircuitsWord("q", {"x": Open(5.0, 1, False)}, {})], 0.0)
    assert process.health.breakers == {}
    assert process.shared.word(0.0) is None


@given(
    seed=st.integers(0, 2**20),
    count=st.integers(1, 5),
    does=st.lists(
        st.tuples(st.sampled_from(["call", "wait", "dies", "dead", "well", "deaf"]), st.integers(0, 4)), max_size=60
    ),
)
def test_whatever_is_said_a_circuit_lets_a_probe_through_in_the_end(
    seed: int, count: int, does: list[tuple[str, int]]
) -> None:
    house = House(count, seed=seed)
    for what, which in does:
        process = house.processes[which % count]
        if what == "call":
            for _ in range(which + 1):
                house.call(process)
        elif what == "wait":
            house.run(1.0 + which, [])
        elif what == "dies":
            process.alive = count == 1 or sum(p.alive for p in house.processes) == 1
        elif what == "deaf":
            house.alone = not house.alone
        else:
            house.dead = what == "dead"
    house.run(MAX_COOLDOWN_S + FRESH_S + HELD_S + count * TURN_S + 1.0, [])
    alive = [process for process in house.processes if process.alive]
    assert all(process.health.of("m").available(house.now_s) for process in alive)
    house.dead = False
    house.run(10.0 + count * TURN_S)
    assert {process.state(house.now_s) for process in alive} == {Circuit.CLOSED}
