"""Calls under way, as whoever watches sees them: what each costs so far, and how far it may go."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any

from app.core.money import usd_float
from app.gateway.calls import Runner
from app.gateway.owned import OwnedCall

MAX_SHOWN = 100


def under_way(calls: Iterable[Runner], now_s: float) -> list[dict[str, Any]]:
    """The oldest calls first, at most MAX_SHOWN; `now_s` as `time.perf_counter` has it."""
    owned = (call for call in calls if isinstance(call, OwnedCall))
    return [call_json(call, now_s) for call in heapq.nsmallest(MAX_SHOWN, owned, key=lambda call: call.arrived_s)]


def call_json(call: OwnedCall, now_s: float) -> dict[str, Any]:
    """One call. `cap_usd` is what it may cost in all, as the caps stood when the ledger was last asked (None: no cap
    binds), and `scope` whose cap that is."""
    record, purse = call.record, call.purse
    candidate = call.attempts[-1].candidate if call.attempts else None
    running_nano, cap_nano, scope = 0, None, None
    tokens = 0
    if purse is not None:
        before_nano = sum(attempt.charged_nano or 0 for attempt in call.attempts[:-1])
        running_nano = before_nano + (purse.charged_nano if purse.closed else purse.meter.running_nano)
        left_nano = purse.remaining_nano
        if left_nano is not None:
            cap_nano, scope = running_nano + left_nano, purse.binding_scope
        tokens = purse.meter.output_tokens
    return {
        "request_id": record.request_id,
        "task_id": record.task_id,
        "key": record.key_name,
        "harness": record.harness,
        "requested_model": record.requested_model,
        "model": candidate.name if candidate else None,
        "provider": candidate.provider.name if candidate else None,
        "stream": record.stream,
        "age_s": round(now_s - call.arrived_s, 3),
        "running_usd": usd_float(running_nano),
        "cap_usd": None if cap_nano is None else usd_float(cap_nano),
        "scope": scope,
        "output_tokens": tokens,
        "attempts": len(call.attempts),
    }
