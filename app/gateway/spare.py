"""Sparing a kind of work the models that became worse at it, where another will do; and probing whether they are back.

A model in quarantine is passed over where another candidate is adequate. Where none is, and by a route's other
objectives, it is believed to succeed no more than it did since it fell. Of the calls that it would have if it were as
it was, a fixed share goes to it all the same: these are the probes. By its score alone nobody would look whether it is
back, for what is learned of the fall is in there, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from app.core.policy import Route
from app.core.quarantined import Fell
from app.gateway.choose import IN_QUARANTINE, Considered, choose
from routers.base import Score
from routers.probes import PROBE_SHARE, probes

NOBODY: Final[Mapping[str, Fell]] = {}
ADEQUATE: Final = "cheapest_adequate"


class Spares:
    """The models to spare one request."""

    __slots__ = ("down", "probing")

    def __init__(self, down: Mapping[str, Fell], unit: str) -> None:
        self.down, self.probing = down, probes(unit)

    def choose(
        self, rules: Route, options: Sequence[Considered], chosen: Considered, reason: str
    ) -> tuple[Considered, str, float, Considered | None]:
        """The choice, why, the probability that this draw of probes or none makes it, and what the other draw makes
        (None: the same): another one than `chosen` where that is in quarantine and another will do; or a probe of the
        one that would be chosen, if it were as it was."""
        before, told = self._before(rules, options)
        if before.candidate.name not in self.down:
            return chosen, reason, 1.0, None
        other, why = self._instead(rules, options)
        if other is before:
            return other, why, 1.0, None
        if self.probing:
            return before, f"{told}; {probe_of(before)}", PROBE_SHARE, other
        return other, f"{why}; {before.candidate.name} is {IN_QUARANTINE}", 1.0 - PROBE_SHARE, before

    def _before(self, rules: Route, options: Sequence[Considered]) -> tuple[Considered, str]:
        """The choice, and why, if none had fallen."""
        return _chosen(rules, options, [self._at(option, 0, max) for option in options])

    def _instead(self, rules: Route, options: Sequence[Considered]) -> tuple[Considered, str]:
        kept = [option for option in options if option.candidate.name not in self.down]
        if kept and rules.objective == ADEQUATE:
            other, why = choose(rules, kept)
            if other.score.p_success >= rules.adequacy:
                return other, why
        return _chosen(rules, options, [self._at(option, 1, min) for option in options])

    def _at(self, option: Considered, when: int, bound: Callable[[float, float], float]) -> Considered:
        """An option as if it succeeded as it did before it fell (0), or since (1), or by its score, whichever is more,
        or less."""
        fell = self.down.get(option.candidate.name)
        if fell is None:
            return option
        score = option.score
        other = Score(bound(score.p_success, fell[when]), score.confidence, score.output_tokens)
        return Considered(option.candidate, other, option.expected_nano, option.verdict)

    def name(self, usable: Sequence[Considered], chosen: Considered) -> None:
        """Say of those that are in quarantine that they are."""
        for seen in usable:
            if seen.candidate.name in self.down and seen is not chosen and seen.verdict != "fallback":
                seen.verdict = IN_QUARANTINE


def probe_of(option: Considered) -> str:
    """Why an option in quarantine is asked all the same."""
    return f"a probe: {option.candidate.name} is {IN_QUARANTINE}"


def _chosen(rules: Route, options: Sequence[Considered], seen: Sequence[Considered]) -> tuple[Considered, str]:
    """The option that is chosen where each is `seen` so, and why."""
    best, why = choose(rules, seen)
    return next(option for option, one in zip(options, seen, strict=True) if one is best), why
