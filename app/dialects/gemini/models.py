"""The list of models as Gemini's clients read it. Source: https://ai.google.dev/api/models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from app.dialects.gemini.paths import COUNT, GENERATE, STREAM

_METHODS = (GENERATE, STREAM, COUNT)


class ModelFacts(NamedTuple):
    """What is told of a model: its name, its context window and its output limit, None where unknown."""

    name: str
    context_tokens: int | None
    output_tokens: int | None


def models_list(models: Iterable[ModelFacts]) -> bytes:
    """The reply of `GET /v1beta/models`; it has one page."""
    return msgspec.json.encode({"models": [_shown(model) for model in models]})


def one_model(model: ModelFacts) -> bytes:
    """The reply of `GET /v1beta/models/{name}`."""
    return msgspec.json.encode(_shown(model))


def _shown(model: ModelFacts) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": f"models/{model.name}", "displayName": model.name}
    if model.context_tokens is not None:
        shown["inputTokenLimit"] = model.context_tokens
    if model.output_tokens is not None:
        shown["outputTokenLimit"] = model.output_tokens
    return {**shown, "supportedGenerationMethods": _METHODS}
