"""Sparing a kind of work the models that became worse at it, where another will do; and probing whether they are back.

A model in quarantine is passed over where another candidate is adequate. Where none is, and by a route's other
objectives, it is believed to succeed no more than it did since it fell. A fixed share of traffic goes by the scores
alone: these are the probes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from app.core.policy import Route
from app.gateway.choose import IN_QUARANTINE, Considered, choose
from routers.base import Score
from routers.probes import PROBE_SHARE, probes

NOBODY: Final[Mapping[str, float]] = {}
ADEQUATE: Final = "cheapest_adequate"


class Spares:
    """The models to spare one request, and for which routers that changed the choice."""

    __slots__ = ("_down", "_probing", "_swayed")

    def __init__(self, down: Mapping[str, float], unit: str) -> None:
        self._down, self._probing = down, probes(unit)
        self._swayed: set[str] = set()

    def choose(
        self, router: str, rules: Route, options: Sequence[Considered], chosen: Considered, reason: str
    ) -> tuple[Considered, str]:
        """The choice, and why: another one than `chosen` where that is in quarantine and another will do."""
        if chosen.candidate.name not in self._down:
            return chosen, reason
        other, why = self._instead(rules, options)
        if other is chosen:
            return chosen, reason
        self._swayed.add(router)
        if self._probing:
            return chosen, f"{reason}; a probe: {chosen.candidate.name} is {IN_QUARANTINE}"
        return other, f"{why}; {chosen.candidate.name} is {IN_QUARANTINE}"

    def _instead(self, rules: Route, options: Sequence[Considered]) -> tuple[Considered, str]:
        kept = [option for option in options if option.candidate.name not in self._down]
        if kept and rules.objective == ADEQUATE:
            other, why = choose(rules, kept)
            if other.score.p_success >= rules.adequacy:
                return other, why
        lowered = [self._lowered(option) for option in options]
        best, why = choose(rules, lowered)
        return options[lowered.index(best)], why

    def _lowered(self, option: Considered) -> Considered:
        most = self._down.get(option.candidate.name)
        score = option.score
        if most is None or score.p_success <= most:
            return option
        lower = Score(most, score.confidence, score.output_tokens)
        return Considered(option.candidate, lower, option.expected_nano, option.verdict)

    def share(self, router: str) -> float:
        """The probability that this draw of probes or none makes this router's choice."""
        if router not in self._swayed:
            return 1.0
        return PROBE_SHARE if self._probing else 1.0 - PROBE_SHARE

    def name(self, usable: Sequence[Considered], chosen: Considered) -> None:
        """Say of those that are in quarantine that they are."""
        for seen in usable:
            if seen.candidate.name in self._down and seen is not chosen and seen.verdict != "fallback":
                seen.verdict = IN_QUARANTINE
