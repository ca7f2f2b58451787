"""Runs: what is compared for speed and cost. A run is a task with all its calls, or a call that belongs to none.

A run is passed where the best word on it says success: a person who judged beats a verifier, that the program, that a
user; of one speaker's kind the latest counts, and the task's own word beats those on its calls. Where nobody has
spoken, a run passed if its last call completed, showed no sign of failure, and no cap ended the run. What a cap or a
clock ended failed: it was not done for that money or time. What the provider's quota, rate limit or error ended, or
the client itself, says nothing of the model and counts neither way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from app.core.feedback import Feedback, Speaker, Turned, task_thing
from app.core.types import Outcome

UNKNOWN = "unknown"
"""Stands for a model, harness or task type that no record tells."""
NOT_MEASURED = -1.0
TIMELY_S = 600.0
"""A check speaks of success when it happens; one that speaks later than this after the last call was run at another
time, and measures nothing."""
KILLS = frozenset(
    {
        Outcome.COST_KILLED,
        Outcome.STEP_EXHAUSTED,
        Outcome.THRASH_KILLED,
        Outcome.TASK_TIMEOUT,
        Outcome.TIMEOUT,
    }
)
"""Ends that tell of ability: the work was not done within what it may take."""
_WORTH = {Speaker.HUMAN: 4, Speaker.VERIFIER: 3, Speaker.PROGRAM: 2, Speaker.USER: 1}
_PROMPT = frozenset({Speaker.VERIFIER, Speaker.PROGRAM})
"""These speak when it happens; people speak when they come to it."""


class CallPace(msgspec.Struct, frozen=True):
    """One finished call. Times are counted from its arrival at `created_s` (Unix time); 0: not measured, or recorded
    before it was. `generation_ms`: how long its output took. `killed_usd`: see the record's `cost_killed_at_usd`.
    `failed_signs`: its answer shows that it is no good (empty, refused, not the JSON asked for, wrong arguments);
    `generates`: it is no embedding."""

    request_id: str
    key: str
    task_id: str | None
    created_s: float
    duration_ms: float
    outcome: str
    model: str = ""
    harness: str = ""
    task_type: str = ""
    ttft_ms: float = 0.0
    first_attempt_ms: float = 0.0
    generation_ms: float = 0.0
    output_tokens: int = 0
    cost_usd: float | None = 0.0
    killed_usd: float | None = None
    failed_signs: bool = False
    generates: bool = True

    @property
    def ended_s(self) -> float:
        """When it ended, Unix time."""
        return self.created_s + self.duration_ms / 1000

    @property
    def killed(self) -> bool:
        """True where a cap or a clock ended it, or a budget that was used up let it not begin."""
        return self.outcome in KILLS or self.killed_usd is not None

    @property
    def answered(self) -> bool:
        """True for a turn: the model was heard, to its end or to a cap."""
        return (self.outcome == Outcome.COMPLETED and self.generates) or (
            self.outcome in KILLS and bool(self.output_tokens)
        )


def pace_of(record: Mapping[str, Any]) -> CallPace:
    """What a run needs of a stored trace."""
    timings, usage = record.get("timings") or {}, record.get("usage") or {}
    decision, seen = record.get("decision"), record.get("seen") or {}
    task_type = (decision or record.get("cached") or {}).get("task_type")
    return CallPace(
        request_id=record["request_id"],
        key=record["key"],
        task_id=record.get("task_id"),
        created_s=record["created_s"],
        duration_ms=timings.get("duration_ms") or 0.0,
        outcome=record["outcome"],
        model=record.get("model") or "",
        harness=record.get("harness") or "",
        task_type=task_type or "",
        ttft_ms=timings.get("ttft_ms") or 0.0,
        first_attempt_ms=timings.get("first_attempt_ms") or 0.0,
        generation_ms=timings.get("generation_ms") or 0.0,
        output_tokens=usage.get("output_tokens") or 0,
        cost_usd=record.get("cost_usd"),
        killed_usd=record.get("cost_killed_at_usd"),
        failed_signs=bool(seen.get("refused") or seen.get("empty"))
        or seen.get("shape_ok") is False
        or seen.get("arguments_ok") is False,
        generates=decision is not None or task_type is not None,
    )


@dataclass(frozen=True, slots=True)
class Run:
    """Times are in ms from the first call's arrival at `began_s`. `passed` None: it counts neither way. `judged`:
    somebody said how it turned out. `success_ms`: NOT_MEASURED where nobody told the moment. `first_token_ms`,
    `first_attempt_ms`, `tokens_per_sec`: 0 not measured. `turns`: answers until success, or in all. `cost_usd` None:
    not known. `killed_usd`: what was spent when a cap in dollars first ended it, None where none did."""

    key: str
    task_id: str | None
    began_s: float
    duration_ms: float
    model: str
    harness: str
    task_type: str
    outcome: str
    passed: bool | None
    judged: bool
    calls: int
    turns: int
    first_token_ms: float
    first_attempt_ms: float
    success_ms: float
    tokens_per_sec: float
    cost_usd: float | None
    killed_usd: float | None

    @property
    def time_to_success_ms(self) -> float:
        """The moment of success where it was measured, else how long all took."""
        return self.success_ms if self.success_ms > 0 else self.duration_ms


def run_of(calls: Sequence[CallPace], words: Mapping[str, Sequence[Feedback]]) -> Run:
    """The run of these calls, of which there is at least one, all of one task or one of none. `words`: what was said,
    by the thing it was said of."""
    steps = sorted(calls, key=lambda call: (call.created_s, call.request_id))
    first, last = steps[0], max(steps, key=lambda call: call.ended_s)
    word = deciding_word(steps, words)
    success_ms = NOT_MEASURED if word is None else _success_ms(word, first, last)
    until_s = first.created_s + success_ms / 1000 if success_ms > 0 else float("inf")
    killed = next((call for call in steps if call.killed), None)
    timed = [call for call in steps if call.generation_ms > 0]
    generated_ms = sum(call.generation_ms for call in timed)
    costs = [call.cost_usd for call in steps]
    return Run(
        key=first.key,
        task_id=first.task_id,
        began_s=first.created_s,
        duration_ms=(last.ended_s - first.created_s) * 1000,
        model=_most(steps, "model"),
        harness=_most(steps, "harness"),
        task_type=_most(steps, "task_type"),
        outcome=last.outcome if killed is None else killed.outcome,
        passed=_passed(word, killed, steps[-1]),
        judged=word is not None,
        calls=len(steps),
        turns=sum(call.answered and call.created_s <= until_s for call in steps),
        first_token_ms=_earliest(steps, "ttft_ms"),
        first_attempt_ms=_earliest(steps, "first_attempt_ms"),
        success_ms=success_ms,
        tokens_per_sec=sum(c.output_tokens for c in timed) / generated_ms * 1000 if generated_ms else 0.0,
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
        killed_usd=next((call.killed_usd for call in steps if call.killed_usd is not None), None),
    )


def things_of(calls: Iterable[CallPace]) -> list[str]:
    """What feedback on these calls of one run may be said of."""
    found: dict[str, None] = {}
    for call in calls:
        if call.task_id is not None:
            found[task_thing(call.key, call.task_id)] = None
        found[call.request_id] = None
    return list(found)


def deciding_word(calls: Sequence[CallPace], words: Mapping[str, Sequence[Feedback]]) -> Feedback | None:
    """The word by which the run is judged: see the module's rule. A key may speak of its own calls, an admin of all."""
    key = calls[0].key
    said = [word for thing in things_of(calls) for word in words.get(thing, ()) if word.admin or word.by == key]
    return max(said, key=lambda w: (w.thing.startswith("task:"), _WORTH[w.source], w.said_s), default=None)


def _success_ms(word: Feedback, first: CallPace, last: CallPace) -> float:
    if word.outcome is not Turned.SUCCESS or word.source not in _PROMPT:
        return NOT_MEASURED
    if not first.created_s < word.said_s <= last.ended_s + TIMELY_S:
        return NOT_MEASURED
    return (word.said_s - first.created_s) * 1000


def _passed(word: Feedback | None, killed: CallPace | None, last: CallPace) -> bool | None:
    if word is not None:
        return word.outcome is Turned.SUCCESS
    if last.outcome == Outcome.COMPLETED:  # a task that was cut, raised, and went on has not failed
        return not last.failed_signs
    return None if killed is None else False


def _earliest(calls: Sequence[CallPace], name: str) -> float:
    """The earliest of a moment that calls may have had, from the run's begin."""
    began_s = calls[0].created_s
    moments = [(call.created_s - began_s) * 1000 + ms for call in calls if (ms := getattr(call, name)) > 0]
    return min(moments, default=0.0)


def _most(calls: Sequence[CallPace], name: str) -> str:
    """The value under which most of the run's output was made; where none was, the last one told."""
    tokens: dict[str, int] = {}
    for call in calls:
        if value := getattr(call, name):
            made = tokens.pop(value, 0)
            tokens[value] = made + call.output_tokens
    return max(reversed(tokens), key=lambda value: tokens[value], default=UNKNOWN)
