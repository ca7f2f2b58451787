"""`usage` as a chat client reads it, with what the reply cost."""

from __future__ import annotations

from typing import Any

from app.dialects.base import Counts


def usage_object(counts: Counts) -> dict[str, Any]:
    """`usage` with `cost` in dollars (null: unknown); an estimate names totals only, and says that it is one.

    `cache_write_tokens` is OpenRouter's word: https://openrouter.ai/docs/use-cases/usage-accounting
    """
    usage = counts.usage
    shown: dict[str, Any] = {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
    }
    if counts.exact:
        given = {"cached_tokens": usage.cache_read}
        written = usage.cache_write + usage.cache_write_1h
        shown["prompt_tokens_details"] = given | {"cache_write_tokens": written} if written else given
        shown["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning}
    else:
        shown["estimated"] = True
    return {**shown, **counts.money()}
