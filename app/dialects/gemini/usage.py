"""`usageMetadata` as ours, and ours as `usageMetadata`.

Source: https://ai.google.dev/api/generate-content#UsageMetadata. Cached tokens are inside the prompt's count, those of
a tool's own prompt are not; thinking stands outside of the candidates' count, and is billed as output
(https://ai.google.dev/gemini-api/docs/thinking#pricing).
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.money import Usage, nano_from_report
from app.dialects.base import Counts
from app.dialects.openai_chat.decode import Tokens, count_of


class _OfModality(msgspec.Struct, rename="camel"):
    """https://ai.google.dev/api/generate-content#ModalityTokenCount"""

    modality: str = ""
    token_count: Tokens | None = None


class UsageShape(msgspec.Struct, rename="camel"):
    """The counts as Gemini sends them, cumulative, on every chunk; `cost` is a gateway's like this one."""

    prompt_token_count: Tokens | None = None
    cached_content_token_count: Tokens | None = None
    candidates_token_count: Tokens | None = None
    tool_use_prompt_token_count: Tokens | None = None
    thoughts_token_count: Tokens | None = None
    total_token_count: Tokens | None = None
    prompt_tokens_details: list[_OfModality] | None = None
    cache_tokens_details: list[_OfModality] | None = None
    candidates_tokens_details: list[_OfModality] | None = None
    cost: Any = None


def usage_of(shape: UsageShape) -> Usage | None:
    """A reply's usage so far; None where it counts neither prompt nor candidates.

    Where the total is larger than its parts, the rest is thinking not yet told apart: it is billed as output.
    """
    if shape.prompt_token_count is None and shape.candidates_token_count is None:
        return None
    given = count_of(shape.prompt_token_count) + count_of(shape.tool_use_prompt_token_count)
    thoughts = count_of(shape.thoughts_token_count)
    output = count_of(shape.candidates_token_count) + thoughts
    beyond = count_of(shape.total_token_count) - given - output
    if beyond > 0 and shape.prompt_token_count is not None:
        output, thoughts = output + beyond, thoughts + beyond
    read = min(count_of(shape.cached_content_token_count), given)
    heard, cached = _of(shape.prompt_tokens_details, "AUDIO"), _of(shape.cache_tokens_details, "AUDIO")
    return Usage(
        given,
        output,
        read,
        reasoning=thoughts,
        cost_nano=nano_from_report(shape.cost),
        audio_input=max(heard - cached, 0),
        audio_output=_of(shape.candidates_tokens_details, "AUDIO"),
        image_output=_of(shape.candidates_tokens_details, "IMAGE"),
    )


def _of(details: list[_OfModality] | None, modality: str) -> int:
    return sum(count_of(detail.token_count) for detail in details or () if detail.modality == modality)


def usage_members(counts: Counts) -> dict[str, Any]:
    """`usageMetadata` with `cost` in dollars (null: unknown); an estimate says that it is one."""
    usage = counts.usage
    shown: dict[str, Any] = {
        "promptTokenCount": usage.input,
        "candidatesTokenCount": usage.output - usage.reasoning,
        "totalTokenCount": usage.input + usage.output,
    }
    if usage.reasoning:
        shown["thoughtsTokenCount"] = usage.reasoning
    if usage.cache_read:
        shown["cachedContentTokenCount"] = usage.cache_read
    if not counts.exact:
        shown["estimated"] = True
    return {**shown, **counts.money()}
