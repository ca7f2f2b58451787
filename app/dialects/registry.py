"""The dialects there are, by the names that policies give them."""

from __future__ import annotations

import functools
from importlib import import_module
from typing import Final, cast

from app.dialects.base import Dialect

CHAT: Final = "openai_chat"
RESPONSES: Final = "openai_responses"
MESSAGES: Final = "anthropic"
GEMINI: Final = "gemini"
COMPLETIONS: Final = "openai_completions"
"""For clients alone: providers of Chat serve it beside that."""
NAMES: Final = (CHAT, RESPONSES, MESSAGES, GEMINI)


@functools.cache
def dialect_named(name: str) -> Dialect:
    """A dialect; loaded on first use, because a gateway that speaks one needs no other. Raises KeyError."""
    if name not in NAMES and name != COMPLETIONS:
        raise KeyError(name)
    return cast(Dialect, import_module(f"app.dialects.{name}.dialect").DIALECT)
