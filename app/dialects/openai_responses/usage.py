"""Usage as Responses tells it: cached input inside `input_tokens`, reasoning inside `output_tokens`.

Source: https://platform.openai.com/docs/api-reference/responses/object (`usage`)
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.money import Usage
from app.dialects.base import Counts
from app.dialects.openai_chat.decode import Tokens, UsageShape, _CostDetails, _InputDetails, _OutputDetails, usage_of
from app.dialects.openai_chat.render import object_bytes

_optional = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


class ResponsesUsage(msgspec.Struct):
    """`usage` as providers send it: every member optional."""

    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    total_tokens: Tokens | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None
    cost: Any = None
    cost_in_usd_ticks: Any = None
    is_byok: bool | None = None
    cost_details: _CostDetails | None = None

    def counted(self) -> Usage | None:
        """As ours; the rules are those of chat's usage, whose names alone differ. None when it names no tokens."""
        return usage_of(
            UsageShape(
                prompt_tokens=self.input_tokens,
                completion_tokens=self.output_tokens,
                total_tokens=self.total_tokens,
                prompt_tokens_details=self.input_tokens_details,
                completion_tokens_details=self.output_tokens_details,
                cost=self.cost,
                cost_in_usd_ticks=self.cost_in_usd_ticks,
                is_byok=self.is_byok,
                cost_details=self.cost_details,
            )
        )


def usage_bytes(counts: Counts) -> msgspec.Raw:
    """A whole `usage`, with what it cost in dollars (null: unknown)."""
    usage = counts.usage
    made: dict[str, Any] = {
        "input_tokens": usage.input,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write + usage.cache_write_1h,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }
    if not counts.exact:
        made["estimated"] = True
    return msgspec.Raw(msgspec.json.encode({**made, **counts.money()}))


def with_cost(usage: msgspec.Raw | None, counts: Counts) -> msgspec.Raw:
    """A provider's `usage` with the cost added; our own where it sent none."""
    members = _optional.decode(usage) if usage else None
    if not members:
        return usage_bytes(counts)
    return msgspec.Raw(object_bytes({**members, **counts.money()}))
