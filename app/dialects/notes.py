"""A note at the very end of a request, in the words of its dialect.

It stands in the user's last turn, behind all that the client has sent: system messages at the end are refused by some
servers and moved to the front by others, and what stands in front of a note keeps its bytes, so that prompt caches
lose no more than the note. Anthropic's mark for its cache stays on the block before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from app.core.types import ChatRequest
from app.dialects.openai_chat.render import object_bytes
from app.dialects.registry import CHAT, GEMINI, MESSAGES, RESPONSES

_encode = msgspec.json.encode
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_Turn = dict[str, msgspec.Raw]


def noted(request: ChatRequest, note: str) -> ChatRequest:
    """The request with the note; the same one where its last turn is the model's own (which it is to go on with), or
    of a shape that takes none."""
    if request.dialect not in _WAYS:
        return request  # a text that is to go on
    name, add = _WAYS[request.dialect]
    talk = request.members.get(name)
    changed = None if talk is None else add(talk, note)
    if changed is None:
        return request
    return msgspec.structs.replace(request, members={**request.members, name: changed})


def _in_last_turn(edit: Callable[[_Turn, str], bool]) -> Callable[[msgspec.Raw, str], msgspec.Raw | None]:
    """A list of turns, the last of which takes the note; all before it keeps its bytes."""

    def add(talk: msgspec.Raw, note: str) -> msgspec.Raw | None:
        data = bytes(talk)
        try:
            turns = _raws.decode(data)
            turn = _members.decode(turns[-1])
        except (msgspec.MsgspecError, IndexError):
            return None
        if not edit(turn, note):
            return None
        # The last turn is the last of such bytes: behind it there is only the bracket, and blanks.
        return msgspec.Raw(data[: data.rindex(bytes(turns[-1]))] + object_bytes(turn) + b"]")

    return add


def _chat_turn(turn: _Turn, note: str) -> bool:
    """https://platform.openai.com/docs/api-reference/chat/create#chat-create-messages"""
    return _value(turn.get("role")) != "assistant" and _add_text(turn, note, blocks=False)


def _message(turn: _Turn, note: str) -> bool:
    """https://platform.claude.com/docs/en/api/messages; behind tool results text may follow, before them not."""
    return _value(turn.get("role")) != "assistant" and _add_text(turn, note, blocks=True)


def _content(turn: _Turn, note: str) -> bool:
    """https://ai.google.dev/api/caching#Content; without a role it is the user's."""
    if _value(turn.get("role")) == "model" or bytes(turn.get("parts", b""))[:1] != b"[":
        return False
    turn["parts"] = _longer(turn["parts"], {"text": note})
    return True


def _input(talk: msgspec.Raw, note: str) -> msgspec.Raw | None:
    """https://platform.openai.com/docs/api-reference/responses/create#responses-create-input"""
    said = _value(talk)
    if isinstance(said, str):
        return msgspec.Raw(_encode(f"{said}\n\n{note}"))
    if not isinstance(said, list):
        return None
    return _longer(talk, {"type": "message", "role": "user", "content": [{"type": "input_text", "text": note}]})


def _add_text(turn: _Turn, note: str, *, blocks: bool) -> bool:
    """To the turn's content: as a block of its own where it has blocks or `blocks` may be made, else to its text."""
    content = turn.get("content", msgspec.Raw())
    if bytes(content)[:1] == b"[":
        turn["content"] = _longer(content, {"type": "text", "text": note})
        return True
    said = _value(content)
    if not isinstance(said, str):
        return False
    parts = [{"type": "text", "text": said}, {"type": "text", "text": note}]
    turn["content"] = msgspec.Raw(_encode(parts if blocks and said else f"{said}\n\n{note}"))
    return True


def _longer(items: msgspec.Raw, item: dict[str, Any]) -> msgspec.Raw:
    """A JSON list with one more item."""
    before = bytes(items).rstrip()[:-1].rstrip()
    return msgspec.Raw(before + (b"" if before == b"[" else b",") + _encode(item) + b"]")


def _value(raw: msgspec.Raw | None) -> Any:
    try:
        return None if not raw else msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return None


_WAYS: Final[dict[str, tuple[str, Callable[[msgspec.Raw, str], msgspec.Raw | None]]]] = {
    CHAT: ("messages", _in_last_turn(_chat_turn)),
    MESSAGES: ("messages", _in_last_turn(_message)),
    GEMINI: ("contents", _in_last_turn(_content)),
    RESPONSES: ("input", _input),
}
