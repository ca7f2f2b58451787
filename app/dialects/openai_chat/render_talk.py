"""A conversation of any dialect as a Chat Completions request. What changes on the way: `carried.INTO_CHAT`.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, Final

import msgspec

from app.core.conversation import (
    Conversation,
    Media,
    Message,
    Part,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from app.core.errors import BadRequest
from app.core.policy import ChatHabits
from app.core.raw import NO_ARGUMENTS
from app.core.types import ChatRequest
from app.dialects.gemini.proof import UNSIGNED
from app.dialects.gemini.thinking import FIRST_WITH_LEVEL, UNKNOWN, version_of
from app.dialects.openai_chat.models import Abilities, abilities_of, effort_for
from app.dialects.openai_chat.own import own_members
from app.dialects.openai_chat.shapes import ORIGIN
from app.dialects.openai_chat.strict import fits_strict
from app.dialects.openai_chat.talk import SOUNDS

HABITS: Final = ChatHabits("max_completion_tokens")
"""Those of OpenAI."""
MAX_CALL_ID_CHARS: Final = 40
"""OpenAI answers 400 to a longer one."""
_BUDGET_EFFORTS: Final = ((0, "none"), (1024, "low"), (8192, "medium"))
"""The largest budget of each effort (https://ai.google.dev/gemini-api/docs/openai#thinking); beyond them: high."""
_SAMPLING: Final = {"temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0}
"""With their defaults, which may be left out."""
_MOVED: Final = "(attached below)"
"""Stands in a result that was nothing but images: an empty one is refused by some servers."""
_FORMATS: Final = {media_type: name for name, media_type in SOUNDS.items()} | {
    "audio/mp3": "mp3",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
}
_encode = msgspec.json.encode
_raws = msgspec.json.Decoder(dict[str, msgspec.Raw])


def render_talk(
    request: ChatRequest,
    talk: Conversation,
    *,
    model: str,
    limit_tokens: int | None,
    stream: bool,
    habits: ChatHabits = HABITS,
) -> bytes:
    """The body for an upstream that speaks chat. `limit_tokens` (per choice) None: the client's own. Raises BadRequest
    for what chat cannot carry."""
    limit = request.output_limit if limit_tokens is None else limit_tokens
    body: dict[str, Any] = {"model": model, "messages": list(_messages(talk, model, habits))}
    if talk.tools:
        body["tools"] = [_tool(talk, tool) for tool in talk.tools]
        if talk.tool_named is not None:
            body["tool_choice"] = _named(talk)
        elif talk.tool_choice is not None:
            body["tool_choice"] = talk.tool_choice
        if talk.parallel_tools is not None:
            body["parallel_tool_calls"] = talk.parallel_tools
    if talk.shape is not None:
        body["response_format"] = _format(talk)
    can = abilities_of(model)
    effort = _effort(talk, can)
    optional: dict[str, Any] = {
        **_sampling(talk, samples=can.samples or (effort == "none" and can.samples_unthinking)),
        "seed": talk.seed,
        "reasoning_effort": effort,
        **own_members(talk, model),
        "n": talk.choices if talk.choices > 1 else None,
        _limit_field(habits, can): limit,
    }
    body |= {name: value for name, value in optional.items() if value is not None}
    if stream:
        body["stream"] = True
        if habits.include_usage:
            body["stream_options"] = {"include_usage": True}
    _note(talk, "top_k", talk.top_k is not None)
    _note(talk, "cache_control", any(tool.cache for tool in talk.tools))
    return _encode(body)


def _limit_field(habits: ChatHabits, can: Abilities) -> str:
    """OpenAI's reasoning models refuse `max_tokens`, wherever they are served."""
    return habits.limit_field if can.samples or habits.only else HABITS.limit_field


def _note(talk: Conversation, name: str, dropped: bool) -> None:
    if dropped and name not in talk.dropped:
        talk.dropped.append(name)


def _effort(talk: Conversation, can: Abilities) -> str | None:
    asked = talk.effort
    if asked is None:
        if talk.think_tokens is None or talk.think_tokens < 0:
            return None
        asked = next((effort for most, effort in _BUDGET_EFFORTS if talk.think_tokens <= most), "high")
    effort = effort_for(asked, can.efforts)
    _note(talk, "effort", effort is None)
    return effort


def _sampling(talk: Conversation, *, samples: bool) -> dict[str, Any]:
    """Temperature and its kin, as far as the model takes them. Raises BadRequest for stop sequences that it refuses."""
    given = {name: getattr(talk, name) for name in _SAMPLING}
    if samples:
        return given | {"stop": talk.stop or None}
    if talk.stop:
        raise BadRequest("The model that was chosen takes no stop sequences.", param="stop")
    for name, value in given.items():
        _note(talk, name, value is not None and value != _SAMPLING[name])
    return {}


def _tool(talk: Conversation, tool: Tool) -> dict[str, Any]:
    described: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        described["description"] = tool.description
    if tool.custom:
        if tool.format is not None:
            described["format"] = _nested(tool.format)
        return {"type": "custom", "custom": described}
    described["parameters"] = NO_ARGUMENTS if tool.schema is None else tool.schema
    if tool.strict is not None:
        described["strict"] = tool.strict and fits_strict(tool.schema)
        _note(talk, "tools.strict", tool.strict and not described["strict"])
    return {"type": "function", "function": described}


def _nested(given: msgspec.Raw) -> dict[str, Any]:
    """A custom tool's format as chat writes it: the grammar's members one level deeper than in Responses."""
    members = _raws.decode(given)
    kind = members.pop("type", msgspec.Raw(b'"text"'))
    return {"type": kind, "grammar": members} if members else {"type": kind}


def _named(talk: Conversation) -> dict[str, Any]:
    custom = any(tool.custom and tool.name == talk.tool_named for tool in talk.tools)
    kind = "custom" if custom else "function"
    return {"type": kind, kind: {"name": talk.tool_named}}


def _format(talk: Conversation) -> dict[str, Any]:
    assert talk.shape is not None
    if talk.shape.schema is None:
        return {"type": "json_object"}
    schema: dict[str, Any] = {"name": talk.shape.name or "answer", "schema": talk.shape.schema}
    if talk.shape.strict is not None:
        schema["strict"] = talk.shape.strict and fits_strict(talk.shape.schema)
        _note(talk, "response_format.strict", talk.shape.strict and not schema["strict"])
    return {"type": "json_schema", "json_schema": schema}


def _messages(talk: Conversation, model: str, habits: ChatHabits) -> Iterator[dict[str, Any]]:
    """Between two turns of the assistant results come first: chat has them stand directly behind their calls."""
    asked: list[Message] = []
    version = version_of(model)
    for message in talk.messages:
        if message.role != "assistant":
            asked.append(message)
            continue
        yield from _asked(talk, asked)
        asked = []
        answer = _answer(talk, message, thinking=habits.takes_reasoning)
        if answer is not None:
            if version != UNKNOWN and "tool_calls" in answer:
                _sign(answer["tool_calls"], message, needed=version >= FIRST_WITH_LEVEL)
            yield answer
    yield from _asked(talk, asked)


def _asked(talk: Conversation, messages: Sequence[Message]) -> Iterator[dict[str, Any]]:
    moved: list[Part] = []
    for message in messages:
        for part in message.parts:
            if isinstance(part, ToolResult):
                media = [inner for inner in part.parts if isinstance(inner, Media)]
                moved += media
                text = _joined(part.parts, "\n\n") or (_MOVED if media else "")
                _note(talk, "is_error", part.is_error)
                _note(talk, "cache_control", part.cache or any(inner.cache for inner in part.parts))
                yield {"role": "tool", "tool_call_id": call_id(part.id), "content": text}
    if moved:
        yield {"role": "user", "content": _content(moved)}
    for message in messages:
        rest = [part for part in message.parts if not isinstance(part, ToolResult)]
        _note(talk, "cache_control", any(isinstance(part, Text | Media) and part.cache for part in rest))
        if rest or not message.parts:
            yield {"role": message.role, "content": _content(rest)}


def _answer(talk: Conversation, message: Message, *, thinking: bool) -> dict[str, Any] | None:
    """An assistant's turn; None where nothing of it is left: most servers refuse an empty one."""
    answer: dict[str, Any] = {"role": "assistant", "content": _joined(message.parts, "") or None}
    if any(isinstance(part, Media) for part in message.parts):
        raise BadRequest("An assistant's images cannot be carried to this model's provider.", param="messages")
    refusal = "".join(part.text for part in message.parts if isinstance(part, Refusal))
    if refusal:
        answer["refusal"] = refusal
    calls = [_call(part) for part in message.parts if isinstance(part, ToolCall)]
    if calls:
        answer["tool_calls"] = calls
    thoughts = [part for part in message.parts if isinstance(part, Thinking)]
    own = "".join(part.text for part in thoughts if part.origin == ORIGIN) if calls and thinking else ""
    if own:
        answer["reasoning_content"] = own
    _note(talk, "thinking", bool(thoughts) and not own)
    return answer if answer["content"] or refusal or calls else None


def _sign(calls: list[dict[str, Any]], message: Message, *, needed: bool) -> None:
    """Google's compatible endpoint wants the proofs of its calls back; from Gemini 3 on of each turn's first call, or
    its own word for one that another model made (https://ai.google.dev/gemini-api/docs/thought-signatures)."""
    made = [part for part in message.parts if isinstance(part, ToolCall)]
    for place, (shown, call) in enumerate(zip(calls, made, strict=True)):
        signature = call.signature or (UNSIGNED if needed and not place else None)
        if signature is not None:
            shown["extra_content"] = {"google": {"thought_signature": signature}}


def _call(call: ToolCall) -> dict[str, Any]:
    if call.custom:
        return {"id": call_id(call.id), "type": "custom", "custom": {"name": call.name, "input": call.arguments}}
    function = {"name": call.name, "arguments": call.arguments or "{}"}
    return {"id": call_id(call.id), "type": "function", "function": function}


def call_id(id: str) -> str:
    """A call's id as OpenAI takes it."""
    return id if len(id) <= MAX_CALL_ID_CHARS else "call_" + blake2b(id.encode(), digest_size=16).hexdigest()


def _joined(parts: Iterable[Part], between: str) -> str:
    return between.join(part.text for part in parts if isinstance(part, Text))


def _content(parts: Sequence[Part]) -> str | list[dict[str, Any]]:
    """Text alone as a string, which every server reads; with media as parts."""
    if all(isinstance(part, Text) for part in parts):
        return _joined(parts, "\n\n")
    return [_part(part) for part in parts]


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if not isinstance(part, Media):
        raise BadRequest("A user's message holds what cannot be carried to this model's provider.", param="messages")
    if part.kind == "image":
        image = {"url": part.url if part.data is None else _data_url(part, "image/png")}
        return {"type": "image_url", "image_url": image if part.detail is None else image | {"detail": part.detail}}
    if part.data is None:
        raise BadRequest(
            "Only images can be carried to this model's provider by their address; send the content itself.",
            param="messages",
        )
    if part.kind == "file":
        named = {"filename": part.name or "document.pdf", "file_data": _data_url(part, "application/pdf")}
        return {"type": "file", "file": named}
    sound = _FORMATS.get(part.media_type or "")
    if sound is None:
        raise BadRequest("Only wav and mp3 sound can be carried to this model's provider.", param="messages")
    return {"type": "input_audio", "input_audio": {"data": part.data, "format": sound}}


def _data_url(media: Media, otherwise: str) -> str:
    return f"data:{media.media_type or otherwise};base64,{media.data}"
