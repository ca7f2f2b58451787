"""Made-up records of calls and words on them, in the forms of `gateway/record.py` and `core/feedback.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.core.feedback import Feedback, Speaker, Turned, task_thing
from app.settings import SHIPPED_WEIGHTS
from routers.learned import load

BASE = load(SHIPPED_WEIGHTS)
MODELS = (("small", 1, 0.0001), ("large", 4, 0.01))


def call_id(number: int, held: bool = False) -> str:
    """A request id; `held`: one of those whose labels are held out."""
    return f"req_{number:020x}" + ("0000000" if held else "0000001")


def record(
    number: int,
    model: str = "small",
    *,
    held: bool = False,
    key: str | None = "alice",
    at_s: float | None = None,
    task_type: str = "chat",
    u: Sequence[float] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A call that completed, a second after the one before it."""
    candidates = [
        {
            "model": name, "provider": "a", "tier": tier, "stands_for": f"{name}-v1", "p_success": 0.7,
            "expected_cost_usd": price, "price_usd_per_1k": {"input": price, "output": 2 * price, "source": "policy"},
        }
        for name, tier, price in MODELS
    ]  # fmt: skip
    item: dict[str, Any] = (
        {"plain": True}
        if u is None
        else {
            "plain": True,
            "weights": BASE.weights,
            "ood": 0.2,
            "u": list(u),
            "place": [0.0] * BASE.places,
        }
    )
    return {
        "request_id": call_id(number, held),
        "created_s": 1_000.0 + number if at_s is None else at_s,
        "key": key,
        "task_id": None,
        "requested_model": "auto",
        "outcome": "completed",
        "model": model,
        "decision": {"route": "auto", "task_type": task_type, "item": item, "candidates": candidates},
        "timings": {"duration_ms": 500.0},
        "seen": None,
        **more,
    }


def word(thing: str, outcome: str = "success", *, by: str = "alice", said_s: float = 5_000.0, **more: Any) -> Feedback:
    """A verifier's word, of the key whose call it is."""
    return Feedback(thing, by, Speaker(more.pop("source", "verifier")), Turned(outcome), said_s, by, **more)


def of_task(task_id: str, outcome: str = "success", key: str = "alice") -> Feedback:
    """A word on a whole task."""
    return word(task_thing(key, task_id), outcome, by=key)
