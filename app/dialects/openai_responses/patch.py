"""A Responses request for an upstream of the same dialect: only what must change is changed."""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.types import ChatRequest
from app.dialects.base import UpstreamRequest
from app.dialects.openai_chat.fields import field_of
from app.dialects.openai_chat.models import abilities_of
from app.dialects.openai_chat.render import object_bytes, strip_task_id
from app.dialects.openai_responses import proofs, shapes
from app.dialects.openai_responses.parse import LIMIT_FIELD

PATH = "/responses"
THOUGHTS = "reasoning.encrypted_content"
_TRUE, _FALSE = msgspec.Raw(b"true"), msgspec.Raw(b"false")


class _Proof(msgspec.Struct):
    type: Any = None
    encrypted_content: Any = None


_proof = msgspec.json.Decoder(_Proof)
_included: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[str] | None)


def patched(request: ChatRequest, *, model: str, limit_tokens: int | None, stream: bool) -> UpstreamRequest:
    """The request with the upstream's model, the clamped limit and `stream`, without our own fields."""
    members = dict(request.members)
    members["model"] = msgspec.Raw(msgspec.json.encode(model))
    members.pop("max_cost_usd", None)
    if request.task_id is not None and "metadata" in members:
        strip_task_id(members)
    if limit_tokens is not None:
        members[LIMIT_FIELD] = msgspec.Raw(b"%d" % limit_tokens)
    if stream or "stream" in members:
        members["stream"] = _TRUE if stream else _FALSE
    if not stream:
        members.pop("stream_options", None)
    if request.stored is not None and request.stored.reply_id is not None:
        _store_here(members, model)
    if proofs.MARKED in bytes(members.get("input", b"")):
        members["input"] = _without_foreign_thoughts(members["input"])
    return UpstreamRequest(PATH, object_bytes(members), dict(request.forward))


def _store_here(members: dict[str, msgspec.Raw], model: str) -> None:
    """The provider need not store it as well; its thoughts then have to come along, or nobody could go on from them
    (https://platform.openai.com/docs/guides/reasoning#encrypted-reasoning-items)."""
    members["store"] = _FALSE
    if not abilities_of(model).efforts:
        return
    wanted = field_of(_included, members, "include") if "include" in members else None
    if THOUGHTS not in (wanted or ()):
        members["include"] = msgspec.Raw(msgspec.json.encode([*(wanted or ()), THOUGHTS]))


def _without_foreign_thoughts(items: msgspec.Raw) -> msgspec.Raw:
    """The items but those that carry another provider's thoughts, which this one would refuse."""
    kept = [item for item in shapes.raws.decode(items) if not _is_foreign(item)]
    return msgspec.Raw(b"[" + b",".join(kept) + b"]")


def _is_foreign(item: msgspec.Raw) -> bool:
    if proofs.MARKED not in bytes(item):
        return False
    shape = _proof.decode(item)
    proof = shape.encrypted_content
    return shape.type == "reasoning" and isinstance(proof, str) and proofs.is_foreign(proof)
