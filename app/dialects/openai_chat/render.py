"""OpenAI Chat Completions, upstream side: patch what must change, forward the rest as it came."""

from __future__ import annotations

import functools

import msgspec

from app.core.policy import ChatHabits
from app.core.types import ChatRequest
from app.dialects.openai_chat.adapt import adapt, limit_name, renamed, without_reasoning

_encode = msgspec.json.encode
_optional_members = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_USAGE_ONLY = msgspec.Raw(b'{"include_usage":true}')
KNOWN_NAME_CHARS = 64
_TRUE = msgspec.Raw(b"true")


def _lead(name: str) -> bytes:
    """A member's comma, name and colon; clients choose names, so only short ones are remembered."""
    return _known_lead(name) if len(name) <= KNOWN_NAME_CHARS else _known_lead.__wrapped__(name)


@functools.lru_cache(maxsize=1024)
def _known_lead(name: str) -> bytes:
    return b"," + _encode(name) + b":"


def object_bytes(members: dict[str, msgspec.Raw]) -> bytes:
    """A JSON object from members whose values are bytes already."""
    parts: list[bytes | msgspec.Raw] = []
    for name, value in members.items():
        parts += (_lead(name), value)
    if not parts:
        return b"{}"
    parts.append(b"}")
    # The first comma becomes the brace that opens the object.
    return b"{" + b"".join(parts)[1:]


def render_chat(
    request: ChatRequest, *, upstream_model: str, limit_tokens: int | None, habits: ChatHabits, stream: bool
) -> bytes:
    """The body for the upstream: its model's name, the clamped output limit, usage asked for.

    `limit_tokens` (per choice) replaces the client's limit in every field that carries one, and is added where the
    client sent none; None leaves the client's own. `stream` may differ from what the client asked (a folded call).
    """
    members = dict(request.members)
    fields = request.limit_fields
    other = upstream_model != request.model
    if fields and (other or habits.only) and (name := limit_name(fields, upstream_model, habits)) is not None:
        members, fields = renamed(members, fields, name), (name,)
        limit_tokens = request.output_limit if limit_tokens is None else limit_tokens
    if other:
        adapt(members, upstream_model)
    if not habits.takes_reasoning:
        members["messages"] = without_reasoning(members["messages"])
    members["model"] = msgspec.Raw(_encode(upstream_model))
    members.pop("max_cost_usd", None)
    if request.task_id is not None and "metadata" in members:
        strip_task_id(members)
    if limit_tokens is not None:
        for name in fields or (habits.limit_field,):
            members[name] = msgspec.Raw(b"%d" % limit_tokens)
    if stream:
        members["stream"] = _TRUE
        if habits.include_usage:
            members["stream_options"] = with_usage(members.get("stream_options"))
    if not habits.include_usage:
        members.pop("stream_options", None)
    return object_bytes(members)


def with_usage(options: msgspec.Raw | None) -> msgspec.Raw:
    """`stream_options` that ask for usage, too."""
    found = _optional_members.decode(options) if options is not None else None
    if not found:
        return _USAGE_ONLY
    found["include_usage"] = _TRUE
    return msgspec.Raw(object_bytes(found))


def strip_task_id(members: dict[str, msgspec.Raw]) -> None:
    """`metadata.task_id` is ours; providers that refuse metadata without `store` must not see it alone."""
    metadata = _optional_members.decode(members["metadata"])
    if not metadata or metadata.pop("task_id", None) is None:
        return
    if metadata:
        members["metadata"] = msgspec.Raw(object_bytes(metadata))
    else:
        del members["metadata"]
