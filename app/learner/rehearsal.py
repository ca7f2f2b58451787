"""Deciding recorded calls again, by another policy or router, with the code that decides live ones. Pure.

What a trace holds is enough: the counts of the request's features, what it demanded, the estimate of its input, what
it asked for. Its text is not: what a router would read there comes from the record (`recall`).

Not decided again is what depends on the moment: caps and what is left of them, retries, exploration (what is replayed
is what the policy thinks best), providers' health (who could not be asked then cannot be asked now), and which calls
there are at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from app.core.errors import BursarError
from app.core.money import NANO_PER_USD
from app.core.policy import LEARNED, Candidate
from app.core.types import ChatRequest, Placement, Prompt
from app.gateway.decide import Decision, decide
from app.gateway.target import Target, followed_by, resolve
from app.gateway.view import View
from app.learner.lesson import demand_of
from app.learner.replay_calls import UNAVAILABLE, Recorded
from routers.features import Features, of_counts
from routers.kinds import Demand
from routers.learned import LearnedRouter
from routers.probes import PROBE_SHARE, probes
from routers.tasks import TASK_TYPES, TaskGuess, TaskType


@dataclass(frozen=True, slots=True)
class Would:
    """What the other policy would do with one call. `shares`: the probability of each choice, together 1; empty: it
    would not serve it, and `refused` says why. `p_success`, `cost_usd`: what is expected of each candidate."""

    shares: Mapping[str, float]
    p_success: Mapping[str, float]
    cost_usd: Mapping[str, float]
    refused: str = ""


@runtime_checkable
class Recalling(Protocol):
    """A router that can be told what a request demanded."""

    def recall(self, features: Features, demand: Demand) -> None:
        """See `LearnedRouter.recall`."""


class Rehearsal:
    """Decides again on a view of its own. `base` reads what was recorded of demands; None: there are no weights."""

    def __init__(self, view: View, base: LearnedRouter | None) -> None:
        self._view, self._base = view, base
        self._now = TaskGuess(TaskType.CHAT, 1.0)
        self._keys = view.policy.named_keys()
        view.task = lambda _: self._now
        self.unread = 0
        """Decisions whose text other weights had read: for these it is as if nobody had."""

    def again(self, row: Recorded) -> Would | None:
        """What would become of it; None where the trace is of a version that does not tell enough."""
        asked = row.decision.get("asked") or {}
        features = of_counts(asked.get("features") or ())
        if features is None:
            return None
        self._recall(row.decision, features)
        request = _request(row.record["requested_model"], asked, features)
        try:
            key = self._keys.get(row.record["key"])
            target = resolve(self._view, request.model, key)
            if request.others:
                target = followed_by(target, self._view, request.others, key)
            decisions = [
                (share * part, self._decide(row, request, turn, features, unit))
                for share, turn in _turns(target)
                for part, unit in self._draws(row)
            ]
        except BursarError as error:
            return Would({}, {}, {}, refused=error.label)
        shares: dict[str, float] = {}
        for share, decision in decisions:
            shares[decision.chosen.name] = shares.get(decision.chosen.name, 0.0) + share
        seen = decisions[0][1].considered
        return Would(
            shares,
            {one.candidate.name: one.score.p_success for one in seen},
            {one.candidate.name: (one.expected_nano or 0) / NANO_PER_USD for one in seen},
        )

    def _recall(self, decision: Mapping[str, Any], features: Features) -> None:
        task_type = decision.get("task_type") or ""
        self._now = TaskGuess(TaskType(task_type), 1.0) if task_type in TASK_TYPES else TaskGuess(TaskType.CHAT, 1.0)
        if self._base is None:
            return
        demand = demand_of(decision, self._base)
        self.unread += bool((decision.get("item") or {}).get("u")) and not demand.read
        for router in (self._base, self._view.routers.get(LEARNED)):
            if isinstance(router, Recalling):
                router.recall(features, demand)

    def _draws(self, row: Recorded) -> tuple[tuple[float, str], ...]:
        """Names of units for which a model in quarantine is probed, and is not, with their shares. Which it would be is
        drawn anew, as a router's turn is: what was drawn when it was recorded says nothing of it."""
        return _PROBES if row.task_type in self._view.down else ((1.0, row.unit),)

    def _decide(self, row: Recorded, request: ChatRequest, target: Target, features: Features, unit: str) -> Decision:
        away = {c["model"] for c in row.decision.get("candidates") or () if c.get("verdict") == UNAVAILABLE}
        listed = self._view.circuits
        tokens, capped = int(row.decision["asked"]["input_tokens"]), bool(row.record.get("caps"))

        def input_tokens(_: Candidate) -> int:
            return tokens

        return decide(
            request,
            target,
            self._view,
            unit=unit,
            input_tokens=input_tokens,
            available=lambda circuit: (listed[circuit].name if circuit in listed else circuit) not in away,
            capped=lambda _: capped,
            features=features,
        )


def _unit_of(probing: bool) -> str:
    return next(unit for unit in map(str, itertools.count()) if probes(unit) == probing)


_PROBES: Final = ((PROBE_SHARE, _unit_of(True)), (1.0 - PROBE_SHARE, _unit_of(False)))


def _turns(target: Target) -> Iterator[tuple[float, Target]]:
    """Each router's turn where a route splits its traffic: whose turn a call would be is drawn anew, whatever it was
    when it was recorded."""
    rules = target.rules
    if rules is None or not rules.split:
        yield 1.0, target
        return
    total = sum(rules.split.values())
    for name, share in rules.split.items():
        yield share / total, msgspec.structs.replace(target, rules=replace(rules, router=name, split={}))


def _request(model: str, asked: Mapping[str, Any], features: Features) -> ChatRequest:
    """As much of the request as deciding looks at."""
    prompt = Prompt(
        tools=features.n_tools,
        images=features.n_images,
        wants_json=features.wants_json,
        wants_schema=bool(asked.get("wants_schema")),
        in_tool_loop=features.in_tool_loop,
        server_tools=tuple(asked.get("server_tools") or ()),
        searches=bool(asked.get("searches")),
        service_tier=asked.get("service_tier"),
        placement=msgspec.convert(asked["placement"], Placement) if asked.get("placement") else None,
    )
    return ChatRequest(
        members={},
        model=model,
        stream=False,
        show_usage=False,
        choices=int(asked.get("choices") or 1),
        output_limit=features.max_output_tokens,
        limit_fields=(),
        prompt=prompt,
        dialect=asked.get("dialect") or "openai_chat",
        others=tuple(asked.get("models") or ()),
    )
