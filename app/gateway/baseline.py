"""A route that keeps to the model its operator uses today until another is surely better, kind of work by kind.

Of the route's candidates those are left to choose from of which the learned router believes, with the probability that
the policy asks for, that the route's objective prefers them to the baseline; and the baseline itself. Of a model of
which no outcome was heard, weights and outcomes of other models are sure of nothing. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from app.core.policy import Baseline, Route
from app.core.quarantined import Fell
from app.gateway.choose import Considered, choose, cost_key
from app.gateway.odds import chance_of
from routers.base import Arm
from routers.features import Features
from routers.thompson import logit

if TYPE_CHECKING:  # numpy costs 100 ms to import, and only the learned router needs it
    from routers.live import LiveRouter

SUREST: Final = 0.999
"""The most that a model in quarantine is taken to have succeeded before."""


class Believed(NamedTuple):
    """The mean and standard deviation of what is believed of a candidate's logit on a request; `heard`: whether any
    outcome of it was learned here, be it at another kind of work."""

    mean: float
    spread: float
    heard: bool = True


def baseline_of(rules: Route, options: Sequence[Considered]) -> Considered | None:
    """The option that the route keeps to; None where there is none: it cannot serve, or is nothing that the objective
    could choose."""
    if rules.baseline is None:
        return None
    found = next((one for one in options if one.candidate.name == rules.baseline.model), None)
    return found if found is not None and _eligible(rules, found) else None


def surely_better(
    rules: Route,
    baseline: Considered,
    options: Sequence[Considered],
    drawn: Mapping[str, Believed] | None,
    down: Mapping[str, Fell],
) -> tuple[list[Considered], list[Considered]]:
    """The baseline and those that are surely better, in their order; and those that are better by what is expected, but
    not surely. `drawn`: what is believed of each; None: nothing is. What was never heard of is not surely better: all
    that is believed of it comes from other models. One in quarantine counts as it was before it fell: what becomes of
    it is not decided here."""
    sure = rules.baseline.sure if rules.baseline is not None else 1.0
    left: list[Considered] = []
    unsure: list[Considered] = []
    for option in options:
        if option is baseline:
            left.append(option)
        elif _eligible(rules, option) and (_preferred(rules, option, baseline) or option.candidate.name in down):
            name = option.candidate.name
            surely = drawn is not None and drawn[name].heard and _chance(rules, option, baseline, drawn, down) >= sure
            (left if surely else unsure).append(option)
    return left, unsure


def believed(router: Any, features: Features, arms: tuple[Arm, ...]) -> dict[str, Believed] | None:
    """What a router believes of each arm; None where it has learned of none of them yet."""
    if not hasattr(router, "drawn"):
        return None
    live: LiveRouter = router
    heard = live.heard(arms)
    if not any(heard):
        return None
    mean, variance = live.drawn(features, arms)
    each = zip(arms, mean.tolist(), variance.tolist(), heard, strict=True)
    return {arm.name: Believed(middle, sqrt(squared), told) for arm, middle, squared, told in each}


def why_kept(baseline: Baseline, *, learned: bool) -> str:
    """Why a call goes to the baseline."""
    if not learned:
        return f"{baseline.model}, the baseline: nothing was learned from outcomes yet"
    return f"{baseline.model}, the baseline: no other is better with a probability of {baseline.sure:g}"


def why_left(baseline: Baseline, reason: str) -> str:
    """Why a call goes elsewhere."""
    return f"{reason}, of those better than {baseline.model}, the baseline, with a probability of {baseline.sure:g}"


def _eligible(rules: Route, option: Considered) -> bool:
    if rules.objective == "quality":
        return option.expected_nano is not None and option.expected_nano <= (rules.max_expected_nano or 0)
    return rules.objective != "utility" or option.expected_nano is not None


def _preferred(rules: Route, option: Considered, baseline: Considered) -> bool:
    return choose(rules, sorted((option, baseline), key=cost_key))[0] is option


def _chance(
    rules: Route,
    option: Considered,
    baseline: Considered,
    drawn: Mapping[str, Believed],
    down: Mapping[str, Fell],
) -> float:
    """The probability that the objective prefers an option to the baseline."""
    pair = sorted((option, baseline), key=cost_key)
    means = [_mean(drawn[one.candidate.name], down.get(one.candidate.name)) for one in pair]
    return chance_of(rules, pair, means, [drawn[one.candidate.name].spread for one in pair], pair.index(option))


def _mean(said: Believed, fell: Fell | None) -> float:
    return said.mean if fell is None else max(said.mean, logit(min(fell[0], SUREST)))
