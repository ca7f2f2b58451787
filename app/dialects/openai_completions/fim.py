"""Mistral's fill-in-the-middle: a path of its own, one text a call, and an answer in the shape of Chat's.

Source: https://docs.mistral.ai/api/#tag/fim
"""

from __future__ import annotations

from typing import Final

import msgspec

from app.core.errors import BadRequest
from app.core.raw import UNREADABLE
from app.core.sse import sse_event
from app.core.types import ChatRequest
from app.dialects.openai_chat.relay import ChatRelay
from app.dialects.openai_chat.render import object_bytes

FIM_PATH: Final = "/fim/completions"
_UNKNOWN: Final = ("echo", "logprobs")
_IDLE: Final = (b"null", b"false", b"0")
_KIND, _NULL, _NO_TEXT = msgspec.Raw(b'"text_completion"'), msgspec.Raw(b"null"), msgspec.Raw(b'""')
_Members = dict[str, msgspec.Raw]
_members = msgspec.json.Decoder(_Members)
_choices = msgspec.json.Decoder(list[_Members])


def refuse_more(request: ChatRequest) -> None:
    """Raise BadRequest for what it has no word for: another candidate may."""
    members = request.members
    if request.choices > 1 or not bytes(members.get("prompt", b"")).lstrip().startswith(b'"'):
        raise BadRequest("This model's provider completes one text at a time, and none in tokens.", param="prompt")
    for name in _UNKNOWN:
        if name in members and bytes(members[name]) not in _IDLE:
            raise BadRequest(f"This model's provider knows no {name} in completions.", param=name)


def as_text(data: bytes) -> bytes:
    """A chunk, or a whole reply, in the shape of a text completion; what cannot be read stays as it is."""
    try:
        members = _members.decode(data)
        given = _choices.decode(members["choices"])
        choices = [object_bytes(_as_text(choice)) for choice in given]
    except (*UNREADABLE, KeyError):
        return data
    return object_bytes({**members, "object": _KIND, "choices": msgspec.Raw(b"[" + b",".join(choices) + b"]")})


def _as_text(choice: _Members) -> _Members:
    said = _members.decode(choice.get("delta") or choice.get("message") or b"{}")
    text = said.get("content", _NO_TEXT)
    return {
        "index": choice.get("index", msgspec.Raw(b"0")),
        "text": text if bytes(text).startswith(b'"') else _NO_TEXT,
        "logprobs": _NULL,
        "finish_reason": choice.get("finish_reason", _NULL),
    }


class FimRelay(ChatRelay):
    """Chat's relay, each chunk being put into the client's shape first."""

    def _take(self, raw: bytes, data: bytes, out: list[bytes]) -> None:
        text = as_text(data)
        super()._take(raw if text is data else sse_event(text), text, out)
