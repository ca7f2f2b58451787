"""Usage in Messages' words, read and written.

`input_tokens` leaves out what was read from the cache or written to it, so the whole input is the sum of the three;
`output_tokens` holds thinking. In a stream `message_start` reports first and `message_delta` cumulatively.
Source: https://platform.claude.com/docs/en/api/messages/create (`usage`) and
https://platform.claude.com/docs/en/build-with-claude/prompt-caching#tracking-cache-performance
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.money import Usage, nano_from_report
from app.dialects.base import Counts
from app.dialects.openai_chat.decode import Tokens, count_of
from app.dialects.openai_chat.render import object_bytes

_members = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


class _Creation(msgspec.Struct):
    ephemeral_5m_input_tokens: Tokens | None = None
    ephemeral_1h_input_tokens: Tokens | None = None


class _OutputDetails(msgspec.Struct):
    thinking_tokens: Tokens | None = None


class _ServerTools(msgspec.Struct):
    web_search_requests: Tokens | None = None


class _Iteration(msgspec.Struct):
    type: str | None = None
    model: str | None = None
    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    cache_creation_input_tokens: Tokens | None = None
    cache_read_input_tokens: Tokens | None = None
    cache_creation: _Creation | None = None


class UsageShape(msgspec.Struct):
    """`usage` as it comes: a `message_delta` may leave out what `message_start` has said."""

    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    cache_creation_input_tokens: Tokens | None = None
    cache_read_input_tokens: Tokens | None = None
    cache_creation: _Creation | None = None
    output_tokens_details: _OutputDetails | None = None
    iterations: list[_Iteration] | None = None
    server_tool_use: _ServerTools | None = None
    speed: Any = None
    inference_geo: Any = None
    cost: Any = None


_INPUT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "cache_creation")


def merged(first: UsageShape | None, later: UsageShape) -> UsageShape:
    """The later report, with what only the first one said. Reports are cumulative; a later one that counts no input at
    all says nothing of it (https://github.com/sgl-project/sglang/pull/20830)."""
    if first is None:
        return later
    counted = later.input_tokens or later.cache_creation_input_tokens or later.cache_read_input_tokens
    silent = later.input_tokens is not None and not counted
    return UsageShape(
        *(
            getattr(first, name)
            if getattr(later, name) is None or (silent and name in _INPUT and getattr(first, name) is not None)
            else getattr(later, name)
            for name in UsageShape.__struct_fields__
        )
    )


def usage_of(shape: UsageShape) -> Usage | None:
    """A report as ours; None when it names no tokens.

    A compaction's own tokens stand in `iterations` only, and are billed beside the rest (SDK: `BetaUsage.iterations`).
    """
    if shape.input_tokens is None and shape.output_tokens is None:
        return None
    fresh, output = count_of(shape.input_tokens), count_of(shape.output_tokens)
    read, written = count_of(shape.cache_read_input_tokens), count_of(shape.cache_creation_input_tokens)
    creation = shape.cache_creation
    hour = count_of(creation.ephemeral_1h_input_tokens) if creation else 0
    if creation and shape.cache_creation_input_tokens is None:
        written = hour + count_of(creation.ephemeral_5m_input_tokens)
    hour = min(hour, written)
    for iteration in shape.iterations or ():
        if iteration.type == "compaction":
            fresh += count_of(iteration.input_tokens)
            output += count_of(iteration.output_tokens)
            read += count_of(iteration.cache_read_input_tokens)
            written += count_of(iteration.cache_creation_input_tokens)
    details = shape.output_tokens_details
    thinking = min(count_of(details.thinking_tokens), output) if details else 0
    tools: tuple[tuple[str, int], ...] = ()
    ran = shape.server_tool_use
    if ran is not None and ran.web_search_requests is not None:
        tools = (("web_search", count_of(ran.web_search_requests)),)
    cost_nano = nano_from_report(shape.cost)  # of resellers, and of a Bursar upstream
    usage = Usage(fresh + read + written, output, read, written - hour, hour, thinking, cost_nano, tools)
    return msgspec.structs.replace(usage, by_model=_by_model(shape.iterations)) if shape.iterations else usage


def _by_model(iterations: list[_Iteration]) -> tuple[tuple[str, Usage], ...]:
    """What is billed of which model where another answered in the asked one's place, or went on where that declined;
    nothing of one that declined before it said a word
    (https://platform.claude.com/docs/en/build-with-claude/refusals-and-fallback)."""
    ran = [one for one in iterations if one.type in ("message", "fallback_message")]
    if not any(one.type == "fallback_message" for one in ran) and len({one.model for one in ran if one.model}) < 2:
        return ()
    billed = [one for one in ran if one.output_tokens or one.model == ran[-1].model]
    billed += [one for one in iterations if one.type == "compaction"]
    return tuple([(one.model or "", _of_iteration(one)) for one in billed])


def _of_iteration(one: _Iteration) -> Usage:
    shape = UsageShape(
        one.input_tokens or 0,
        one.output_tokens or 0,
        one.cache_creation_input_tokens,
        one.cache_read_input_tokens,
        one.cache_creation,
    )
    return usage_of(shape) or Usage(0, 0)


def usage_object(usage: Usage) -> dict[str, object]:
    """Our usage in Messages' words, without its cost."""
    written = usage.cache_write + usage.cache_write_1h
    told: dict[str, object] = {
        "input_tokens": max(usage.input - usage.cache_read - written, 0),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": usage.output,
    }
    if written:
        told["cache_creation"] = {
            "ephemeral_5m_input_tokens": usage.cache_write,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        }
    if usage.reasoning:
        told["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    if searches := dict(usage.tools).get("web_search"):
        told["server_tool_use"] = {"web_search_requests": searches}
    return told


def usage_bytes(counts: Counts) -> bytes:
    """The usage that ends a reply: `cost` in dollars (null: unknown), `estimated` where the provider said none."""
    told = usage_object(counts.usage)
    if not counts.exact:
        told["estimated"] = True
    return msgspec.json.encode({**told, **counts.money()})


def priced(usage: msgspec.Raw | None, counts: Counts) -> msgspec.Raw:
    """A provider's own usage with the cost added; where it sent none, the estimate."""
    members = _members.decode(usage) if usage is not None else None
    if not members:
        return msgspec.Raw(usage_bytes(counts))
    return msgspec.Raw(object_bytes({**members, **counts.money()}))
