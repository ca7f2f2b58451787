"""Gemini's generateContent, upstream side within the dialect: what must change is changed, the rest goes as it came."""

from __future__ import annotations

import msgspec

from app.core.types import ChatRequest
from app.dialects.base import UpstreamRequest
from app.dialects.gemini.adapt import adapted_contents, adapted_thinking
from app.dialects.gemini.paths import COUNT, bare_model, generate_path, resource
from app.dialects.openai_chat.render import object_bytes

_Members = dict[str, msgspec.Raw]
_members = msgspec.json.Decoder(_Members | None)
_CONFIGS = ("generationConfig", "generation_config")
_LIMITS = ("maxOutputTokens", "max_output_tokens")


def patch_generate(request: ChatRequest, *, model: str, limit_tokens: int | None, stream: bool) -> UpstreamRequest:
    """The request for an upstream of this dialect: model and verb in the path, the clamped output limit per candidate
    (None leaves the client's own), and without what is ours."""
    members = _cleaned(request, model)
    if limit_tokens is not None:
        _limit(members, msgspec.Raw(b"%d" % limit_tokens))
    return UpstreamRequest(generate_path(model, stream=stream), object_bytes(members))


def patch_count(request: ChatRequest, *, model: str) -> UpstreamRequest:
    """A client's request to count tokens, for an upstream that can: what is more than contents goes in as a whole
    request (https://ai.google.dev/api/tokens)."""
    members = _cleaned(request, model)
    body = object_bytes(members)
    if members.keys() != {"contents"}:
        members["model"] = msgspec.Raw(msgspec.json.encode(resource(model)))
        body = b'{"generateContentRequest":%b}' % object_bytes(members)
    return UpstreamRequest(f"/{resource(model)}:{COUNT}", body)


def _cleaned(request: ChatRequest, model: str) -> _Members:
    members = dict(request.members)
    members.pop("max_cost_usd", None)
    if request.task_id is not None:
        _strip_task_id(members)
    members["contents"] = adapted_contents(members["contents"], model)
    if "model" in members:
        members["model"] = msgspec.Raw(msgspec.json.encode(resource(model)))
    if bare_model(model) != request.model:
        for name, config in _configs(members).items():
            before = dict(config)
            adapted_thinking(config, model)
            if config != before:
                members[name] = msgspec.Raw(object_bytes(config))
    return members


def _configs(members: _Members) -> dict[str, _Members]:
    return {name: _members.decode(members[name]) or {} for name in _CONFIGS if name in members}


def _limit(members: _Members, limit: msgspec.Raw) -> None:
    """Set the limit wherever it stands, in either spelling; where it is nowhere, in the first configuration."""
    configs = _configs(members) or {_CONFIGS[0]: {}}
    found = [(config, name) for config in configs.values() for name in _LIMITS if name in config]
    for config, name in found or [(next(iter(configs.values())), _LIMITS[0])]:
        config[name] = limit
    for name, config in configs.items():
        members[name] = msgspec.Raw(object_bytes(config))


def _strip_task_id(members: _Members) -> None:
    """`metadata` is no word of Gemini's: where it holds nothing but our task, it goes."""
    metadata = _members.decode(members["metadata"]) or {}
    metadata.pop("task_id", None)
    if metadata:
        members["metadata"] = msgspec.Raw(object_bytes(metadata))
    else:
        del members["metadata"]
