"""Records of finished calls for tests of the stores, in the form of `app/gateway/record.py`."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import msgspec

from app.stores.traces_segments import Segment

_numbers = itertools.count()
NOON_S = 1_795_176_000.0
"""2026-11-20 12:00 UTC."""


def request_id(number: int, at_s: float | None = None) -> str:
    """A request id as `app.http.hot` makes them."""
    return f"req_{int((at_s or time.time()) * 1000):011x}{number:016x}"


def record(number: int, at_s: float = NOON_S, **more: Any) -> dict[str, Any]:
    """A record with a value in every column."""
    scores = {"p_success": 0.9, "confidence": 0.8, "expected_output_tokens": 120, "expected_cost_usd": 0.0001}
    candidate = {"model": "small", "provider": "a", "tier": 1, "stands_for": "small-v1", "verdict": "chosen", **scores}
    decision = {
        "route": "auto",
        "reason": "cheapest",
        "chosen": "small",
        "order": ["small", "large"],
        "task_type": "code",
        "item": {"plain": True, "ood": 0.25, "u": [1.0, -0.5], "place": [0.5]},
        "asked": {"input_tokens": 900, "choices": 1, "wants_schema": False, "features": [1, 200, 0.5]},
        "propensity": 0.75,
        "explored": True,
        "instead_of": "large",
        "router": "learned@1",
        "assigned": "learned",
        "share": 0.5,
        "deferred": False,
        "candidates": [candidate, {**candidate, "model": "large", "verdict": "adequate, dearer"}],
        "others": [],
    }
    return {
        "request_id": request_id(number, at_s),
        "created_s": at_s,
        "key": "ci",
        "team": "lab",
        "user": "0f" * 16,
        "tags": ["checkout", "env:prod"],
        "task_id": "run-1",
        "task_step": 3,
        "parent_id": "agent-0",
        "harness": "codex",
        "requested_model": "auto",
        "stream": True,
        "outcome": "cost_killed",
        "error": 'it\'s "quoted" \n é 😀',
        "model": "small",
        "provider": "a",
        "cost_usd": number / 1000,
        "provenance": "metered",
        "usage": {"input_tokens": 1000, "output_tokens": 100, "cache_read_tokens": 10, "reasoning_tokens": 5},
        "cut": {"scope": "task", "by": "meter", "killed_at_usd": "0.00012", "in_tool_call": False},
        "seen": {"began": "b1", "asked": "a1", "finish": "stop"},
        "cost_killed_at_usd": 0.99,
        "denied_scope": "key",
        "denials": [],
        "decision": decision,
        "landing": {"limit": "budget", "used_share": 0.9, "noted": True, "clamped": False},
        "cached": {
            "request_id": "req_0",
            "model": "small",
            "provider": "a",
            "task_type": "code",
            "input_tokens": 9,
            "saved_usd": 0.5,
        },
        "caps": [{"scope": "task", "name": "task:ci:run-1", "limit_usd": 1.0, "by": "client"}],
        "attempts": [{"model": "small"}, {"model": "large"}],
        "timings": {
            "duration_ms": 1000.5,
            "ttft_ms": 100.0,
            "first_attempt_ms": 110.0,
            "generation_ms": 800.0,
            "tokens_per_sec": 125.0,
            "success_ms": -1.0,
            "overhead_ms": 0.5,
        },
        "versions": {"policy": "abc", "prices": "def", "router": "learned@1"},
        "client": {"request_id": "mine", "retry_count": None, "traceparent": None},
        **more,
    }


def line(found: dict[str, Any]) -> bytes:
    """As it is stored."""
    return msgspec.json.encode(found) + b"\n"


def closed_segment(folder: Path, *records: dict[str, Any], torn: bytes = b"") -> Path:
    """A segment whose writer is done with it."""
    before = set(folder.glob("*.jsonl"))
    segment = Segment(folder)
    segment.write(b"".join(map(line, records)) + torn)
    segment.close()
    (path,) = set(folder.glob("*.jsonl")) - before
    # Segments that begin in one millisecond have no order; these are written one after the other.
    return path.rename(path.with_name(f"{path.name.partition('-')[0]}-{next(_numbers):08x}.jsonl"))
