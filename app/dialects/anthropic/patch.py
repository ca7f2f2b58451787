"""A Messages request for a Messages upstream: only what must change is changed, for prompt caches live on the bytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from app.core.types import ChatRequest
from app.dialects.anthropic.adapt import adapt
from app.dialects.anthropic.effort import budget_within
from app.dialects.anthropic.models import abilities_of
from app.dialects.anthropic.parse import VERSION
from app.dialects.anthropic.proof import is_foreign
from app.dialects.base import UpstreamRequest
from app.dialects.openai_chat.parse import MAX_LIMIT
from app.dialects.openai_chat.render import object_bytes

_Members = dict[str, msgspec.Raw]
PATH = "/messages"
COUNT_PATH = "/messages/count_tokens"
INTERLEAVED = "interleaved-thinking"
"""With this beta a budget may pass `max_tokens`
(https://platform.claude.com/docs/en/build-with-claude/extended-thinking#interleaved-thinking)."""
_encode = msgspec.json.encode
_members = msgspec.json.Decoder(_Members)
_optional = msgspec.json.Decoder(_Members | None)
_tokens = msgspec.json.Decoder(int | None)
_raws = msgspec.json.Decoder(list[msgspec.Raw])
THOUGHT = re.compile(rb'"(?:redacted_)?thinking"')


class _Thought(msgspec.Struct):
    """Of any types: what is wrong with it is the provider's to say."""

    type: Any = ""
    signature: Any = None
    data: Any = None


class _Turn(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw()


_thought = msgspec.json.Decoder(_Thought)
_turn = msgspec.json.Decoder(_Turn)


def patch_messages(request: ChatRequest, *, model: str, limit_tokens: int | None, stream: bool) -> UpstreamRequest:
    """The client's request with the upstream's model, our clamp and `stream`; without what is ours."""
    members = _cleaned(request, model)
    if model != request.model:
        adapt(members, abilities_of(model), limit_tokens or request.output_limit or 0)
    if limit_tokens is not None and request.prompt.fallbacks:
        limit_tokens = _fit_fallbacks(members, limit_tokens)
    if limit_tokens is not None and bytes(members.get("max_tokens", b"")) != b"0":
        members["max_tokens"] = msgspec.Raw(b"%d" % limit_tokens)
        _fit_budget(request, members, limit_tokens)
    if stream:
        members["stream"] = msgspec.Raw(b"true")
    elif "stream" in members:
        members["stream"] = msgspec.Raw(b"false")
    return UpstreamRequest(PATH, object_bytes(members), headers_of(request))


def patch_count(request: ChatRequest, *, model: str) -> UpstreamRequest:
    """A client's request to count tokens, for an upstream that can."""
    members = _cleaned(request, model)
    if model != request.model:
        adapt(members, abilities_of(model), MAX_LIMIT)
    return UpstreamRequest(COUNT_PATH, object_bytes(members), headers_of(request))


def headers_of(request: ChatRequest) -> dict[str, str]:
    """The client's version and betas; the version is required."""
    return {"anthropic-version": VERSION, **request.forward}


def _cleaned(request: ChatRequest, model: str) -> _Members:
    members = dict(request.members)
    members["model"] = msgspec.Raw(_encode(model))
    members.pop("max_cost_usd", None)
    if request.task_id is not None:
        metadata = _optional.decode(members["metadata"]) or {}
        metadata.pop("task_id", None)
        # Members of metadata other than user_id are refused.
        if metadata:
            members["metadata"] = msgspec.Raw(object_bytes(metadata))
        else:
            del members["metadata"]
    if THOUGHT.search(members["messages"]):
        members["messages"] = without_foreign_thoughts(members["messages"])
    return members


def _fit_fallbacks(members: _Members, limit_tokens: int) -> int:
    """No model that may answer in the asked one's place gets a higher limit than ours; the asked one's own may be lower
    than theirs."""
    if bytes(members["fallbacks"]).lstrip().startswith(b"["):
        entries = [_members.decode(entry) for entry in _raws.decode(members["fallbacks"])]
        for entry in entries:
            own = _tokens.decode(entry["max_tokens"]) if "max_tokens" in entry else None
            if own is not None and own > limit_tokens:
                entry["max_tokens"] = msgspec.Raw(b"%d" % limit_tokens)
        members["fallbacks"] = msgspec.Raw(b"[" + b",".join(object_bytes(entry) for entry in entries) + b"]")
    return min(limit_tokens, _tokens.decode(members["max_tokens"]) or limit_tokens)


def _fit_budget(request: ChatRequest, members: _Members, limit_tokens: int) -> None:
    """A budget for thinking must stay below `max_tokens`, which we may have lowered; else the API refuses."""
    thinking = _optional.decode(members["thinking"]) if "thinking" in members else None
    if not thinking or "budget_tokens" not in thinking or INTERLEAVED in request.forward.get("anthropic-beta", ""):
        return
    budget = _tokens.decode(thinking["budget_tokens"])
    if budget is None or budget < limit_tokens or (request.output_limit is not None and budget >= request.output_limit):
        return
    fitting = budget_within(budget, limit_tokens)
    if fitting is None:
        del members["thinking"]
    else:
        thinking["budget_tokens"] = msgspec.Raw(b"%d" % fitting)
        members["thinking"] = msgspec.Raw(object_bytes(thinking))


def without_foreign_thoughts(messages: msgspec.Raw) -> msgspec.Raw:
    """The messages without thinking that this dialect's provider did not sign: it would refuse them. They come from
    replies that we translated; messages without such keep their bytes."""
    return without_thoughts_that(messages, _is_foreign)


def without_thoughts_that(messages: msgspec.Raw, goes: Callable[[_Thought], bool]) -> msgspec.Raw:
    """The messages without the assistant's thinking blocks of which this is true; all others keep their bytes."""
    turns = _raws.decode(messages)
    patched = [_patched_turn(turn, goes) for turn in turns]
    if patched == turns:
        return messages
    return msgspec.Raw(b"[" + b",".join(bytes(turn) for turn in patched if turn) + b"]")


def _patched_turn(turn: msgspec.Raw, goes: Callable[[_Thought], bool]) -> msgspec.Raw:
    """The turn, an empty one where nothing else was in it."""
    if not THOUGHT.search(turn):
        return turn
    shape = _turn.decode(turn)
    if shape.role != "assistant" or not bytes(shape.content).lstrip().startswith(b"["):
        return turn
    blocks = _raws.decode(shape.content)
    kept = [block for block in blocks if not _goes(block, goes)]
    if len(kept) == len(blocks):
        return turn
    if not kept:
        return msgspec.Raw()
    members = _members.decode(turn)
    members["content"] = msgspec.Raw(b"[" + b",".join(bytes(block) for block in kept) + b"]")
    return msgspec.Raw(object_bytes(members))


def _goes(block: msgspec.Raw, goes: Callable[[_Thought], bool]) -> bool:
    if not THOUGHT.search(block):
        return False
    thought = _thought.decode(block)
    return thought.type in ("thinking", "redacted_thinking") and goes(thought)


def _is_foreign(thought: _Thought) -> bool:
    proof = thought.signature if thought.type == "thinking" else thought.data
    return (proof is None or isinstance(proof, str)) and is_foreign(proof)
