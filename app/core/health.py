"""Circuit breakers, pure: time is an argument, state is a small machine per candidate.

closed --(failures in a row)--> open --(cooldown)--> half-open: one probe --ok--> closed | --fail--> open.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

FAILURES_TO_OPEN = 3
"""Failures in a row before a candidate is left out: one may be chance, three are a pattern."""
COOLDOWN_S = 5.0
MAX_COOLDOWN_S = 120.0
MAX_OPENED = 16
"""Openings counted: the cooldown doubles with each, and is at its longest well before."""
PROBE_LIMIT_S = 30.0
"""A probe whose outcome never came back frees its place after this long."""

MAX_BREAKERS = 4096
"""Clients name unlisted models: beyond this many, the breakers that have nothing to say are forgotten."""


class Circuit(IntEnum):
    """The state, as the metric shows it."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(slots=True)
class Breaker:
    """The circuit of one candidate. `answered`: how often its upstream has answered, `recovered`: how often that closed
    the circuit, which others are to hear; `adopted`: it is open on the word of others alone; `hold_until_s`: until then
    another process probes, or is in turn to (`core/circuits.py`); `probed_s`: when one was last heard to; `why`: what
    failed last here, for the log."""

    failures: int = 0
    opened: int = 0
    open_until_s: float = 0.0
    probe_until_s: float = 0.0
    hold_until_s: float = 0.0
    probed_s: float = 0.0
    answered: int = 0
    recovered: int = 0
    adopted: bool = False
    why: str = ""

    @property
    def left_out_for(self) -> str:
        """What is known of why it is left out."""
        return "another process has seen it fail" if self.adopted else self.why

    def state(self, now_s: float) -> Circuit:
        """The state at this monotonic time."""
        if self.failures < FAILURES_TO_OPEN and not self.opened:
            return Circuit.CLOSED
        return Circuit.OPEN if now_s < self.open_until_s else Circuit.HALF_OPEN

    def available(self, now_s: float) -> bool:
        """True when a request may be sent: closed, or half-open with no probe under way."""
        if not self.opened and self.failures < FAILURES_TO_OPEN:
            return True  # closed, as nearly all are: seen without a call
        half_open = self.state(now_s) is Circuit.HALF_OPEN
        return half_open and now_s >= self.probe_until_s and now_s >= self.hold_until_s

    def wait_s(self, now_s: float) -> float:
        """How long it stays open, as far as that is known: a probe under way may end at any moment."""
        return max(self.open_until_s - now_s, 0.0)

    def sent(self, now_s: float) -> None:
        """A request goes out; in half-open it is the probe."""
        if self.opened:
            self.probe_until_s = now_s + PROBE_LIMIT_S

    def succeeded(self) -> None:
        """The upstream answered: the circuit closes."""
        self.answered += 1
        if self.opened:
            self.recovered += 1
            self.adopted, self.hold_until_s = False, 0.0
        self.failures = self.opened = 0
        self.probe_until_s = 0.0

    def opened_elsewhere(self, until_s: float, opened: int) -> None:
        """Another process has opened its circuit, for so long, after so many openings: this one opens too."""
        self.adopted = self.adopted or not self.opened
        self.failures = max(self.failures, FAILURES_TO_OPEN)
        self.opened, self.open_until_s = min(opened, MAX_OPENED), until_s

    def closed_elsewhere(self, now_s: float) -> None:
        """Another process has had an answer: what was open on others' word closes, the rest may probe now."""
        if self.adopted:
            self.failures = self.opened = 0
            self.adopted = False
        self.open_until_s, self.hold_until_s = min(self.open_until_s, now_s), 0.0

    def failed(self, now_s: float, retry_after_s: float | None = None, why: str = "") -> None:
        """The upstream failed by its own fault. A `Retry-After` opens the circuit at once for that long."""
        self.why = why
        was_open = self.state(now_s) is Circuit.OPEN
        self.failures += 1
        self.probe_until_s, self.adopted = 0.0, False
        wait_s = min(max(retry_after_s or 0.0, 0.0), MAX_COOLDOWN_S)
        if was_open:
            # A request sent before the circuit opened: old news, unless it says how long to wait.
            self.open_until_s = max(self.open_until_s, now_s + wait_s)
        elif self.failures >= FAILURES_TO_OPEN or self.opened or retry_after_s is not None:
            self.opened = min(self.opened + 1, MAX_OPENED)
            if self.failures >= FAILURES_TO_OPEN:
                wait_s = max(wait_s, min(COOLDOWN_S * 2 ** (self.opened - 1), MAX_COOLDOWN_S))
            self.open_until_s = now_s + wait_s


@dataclass(slots=True)
class Health:
    """The breakers of all candidates; one is made when its candidate first fails or is asked for."""

    breakers: dict[str, Breaker] = field(default_factory=dict)

    def of(self, candidate: str) -> Breaker:
        """The breaker of a candidate."""
        breaker = self.breakers.get(candidate)
        if breaker is None:
            if len(self.breakers) >= MAX_BREAKERS:
                self.breakers = {name: b for name, b in self.breakers.items() if b.failures or b.opened}
            breaker = self.breakers[candidate] = Breaker()
        return breaker

    def available(self, candidate: str, now_s: float) -> bool:
        """May this candidate be asked now?"""
        breaker = self.breakers.get(candidate)
        return breaker is None or breaker.available(now_s)

    def wait_s(self, candidates: Iterable[str], now_s: float) -> float:
        """How long it is until the first of those of them that are left out may be asked."""
        found = [self.breakers[name].wait_s(now_s) for name in candidates if name in self.breakers]
        return min((wait_s for wait_s in found if wait_s > 0), default=0.0)

    def keep(self, candidates: frozenset[str]) -> None:
        """Forget the breakers of candidates that the policy no longer has."""
        for name in self.breakers.keys() - candidates:
            del self.breakers[name]
