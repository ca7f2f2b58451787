"""From a stored trace to what a learner keeps of a call: whose it was, what it asked for, of which models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Annotated, Any, Final

import msgspec
import numpy as np

from app.core.feedback import task_thing
from app.learner.labels import Call, Label, call_of
from app.learner.signs import SETTLED_S
from app.learner.sources import Told
from routers.base import MAX_TIER, MIN_TIER, Arm, family_of
from routers.belief import Site
from routers.kinds import Demand
from routers.learned import LearnedRouter

NANO_PER_M: Final = 10**12
"""Dollars per 1,000 tokens to nano-dollars per million."""
HELD_ONE_IN: Final = 10
NEVER: Final = -1
FAR: Final = 1e6
"""Coordinates are a few standard deviations; what is beyond this is none of them."""


@dataclass(slots=True)
class Lesson:
    """One call and what it has taught so far. `arms`: those of the model that answered and of the one just cheaper, by
    name; `signs`: what showed, final once `settled`; `told`: what the labels rest on.

    `labels` are at most two, of the model that answered and a hint about the cheaper; `admitted` is what the guard left
    of each when it came, empty where the operator spoke: a key that is found out has labels of scale 0. `sites` are
    their evidence in the belief, none while the lesson is held out. `judged`: how often the guard heard it. `since`,
    `term`: the snapshots in force when it was first learned, and when it was learned or held out last; NEVER: not yet.
    """

    call: Call
    demand: Demand
    arms: dict[str, Arm]
    signs: tuple[Told, ...] = ()
    settled: bool = False
    told: tuple[Told, ...] = ()
    labels: tuple[Label, ...] = ()
    admitted: tuple[float, ...] = ()
    sites: tuple[Site, ...] = field(default=(), repr=False)
    judged: int = 0
    sources_heard: bool = False
    since: int = NEVER
    term: int = NEVER

    @property
    def task(self) -> str | None:
        """The name under which words on its task are kept."""
        return None if self.call.task_id is None else task_thing(self.call.key, self.call.task_id)

    @property
    def unit(self) -> str:
        """What its labels share their outcome with: its task, where what was said of that is among what they rest on;
        else it stands for itself."""
        task = self.task
        return task if task is not None and any(told.part < 1.0 for told in self.told) else self.call.request_id

    def settles(self, now_s: float) -> bool:
        """Whether every sign of its call has spoken by now."""
        return now_s >= self.call.ended_s + SETTLED_S

    def weigh(self, out: Set[str], cleared: Set[str]) -> None:
        """Let what keys that are found out said weigh nothing, what those that are cleared said all that their share
        allows, and what others said what it did when it came."""
        self.labels = tuple(
            replace(label, scale=0.0 if label.key in out else label.room if label.key in cleared else scale)
            for label, scale in zip(self.labels, self.admitted, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Learned:
    """A label as it was taken in. `first`: nothing was learned of this call before. `expected`: P(success) by the
    belief without it, and, where it is the first, without what else was learned of its unit."""

    request_id: str
    model: str
    task_type: str
    demand: Demand
    source: str
    key: str
    said_s: float
    expected: float
    outcome: float
    weight: float
    first: bool
    held: bool


class _Candidate(msgspec.Struct):
    model: str
    tier: int | None = None
    stands_for: str | None = None
    reasoning: bool = False
    p_success: float | None = None
    expected_cost_usd: float | None = None
    price_usd_per_1k: dict[str, Any] | None = None


class _Item(msgspec.Struct):
    weights: str | None = None
    ood: float = 1.0
    u: list[float] = []
    place: list[float] = []
    plain: bool = True


class _Decision(msgspec.Struct):
    route: str | None = None
    task_type: str | None = None
    item: _Item | None = None
    candidates: list[_Candidate] | None = None


class _Timings(msgspec.Struct):
    duration_ms: float | None = None


class _Trace(msgspec.Struct):
    """What a learner looks at in a trace, with its types; where names end in random digits, labels are held out by."""

    request_id: Annotated[str, msgspec.Meta(pattern="[0-9a-f]{6}$")]
    created_s: float
    key: str
    outcome: str
    model: str | None = None
    task_id: str | None = None
    requested_model: str | None = None
    decision: _Decision | None = None
    timings: _Timings | None = None


class Malformed(ValueError):
    """This is no trace that this version reads; the message says why."""


def lesson_of(record: Mapping[str, Any], base: LearnedRouter) -> Lesson | None:
    """What is kept of a trace; None where it can teach nothing: no candidates were seen, the client named a model that
    the policy does not list, or the cache answered. Raises Malformed."""
    try:
        msgspec.convert(record, _Trace)
        lesson = None if record.get("cached") else _lesson(record, base)
    except (msgspec.ValidationError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise Malformed(str(error)) from None
    if lesson is not None and not (isfinite(lesson.call.ended_s) and _in_reach(lesson.demand)):
        raise Malformed("numbers that are none")
    return lesson


def is_held(unit: str) -> bool:
    """Whether the labels of a unit are held out: by its name, which is a request's, whose last digits are random, or a
    task's, whose calls all have one outcome, so that none could judge what was learned of the others."""
    if unit.startswith("task:"):
        return hashlib.blake2b(unit.encode("utf-8", "surrogatepass"), digest_size=4).digest()[0] * HELD_ONE_IN < 256
    return int(unit[-6:], 16) % HELD_ONE_IN == 0


def order_of(lesson: Lesson) -> tuple[float, str]:
    """The order of calls."""
    return lesson.call.created_s, lesson.call.request_id


def _in_reach(demand: Demand) -> bool:
    return bool(max(np.abs(demand.u).max(initial=0.0), np.abs(demand.place).max(initial=0.0), demand.ood) < FAR)


def _lesson(record: Mapping[str, Any], base: LearnedRouter) -> Lesson | None:
    decision: Mapping[str, Any] = record.get("decision") or {}
    candidates: Sequence[Mapping[str, Any]] = decision.get("candidates") or ()
    call = call_of(record)
    arms = {c["model"]: arm_of(c) for c in candidates if c["model"] in (call.model, call.cheaper)}
    if call.model and (call.model not in arms or any(c.get("listed") is False for c in candidates)):
        return None
    return Lesson(call, demand_of(decision, base), arms)


def demand_of(decision: Mapping[str, Any], base: LearnedRouter) -> Demand:
    """What the request asked for, as its decision recorded it. Where it did not,
    or other weights read it, nothing of its text is known."""
    item: Mapping[str, Any] = decision.get("item") or {}
    ours = item.get("weights") == base.weights
    u: Sequence[float] = (item.get("u") or ()) if ours else ()
    return base.demand_of(
        u,
        item.get("place") or (),
        float(item.get("ood", 1.0)),
        decision.get("task_type") or "",
        plain=bool(item.get("plain", True)),
        read=bool(u),
    )


def arm_of(candidate: Mapping[str, Any]) -> Arm:
    """A candidate of a decision record as routers see it."""
    price: Mapping[str, Any] = candidate.get("price_usd_per_1k") or {}
    model = candidate.get("stands_for") or candidate["model"]
    return Arm(
        candidate["model"],
        min(max(int(candidate.get("tier") or MIN_TIER), MIN_TIER), MAX_TIER),
        family=family_of(model),
        input_rate=_rate(price.get("input")),
        output_rate=_rate(price.get("output")),
        reasoning=bool(candidate.get("reasoning")),
        model=model,
    )


def _rate(usd_per_1k: float | None) -> int | None:
    return None if usd_per_1k is None else round(usd_per_1k * NANO_PER_M)
