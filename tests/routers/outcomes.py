"""Synthetic rows of outcomes (no benchmark's): four models, two kinds of question, hard and easy ones of each."""

from __future__ import annotations

from functools import lru_cache
from math import exp

import numpy as np

from routers.artifact import Weights
from routers.rows import Outcome, Row

MODELS = {"gpt-4o": 1.6, "gpt-4o-mini": 0.4, "llama-3.1-8b-instruct": -0.6, "mistral-7b-instruct": -1.2}
"""Names of real models, with invented abilities in the order of their facts."""
THINGS = ["apples", "pears", "coins", "stamps", "tiles", "bolts", "cards", "shells", "bricks", "lamps"]
PLACES = ["Arden", "Bexley", "Corwen", "Dunmore", "Elstow", "Farley", "Gorran", "Hythe", "Ilkley", "Jarrow"]


def rows(count: int = 240, seed: int = 1) -> list[Row]:
    """Sums and questions of place, half of each long with conditions; the long ones are harder."""
    rng = np.random.default_rng(seed)
    return [_row(number, rng) for number in range(count)]


def _row(number: int, rng: np.random.Generator) -> Row:
    sums, hard = number % 2 == 0, rng.random() < 0.5
    prompt = _sum(rng, hard) if sums else _place(rng, hard)
    ease = 0.8 - 1.8 * hard
    outcomes = {
        model: Outcome(float(rng.random() < 1.0 / (1.0 + exp(-(ability + ease)))), out_tokens=60.0 + 60.0 * hard)
        for model, ability in MODELS.items()
    }
    return Row(f"r{number}", "made" if number % 3 else "up", "sums" if sums else "places", prompt, (), outcomes)


def _sum(rng: np.random.Generator, hard: bool) -> str:
    a, b, c = rng.integers(2, 99, 3)
    thing = rng.choice(THINGS)
    if not hard:
        return f"What is {a} + {b} {thing}?"
    return (
        f"A box holds {a} {thing}, each of them worth {b} cents. If exactly {c} percent are lost, calculate the value "
        "of what remains, subject to the condition that each lost one costs 2 cents more; round only the final result."
    )


def _place(rng: np.random.Generator, hard: bool) -> str:
    place, other = rng.choice(PLACES, 2, replace=False)
    if not hard:
        return f"Who founded {place}? Founded number {rng.integers(9999)}."
    return (
        f"Compare the charters of {place} and {other} of {rng.integers(1100, 1900)}, and explain which statement "
        "about jurisdiction, fiduciary obligations and constitutional precedent is NOT supported by either of them."
    )


@lru_cache(maxsize=1)
def weights() -> Weights:
    """Weights trained on them, once for all tests."""
    from routers.train import train

    return train(rows(), seed=0)
