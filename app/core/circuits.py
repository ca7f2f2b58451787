"""What the processes under one ledger tell one another of circuits, and what each makes of it, pure.

A circuit that opened on a process's own evidence opens that of the others, unless they have had answers since. Who may
probe goes by turns, so that one probe of all processes is under way; an answer closes the circuit for all that had it
open on others' word alone, and lets the rest probe at once. (After a silence longer than all turns, calls that come to
several processes at once may all be probes.) Nobody's word lengthens what it has heard before: only one that says of
more openings does, so words that go round do not keep a circuit open; and where it is open on others' word alone, none
does, for it may be their network that fails: first this process sees for itself. Who has an answer then believes that,
for as long as the other's trouble lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from app.core.health import Breaker, Circuit, Health

TURN_S = 1.5
"""How much later the next process in turn may probe: words of the one before come within a second, a delay included."""
HELD_S = 2.0
"""How long a word that somebody probes, or that a circuit has closed, is good for."""


class Open(msgspec.Struct, frozen=True):
    """A circuit that is not closed: for how long yet (0: half-open, or open on others' word), after how many openings,
    and whether this process probes."""

    left_s: float
    opened: int
    probing: bool


class CircuitsWord(msgspec.Struct):
    """One process's word: its circuits that are not closed, and how often an answer has closed those that one has just
    closed."""

    process: str
    open: dict[str, Open]
    closed: dict[str, int]


class SharedCircuits:
    """One process's circuits among those of others. `known`: whether a candidate is one of its own."""

    def __init__(self, process: str, health: Health, known: Callable[[str], bool]) -> None:
        self._process = process
        self._health = health
        self._known = known
        self._recovered: dict[str, int] = {}
        self._closed: dict[str, float] = {}
        self._answered: dict[str, int] = {}
        self._answers: dict[str, float] = {}
        self._heard: dict[tuple[str, str], int] = {}
        self._before: dict[tuple[str, str], int] = {}  # answers of our own when a trouble was first heard of

    def word(self, now_s: float) -> CircuitsWord | None:
        """What there is to tell, None where all is well."""
        troubled: dict[str, Open] = {}
        breakers = self._health.breakers
        for name, breaker in breakers.items():
            if breaker.recovered != self._recovered.get(name, 0):
                self._recovered[name], self._closed[name] = breaker.recovered, now_s + HELD_S
            if breaker.answered != self._answered.get(name, 0):
                self._answered[name], self._answers[name] = breaker.answered, now_s + HELD_S
            if breaker.opened:
                left_s = 0.0 if breaker.adopted else max(breaker.open_until_s - now_s, 0.0)
                troubled[name] = Open(left_s, breaker.opened, now_s < breaker.probe_until_s)
        self._closed = {name: until_s for name, until_s in self._closed.items() if now_s < until_s}
        self._answers = {name: until_s for name, until_s in self._answers.items() if now_s < until_s}
        self._answered = {name: n for name, n in self._answered.items() if name in breakers}
        self._recovered = {name: n for name, n in self._recovered.items() if name in breakers}
        if not (troubled or self._closed):
            return None
        return CircuitsWord(self._process, troubled, {name: self._recovered.get(name, 0) for name in self._closed})

    def hear(self, words: Iterable[CircuitsWord], now_s: float) -> None:
        """Take the others' words, all there are now."""
        words = list(words)
        told = {(word.process, name): n for word in words for name, n in word.closed.items()}
        closed = {name for (process, name), n in told.items() if n != self._heard.get((process, name))}
        self._heard = told
        for name in closed:
            if (breaker := self._health.breakers.get(name)) is not None and breaker.opened:
                breaker.closed_elsewhere(now_s)
        troubles = [(word.process, name) for word in words for name in word.open]
        self._before = {trouble: self._before.get(trouble, self._answers_of(trouble[1])) for trouble in troubles}
        for name in {name for _, name in troubles} - closed:
            if self._known(name) and name not in self._closed and name not in self._answers:
                breaker, said = self._health.of(name), [(w.process, w.open[name]) for w in words if name in w.open]
                if not breaker.opened or breaker.adopted:  # what its own calls say counts for more
                    said = [each for each in said if breaker.answered <= self._before[each[0], name]]
                if said:
                    self._hear_of(breaker, said, now_s)

    def _answers_of(self, name: str) -> int:
        breaker = self._health.breakers.get(name)
        return 0 if breaker is None else breaker.answered

    def _hear_of(self, breaker: Breaker, told: list[tuple[str, Open]], now_s: float) -> None:
        most = max((one for _, one in told), key=lambda one: (one.left_s > 0, one.opened))
        if most.left_s > 0 and most.opened > breaker.opened and not breaker.adopted:
            breaker.opened_elsewhere(now_s + most.left_s, most.opened)
        if breaker.state(now_s) is Circuit.CLOSED:
            return
        if any(one.probing for _, one in told):
            breaker.hold_until_s, breaker.probed_s = now_s + HELD_S, now_s
        else:
            turn = sum(process < self._process for process, _ in told)
            breaker.hold_until_s = max(breaker.open_until_s, breaker.probed_s) + turn * TURN_S
