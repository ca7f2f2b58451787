"""Choosing one among scored candidates, by the objective of a route. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from app.core.policy import Candidate, Route
from routers.base import Score


class Considered(msgspec.Struct):
    """One candidate as one router saw it: its score, expected cost in nano-dollars (None: unpriced), the verdict."""

    candidate: Candidate
    score: Score
    expected_nano: int | None
    verdict: str


def choose(rules: Route, options: Sequence[Considered]) -> tuple[Considered, str]:
    """The best of at least one option, and why it is. Between equals the cheaper wins, then the lower tier."""
    if rules.objective == "quality":
        return _best_within(rules.max_expected_nano or 0, options)
    if rules.objective == "utility":
        return _most_useful(rules.success_value_nano or 0, options)
    adequate = [option for option in options if option.score.p_success >= rules.adequacy]
    if adequate:
        cheapest = adequate[0] if len(adequate) == 1 else min(adequate, key=cost_key)
        return cheapest, "cheapest with P(success) at or above adequacy"
    return min(options, key=_doubt_key), "none is adequate: likeliest to succeed"


def sure_of(rules: Route, chosen: Considered, options: Sequence[Considered]) -> bool:
    """Whether a router is sure enough of its choice. One that is not adequate is taken for want of a better, so of the
    others it must be sure, too: else a model that is known to fail would be kept for ever, and none tried in its place.
    """
    least, score = rules.min_confidence, chosen.score
    if rules.objective == "cheapest_adequate" and score.p_success < rules.adequacy:
        return min(option.score.confidence for option in options) >= least
    return score.confidence >= least


def _best_within(limit_nano: int, options: Sequence[Considered]) -> tuple[Considered, str]:
    """An unpriced model fits no limit: what is not known is not zero."""
    fitting = [o for o in options if o.expected_nano is not None and o.expected_nano <= limit_nano]
    if fitting:
        return min(fitting, key=_doubt_key), "likeliest to succeed within max_expected_cost_usd"
    return min(options, key=cost_key), "none is expected to cost less than max_expected_cost_usd: the cheapest"


def _most_useful(value_nano: int, options: Sequence[Considered]) -> tuple[Considered, str]:
    def loss(option: Considered) -> tuple[float, tuple[bool, int, int]]:
        return (option.expected_nano or 0) - option.score.p_success * value_nano, cost_key(option)

    priced = [option for option in options if option.expected_nano is not None]
    if priced:
        return min(priced, key=loss), "largest P(success) * success_value_usd - expected cost"
    return min(options, key=_doubt_key), "no price is known: likeliest to succeed"


IN_QUARANTINE: Final = "in quarantine for this kind of work"
PASSED_OVER: Final = "passed over to explore"
NOT_SURELY_BETTER: Final = "not surely better than the baseline"
COULD_SERVE: Final = frozenset(
    {
        IN_QUARANTINE,
        PASSED_OVER,
        NOT_SURELY_BETTER,
        "chosen",
        "fallback",
        "not named",
        "less likely to succeed",
        "over max_expected_cost_usd",
        "less useful",
        "no price",
        "adequate, dearer",
        "below adequacy",
    }
)
"""The verdicts on candidates that nothing but the choice stood against; every other one says what ruled it out."""


def passed_over(rules: Route | None, option: Considered) -> str:
    """Why an option that could have served was not chosen."""
    if rules is None:
        return "not named"
    if rules.objective == "quality":
        fits = option.expected_nano is not None and option.expected_nano <= (rules.max_expected_nano or 0)
        return "less likely to succeed" if fits else "over max_expected_cost_usd"
    if rules.objective == "utility":
        return "less useful" if option.expected_nano is not None else "no price"
    return "adequate, dearer" if option.score.p_success >= rules.adequacy else "below adequacy"


def name_verdicts(
    rules: Route | None, usable: Sequence[Considered], chosen: Considered, backups: Sequence[Candidate]
) -> None:
    """Say of every usable candidate what became of it; the rest keep what ruled them out."""
    names = {backup.name for backup in backups}
    for seen in usable:
        seen.verdict = "fallback" if seen.candidate.name in names else passed_over(rules, seen)
    chosen.verdict = "chosen"


def cost_key(option: Considered) -> tuple[bool, int, int]:
    """Order by expected cost, unpriced last."""
    return option.expected_nano is None, option.expected_nano or 0, option.candidate.tier


def _doubt_key(option: Considered) -> tuple[float, tuple[bool, int, int]]:
    return -option.score.p_success, cost_key(option)
