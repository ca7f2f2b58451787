"""Paths of the Gemini API: the model and the verb stand in the URL.

Source: https://ai.google.dev/api/generate-content (`/v1beta/{model=models/*}:generateContent`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

GENERATE, STREAM, COUNT = "generateContent", "streamGenerateContent", "countTokens"
_COLLECTIONS = ("models", "tunedModels")
_OLDER = re.compile(r"(?:models/)?gemini-[12](?:\.\d+)?-")


def bare_model(name: str) -> str:
    """A model's name without the `models/` that Google puts before it."""
    return name.removeprefix("models/")


def wants_array(path: Mapping[str, str]) -> bool:
    """Whether the reply to such a URL is one JSON array, an error's too: a stream without `alt=sse`."""
    return path.get("verb") == STREAM and path.get("alt") != "sse"


def searches_are_billed_once(model: str) -> bool:
    """Whether an answer of this model is billed for one search, however many it made: so before Gemini 3
    (https://ai.google.dev/gemini-api/docs/google-search#pricing)."""
    return _OLDER.match(model) is not None


def resource(model: str) -> str:
    """The model as the API names it, safe in a URL: `models/x`, or `tunedModels/x` where the name says so."""
    for collection in _COLLECTIONS:
        if model.startswith(f"{collection}/"):
            return f"{collection}/{quote(model[len(collection) + 1 :], safe='@')}"
    return f"models/{quote(model, safe='@')}"


def generate_path(model: str, *, stream: bool) -> str:
    """Where a request goes, below a base URL that ends in the API's version; streams come as server-sent events."""
    return f"/{resource(model)}:{STREAM}?alt=sse" if stream else f"/{resource(model)}:{GENERATE}"
