"""In whose words a request is refused that no hot route serves: its path tells the dialect of its client, or a header
that only clients of one dialect send."""

from __future__ import annotations

import re
from collections.abc import Collection

from starlette.requests import Request

from app.dialects.base import Dialect
from app.dialects.registry import CHAT, GEMINI, MESSAGES, dialect_named

_GEMINIS = re.compile(
    r"/v1(?:beta|alpha)(?:/|$)|:(?:generate|streamGenerate|embed|batchEmbed)[A-Z]\w*/?$|:countTokens/?$"
)
_MESSAGES = re.compile(r"/messages(?:/|$)")
_MODELS = "/v1/models"
"""All dialects' lists. Here a `key` in the query is Gemini's API key; elsewhere it names one of the policy's keys."""


def spoken_at(path: str, headers: Collection[str]) -> Dialect:
    """The dialect of a client that asks at this path, with headers of these names (in lower case)."""
    if "x-goog-api-key" in headers or _GEMINIS.search(path) is not None:
        return dialect_named(GEMINI)
    if "anthropic-version" in headers or _MESSAGES.search(path) is not None:
        return dialect_named(MESSAGES)
    return dialect_named(CHAT)


def spoken_by(request: Request) -> Dialect:
    """The same for a request, whose query may tell, too."""
    names = set(request.headers.keys())
    if request.url.path.startswith(_MODELS) and request.query_params.get("key"):
        names.add("x-goog-api-key")
    return spoken_at(request.url.path, names)
