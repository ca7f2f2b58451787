"""From traces and words to recorded decisions: what was decided, with which probability, and what came of it. Pure.

A row is a decision of a route. A call that goes on with the model of an open tool loop decided nothing: what it cost
belongs to the decision before it in its task. Calls for which the client named the model, probes, and calls of which
nobody was asked (denied, or refused as they came in), are left out: nothing was decided there, or nothing came of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.core.feedback import Feedback
from app.core.money import Price, Rates, Usage, cost_nano, price_from_usd_per_1k, usd_float
from app.gateway.choose import COULD_SERVE
from app.gateway.target import HELD
from app.learner.credit import spoken
from app.learner.labels import Call, call_of
from app.learner.sources import strongest

UNAVAILABLE: Final = "circuit open"
"""The verdict on those who could not be asked at that time, under whatever policy."""


@dataclass(slots=True)
class Recorded:
    """One decision. `unit`: the task, or the call, whose draws go together. `possible`: the candidates that might have
    been drawn. `cost_usd`: of the decision's call and those that went on with it, None where any is not known.
    `good` in [0, 1]: how good the best source says it was, None where nobody spoke. `calls`: theirs."""

    record: Mapping[str, Any]
    unit: str
    task_type: str
    chosen: str
    propensity: float
    possible: frozenset[str]
    cost_usd: float | None
    good: float | None
    calls: list[Mapping[str, Any]]

    @property
    def decision(self) -> Mapping[str, Any]:
        """The decision of the record."""
        decision: Mapping[str, Any] = self.record["decision"]
        return decision

    def candidate(self, model: str) -> Mapping[str, Any] | None:
        """What was recorded of a candidate."""
        return next((c for c in self.decision.get("candidates") or () if c["model"] == model), None)


def recorded(records: Iterable[Mapping[str, Any]], words: Iterable[Feedback]) -> list[Recorded]:
    """The decisions in these traces, in the order of time, with what was said of them."""
    ordered = sorted(records, key=lambda record: (record["created_s"], record["request_id"]))
    calls = [call_of(record) for record in ordered]
    good = _good(calls, words)
    found: list[Recorded] = []
    latest: dict[str, Recorded] = {}
    for record, call in zip(ordered, calls, strict=True):
        decision = record.get("decision") or {}
        if decision.get("route") is None or not call.model or call.probe:
            continue
        unit = f"{call.key}:{call.task_id or call.request_id}"
        before = latest.get(unit)
        if decision.get("reason") == HELD:
            if before is not None and before.record["model"] == call.model:
                _go_on(before, record, good.get(call.request_id))
            continue
        row = latest[unit] = _row(record, unit, good.get(call.request_id))
        found.append(row)
    return found


def _row(record: Mapping[str, Any], unit: str, good: float | None) -> Recorded:
    decision = record["decision"]
    propensity = float(decision.get("propensity") or 1.0)
    return Recorded(
        record=record,
        unit=unit,
        task_type=decision.get("task_type") or "",
        chosen=decision["chosen"],
        propensity=propensity,
        possible=_possible(decision, propensity),
        cost_usd=record.get("cost_usd"),
        good=good,
        calls=[record],
    )


def _go_on(row: Recorded, record: Mapping[str, Any], good: float | None) -> None:
    cost = record.get("cost_usd")
    row.cost_usd = None if cost is None or row.cost_usd is None else row.cost_usd + cost
    row.good = good if good is not None else row.good
    row.calls.append(record)


def _possible(decision: Mapping[str, Any], propensity: float) -> frozenset[str]:
    """Who might have been drawn: whoever could have served, where a call was one to explore or the choice was between a
    model in quarantine and another; whom another router of a split would choose. How likely each was nobody recorded:
    `replay_estimates` notices where it was hardly ever."""
    found = {decision["chosen"]}
    if propensity < 1.0:
        found.update(one["would_choose"] for one in decision.get("others") or () if one.get("decides", True))
        if decision.get("explored") is not None or decision.get("share") is None:
            found.update(c["model"] for c in decision.get("candidates") or () if c.get("verdict") in COULD_SERVE)
    return frozenset(found)


def _good(calls: Sequence[Call], words: Iterable[Feedback]) -> dict[str, float]:
    """How good each call was by the best source that spoke of it or of its task; signs are no words."""
    found = {}
    for request_id, told in spoken(calls, words).items():
        best = strongest(told)
        if best is not None and best.strength > 0.0:
            found[request_id] = best.good
    return found


def repriced_usd(row: Recorded, prices: Mapping[str, Price | None]) -> float | None:
    """What the row would have cost at these prices (by model), where they differ from those of its time; None where
    its cost is not known, or a model has no price any more."""
    if row.cost_usd is None:
        return None
    total = row.cost_usd
    for record in row.calls:
        seen = next((c for c in record["decision"].get("candidates") or () if c["model"] == record["model"]), None)
        usage = _usage(record)
        if seen is None or usage is None or record["model"] not in prices:
            continue
        old, new = price_of(seen.get("price_usd_per_1k")), prices[record["model"]]
        if new is None or old is None:
            return None if new is not old else total
        if new.base != old.base:
            total += usd_float(cost_nano(new, usage) - cost_nano(old, usage))
    return max(total, 0.0)


def price_of(rates: Mapping[str, Any] | None) -> Price | None:
    """A price as a record shows it, without its tiers."""
    if rates is None:
        return None
    declared = {name: price_from_usd_per_1k(usd) for name, usd in rates.items() if name != "source"}
    return Price(Rates(**declared))


def _usage(record: Mapping[str, Any]) -> Usage | None:
    told = record.get("usage") or {}
    if "input_tokens" not in told or "output_tokens" not in told:
        return None
    names = ("input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning")
    given, said, read, written, hour, thought = (int(told.get(f"{name}_tokens") or 0) for name in names)
    return Usage(given, said, read, written, hour, thought)
