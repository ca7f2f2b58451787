"""Other people's routers, in the forms that `bursar eval router --router module:name` takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from routers.base import Arm, Score
from routers.eval_table import Floats, Table
from routers.features import Features
from routers.rows import Indices

Drawn = tuple[float, int]
CHANCE = {"cheap-7b": 0.4, "middle-70b": 0.6, "dear-405b": 0.8}


def matrix(prompts: list[str], models: list[str]) -> list[list[float]]:
    """P(success) of each model on each prompt."""
    return [[CHANCE[model] for model in models] for _ in prompts]


def wrong_shape(prompts: list[str], models: list[str]) -> list[float]:
    """One number a prompt, where a matrix is wanted."""
    return [0.5 for _ in prompts]


def needed(prompt: str) -> float:
    """How much the strong model is needed."""
    return min(len(prompt) / 100, 1.0)


class RouteLlmLike:
    """A router with RouteLLM's method."""

    def calculate_strong_win_rate(self, prompt: str) -> float:
        return needed(prompt)


made = RouteLlmLike()


def hard(prompt: str) -> float:
    """Knows the word that says so."""
    return float("hard" in prompt)


def easy(prompt: str) -> float:
    """Takes it the wrong way."""
    return 1.0 - hard(prompt)


class GatewayLike:
    """A router of the gateway's own protocol."""

    name = "gateway-like"
    version = "7"

    def score(self, features: Features, arms: Sequence[Arm]) -> list[Score]:
        return [Score(CHANCE[arm.name], 0.9, 100.0) for arm in arms]

    def surest(self, features: Features) -> float:
        return 0.9


class Learner:
    """Stands in for a router that learns a model by outcomes: a mean drawn to 0.6, the others known to be 0.5."""

    name = "stand-in"

    def start(self, table: Table, model: int, known: Indices) -> Drawn:
        return (0.6 * 5, 5)

    def learn(self, state: Drawn, table: Table, row: int, outcome: float) -> Drawn:
        return (state[0] + outcome, state[1] + 1)

    def predict(self, state: Drawn, table: Table, rows: Indices) -> Floats:
        return np.full(len(rows), state[0] / state[1])

    def others(self, table: Table, model: int, known: Indices, rows: Indices) -> Floats:
        return np.full((len(rows), len(table.models)), 0.5)


nothing = 3
