"""How a task, or any scope of the ledger, is shown: dollars, counts, limits with who set them, state and family."""

from __future__ import annotations

import datetime as dt
from typing import Any

from app.core.budget import Balance
from app.core.money import usd_float
from app.core.runs import Run
from app.core.terms import PLAIN


def balance_json(balance: Balance) -> dict[str, Any]:
    """A balance in dollars."""
    limit, killed = balance.effective_limit_nano, balance.killed_at_nano
    return {
        "spent_usd": usd_float(balance.spent_nano),
        "reserved_usd": usd_float(balance.held_nano),
        "limit_usd": _usd(limit),
        "remaining_usd": None if limit is None else usd_float(max(limit - balance.spent_nano - balance.held_nano, 0)),
        "calls": balance.calls,
        "running": balance.running,
        "tokens": balance.tokens,
        "cost_killed_at_usd": _usd(killed),
        "exhausted": balance.exhausted,
    }


def window_json(balance: Balance, limit_nano: int | None) -> dict[str, Any]:
    """A window in dollars, with the policy's limit as it is now, which the ledger's row may not have seen yet."""
    left = None if limit_nano is None else max(limit_nano - balance.spent_nano - balance.held_nano, 0)
    return {
        "limit_usd": _usd(limit_nano),
        "spent_usd": usd_float(balance.spent_nano),
        "reserved_usd": usd_float(balance.held_nano),
        "remaining_usd": _usd(left),
        "calls": balance.calls,
        "running": balance.running,
        "tokens": balance.tokens,
    }


def task_json(scope: str, balance: Balance) -> dict[str, Any]:
    """A task as the ledger knows it, without its models."""
    terms, key = balance.terms or PLAIN, scope.split(":", 2)[1]
    return {
        "id": task_of(scope),
        "object": "task",
        "key": key,
        **balance_json(balance),
        "state": terms.state,
        "began_at": _time(balance.began_ms),
        "limits": limits_json(balance),
        "parent": task_of(terms.above[0]) if terms.above else None,
        "root": task_of(terms.above[-1]) if terms.above else None,
        "children": [task_of(name) for name in terms.below],
    }


def limits_json(balance: Balance) -> dict[str, dict[str, float | int]]:
    """For each limit that is set: what binds, and who set what."""
    terms = balance.terms or PLAIN
    policy_nano = balance.limit_nano if terms.set_nano is None else None
    every = {
        "max_cost_usd": (
            _usd(balance.effective_limit_nano),
            _usd(policy_nano),
            _usd(balance.own_limit_nano),
            _usd(terms.set_nano),
        ),
        "max_calls": (terms.max_calls, terms.calls, terms.own_calls, terms.set_calls),
        "max_tokens": (terms.max_tokens, terms.tokens, terms.own_tokens, terms.set_tokens),
        "max_parallel_requests": (terms.max_parallel, terms.parallel, terms.own_parallel, terms.set_parallel),
        "max_seconds": tuple(map(_seconds, (terms.max_ms, terms.ms, terms.own_ms, terms.set_ms))),
    }
    return {
        name: {
            who: limit
            for who, limit in zip(("binding", "policy", "client", "amended"), found, strict=True)
            if limit is not None
        }
        for name, found in every.items()
        if found[0] is not None
    }


def lone_call_json(record: dict[str, Any]) -> dict[str, Any]:
    """A call without a task, from its record, seen as the task it is."""
    limits = [cap["limit_usd"] for cap in record["caps"] if cap["scope"] in ("request", "task", "model")]
    limit, spent = min(limits, default=None), record["cost_usd"]
    killed = spent if record["cut"] is not None else None
    return {
        "id": record["request_id"],
        "object": "task",
        "key": record["key"],
        "spent_usd": spent,
        "reserved_usd": 0.0,
        "limit_usd": limit,
        "remaining_usd": None if limit is None or spent is None else max(limit - spent, 0.0),
        "calls": 1,
        "running": 0,
        "tokens": record["usage"].get("input_tokens", 0) + record["usage"].get("output_tokens", 0),
        "cost_killed_at_usd": killed,
        "exhausted": killed is not None,
        "state": "closed",
        "began_at": _time(int(record["created_s"] * 1000)),
        "limits": {} if limit is None else {"max_cost_usd": {"binding": limit}},
        "parent": None,
        "root": None,
        "children": [],
        "models": {},
    }


def speed_json(run: Run, *, whole: bool) -> dict[str, Any]:
    """How fast a task went, in ms from its first call's arrival; null not measured, success -1. `whole`: all of its
    calls were found."""
    return {
        "time_to_first_token_ms": _measured(run.first_token_ms),
        "time_to_first_attempt_ms": _measured(run.first_attempt_ms),
        "time_to_success_ms": run.success_ms,
        "duration_ms": run.duration_ms,
        "turns": run.turns,
        "tokens_per_sec": _measured(run.tokens_per_sec),
        "harness": run.harness,
        "model": run.model,
        "task_type": run.task_type,
        "outcome": run.outcome,
        "passed": run.passed,
        "judged": run.judged,
        "whole": whole,
    }


def _measured(value: float) -> float | None:
    return round(value, 3) if value > 0 else None


def task_of(scope: str) -> str:
    """The task's id in its scope's name."""
    return scope.split(":", 2)[2]


def _usd(nano: int | None) -> float | None:
    return None if nano is None else usd_float(nano)


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000


def _time(ms: int) -> str | None:
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).isoformat() if ms else None
