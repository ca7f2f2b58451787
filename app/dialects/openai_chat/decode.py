"""OpenAI Chat Completions, reply side: what the meter must know of each event, and usage in every shape.

The shapes differ by provider (tests/wire has one recording of each): usage in a chunk of its own, merged
with the finish chunk, cumulative on every chunk, under `x_groq`, with or without reasoning inside
`completion_tokens`; content as a string or as parts; tool calls whole or in pieces.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import msgspec

from app.core.heard import Heard
from app.core.money import MAX_NANO, Usage, added, nano_from_report
from app.core.raw import ABSENT, NO_ERROR, UNREADABLE
from app.core.tokens import pieces
from app.core.types import StreamEvent
from app.dialects.base import BadEvent
from app.dialects.server_tools import served_tier

AUDIO_BASE64_PER_TOKEN = 3200
"""One audio token is 50 ms; pcm16 at 24 kHz is 3,200 base64 characters in that time
(https://platform.openai.com/docs/guides/realtime-costs)."""
MAX_TOKENS = 2**31 - 1
"""A larger count is a defect of the provider's, and its cost would not fit the ledger."""
TICKS_PER_NANO = 10
"""xAI names what a call is billed in ticks, ten thousand million to a dollar
(https://docs.x.ai/developers/cost-tracking)."""
Tokens = int | float
"""A count, which servers that know one kind of number only write as `11.0`."""


class _ServerTools(msgspec.Struct):
    web_search_requests: Tokens | None = None


class _InputDetails(msgspec.Struct):
    cached_tokens: Tokens | None = None
    cache_write_tokens: Tokens | None = None
    cache_creation_tokens: Tokens | None = None
    audio_tokens: Tokens | None = None
    web_search_requests: Tokens | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: Tokens | None = None
    audio_tokens: Tokens | None = None
    image_tokens: Tokens | None = None


class _CostDetails(msgspec.Struct):
    upstream_inference_cost: Any = None


class UsageShape(msgspec.Struct):
    """`usage` as providers send it: every member optional."""

    prompt_tokens: Tokens | None = None
    completion_tokens: Tokens | None = None
    total_tokens: Tokens | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    reasoning_tokens: Tokens | None = None
    cached_tokens: Tokens | None = None
    prompt_cache_hit_tokens: Tokens | None = None
    cache_read_input_tokens: Tokens | None = None
    cache_creation_input_tokens: Tokens | None = None
    server_tool_use: _ServerTools | None = None
    num_search_queries: Tokens | None = None
    cost: Any = None
    cost_in_usd_ticks: Any = None
    estimated_cost: Any = None
    is_byok: bool | None = None
    cost_details: _CostDetails | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None
    input: str | None = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    function: _Function | None = None
    custom: _Function | None = None


class _Audio(msgspec.Struct):
    data: str | None = None
    transcript: str | None = None


class _Delta(msgspec.Struct):
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None
    audio: _Audio | None = None


class _Choice(msgspec.Struct):
    index: int | None = None
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None
    usage: UsageShape | None = None


class _Groq(msgspec.Struct):
    usage: UsageShape | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: UsageShape | None = None
    error: msgspec.Raw = ABSENT
    x_groq: _Groq | None = None
    service_tier: Any = None


class _Reply(msgspec.Struct):
    usage: UsageShape | None = None


class _Whole(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: UsageShape | None = None
    service_tier: Any = None


_whole = msgspec.json.Decoder(_Whole)
_chunk = msgspec.json.Decoder(_Chunk)
_lax_chunk = msgspec.json.Decoder(_Chunk, strict=False)
"""For servers that write counts as text."""
_reply = msgspec.json.Decoder(_Reply)


def decode_event(data: bytes, heard: Heard | None = None) -> StreamEvent:
    """One chunk, or one whole completion, as a StreamEvent; `heard` is told what it says. Raises BadEvent."""
    try:
        chunk = _chunk.decode(data)
    except UNREADABLE:
        try:
            chunk = _lax_chunk.decode(data)
        except UNREADABLE as error:
            raise BadEvent(str(error)) from None
    return _event_of(chunk, heard, counts=True)


def _event_of(chunk: _Chunk, heard: Heard | None, *, counts: bool) -> StreamEvent:
    event = StreamEvent()
    if chunk.error and bytes(chunk.error) not in NO_ERROR:
        event.error = bytes(chunk.error)
    if chunk.choices:
        event.has_choices = True
        for choice in chunk.choices:
            if counts:
                _count(event, choice)
            if heard is not None and not choice.index and (heard.open or choice.finish_reason):
                _hear(heard, choice)
    shape = chunk.usage
    if shape is None and chunk.x_groq is not None:
        shape = chunk.x_groq.usage
    if shape is None and chunk.choices:
        shape = chunk.choices[-1].usage
    if shape is not None:
        event.usage, event.served = usage_of(shape), served_tier(chunk.service_tier)
    return event


def decode_whole(data: bytes, heard: Heard | None = None) -> StreamEvent:
    """One whole completion, told to `heard` as far as it can be read. Its text is only counted where the provider sent
    no usage. Raises BadEvent."""
    if heard is not None:
        try:
            chunk = _chunk.decode(data)
        except UNREADABLE:
            return decode_whole(data)  # what cannot be read this far can be passed on
        return _event_of(chunk, heard, counts=chunk.usage is None or not chunk.choices)
    try:
        reply = _whole.decode(data)
    except UNREADABLE as error:
        raise BadEvent(str(error)) from None
    usage = usage_of(reply.usage) if reply.usage is not None else None
    if usage is None or not reply.choices:
        return decode_event(data)
    return StreamEvent(has_choices=True, usage=usage, served=served_tier(reply.service_tier))


def decode_usage(data: bytes) -> Usage | None:
    """The usage of a whole reply that is not a chat completion (embeddings). Raises BadEvent."""
    try:
        shape = _reply.decode(data).usage
    except UNREADABLE as error:
        raise BadEvent(str(error)) from None
    return usage_of(shape) if shape is not None else None


def _count(event: StreamEvent, choice: _Choice) -> None:
    if choice.finish_reason:
        event.finished[choice.index or 0] = choice.finish_reason
    delta = choice.delta or choice.message
    if delta is None:
        return
    if delta.content:
        event.pieces += pieces(delta.content) if isinstance(delta.content, str) else _pieces_in(delta.content)
    # Some providers send the same thought in both fields.
    thought = delta.reasoning_content or delta.reasoning
    if thought:
        event.pieces += pieces(thought)
    if delta.refusal:
        event.pieces += pieces(delta.refusal)
    for call in delta.tool_calls or ():
        event.in_tool = True
        event.pieces += _pieces_of_call(call.function or call.custom)
    if delta.function_call is not None:
        event.in_tool = True
        event.pieces += _pieces_of_call(delta.function_call)
    if delta.audio is not None:
        event.pieces += pieces(delta.audio.transcript or "")
        event.pieces += -(-len(delta.audio.data or "") // AUDIO_BASE64_PER_TOKEN)


def _hear(heard: Heard, choice: _Choice) -> None:
    """Keep what this chunk says."""
    if choice.finish_reason:
        heard.finish = choice.finish_reason
    delta = choice.delta or choice.message
    if delta is None or not heard.open:
        return
    if delta.content:
        heard.say(delta.content if isinstance(delta.content, str) else "")
    if delta.refusal:
        heard.refused = True
        heard.say(delta.refusal)
    for call in delta.tool_calls or ():
        function = call.function or call.custom
        if function is not None:
            if function.name:
                heard.call(call.index, function.name)
            given = function.arguments or function.input or ""
            heard.argue(call.index, given if isinstance(given, str) else msgspec.json.encode(given).decode())
    if delta.function_call is not None:
        heard.begin_call(delta.function_call.name or "")
    if delta.audio is not None:
        heard.said = heard.attempted = True


def _pieces_of_call(function: _Function | None) -> int:
    if function is None:
        return 1
    arguments = function.arguments or function.input or ""
    if not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments).decode()
    return pieces(function.name or "") + pieces(arguments)


def _pieces_in(parts: list[Any]) -> int:
    """Text anywhere in content parts (Mistral's thinking nests a list of text parts)."""
    total = 0
    for part in parts:
        if isinstance(part, str):
            total += pieces(part)
        elif isinstance(part, dict):
            for value in part.values():
                if isinstance(value, list):
                    total += _pieces_in(value)
            text = part.get("text")
            total += pieces(text) if isinstance(text, str) else 0
    return total


def usage_of(shape: UsageShape) -> Usage | None:
    """A provider's usage as ours: cached input counted once, reasoning inside the output.

    Where `total_tokens` is larger than the parts, the rest is thinking that `completion_tokens` leaves out
    (Gemini's compatible endpoint does so); it is billed as output. None when it names no tokens.
    """
    if shape.prompt_tokens is None and shape.completion_tokens is None:
        return None
    given_input, output = count_of(shape.prompt_tokens), count_of(shape.completion_tokens)
    detailed = shape.completion_tokens_details.reasoning_tokens if shape.completion_tokens_details else None
    reasoning = count_of(detailed or shape.reasoning_tokens)
    beyond = count_of(shape.total_tokens) - given_input - output
    if beyond > 0:
        output += beyond
        reasoning = max(reasoning, beyond)
    details = shape.prompt_tokens_details
    read = (
        (details.cached_tokens if details else None)
        or shape.prompt_cache_hit_tokens
        or shape.cache_read_input_tokens
        or shape.cached_tokens
    )
    write = (details.cache_write_tokens or details.cache_creation_tokens) if details else None
    write = write or shape.cache_creation_input_tokens
    read = min(count_of(read), given_input) if read else 0
    write = min(count_of(write), given_input - read) if write else 0
    usage = Usage(given_input, output, read, write, 0, min(reasoning, output), _cost_of(shape), _tools_of(shape))
    return _with_media(usage, details, shape.completion_tokens_details)


def _tools_of(shape: UsageShape) -> tuple[tuple[str, int], ...]:
    """Web searches, where a provider counts them: OpenRouter's way, litellm's, and Perplexity's. OpenAI does not."""
    searches = shape.num_search_queries
    if shape.server_tool_use is not None:
        searches = shape.server_tool_use.web_search_requests
    elif shape.prompt_tokens_details is not None and shape.prompt_tokens_details.web_search_requests is not None:
        searches = shape.prompt_tokens_details.web_search_requests
    return () if searches is None else (("web_search", count_of(searches)),)


def _with_media(usage: Usage, given: _InputDetails | None, made: _OutputDetails | None) -> Usage:
    """Sound and pictures, which have prices of their own; OpenAI counts sound in the input before its cache."""
    heard = given.audio_tokens if given is not None else None
    spoken, drawn = (made.audio_tokens, made.image_tokens) if made is not None else (None, None)
    if not (heard or spoken or drawn):
        return usage
    return msgspec.structs.replace(
        usage, audio_input=count_of(heard), audio_output=count_of(spoken), image_output=count_of(drawn)
    )


def summed(reports: list[Usage]) -> Usage:
    """One usage of several that each count one choice: the same input, the outputs together."""
    return functools.reduce(added, reports)


def count_of(tokens: Tokens | None) -> int:
    """A count as a provider wrote it, within what can be counted."""
    if not tokens:
        return 0
    if type(tokens) is int and 0 < tokens <= MAX_TOKENS:
        return tokens  # nearly all
    return math.ceil(min(max(tokens, 0), MAX_TOKENS))


def _cost_of(shape: UsageShape) -> int | None:
    """The provider's own figure: a number, or Perplexity's object with `total_cost`; xAI's, in ticks; DeepInfra's.

    With a key of the operator's at OpenRouter, `cost` is its fee and the model's cost stands beside it
    (https://openrouter.ai/docs/use-cases/usage-accounting).
    """
    cost: Any = shape.cost.get("total_cost") if isinstance(shape.cost, dict) else shape.cost
    nano = None if cost is None else nano_from_report(cost)  # nearly all tell none
    if nano is None and shape.cost_in_usd_ticks is not None:
        nano = _nano_of_ticks(shape.cost_in_usd_ticks)
    if nano is None and shape.estimated_cost is not None:
        nano = nano_from_report(shape.estimated_cost)
    if nano is not None and shape.is_byok and shape.cost_details is not None:
        nano += nano_from_report(shape.cost_details.upstream_inference_cost) or 0
    return nano


def _nano_of_ticks(ticks: Any) -> int | None:
    if not isinstance(ticks, int) or isinstance(ticks, bool) or not 0 <= ticks < MAX_NANO:
        return None
    return -(-ticks // TICKS_PER_NANO)
