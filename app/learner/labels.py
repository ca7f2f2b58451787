"""Labels: what was said of a call and what showed, as evidence that a learner can use.

A label carries the evidence itself (log odds), since what it teaches depends on what was expected: `told` turns it
into an outcome and a weight for `routers.abilities.update`. These are chosen so that the update's gradient is exactly
that of the likelihood of what was said, given how reliable its sources are: with noisy sources the estimates then
still go to the true success rate, where "0.8 of a success" for every word of a source that errs in a fifth of cases
would pull all models towards 0.5.

A call that did not complete (cut, client gone, any error) gets no label, whatever is said of it; what a task's outcome
is to its calls, `learner/credit.py` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from app.core.feedback import Correction, Feedback, Turned
from app.core.seen import Seen
from app.core.types import Outcome
from app.gateway.target import HELD
from app.learner.sources import MAX_LOG_ODDS, SIGNS, Sources, Told, logit, strongest
from routers.abilities import logistic

CHEAPER_STRENGTH: Final = 0.25
"""What "a stronger model was not needed" says of the next cheaper candidate, which nobody has seen try."""
EXPECTED: Final = (0.05, 0.95)
"""What was expected counts within these: certainty must not make a router deaf."""
UNKNOWN: Final = 0.5
CORRECTION: Final = "correction"

_GOOD: Final = {
    Turned.SUCCESS: (1.0, 1.0),
    Turned.PARTIAL_SUCCESS: (0.5, 1.0),
    Turned.FAILURE: (0.0, 1.0),
    Turned.FALSE_DONE: (0.0, 1.0),
    Turned.ESCALATED_HUMAN: (0.0, 0.8),
    Turned.BLOCKED: (0.0, 0.3),
}
"""How good, and the share of the evidence that counts: what blocks a task is often not the model."""
_GRADED: Final = {
    Turned.SUCCESS: (0.5, 1.0),
    Turned.PARTIAL_SUCCESS: (0.0, 1.0),
    Turned.FAILURE: (0.0, 0.5),
}
"""Outcomes for which a score, where there is one, says how good: within these, for a score that contradicts its outcome
may be on another scale."""


@dataclass(frozen=True, slots=True)
class Call:
    """What labels need of a trace. `expected`: the router's P(success) of the model that answered, UNKNOWN where it
    said none. `cheaper`: the candidate just below it in expected cost, None where there is none. `by_hand`: the client
    named a model, and no route. `goes_on`: with the model of an open tool loop, so that nothing was chosen. `stopped`:
    a cap, a clock, the provider or the gateway ended it, or let it not begin: neither its answer nor its client did.
    `probe`: one of a fixed set of requests that comes again and again."""

    request_id: str
    key: str
    model: str
    completed: bool
    created_s: float
    ended_s: float
    task_id: str | None = None
    task_type: str = ""
    requested: str = ""
    expected: float = UNKNOWN
    cheaper: str | None = None
    by_hand: bool = False
    goes_on: bool = False
    stopped: bool = False
    seen: Seen | None = None
    probe: bool = False


class Evidence(NamedTuple):
    """What some words say together of a call; each field as in `Label`."""

    high: float
    low: float
    share: float
    part: float


@dataclass(frozen=True, slots=True)
class Label:
    """What one call teaches of one model. The request's features are those of the trace `request_id`.

    `high`, `low`: log odds that the call was good, if the graded words among what was said are taken as good, and as
    bad; `share`: how good they say it was. Where nothing was graded both are the same. `source`: the strongest that
    spoke; `key`: who spoke it, whose influence `learner/guard.py` bounds. `part` in [0, 1]: the share of a whole label
    that it is. `scale` in [0, 1] is what the guard left, `room` what it would have left, had it no doubt in who spoke.
    `sides`: what was said of the call itself, and of its task, where both were spoken of; they teach one beside the
    other, for mixed a task's word would count whole for each of its calls.
    """

    request_id: str
    model: str
    task_type: str
    source: str
    key: str
    high: float
    low: float
    share: float
    expected: float
    said_s: float
    scale: float = 1.0
    room: float = 1.0
    part: float = 1.0
    sides: tuple[Evidence, ...] = ()

    @property
    def outcome(self) -> float:
        """The outcome in [0, 1], against what was expected at the time."""
        return self.told(self.expected)[0]

    @property
    def weight(self) -> float:
        """How many clear outcomes it stands for, against what was expected at the time."""
        return self.told(self.expected)[1]

    @property
    def said(self) -> float:
        """How good the answer was by what was said of it, in [0, 1], as it stands: for one who compares it with what
        the same speaker said before, whose errors are then as likely as ever."""
        high, low, share, _ = self._sides[0]
        return share if high > 0.0 > low else float(high > 0.0)

    @property
    def _sides(self) -> tuple[Evidence, ...]:
        return self.sides or (Evidence(self.high, self.low, self.share, self.part),)

    def told(self, expected: float) -> tuple[float, float]:
        """Outcome in [0, 1] and weight for one who expects success with this probability: what it changes in that
        belief, in each direction, as a share of the most that it could. A weight is in [0, 1], and below 2 where the
        call and its task were spoken of."""
        p = min(max(expected, EXPECTED[0]), EXPECTED[1])
        rise = fall = 0.0
        for high, low, share, part in self._sides:
            for much, odds in ((share, high), (1.0 - share, low)):
                change = logistic(logit(p) + odds) - p
                if change >= 0.0:
                    rise += part * much * change / (1.0 - p)
                else:
                    fall -= part * much * change / p
        weight = rise + fall
        return (rise / weight if weight else p), weight * self.scale


def call_of(record: Mapping[str, Any]) -> Call:
    """What labels need of a stored trace."""
    decision = record.get("decision") or {}
    model = record.get("model")
    candidates: Sequence[Mapping[str, Any]] = decision.get("candidates") or ()
    chosen = next((c for c in candidates if c["model"] == model), None)
    seen = record.get("seen")
    created_s = float(record["created_s"])
    duration_ms = (record.get("timings") or {}).get("duration_ms") or 0.0
    return Call(
        request_id=record["request_id"],
        key=record["key"],
        model=model or "",
        completed=record["outcome"] == Outcome.COMPLETED and model is not None,
        created_s=created_s,
        ended_s=created_s + duration_ms / 1000.0,
        task_id=record.get("task_id"),
        task_type=decision.get("task_type") or "",
        requested=record.get("requested_model") or "",
        expected=UNKNOWN if chosen is None or not chosen.get("p_success") else float(chosen["p_success"]),
        cheaper=None if chosen is None else _cheaper(chosen, candidates),
        by_hand=decision.get("route") is None,
        goes_on=decision.get("reason") == HELD,
        stopped=record["outcome"] not in (Outcome.COMPLETED, Outcome.CLIENT_GONE),
        seen=None if not seen else Seen.of_json(seen),
        probe=bool(record.get("probe")),
    )


def _cheaper(chosen: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> str | None:
    cost = chosen.get("expected_cost_usd")
    if cost is None:
        return None
    below = [c for c in candidates if c.get("expected_cost_usd") is not None and c["expected_cost_usd"] < cost]
    return max(below, key=lambda c: float(c["expected_cost_usd"]), default={"model": None})["model"]


def told_of(word: Feedback) -> Told:
    """A word about a call, as evidence. Some corrections say more of the call than the outcome beside them."""
    good, strength = _GOOD[word.outcome]
    if word.score is not None and word.outcome in _GRADED:
        least, most = _GRADED[word.outcome]
        good = min(max(word.score, least), most)
    if word.correction is Correction.SHOULD_HAVE_USED_STRONGER:
        good, strength = 0.0, 1.0
    elif word.correction is Correction.STOPPED_TOO_EARLY:
        good, strength = min(good, 0.5), max(strength, 0.8)
    return Told(str(word.source), good, word.by, strength)


def label_of(call: Call, told: Sequence[Told], sources: Sources, said_s: float) -> Label | None:
    """Everything known of one call as one label; None where nobody spoke and nothing showed, or it did not complete."""
    best = strongest(told)
    if best is None or not call.completed:
        return None
    high, low, share, part = _evidence(told, sources)
    own, of_task = ([word for word in told if (word.part < 1.0) is shared] for shared in (False, True))
    return Label(
        request_id=call.request_id,
        model=call.model,
        task_type=call.task_type,
        source=best.source,
        key=best.key,
        high=high,
        low=low,
        share=share,
        expected=call.expected,
        said_s=said_s,
        part=part,
        sides=(_evidence(own, sources), _evidence(of_task, sources)) if of_task and _spoken(own) else (),
    )


def _evidence(told: Sequence[Told], sources: Sources) -> Evidence:
    """Some words on one call, taken together: a whole label, where one that somebody spoke is. What only showed goes
    with them: as a label of its own, that nothing bad showed in many calls would outweigh what their task came to."""
    graded = [word for word in told if 0.0 < word.good < 1.0]
    sure = sum(sources.log_odds(word, word.good == 1.0) for word in told if word not in graded)
    high = sure + sum(sources.log_odds(word, True) for word in graded)
    low = sure + sum(sources.log_odds(word, False) for word in graded)
    trusts = [sources.reliability(word.source, word.key).informed * word.strength for word in graded]
    share = sum(t * w.good for t, w in zip(trusts, graded, strict=True)) / sum(trusts) if sum(trusts) else 1.0
    part = max((word.part for word in _spoken(told)), default=1.0)
    return Evidence(_bounded(high), _bounded(low), share, part)


def _spoken(told: Iterable[Told]) -> list[Told]:
    """Those that somebody said: signs only show."""
    return [word for word in told if word.source not in SIGNS]


def hint_of(call: Call, word: Feedback, sources: Sources) -> Label | None:
    """What "a stronger model was not needed" teaches of the next cheaper candidate; None for every other word."""
    if word.correction is not Correction.STRONGER_NOT_NEEDED or call.cheaper is None or not call.completed:
        return None
    odds = sources.log_odds(Told(str(word.source), 1.0, word.by, CHEAPER_STRENGTH), True)
    return Label(
        request_id=call.request_id,
        model=call.cheaper,
        task_type=call.task_type,
        source=CORRECTION,
        key=word.by,
        high=odds,
        low=odds,
        share=1.0,
        expected=UNKNOWN,
        said_s=word.said_s,
    )


def _bounded(odds: float) -> float:
    return min(max(odds, -MAX_LOG_ODDS), MAX_LOG_ODDS)
