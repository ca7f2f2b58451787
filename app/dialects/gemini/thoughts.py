"""Signatures that Gemini refuses to have back: another model's or account's, or none where it wants one.

A client sends signatures back as they came, or lost them on its way from one model to another; behind a gateway the
next call may be another model's. Then the request is refused whole, and would be for ever. Google has a word for calls
that it did not sign, with which the model thinks anew.
Sources: https://ai.google.dev/gemini-api/docs/thought-signatures, https://github.com/google-gemini/gemini-cli/issues/13467
and https://github.com/earendil-works/pi/issues/6996
"""

from __future__ import annotations

import re

import msgspec

from app.core.conversation import Conversation, ToolCall, drop_thinking
from app.core.errors import BadRequest
from app.core.raw import UNREADABLE
from app.core.types import ChatRequest
from app.dialects.gemini.proof import UNSIGNED
from app.dialects.gemini.values import items_in
from app.dialects.openai_chat.render import object_bytes

_REFUSED = re.compile(rb"thought[ _]?signature")
_MALFORMED = (BadRequest, *UNREADABLE)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_UNSIGNED = msgspec.Raw(msgspec.json.encode(UNSIGNED))
_CALLS = frozenset(("functionCall", "function_call"))
_EMPTY = {"text": msgspec.Raw(b'""')}
"""A part that stands for a signature alone."""
_SIGNATURES = ("thoughtSignature", "thought_signature")


def refuses_thoughts(body: bytes) -> bool:
    """Whether this error reply is about the signatures of thoughts and calls."""
    return _REFUSED.search(body.lower()) is not None


def without_thoughts(request: ChatRequest) -> ChatRequest | None:
    """The request without thoughts and signatures, its calls marked as unsigned; None where that changes nothing."""
    try:
        contents = items_in(request.members["contents"], "contents")
        bare = [_bare(content) for content in contents]
    except (KeyError, *_MALFORMED):
        return None
    kept = [content for content in bare if content is not None]
    if kept == contents:
        return None
    members = {**request.members, "contents": msgspec.Raw(b"[" + b",".join(kept) + b"]")}
    return msgspec.structs.replace(request, members=members)


def forget_thoughts(talk: Conversation) -> bool:
    """The same for a conversation of another dialect; False where it changes nothing."""
    changed = drop_thinking(talk)
    for message in talk.messages:
        calls = [part for part in message.parts if isinstance(part, ToolCall)]
        for place, call in enumerate(calls):
            signature = None if place else UNSIGNED  # of parallel calls only the first is signed
            changed = changed or call.signature != signature
            call.signature = signature
    return changed


def _bare(raw: msgspec.Raw) -> msgspec.Raw | None:
    """One content; None where nothing of it is left."""
    content = _members.decode(raw)
    if bytes(content.get("role", b"")) != b'"model"' or "parts" not in content:
        return raw
    parts = items_in(content["parts"], "parts")
    decoded = [_members.decode(part) for part in parts]
    first = next((place for place, members in enumerate(decoded) if not _CALLS.isdisjoint(members)), None)
    bare = [_bare_part(parts[place], members, signed=place == first) for place, members in enumerate(decoded)]
    kept = [part for part in bare if part is not None]
    if kept == parts:
        return raw
    return msgspec.Raw(object_bytes({**content, "parts": msgspec.Raw(b"[" + b",".join(kept) + b"]")})) if kept else None


def _bare_part(raw: msgspec.Raw, members: dict[str, msgspec.Raw], *, signed: bool) -> msgspec.Raw | None:
    left = {name: value for name, value in members.items() if name not in _SIGNATURES}
    if signed:
        left["thoughtSignature"] = _UNSIGNED
    elif bytes(left.get("thought", b"")) == b"true" or left == _EMPTY:
        return None
    return raw if left == members else msgspec.Raw(object_bytes(left))
