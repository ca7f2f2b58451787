"""The turns of a conversation as Messages takes them.

User and assistant alternate, so turns of one role are merged; tool results come first in the user's turn; blocks of
text must not be empty; the user begins. Sources: https://platform.claude.com/docs/en/api/messages/create (`messages`),
https://platform.claude.com/docs/en/agents-and-tools/tool-use/handle-tool-calls (results first), and
https://platform.claude.com/docs/en/build-with-claude/mid-conversation-system-messages#limitations
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Any

import msgspec

from app.core.conversation import Conversation, Media, Message, Part, Refusal, Text, Thinking, ToolCall, ToolResult
from app.core.errors import BadRequest
from app.core.raw import UNREADABLE
from app.dialects.anthropic.proof import ORIGIN
from app.dialects.anthropic.table import LONE_TURN, REFUSED_WISHES

_Block = dict[str, Any]
CACHE = {"type": "ephemeral"}
_SAFE_ID = re.compile(r"[A-Za-z0-9_-]+")
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_MAGIC = {"/9j/": "image/jpeg", "iVBOR": "image/png", "R0lGOD": "image/gif", "UklGR": "image/webp"}
"""How the kinds of image that the API takes begin in base64."""
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def drop(talk: Conversation, name: str) -> None:
    """Note once what is left out: a conversation may be rendered for several candidates."""
    if name not in talk.dropped:
        talk.dropped.append(name)


def system_and_turns(talk: Conversation, *, mid_system: bool) -> tuple[list[_Block], list[_Block]]:
    """The `system` blocks and the `messages`. A system message within the conversation stays where it is if the model
    takes it there and the rules on its place allow it; else it joins the others at the top."""
    messages = [message for message in talk.messages if message.parts]
    system: list[_Block] = []
    turns: list[_Block] = []
    for place, message in enumerate(messages):
        if message.role != "system":
            _append(turns, message.role, _blocks(message, talk))
        elif mid_system and _stays(turns, messages[place + 1 :]):
            turns.append({"role": "system", "content": _texts(message.parts)})
        else:
            system += _texts(message.parts)
    turns = [turn for turn in turns if turn["content"]]
    if not turns or turns[0]["role"] != "user":
        turns.insert(0, {"role": "user", "content": [{"type": "text", "text": LONE_TURN}]})
    for turn in turns:
        if turn["role"] == "user":
            turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    return system, turns


def _stays(turns: list[_Block], later: list[Message]) -> bool:
    """A system message may follow a user's turn, and be followed by the assistant's or by nothing."""
    after_user = bool(turns) and turns[-1]["role"] == "user" and bool(turns[-1]["content"])
    return after_user and (not later or later[0].role == "assistant")


def _append(turns: list[_Block], role: str, blocks: list[_Block]) -> None:
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
    elif blocks:
        turns.append({"role": role, "content": blocks})


def _texts(parts: list[Part]) -> list[_Block]:
    return [_text(part) for part in parts if isinstance(part, Text) and part.text]


def _text(part: Text) -> _Block:
    return _marked({"type": "text", "text": part.text}, part.cache)


def _marked(block: _Block, cache: bool) -> _Block:
    return {**block, "cache_control": CACHE} if cache else block


def _blocks(message: Message, talk: Conversation) -> list[_Block]:
    blocks: list[_Block] = []
    for part in message.parts:
        match part:
            case Text() | Refusal():
                if part.text:
                    blocks.append(_text(part) if isinstance(part, Text) else {"type": "text", "text": part.text})
            case Media():
                blocks.append(_media(part))
            case Thinking():
                blocks += _thinking(part, talk)
            case ToolCall():
                blocks.append(_call(part))
            case ToolResult():
                blocks.append(_result(part))
    return blocks


def _thinking(part: Thinking, talk: Conversation) -> list[_Block]:
    """Thinking whose proof is this dialect's; any other would be refused."""
    if part.origin == ORIGIN and part.signature:
        return [{"type": "thinking", "thinking": part.text, "signature": part.signature}]
    if part.origin == ORIGIN and part.encrypted:
        return [{"type": "redacted_thinking", "data": part.encrypted}]
    drop(talk, "messages.thinking")
    return []


def _call(part: ToolCall) -> _Block:
    return {"type": "tool_use", "id": safe_id(part.id), "name": part.name, "input": _input(part)}


def _input(part: ToolCall) -> msgspec.Raw:
    """Arguments must be an object: free text, and what a model got wrong, stand in one under `input`."""
    if part.arguments.strip() and not part.custom:
        try:
            _members.decode(part.arguments)
            return msgspec.Raw(part.arguments.encode())
        except UNREADABLE:
            pass
    elif not part.custom:
        return msgspec.Raw(b"{}")
    return msgspec.Raw(msgspec.json.encode({"input": part.arguments}))


def _result(part: ToolResult) -> _Block:
    block: _Block = {"type": "tool_result", "tool_use_id": safe_id(part.id)}
    content = [_text(inner) if isinstance(inner, Text) else _media(inner) for inner in part.parts if _says(inner)]
    marks = [inner.pop("cache_control", None) for inner in content]  # the number of marks is limited: the whole has one
    if content:
        block["content"] = content
    if part.is_error:
        block["is_error"] = True
    return _marked(block, part.cache or any(marks))


def _says(part: Text | Media) -> bool:
    return not isinstance(part, Text) or bool(part.text)


def safe_id(given: str) -> str:
    """A call's id in the letters that the API takes; different ids stay different."""
    if _SAFE_ID.fullmatch(given):
        return given
    return _UNSAFE.sub("_", given) + "_" + hashlib.sha256(given.encode()).hexdigest()[:8]


def _media(part: Media) -> _Block:
    if part.kind == "audio":
        raise BadRequest(REFUSED_WISHES["audio"], param="messages")
    if part.kind == "image":
        return _marked({"type": "image", "source": _source(part, _image_type(part))}, part.cache)
    kind = part.media_type or "application/pdf"
    if kind.startswith("text/") and part.data is not None:
        source = {"type": "text", "media_type": "text/plain", "data": _plain(part.data)}
    elif kind == "application/pdf" or part.data is None:
        source = _source(part, "application/pdf")
    else:
        raise BadRequest(REFUSED_WISHES["file"], param="messages")
    title = {"title": part.name} if part.name else {}
    return _marked({"type": "document", "source": source, **title}, part.cache)


def _source(part: Media, media_type: str) -> _Block:
    if part.data is not None:
        return {"type": "base64", "media_type": media_type, "data": part.data}
    if part.url is None:
        raise BadRequest(REFUSED_WISHES["stored file"], param="messages")
    return {"type": "url", "url": part.url}


def _image_type(part: Media) -> str:
    if part.media_type:
        return "image/jpeg" if part.media_type == "image/jpg" else part.media_type
    data = part.data or ""
    return next((kind for begin, kind in _MAGIC.items() if data.startswith(begin)), "image/png")


def _plain(data: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise BadRequest(REFUSED_WISHES["text file"], param="messages") from None
