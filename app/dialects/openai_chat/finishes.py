"""How a choice ends, in the words that Chat has, and in those of servers that have others."""

from __future__ import annotations

from typing import Final

FINISHES: Final = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "sensitive": "content_filter",
}
"""Together ends with eos, Mistral with model_length, Zhipu with sensitive; the others are of compatible endpoints."""
FAILURES: Final = frozenset(("error", "insufficient_system_resource", "network_error", "abort"))
"""Ends that are none: OpenRouter's and Mistral's, DeepSeek's, Zhipu's, sglang's."""
FAILED: Final = "The provider ended its reply with an error."
OWN: Final = frozenset((*FINISHES.values(), "function_call"))
"""What Chat's clients know. There are agents that ask again without end where they do not (shared WIRE.md)."""


def is_failure(word: str) -> bool:
    """True where the provider says that it failed."""
    return word.lower() in FAILURES


def own_word(word: str) -> str:
    """A finish reason as Chat's clients know it; one that nobody knows is an ordinary end."""
    return word if word in OWN else FINISHES.get(word.lower(), "stop")
