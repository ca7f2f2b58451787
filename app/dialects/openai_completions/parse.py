"""OpenAI's text completions, request side: bytes to ChatRequest, bad input to a clear error.

Editors complete code with it (`suffix`: fill in the middle), and harnesses measure models (`echo`, `logprobs`). As in
Chat only what the gateway needs is decoded, and every member keeps its bytes.
Source: https://platform.openai.com/docs/api-reference/completions/create
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from app.core.errors import BadRequest
from app.core.tokens import BYTES_PER_INPUT_TOKEN
from app.core.types import ChatRequest, Prompt
from app.dialects.openai_chat.fields import field_of
from app.dialects.openai_chat.parse import (
    LLAMACPP_LIMIT,
    MAX_LIMIT,
    heed_own_limit,
    max_cost_of,
    members_of,
    task_id_of,
)
from app.dialects.openai_chat.routing import read_models, read_placement

NAME: Final = "openai_completions"
LIMIT_FIELD: Final = "max_tokens"
DEFAULT_LIMIT: Final = 16
"""What the API takes where a client names no limit; servers of local models take none."""
MAX_CHOICES: Final = 128
"""The largest `n` and `best_of`."""
MAX_ANSWERS: Final = 4096
"""Prompts times answers to each."""

EMBEDS: Final = "prompt_embeds"
LEAST_EMBEDDING_CHARS: Final = 1024
"""What one token takes in base64 at the least: the vectors of small models have some 400 numbers of two bytes."""

_flag = msgspec.json.Decoder(bool | None)
_integer = msgspec.json.Decoder(int | None)
_optional_string = msgspec.json.Decoder(str | None)
_texts = msgspec.json.Decoder(list[str])
_tokens = msgspec.json.Decoder(list[int])
_token_lists = msgspec.json.Decoder(list[list[int]])


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


_options = msgspec.json.Decoder(_StreamOptions | None)


@dataclass(slots=True)
class Prompts:
    """What is to be completed. `bytes_`: of all prompts; of one in tokens as many as that many tokens have at the
    least. `lengths`: of each, in characters or `in_tokens`."""

    text: str
    bytes_: int
    lengths: tuple[int, ...]
    in_tokens: bool = False


@dataclass(slots=True)
class Echo:
    """What of each choice repeats its prompt, in characters or `in_tokens`; none where nothing does."""

    lengths: tuple[int, ...] = ()
    in_tokens: bool = False


def parse_completion(body: bytes) -> ChatRequest:
    """One request body as a ChatRequest. Raises BadRequest naming the parameter at fault."""
    members = members_of(body)
    model, others = read_models(members)
    prompts = prompts_of(members)
    stream = bool(_read(_flag, members, "stream"))
    options = _read(_options, members, "stream_options")
    n = _count(members, "n", 1, MAX_CHOICES) or 1
    best_of = _count(members, "best_of", 1, MAX_CHOICES) or n
    if best_of < n:
        raise BadRequest("The parameter best_of must not be below n.", param="best_of")
    if best_of > n and stream:
        raise BadRequest("Answers of which the best are chosen cannot be streamed.", param="best_of")
    answers = best_of * len(prompts.lengths)
    if answers > MAX_ANSWERS:
        raise BadRequest("The parameter prompt asks for too many answers at once.", param="prompt")
    if LLAMACPP_LIMIT in members:
        heed_own_limit(members, LIMIT_FIELD)
    limit = _count(members, LIMIT_FIELD, 0, MAX_LIMIT)  # of nothing, where a prompt is only to be measured
    if best_of > n and limit is None:  # answers that nobody sees: nothing else would bound them
        members[LIMIT_FIELD], limit = msgspec.Raw(b"%d" % DEFAULT_LIMIT), DEFAULT_LIMIT
    suffix = members.get("suffix", b"")
    _read(_optional_string, members, "suffix")
    _read(_flag, members, "echo")
    prompt = Prompt(first_user=prompts.text, last_user=prompts.text, turns=1)
    prompt.text_bytes = prompts.bytes_ + len(suffix)
    if "provider" in members:
        prompt.placement = read_placement(members)
    return ChatRequest(
        members=members,
        model=model,
        stream=stream,
        show_usage=bool(options and options.include_usage),
        choices=answers,
        output_limit=limit,
        limit_fields=() if limit is None else (LIMIT_FIELD,),
        prompt=prompt,
        max_cost_nano=max_cost_of(members),
        task_id=task_id_of(members),
        dialect=NAME,
        others=others,
        whole=best_of > n,
    )


def prompts_of(members: dict[str, msgspec.Raw]) -> Prompts:
    """A text, several, tokens, or several lists of tokens, and vLLM's vectors before them. Raises BadRequest."""
    raw, embedded = members.get("prompt"), _embedded(members)
    if raw is None or bytes(raw) == b"null":
        return embedded or Prompts("", 0, (0,))
    prompts = _prompts_in(raw, members)
    if embedded is not None:
        prompts.bytes_ += embedded.bytes_
        prompts.lengths = embedded.lengths + prompts.lengths
    return prompts


def _embedded(members: dict[str, msgspec.Raw]) -> Prompts | None:
    """Prompts as vectors, each in base64: how many tokens only vLLM knows, so as many as there can be.

    Source: https://docs.vllm.ai/en/latest/features/prompt_embeds.html
    """
    raw = members.get(EMBEDS)
    if raw is None or bytes(raw) == b"null":
        return None
    several = bytes(memoryview(raw)[:64]).lstrip().startswith(b"[")
    given: list[str] = field_of(_texts, members, EMBEDS) if several else [field_of(_optional_string, members, EMBEDS)]
    if not given:
        return None
    tokens = sum(len(text) // LEAST_EMBEDDING_CHARS + 1 for text in given)
    return Prompts("", math.ceil(tokens * BYTES_PER_INPUT_TOKEN), tuple(0 for _ in given))


def _prompts_in(raw: msgspec.Raw, members: dict[str, msgspec.Raw]) -> Prompts:
    first = bytes(memoryview(raw)[:64]).lstrip()
    inner = first[1:].lstrip()[:1]
    if not first.startswith(b"["):
        texts: list[str] = [field_of(_optional_string, members, "prompt")]
    elif inner == b'"':
        texts = field_of(_texts, members, "prompt")
    else:
        lists: list[list[int]]
        lists = field_of(_token_lists, members, "prompt") if inner == b"[" else [field_of(_tokens, members, "prompt")]
        if not any(lists):
            raise BadRequest("The parameter prompt must hold at least one prompt.", param="prompt")
        lengths = tuple(map(len, lists))
        return Prompts("", math.ceil(sum(lengths) * BYTES_PER_INPUT_TOKEN), lengths, in_tokens=True)
    return Prompts(texts[0], sum(len(text.encode("utf-8", "replace")) for text in texts), tuple(map(len, texts)))


def echoed(request: ChatRequest) -> Echo:
    """How much of each choice repeats its prompt."""
    members = request.members
    if not _read(_flag, members, "echo"):
        return Echo()
    n, prompts = _read(_integer, members, "n") or 1, prompts_of(members)
    return Echo(tuple([length for length in prompts.lengths for _ in range(n)]), prompts.in_tokens)


def _count(members: dict[str, msgspec.Raw], name: str, least: int, most: int) -> int | None:
    value: int | None = _read(_integer, members, name)
    if value is not None and not least <= value <= most:
        raise BadRequest(f"The parameter {name} must be from {least} to {most}.", param=name)
    return value


def _read(decoder: msgspec.json.Decoder[Any], members: dict[str, msgspec.Raw], name: str) -> Any:
    return field_of(decoder, members, name) if name in members else None
