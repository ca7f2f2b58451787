"""Policies, candidates and requests for tests of the gateway's pure parts, built without any YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.core.caps import Caps
from app.core.money import Price, Rates
from app.core.policy import (
    HEURISTIC,
    LEARNED,
    Candidate,
    Capabilities,
    ModelBudget,
    Policy,
    Provider,
    Route,
)
from app.core.types import ChatRequest, Prompt
from app.gateway.view import View
from app.stores.prices import Catalogue
from routers.base import Arm, Score
from routers.features import Features


def price(given: int, output: int) -> Price:
    """Rates in nano-dollars per million tokens: 1,000,000 is a nano-dollar a token."""
    return Price(Rates(given, output))


def provider(name: str = "p", **values: Any) -> Provider:
    """A provider that nobody calls."""
    return Provider(name, "openai_chat", "http://127.0.0.1:9/v1", **values)


def model(
    name: str, rate: int | None = 1_000_000, *, tier: int = 1, cap: int | None = None, **values: Any
) -> Candidate:
    """A candidate at one rate for input and output (None: unpriced)."""
    return Candidate(
        name,
        values.pop("at", provider()),
        f"{name}-up",
        tier,
        None if rate is None else price(rate, rate),
        ModelBudget(cap),
        Capabilities(**values),
    )


def policy(models: Sequence[Candidate], routes: Sequence[Route] = (), **values: Any) -> Policy:
    """A policy with these models and routes."""
    providers = {m.provider.name: m.provider for m in models} | {p.name: p for p in values.pop("providers", ())}
    return Policy(
        "v1", "test", providers, {m.name: m for m in models}, {r.name: r for r in routes}, values.pop("caps", Caps()),
        **values,
    )  # fmt: skip


def request(name: str = "auto", **values: Any) -> ChatRequest:
    """A request of one message; `prompt` may be given as its fields."""
    asked: dict[str, Any] = {
        "members": {}, "model": name, "stream": True, "show_usage": False, "choices": 1, "output_limit": None,
        "limit_fields": (), **values, "prompt": Prompt(**{"messages": 1, "turns": 1, **values.get("prompt", {})}),
    }  # fmt: skip
    return ChatRequest(**asked)


class FixedRouter:
    """Scores by name: (probability of success, expected output tokens), all with one confidence."""

    version = "7"

    def __init__(self, scores: Mapping[str, tuple[float, float]], name: str = "fixed", confidence: float = 1.0) -> None:
        self.scores, self.name, self.confidence = scores, name, confidence
        self.asked = 0

    def score(self, features: Features, arms: Sequence[Arm]) -> list[Score]:
        """One score per arm; an unknown one is sure to succeed with 100 tokens."""
        self.asked += 1
        found = [self.scores.get(arm.name, (1.0, 100.0)) for arm in arms]
        return [Score(p, self.confidence, tokens) for p, tokens in found]

    def surest(self, features: Features) -> float:
        """It says nothing beforehand."""
        return 1.0


def view(
    of: Policy, scores: Mapping[str, tuple[float, float]] | None = None, learned: FixedRouter | None = None
) -> View:
    """A view with fixed scores of the heuristic, a learned router where one is given, and an empty catalogue."""
    routers = {HEURISTIC: FixedRouter(scores or {})} | ({LEARNED: learned} if learned else {})
    return View(of, routers, Catalogue(b"{}"))
