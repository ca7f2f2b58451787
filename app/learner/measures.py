"""The ten measures of success: what each counts, per group of runs, with its interval and its target. Pure.

A run is a task with all its calls, or a call that belongs to none (`core/runs.py`). A run is *told* where somebody
said how it turned out, or a cap or a clock ended it; only told runs count as successes or failures, because what
nobody spoke of is not known. A run is *cheap* where a route sent its first call to a model of a lower tier than
another candidate that could have served, and *escalated* where a later call of it asked a model of a higher tier.

Each measure is a sum over runs divided by another. Where there are fewer cases than LEAST (what the divisor counts, or,
for tokens, the calls that they are of) it is said that there is not enough data, and no number is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from statistics import NormalDist
from typing import Any, Final

import numpy as np

from app.core.feedback import Correction, Feedback, Speaker, Turned
from app.core.runs import CallPace, Run, deciding_word, run_of, things_of
from app.core.types import Outcome
from app.learner.replay_estimates import LEVEL, NOTHING, Estimate, ratio

LEAST: Final = 20
NOT_ENOUGH, MET, MISSED, OPEN, NO_TARGET = "not enough data", "met", "missed", "open", "no target"
"""`open`: the interval holds the target, so that the data say neither."""
_DONE: Final = frozenset({Turned.SUCCESS, Turned.PARTIAL_SUCCESS, Turned.FALSE_DONE})


class Step(CallPace, frozen=True):
    """A finished call with what the measures need of it. `routed`: a route chose, not the client. `tier`: of the model
    that was asked, `top_tier`: the highest among candidates that could have served; None where no record tells.
    `input_tokens`: cached ones included; `saved_tokens`: those of a request that the policy's cache answered, of which
    nothing was sent. `began`: its conversation; `tools`: what tools were called with, "" none."""

    routed: bool = False
    tier: int | None = None
    top_tier: int | None = None
    input_tokens: int = 0
    cache_read_tokens: int = 0
    began: str = ""
    tools: str = ""
    tool_failed: bool = False
    arguments_ok: bool | None = None
    truncated: bool = False
    saved_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Judged:
    """A run with its calls in order, and what may be heard of them."""

    run: Run
    steps: tuple[Step, ...]
    words: tuple[Feedback, ...]
    deciding: Feedback | None

    @classmethod
    def of(cls, steps: Iterable[Step], words: Mapping[str, Sequence[Feedback]]) -> Judged:
        """The run of these calls, of which there is at least one."""
        ordered = tuple(sorted(steps, key=lambda step: (step.created_s, step.request_id)))
        key = ordered[0].key
        heard = [w for thing in things_of(ordered) for w in words.get(thing, ()) if w.admin or w.by == key]
        return cls(run_of(ordered, words), ordered, tuple(heard), deciding_word(ordered, words))

    @property
    def told(self) -> bool:
        """Whether it is known how it turned out."""
        return self.run.judged or (self.run.passed is False and any(step.killed for step in self.steps))

    @property
    def cheap(self) -> bool:
        """Whether a route began it with less than it could have."""
        first = self.steps[0]
        return first.routed and first.tier is not None and first.top_tier is not None and first.tier < first.top_tier

    @property
    def escalated(self) -> bool:
        """Whether a stronger model was asked later."""
        tiers = [step.tier for step in self.steps if step.tier is not None]
        return bool(tiers) and max(tiers) > tiers[0]

    @property
    def false_done(self) -> bool:
        """Whether it was called done and was not: the deciding word says so, or says that it failed where another
        word says that it was done."""
        if self.deciding is None or self.deciding.outcome is Turned.FALSE_DONE:
            return self.deciding is not None
        return self.deciding.outcome is Turned.FAILURE and self.called_done

    @property
    def called_done(self) -> bool:
        """Whether somebody said that it was done, or that it was said to be."""
        return any(word.outcome in _DONE for word in self.words)

    @property
    def wanted_stronger(self) -> bool:
        """Whether somebody said that a stronger model should have been used."""
        return any(word.correction is Correction.SHOULD_HAVE_USED_STRONGER for word in self.words)


Part = tuple[float, float]
"""What one run adds above and below the line."""
Count = Callable[[Judged], Part | None]
"""None: the run says nothing of this measure."""


def cost_per_successful_task(one: Judged) -> Part | None:
    """Dollars per successful task. Above: what all told runs cost, failures included. Below: those that succeeded.
    Runs whose cost is not known are left out."""
    return (one.run.cost_usd, float(one.run.passed is True)) if one.told and one.run.cost_usd is not None else None


def cost_per_artifact(one: Judged) -> Part | None:
    """Dollars per artifact. Above: what all runs cost. Below: whole answers with something to use in them: text, or a
    tool call that writes; completed, not cut off, empty, refused, or of another shape than was asked for."""
    made = sum(s.outcome == Outcome.COMPLETED and _is_artifact(s) for s in one.steps)
    return (one.run.cost_usd, float(made)) if one.run.cost_usd is not None else None


def task_success_rate(one: Judged) -> Part | None:
    """Share. Above: runs that succeeded. Below: told runs."""
    return (float(one.run.passed is True), 1.0) if one.told else None


def false_done_rate(one: Judged) -> Part | None:
    """Share. Above: runs that were called done and were not. Below: runs that somebody called done."""
    return (float(one.false_done), 1.0) if one.called_done else None


def unsafe_cheap_miss_rate(one: Judged) -> Part | None:
    """Share. Above: those that were called done and were not, or that somebody says a stronger model should have had:
    what the cheaper model got wrong and nothing caught. Below: told cheap runs that were not escalated."""
    if not (one.told and one.cheap) or one.escalated:
        return None
    return float(one.false_done or one.wanted_stronger), 1.0


def missed_escalation_rate(one: Judged) -> Part | None:
    """Share. Above: told cheap runs that did not succeed, or should have had a stronger model, and never got one.
    Below: these, and the cheap runs that were escalated: all that needed it."""
    if not (one.told and one.cheap):
        return None
    missed = not one.escalated and (one.run.passed is not True or one.wanted_stronger)
    return (float(missed), 1.0) if missed or one.escalated else None


def cache_hit_rate(one: Judged) -> Part | None:
    """Share of tokens. Above: input tokens that the provider read from its prompt cache, or that the policy's cache of
    replies answered. Below: all input tokens of completed calls."""
    steps = [step for step in one.steps if step.outcome == Outcome.COMPLETED]
    below = sum(step.input_tokens + step.saved_tokens for step in steps)
    return (float(sum(step.cache_read_tokens + step.saved_tokens for step in steps)), float(below)) if below else None


def calls_with_input(one: Judged) -> float:
    """Completed calls of which it is known what was sent."""
    return float(
        sum(step.outcome == Outcome.COMPLETED and step.input_tokens + step.saved_tokens > 0 for step in one.steps)
    )


def tool_call_efficiency(one: Judged) -> Part | None:
    """Share. Above: answers that called tools to some use: with arguments that fit, not the same call again, no
    failure reported for it by the next request, and nobody said that the tool was not needed. Below: all completed
    answers that called tools."""
    calling = [step for step in one.steps if step.tools and step.outcome == Outcome.COMPLETED]
    needless = {word.thing for word in one.words if word.correction is Correction.TOOL_NOT_NEEDED}
    useful = sum(_is_useful(step, one.steps) and step.request_id not in needless for step in calling)
    return (float(useful), float(len(calling))) if calling else None


def verifier_pass_rate(one: Judged) -> Part | None:
    """Share. Above: calls and tasks that a verifier's latest word calls a success. Below: those it spoke of."""
    latest = {w.thing: w for w in sorted(one.words, key=lambda w: w.said_s) if w.source is Speaker.VERIFIER}
    passed = sum(word.outcome is Turned.SUCCESS for word in latest.values())
    return (float(passed), float(len(latest))) if latest else None


def latency_per_task(one: Judged) -> Part | None:
    """Seconds, the median of runs with a completed call: from the arrival of the first call to the end of the last."""
    answered = any(step.outcome == Outcome.COMPLETED for step in one.steps)
    return (one.run.duration_ms / 1000.0, 1.0) if answered else None


@dataclass(frozen=True, slots=True)
class Definition:
    """How a measure is told. `most`: what it cannot pass. `target`: the value it should be below (or above, where more
    is better), None where nobody set one. `cases`: of a run, where they are not what stands below the line."""

    count: Count
    unit: str
    most: float | None = None
    more_is_better: bool = False
    target: float | None = None
    median: bool = False
    cases: Callable[[Judged], float] | None = None


MEASURES: Final[Mapping[str, Definition]] = {
    "cost_per_successful_task": Definition(cost_per_successful_task, "usd"),
    "cost_per_artifact": Definition(cost_per_artifact, "usd"),
    "task_success_rate": Definition(task_success_rate, "share", 1.0, more_is_better=True),
    "false_done_rate": Definition(false_done_rate, "share", 1.0),
    "unsafe_cheap_miss_rate": Definition(unsafe_cheap_miss_rate, "share", 1.0, target=0.02),
    "missed_escalation_rate": Definition(missed_escalation_rate, "share", 1.0, target=0.05),
    "cache_hit_rate": Definition(cache_hit_rate, "share", 1.0, more_is_better=True, cases=calls_with_input),
    "tool_call_efficiency": Definition(tool_call_efficiency, "share", 1.0, more_is_better=True),
    "verifier_pass_rate": Definition(verifier_pass_rate, "share", 1.0, more_is_better=True),
    "latency_per_task": Definition(latency_per_task, "s", median=True),
}


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure of a group: a value with its 95 % interval, None where there is not enough data; what it stands on;
    and how that compares with the target."""

    unit: str
    value: float | None
    low: float | None
    high: float | None
    numerator: float
    denominator: float
    target: float | None
    status: str

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {name: getattr(self, name) for name in self.__slots__}


def measured(runs: Sequence[Judged], targets: Mapping[str, float] | None = None) -> dict[str, Measure]:
    """All measures of these runs; `targets` by name go before the definitions' own."""
    given = targets or {}
    return {name: _measure(how, runs, given.get(name, how.target)) for name, how in MEASURES.items()}


def _measure(how: Definition, runs: Sequence[Judged], target: float | None) -> Measure:
    parts = [part for part in map(how.count, runs) if part is not None]
    above, below = sum(part[0] for part in parts), sum(part[1] for part in parts)
    if (below if how.cases is None else sum(map(how.cases, runs))) < LEAST:
        return Measure(how.unit, None, None, None, above, below, target, NOT_ENOUGH)
    if how.median:
        found = _median([part[0] for part in parts])
    elif how.most is not None and all(part[1] == 1.0 and part[0] in (0.0, 1.0) for part in parts):
        found = wilson(above, below)
    else:
        found = _ratio(parts, how.most)
    low, high = (x if isfinite(x) else None for x in (found.low, found.high))
    return Measure(how.unit, found.value, low, high, above, below, target, _status(found, target, how))


def _status(found: Estimate, target: float | None, how: Definition) -> str:
    if target is None:
        return NO_TARGET
    low, high = (-found.high, -found.low) if how.more_is_better else (found.low, found.high)
    goal = -target if how.more_is_better else target
    return MET if high < goal else MISSED if low > goal else OPEN


def wilson(successes: float, n: float) -> Estimate:
    """A share of independent runs with Wilson's interval (1927, https://doi.org/10.1080/01621459.1927.10502953)."""
    z = NormalDist().inv_cdf((1.0 + LEVEL) / 2.0)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Estimate(p, max(min(centre - reach, p), 0.0), min(max(centre + reach, p), 1.0))


def _ratio(parts: Sequence[Part], most: float | None) -> Estimate:
    above, below = np.array(parts).T
    found = ratio(above, below, np.arange(len(parts)))
    if found is NOTHING:  # one run alone: its value is known, and nothing of how it varies
        return Estimate(float(above.sum() / below.sum()), float("nan"), float("nan"))
    return found.within(0.0, float("inf") if most is None else most, float(len(parts)))


def _median(values: Sequence[float]) -> Estimate:
    """The median, between the order statistics that hold it with 95 % (Conover, Practical Nonparametric Statistics)."""
    ordered, n = sorted(values), len(values)
    reach = NormalDist().inv_cdf((1.0 + LEVEL) / 2.0) * sqrt(n) / 2.0
    low, high = max(int(n / 2 - reach), 0), min(int(n / 2 + reach) + 1, n - 1)
    return Estimate(float(np.median(ordered)), ordered[low], ordered[high])


def _is_artifact(step: Step) -> bool:
    return step.first_attempt_ms > 0.0 and not (step.failed_signs or step.truncated)


def _is_useful(step: Step, steps: Sequence[Step]) -> bool:
    same = [other for other in steps if other.began == step.began]
    place = same.index(step)
    before = next((other for other in reversed(same[:place]) if other.tools), None)
    after = same[place + 1] if place + 1 < len(same) else None
    repeated = before is not None and before.tools == step.tools
    failed = after is not None and after.tool_failed
    return step.arguments_ok is not False and not repeated and not failed
