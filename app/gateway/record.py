"""The record of a finished call: why this route, why this cut, what it cost. Made from values, encoded elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from app.core.landing import Approach
from app.core.money import NANO_PER_USD, Price, Rates, usd_float
from app.core.policy import Candidate
from app.core.runs import NOT_MEASURED
from app.core.types import Outcome, Provenance
from app.gateway.attempt_record import AttemptRecord, total_nano
from app.gateway.choose import Considered
from app.gateway.decide import Asked, Decision
from app.gateway.limits import Limits
from app.gateway.purse import Purse
from app.gateway.scoring import Opinion
from app.gateway.view import View
from routers.features import counts

if TYPE_CHECKING:  # see decide.py
    from routers.kinds import Demand

_CERTAINTY = (
    Provenance.FREE,
    Provenance.METERED,
    Provenance.ESTIMATED,
    Provenance.CONSERVATIVE,
    Provenance.LIST_PRICE,
    Provenance.UNKNOWN,
)

_SCORE = b'"p_success":%.4f,"confidence":%.4f,"expected_output_tokens":%.0f,"expected_cost_usd":%b'
"""What a router expects of a candidate, and what that is expected to cost."""


class CallRecord(msgspec.Struct):
    """What a call knows of itself when it ends; `as_trace` turns it into the stored form. `denied_at_usd`: what its
    task had spent where the task's budget was used up before this call; `slow`: which expected times it has passed;
    `user`: for which end user it is (`core/users`), where the policy tells them apart; `probe`: the one candidate of
    its route that it is a probe of."""

    request_id: str
    created_s: float
    key_name: str
    task_id: str | None
    parent_id: str | None
    harness: str
    requested_model: str
    stream: bool
    view: View
    decision: Decision | None = None
    limits: Limits | None = None
    outcome: Outcome = Outcome.GATEWAY_ERROR
    error: str | None = None
    denied_scope: str | None = None
    denied_at_usd: float | None = None
    denials: list[dict[str, str]] = []
    slow: tuple[str, ...] = ()
    approach: Approach | None = None
    duration_s: float = 0.0
    overhead_s: float | None = None
    client_request_id: str | None = None
    retry_count: str | None = None
    team: str | None = None
    traceparent: str | None = None
    user: str | None = None
    tags: tuple[str, ...] = ()
    probe: str | None = None

    def as_trace(self, attempts: list[AttemptRecord]) -> dict[str, Any]:
        """The stored record, JSON-ready; dollars as numbers, unknown cost as null."""
        last = attempts[-1] if attempts else None
        decision, policy = self.decision, self.view.policy
        found: dict[str, Any] = {
            "request_id": self.request_id,
            "created_s": self.created_s,
            "key": self.key_name,
            "team": self.team,
            "task_id": self.task_id,
            "task_step": first_step(attempts) if self.task_id is not None else None,
            "parent_id": self.parent_id,
            "harness": self.harness,
            "requested_model": self.requested_model,
            "stream": self.stream,
            "outcome": self.outcome,
            "error": self.error,
            "model": last.candidate.name if last else None,
            "provider": last.candidate.provider.name if last else None,
            "cost_usd": total_usd(attempts),
            "provenance": worst_provenance(attempts),
            "usage": last.usage if last else {},
            "cut": last.cut if last else None,
            "seen": last.seen if last else None,
            "cost_killed_at_usd": self.denied_at_usd if last is None else last.killed_at_usd,
            "denied_scope": self.denied_scope,
            "denials": self.denials,
            "decision": decision_json(decision, self.view) if decision else None,
            "caps": self.limits.told if self.limits else [],
            "landing": landing_json(self.approach, last) if self.approach is not None else None,
            "attempts": [attempt_json(a) for a in attempts],
            "timings": {
                "duration_ms": _ms(self.duration_s),
                "ttft_ms": _ms(last.ttft_s) if last else None,
                "first_attempt_ms": _ms(last.first_attempt_s) if last else None,
                "generation_ms": _ms(last.generation_s) if last else None,
                "tokens_per_sec": last.tokens_per_sec if last else None,
                "success_ms": NOT_MEASURED,
                "overhead_ms": _ms(self.overhead_s),
            },
            "versions": {
                "policy": policy.version,
                "prices": policy.prices_version,
                "router": decision.router if decision else None,
            },
            "client": {
                "request_id": self.client_request_id,
                "retry_count": self.retry_count,
                "traceparent": self.traceparent,
            },
        }
        if self.user is not None:
            found["user"] = self.user
        if self.tags:
            found["tags"] = self.tags
        if self.probe is not None:
            found["probe"] = True
        return found


def first_step(attempts: list[AttemptRecord]) -> int | None:
    """Which of its task's calls to providers this one's first was, from 1; None where it got to none."""
    purse = attempts[0].purse if attempts else None
    return purse.granted.step or None if purse is not None and purse.granted is not None else None


def total_usd(attempts: list[AttemptRecord]) -> float | None:
    """What all attempts together were charged, in dollars; None when any of it is unknown."""
    total = total_nano(attempts)
    return None if total is None else usd_float(total)


def worst_provenance(attempts: list[AttemptRecord]) -> Provenance:
    """The least certain provenance among the attempts that cost something."""
    if len(attempts) == 1:
        return attempts[0].provenance
    return max((a.provenance for a in attempts), key=_CERTAINTY.index, default=Provenance.METERED)


def decision_json(decision: Decision, view: View) -> dict[str, Any]:
    """The decision: what was considered, at which price and score, and why the first was taken. `objective` and what
    follows are the rules by which was chosen, null where there was nothing to choose."""
    rules = decision.rules
    found: dict[str, Any] = {
        "route": decision.route,
        "reason": decision.reason,
        "chosen": decision.order[0].name,
        "order": [c.name for c in decision.order],
        "task_type": decision.task_type,
        "item": None if decision.demand is None else demand_json(decision.demand, view),
        "asked": None if decision.route is None else asked_json(decision.asked),
        "objective": rules and rules.objective,
        "adequacy": rules and rules.adequacy,
        "min_confidence": rules and rules.min_confidence,
        "propensity": decision.propensity,
        "explored": decision.explored,
        "instead_of": decision.instead_of,
        "router": decision.router,
        "assigned": decision.assigned,
        "share": decision.share,
        "deferred": decision.deferred,
        "candidates": considered_json(decision.considered, view),
        "others": [opinion_json(other) for other in decision.others] if decision.others else (),
    }
    if rules is not None and rules.max_expected_nano is not None:
        found["max_expected_cost_usd"] = usd_float(rules.max_expected_nano)
    if rules is not None and rules.success_value_nano is not None:
        found["success_value_usd"] = usd_float(rules.success_value_nano)
    return found


def asked_json(asked: Asked) -> dict[str, Any]:
    """What deciding again would need of the request, and no word of it."""
    found: dict[str, Any] = {
        "input_tokens": asked.input_tokens,
        "choices": asked.choices,
        "wants_schema": asked.wants_schema,
        "dialect": asked.dialect,
        "features": counts(asked.features),
    }
    if asked.server_tools:
        found["server_tools"], found["searches"] = asked.server_tools, asked.searches
    if asked.service_tier is not None:
        found["service_tier"] = asked.service_tier
    if asked.others:
        found["models"] = asked.others
    if asked.placement is not None:
        found["placement"] = asked.placement
    return found


def demand_json(demand: Demand, view: View) -> msgspec.Raw:
    """What a learner needs of a request, and no word of it; as bytes, because every call has one. `weights`: what the
    coordinates mean is theirs."""
    plain = b"true" if demand.plain else b"false"
    if not demand.read:
        return msgspec.Raw(b'{"plain":%b}' % plain)
    u, place = demand.u.tolist(), demand.place.tolist()
    form = _demand_form(len(u), len(place))
    return msgspec.Raw(form % (plain, view.weights.encode(), demand.ood, *u, *place))


@functools.cache
def _demand_form(u: int, place: int) -> bytes:
    """One format for all numbers at once: half the time of one each."""
    numbers = b",".join([b"%.4g"] * u), b",".join([b"%.2g"] * place)
    return b'{"plain":%%b,"weights":"%%b","ood":%%.3g,"u":[%b],"place":[%b]}' % numbers


def opinion_json(opinion: Opinion) -> dict[str, Any]:
    """What a router that was asked, and did not decide, made of the same candidates. `decides`: False where it would
    not in its own turn either, for the route has a baseline."""
    found: dict[str, Any] = {
        "router": opinion.router,
        "would_choose": opinion.chosen.candidate.name,
        "reason": opinion.reason,
        "candidates": [opined_json(seen) for seen in opinion.considered],
    }
    if not opinion.decides:
        found["decides"] = False
    return found


def considered_json(considered: Sequence[Considered], view: View) -> msgspec.Raw:
    """The candidates as they were seen; as bytes, by one format for all, because every call has several of them."""
    candidates = [seen.candidate for seen in considered]
    what = ("considered", *[candidate.name for candidate in candidates])
    form = view.once(what, lambda: b"[%b]" % b",".join([_considered_form(candidate) for candidate in candidates]))
    values: list[float | bytes] = []
    for seen in considered:
        values += (seen.verdict.encode(), *_score_values(seen))
    return msgspec.Raw(form % tuple(values))


def _considered_form(candidate: Candidate) -> bytes:
    """What is the same in every record, with places for the rest."""
    fixed: dict[str, Any] = {"model": candidate.name, "provider": candidate.provider.name, "tier": candidate.tier}
    stands_for = candidate.like or candidate.upstream_model
    if stands_for != candidate.name:
        fixed["stands_for"] = stands_for
    if candidate.capabilities.hidden_reasoning:
        fixed["reasoning"] = True
    if not candidate.listed:
        fixed["listed"] = False
    price = {"price_usd_per_1k": price_json(candidate.price)}
    head, tail = (msgspec.json.encode(part).replace(b"%", b"%%")[1:-1] for part in (fixed, price))
    return b'{%b,"verdict":"%%b",%b,%b}' % (head, _SCORE, tail)


def _score_values(seen: Considered) -> tuple[float, float, float, bytes]:
    """The values of `_SCORE`."""
    score, cost = seen.score, seen.expected_nano
    cost_usd = b"null" if cost is None else b"%d.%09d" % divmod(cost, NANO_PER_USD)
    return score.p_success, score.confidence, score.output_tokens, cost_usd


def opined_json(seen: Considered) -> msgspec.Raw:
    """What a router that did not decide expects of one candidate."""
    return msgspec.Raw(b'{"model":%b,%b}' % (msgspec.json.encode(seen.candidate.name), _SCORE % _score_values(seen)))


def price_json(price: Price | None) -> dict[str, Any] | None:
    """A price in dollars per 1,000 tokens, with where it comes from."""
    if price is None:
        return None
    return {**rates_json(price.base), "source": price.source}


def rates_json(rates: Rates) -> dict[str, Any]:
    """Declared rates in dollars per 1,000 tokens."""
    named = {
        "input": rates.input,
        "output": rates.output,
        "cache_read": rates.cache_read,
        "cache_write": rates.cache_write,
        "cache_write_1h": rates.cache_write_1h,
        "reasoning": rates.reasoning,
        "audio_input": rates.audio_input,
        "audio_output": rates.audio_output,
        "image_output": rates.image_output,
    }
    return {name: usd_float(rate) / 1000 for name, rate in named.items() if rate is not None}


def landing_json(approach: Approach, last: AttemptRecord | None) -> dict[str, Any]:
    """Near which limit the task was, and what came of it: `clamped` where its output limit was lowered for that."""
    near, purse = approach.nearest, None if last is None else last.purse
    return {
        "limit": near.kind,
        "used_share": round(near.share, 4),
        "noted": approach.rules.note,
        "clamped": purse is not None and purse.clamped_to_land,
    }


def attempt_json(attempt: AttemptRecord) -> dict[str, Any]:
    """One attempt: where, how, what came of it, what it was charged."""
    charged_nano, purse = attempt.charged_nano, attempt.purse
    found: dict[str, Any] = {
        "model": attempt.candidate.name,
        "provider": attempt.candidate.provider.name,
        "outcome": attempt.outcome,
        "status": attempt.status,
        "mode": attempt.mode,
        "clamp_tokens": attempt.clamp_tokens,
        "cost_usd": None if charged_nano is None else usd_float(charged_nano),
        "provenance": attempt.provenance,
        "ttft_ms": _ms(attempt.ttft_s),
        "error": attempt.error,
        "cause": attempt.cause,
        "upstream_id": attempt.upstream_id,
        "budget": None if purse is None else budget_json(purse),
    }
    if attempt.left_out:
        found["left_out"] = attempt.left_out
    if attempt.clamp_uses is not None:
        found["clamp_uses"] = attempt.clamp_uses
    if attempt.unpriced_tools:
        found["unpriced_tools"] = attempt.unpriced_tools
    if attempt.choices is not None:
        found["choices"] = attempt.choices
    return found


def budget_json(purse: Purse) -> dict[str, Any]:
    """What the ledger said: when the money was set aside (`scope` had the least left, beyond all holds), and at
    the end."""
    granted, settled = purse.granted, purse.settled
    left = None if granted is None else granted.remaining_nano
    left_after = None if settled is None else settled.remaining_nano
    return {
        "scope": granted.scope if granted else None,
        "held_usd": granted.held_nano / NANO_PER_USD if granted else None,
        "remaining_usd": None if left is None else left / NANO_PER_USD,
        "refunded_usd": settled.refunded_nano / NANO_PER_USD if settled else None,
        "remaining_after_usd": None if left_after is None else left_after / NANO_PER_USD,
    }


def _ms(seconds: float | None) -> float | None:
    """To the microsecond, not by `round`, which writes and reads a text: ten times the work."""
    return None if seconds is None else int(seconds * 1e6 + 0.5) / 1000
