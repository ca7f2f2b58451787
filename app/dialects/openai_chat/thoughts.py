"""Thoughts that a provider wants to have back and the client has not: DeepSeek's and Moonshot's, while a model thinks.

They refuse an assistant's message without `reasoning_content`, also where another model wrote it, or the client keeps
no thoughts. Whatever stands there is taken, but for nothing.
Sources: https://api-docs.deepseek.com/guides/thinking_mode, https://github.com/NousResearch/hermes-agent/pull/18263
"""

from __future__ import annotations

import msgspec

from app.dialects.openai_chat.render import object_bytes

_NAME = "reasoning_content"
_PLACEHOLDER = msgspec.Raw(b'" "')
_NOTHING = (b"null", b'""', b"")
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_raws = msgspec.json.Decoder(list[msgspec.Raw])


def misses_thoughts(body: bytes) -> bool:
    """Whether this error reply says that an assistant's message lacks its thoughts."""
    body = body.lower()
    return _NAME.encode() in body and (b"passed back" in body or b"missing" in body)


def with_placeholders(body: bytes) -> bytes:
    """The request with thoughts in every message of the assistant's: those that it has under another name, or none."""
    members = _members.decode(body)
    messages = [_filled(message) for message in _raws.decode(members["messages"])]
    return object_bytes({**members, "messages": msgspec.Raw(b"[" + b",".join(messages) + b"]")})


def _filled(message: msgspec.Raw) -> bytes:
    members = _members.decode(message)
    if bytes(members.get("role", b"")) != b'"assistant"' or bytes(members.get(_NAME, b"")) not in _NOTHING:
        return bytes(message)
    other = members.get("reasoning", _PLACEHOLDER)
    is_text = bytes(other).startswith(b'"') and bytes(other) not in _NOTHING
    return object_bytes({**members, _NAME: other if is_text else _PLACEHOLDER})
