"""Gemini's generateContent, upstream side within the dialect: what must change is changed, the rest goes as it came."""

from __future__ import annotations

import msgspec

from app.core.types import ChatRequest
from app.dialects.base import UpstreamRequest
from app.dialects.gemini.paths import generate_path, resource
from app.dialects.gemini.proof import MARKED, is_foreign
from app.dialects.gemini.values import items_in
from app.dialects.openai_chat.render import object_bytes


class _Signed(msgspec.Struct):
    camel: str | None = msgspec.field(name="thoughtSignature", default=None)
    snake: str | None = msgspec.field(name="thought_signature", default=None)


_members = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_content = msgspec.json.Decoder(dict[str, msgspec.Raw])
_part = msgspec.json.Decoder(_Signed)
_CONFIGS = ("generationConfig", "generation_config")
_LIMITS = ("maxOutputTokens", "max_output_tokens")


def patch_generate(request: ChatRequest, *, model: str, limit_tokens: int | None, stream: bool) -> UpstreamRequest:
    """The request for an upstream of this dialect: model and verb in the path, the clamped output limit per candidate
    (None leaves the client's own), and without what is ours."""
    members = dict(request.members)
    members.pop("max_cost_usd", None)
    if request.task_id is not None:
        _strip_task_id(members)
    if MARKED in bytes(members["contents"]):
        members["contents"] = _without_foreign(members["contents"])
    if "model" in members:
        members["model"] = msgspec.Raw(msgspec.json.encode(resource(model)))
    if limit_tokens is not None:
        _limit(members, msgspec.Raw(b"%d" % limit_tokens))
    return UpstreamRequest(generate_path(model, stream=stream), object_bytes(members))


def _limit(members: dict[str, msgspec.Raw], limit: msgspec.Raw) -> None:
    """Set the limit wherever it stands, in either spelling; where it is nowhere, in the first configuration."""
    configs = {name: _members.decode(members[name]) or {} for name in _CONFIGS if name in members}
    configs = configs or {_CONFIGS[0]: {}}
    found = [(config, name) for config in configs.values() for name in _LIMITS if name in config]
    for config, name in found or [(next(iter(configs.values())), _LIMITS[0])]:
        config[name] = limit
    for name, config in configs.items():
        members[name] = msgspec.Raw(object_bytes(config))


def _strip_task_id(members: dict[str, msgspec.Raw]) -> None:
    """`metadata` is no word of Gemini's: where it holds nothing but our task, it goes."""
    metadata = _members.decode(members["metadata"]) or {}
    metadata.pop("task_id", None)
    if metadata:
        members["metadata"] = msgspec.Raw(object_bytes(metadata))
    else:
        del members["metadata"]


def _without_foreign(contents: msgspec.Raw) -> msgspec.Raw:
    """The contents without the parts that hold another dialect's proofs; such a part is a thought."""
    kept = []
    for item in items_in(contents, "contents"):
        content = _content.decode(item)
        if "parts" in content and MARKED in bytes(content["parts"]):
            parts = [part for part in items_in(content["parts"], "parts") if not _is_foreign(part)]
            if not parts:
                continue
            content["parts"] = _array(parts)
        kept.append(msgspec.Raw(object_bytes(content)))
    return _array(kept)


def _is_foreign(part: msgspec.Raw) -> bool:
    signed = _part.decode(part)
    return is_foreign(signed.camel or signed.snake or "")


def _array(items: list[msgspec.Raw]) -> msgspec.Raw:
    return msgspec.Raw(b"[" + b",".join(items) + b"]")
