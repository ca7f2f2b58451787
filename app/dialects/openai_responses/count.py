"""Counting a request's input tokens (https://platform.openai.com/docs/api-reference/responses/input-tokens)."""

from __future__ import annotations

from typing import Final

import msgspec

from app.core.types import ChatRequest
from app.dialects.base import UpstreamRequest
from app.dialects.openai_chat.render import object_bytes
from app.dialects.openai_responses.patch import PATH, patched

_COUNTED: Final = frozenset(
    ("model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning", "truncation",
     "personality", "previous_response_id", "conversation")
)  # fmt: skip
"""Members that this method has; it refuses others, which requests for a response may hold."""


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def patch_count(request: ChatRequest, *, model: str) -> UpstreamRequest:
    """A client's request to count, for an upstream that can."""
    asked = patched(request, model=model, limit_tokens=None, stream=False)
    members = {name: value for name, value in _members.decode(asked.body).items() if name in _COUNTED}
    return UpstreamRequest(f"{PATH}/input_tokens", object_bytes(members), asked.headers)


def count_reply(tokens: int) -> bytes:
    """How many input tokens a request has."""
    return b'{"object":"response.input_tokens","input_tokens":%d}' % tokens
