"""The record of a call that the policy's cache answered: nobody was asked, and nothing was charged.

It is a call of whoever asked, in their task, and names the call that made the reply. What that one used and cost stands
in its own record alone, so that sums over records hold. It teaches nothing: its answer is one that was learned of.
"""

from __future__ import annotations

from typing import Any

from app.core.money import usd_float
from app.gateway.attempt_record import AttemptRecord
from app.gateway.record import CallRecord
from app.stores.replays import Origin


def origin_of(record: CallRecord, attempts: list[AttemptRecord], cost_nano: int | None) -> Origin | None:
    """What records of those who get this call's answer again tell of it; None where nobody was asked."""
    if not attempts:
        return None
    last, decision = attempts[-1], record.decision
    return Origin(
        record.request_id,
        record.requested_model,
        last.candidate.name,
        last.candidate.provider.name,
        None if decision is None else decision.task_type,
        last.usage.get("input_tokens", 0),
        cost_nano,
    )


def cached_trace(record: CallRecord, origin: Origin) -> dict[str, Any]:
    """The stored record of a call that was answered with the reply of an earlier one."""
    saved_nano = origin.cost_nano
    told = {
        "request_id": origin.request_id,
        "model": origin.model,
        "provider": origin.provider,
        "task_type": origin.task_type,
        "input_tokens": origin.input_tokens,
        "saved_usd": None if saved_nano is None else usd_float(saved_nano),
    }
    return {**record.as_trace([]), "cached": told}
