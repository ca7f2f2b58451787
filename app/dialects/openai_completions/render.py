"""OpenAI's text completions, upstream side: patch what must change, forward the rest as it came."""

from __future__ import annotations

import msgspec

from app.core.policy import ChatHabits
from app.core.types import ChatRequest
from app.dialects.openai_chat.render import object_bytes, strip_task_id, with_usage
from app.dialects.openai_completions.parse import LIMIT_FIELD


def render_completion(
    request: ChatRequest, *, upstream_model: str, limit_tokens: int | None, habits: ChatHabits, stream: bool
) -> bytes:
    """The body for the upstream: as `render_chat`, whose `limit_tokens`, `habits` and `stream` these are."""
    members = dict(request.members)
    members["model"] = msgspec.Raw(msgspec.json.encode(upstream_model))
    members.pop("max_cost_usd", None)
    if request.task_id is not None and "metadata" in members:
        strip_task_id(members)
    if limit_tokens is not None:
        for name in request.limit_fields or (LIMIT_FIELD,):
            members[name] = msgspec.Raw(b"%d" % limit_tokens)
    if stream:
        members["stream"] = msgspec.Raw(b"true")
        if habits.include_usage:
            members["stream_options"] = with_usage(members.get("stream_options"))
    if not habits.include_usage:
        members.pop("stream_options", None)
    return object_bytes(members)
