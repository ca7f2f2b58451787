"""The learned router under test: as shipped, and trained for each fold."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

from routers.base import Router
from routers.eval_contenders import UnknownRouter
from routers.eval_newcomer import Updatable
from routers.rows import Row

WEIGHTS: Final = Path(__file__).parent / "weights"


def load_learned(weights: Path = WEIGHTS) -> Router:
    """The router with the shipped weights; UnknownRouter where there are none or they cannot be used."""
    try:
        return cast("Router", _module("routers.learned").load(weights))
    except (OSError, ValueError) as error:
        raise UnknownRouter(f"the learned router's weights cannot be used: {error}") from None


def train_learned(rows: Sequence[Row], seed: int) -> Router:
    """A router trained on these rows alone."""
    weights = _module("routers.train").train(rows, seed=seed)
    return cast("Router", _module("routers.learned").LearnedRouter(weights))


def updatable() -> Updatable:
    """The shipped router as one that learns a new model; UnknownRouter where there is none."""
    load_learned()
    raise UnknownRouter("the learned router cannot be updated here")


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UnknownRouter(f"the learned router is not installed: {error}") from None
