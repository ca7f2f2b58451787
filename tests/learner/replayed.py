"""Synthetic traffic for replays: requests decided by the real code, as records, with outcomes that are drawn from
success rates which are known here and to nobody else. All of it is made up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from app.core.feedback import Feedback, Speaker, Turned
from app.core.money import usd_float
from app.core.policy import HEURISTIC, LEARNED, Candidate, Route
from app.core.types import ChatRequest
from app.gateway.decide import Decision, decide
from app.gateway.record import decision_json
from app.gateway.target import resolve
from app.gateway.view import View
from app.stores.prices import Catalogue
from routers.base import Arm, Router, Score
from routers.features import Features
from tests.gateway.policy_values import model, policy, request

CHEAP, DEAR = model("cheap", 10**9), model("dear", 10**10, tier=4)
SPLIT = Route("auto", ("cheap", "dear"), min_confidence=0.0, split={LEARNED: 0.5, HEURISTIC: 0.5})
T0 = 1_795_176_000.0


class ByLength:
    """A router for which `cheap` will do where the last message is short enough, in characters."""

    version = "1"

    def __init__(self, name: str, until: int) -> None:
        self.name, self.until = name, until

    def score(self, features: Features, arms: Sequence[Arm]) -> list[Score]:
        able = 0.9 if features.chars < self.until else 0.5
        return [Score(0.95 if arm.name == "dear" else able, 0.9, 50.0) for arm in arms]

    def surest(self, features: Features) -> float:
        return 1.0


def on(
    route: Route = SPLIT, learned: Router | None = None, models: Sequence[Candidate] = (CHEAP, DEAR), **more: Any
) -> View:
    """The learned router finds `cheap` able below 300 characters, the heuristic below 100."""
    routers: dict[str, Router] = {LEARNED: learned or ByLength(LEARNED, 300), HEURISTIC: ByLength(HEURISTIC, 100)}
    return View(policy(models, [route], **more), routers, Catalogue(b"{}"))


def decided(view: View, asked: ChatRequest, unit: str) -> Decision:
    return decide(
        asked,
        resolve(view, asked.model),
        view,
        unit=unit,
        input_tokens=lambda _: 100,
        available=lambda _: True,
        capped=lambda _: False,
    )


def record_of(view: View, decision: Decision, n: int, cost_usd: float = 0.001, **more: Any) -> dict[str, Any]:
    """The decision as a stored trace has it, read back from JSON."""
    record = {
        "request_id": f"req_{n:027x}",
        "created_s": T0 + n,
        "key": "ci",
        "task_id": None,
        "requested_model": decision.requested,
        "outcome": "completed",
        "model": decision.chosen.name,
        "cost_usd": cost_usd,
        "usage": {"input_tokens": 100, "output_tokens": 50, "cache_read_tokens": 0, "reasoning_tokens": 0},
        "decision": decision_json(decision, view),
        "caps": [],
        "timings": {"duration_ms": 500.0},
        **more,
    }
    found: dict[str, Any] = json.loads(msgspec.json.encode(record))
    return found


@dataclass(frozen=True)
class Traffic:
    """Records with words on them, and what each model would have come to on each, in order."""

    records: list[dict[str, Any]]
    words: list[Feedback]
    success: dict[str, np.ndarray]
    cost: dict[str, np.ndarray]


def rate(name: str, chars: int) -> float:
    """The hidden success rate."""
    return 0.95 if name == "dear" else 0.9 if chars < 200 else 0.6


def traffic(view: View, n: int, rng: np.random.Generator) -> Traffic:
    """So many lone requests of 20 to 400 characters, decided on a view."""
    records, words = [], []
    names = list(view.policy.models)
    success = {name: np.zeros(n) for name in names}
    cost = {name: np.zeros(n) for name in names}
    for at in range(n):
        chars = int(rng.integers(20, 400))
        asked = request(prompt={"last_user": "x" * chars, "first_user": "x" * chars})
        decision = decided(view, asked, f"ci:{at}")
        tokens = int(30 + rng.exponential(40.0))
        for name, candidate in view.policy.models.items():
            success[name][at] = rate(name, chars)
            assert candidate.price is not None
            cost[name][at] = usd_float((100 + tokens) * candidate.price.base.input // 10**6)
        chosen = decision.chosen.name
        usage = {"input_tokens": 100, "output_tokens": tokens}
        records.append(record_of(view, decision, at, float(cost[chosen][at]), usage=usage))
        good = rng.random() < rate(chosen, chars)
        outcome = Turned.SUCCESS if good else Turned.FAILURE
        words.append(Feedback(records[-1]["request_id"], "ci", Speaker.VERIFIER, outcome, T0 + at, "ci"))
    return Traffic(records, words, success, cost)


def alone(router: str, route: Route = SPLIT) -> Route:
    """The route without its split."""
    return replace(route, split={}, router=router)
