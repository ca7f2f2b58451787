"""OpenAI Chat Completions, a request read in full: what it says, in no dialect's words.

Source: https://platform.openai.com/docs/api-reference/chat/create; thinking in messages:
https://api-docs.deepseek.com/guides/reasoning_model, https://docs.vllm.ai/en/latest/features/reasoning_outputs.html,
https://docs.mistral.ai/capabilities/reasoning; Google's signatures of calls:
https://ai.google.dev/gemini-api/docs/thought-signatures
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from app.core.conversation import Conversation, Media, Message, Part, Refusal, Text, Thinking, ToolCall, ToolResult
from app.core.errors import BadRequest
from app.core.types import ChatRequest
from app.dialects.openai_chat.fields import field_of
from app.dialects.openai_chat.shapes import ORIGIN
from app.dialects.openai_chat.talk_options import read_options

SOUNDS: Final = {"wav": "audio/wav", "mp3": "audio/mpeg"}
_PDF: Final = "application/pdf"
_DATA_URL: Final = re.compile(r"data:([^;,]+)(?:;[^;,]+)*;base64,")


class _Url(msgspec.Struct):
    url: str
    detail: str | None = None


class _Sound(msgspec.Struct):
    data: str
    format: str


class _File(msgspec.Struct):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class _Part(msgspec.Struct):
    type: str = "text"
    text: str | None = None
    image_url: _Url | str | None = None
    input_audio: _Sound | None = None
    file: _File | None = None
    refusal: str | None = None
    thinking: Any = None
    cache_control: Any = None
    prompt_cache_breakpoint: Any = None


class _Function(msgspec.Struct):
    name: str
    arguments: str | dict[str, Any] | None = None
    input: str | None = None


class _Call(msgspec.Struct):
    id: str | None = None
    type: str | None = None
    function: _Function | None = None
    custom: _Function | None = None
    extra_content: Any = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part | str] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    function_call: _Function | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    thinking: Any = None
    audio: Any = None
    cache_control: Any = None


_messages = msgspec.json.Decoder(list[_Message])


def conversation(request: ChatRequest) -> Conversation:
    """The whole of a chat request. Raises BadRequest naming what is wrong, or cannot be carried elsewhere."""
    talk = Conversation(messages=[])
    turns = _Turns(talk.messages)
    for place, message in enumerate(field_of(_messages, request.members, "messages")):
        turns.add(message, f"messages[{place}]")
    read_options(talk, request)
    return talk


class _Turns:
    """Collects messages; results that follow each other are one user's turn."""

    def __init__(self, messages: list[Message]) -> None:
        self._messages = messages
        self._in_results = False
        self._functions = 0

    def add(self, message: _Message, place: str) -> None:
        if message.role in ("tool", "function"):
            self._add_result(message, place)
            return
        self._in_results = False
        if message.role in ("system", "developer"):
            developer = message.role == "developer"
            self._messages.append(Message("system", list(_said(message, place)), developer=developer))
        elif message.role == "user":
            self._messages.append(Message("user", list(_said(message, place))))
        elif message.role == "assistant":
            self._messages.append(Message("assistant", self._answered(message, place)))
        else:
            raise BadRequest(f"The parameter {place}.role names no role that is known.", param=f"{place}.role")

    def _add_result(self, message: _Message, place: str) -> None:
        parts = [part for part in _said(message, place) if isinstance(part, Text | Media)]
        id = message.tool_call_id
        if message.role == "function":
            id = self._function_id()
        if not id:
            raise BadRequest(f"The parameter {place}.tool_call_id is required.", param=f"{place}.tool_call_id")
        result = ToolResult(id, parts, name=message.name, cache=any(part.cache for part in parts))
        if self._in_results:
            self._messages[-1].parts.append(result)
        else:
            self._messages.append(Message("user", [result]))
        self._in_results = True

    def _answered(self, message: _Message, place: str) -> list[Part]:
        if message.audio is not None:
            raise BadRequest(
                f"The parameter {place}.audio names an answer that is kept at its provider.", param=f"{place}.audio"
            )
        parts: list[Part] = []
        # Some clients send the same thought back in both fields.
        thought = message.reasoning_content or message.reasoning or message.thinking
        if isinstance(thought, str) and thought:
            parts.append(Thinking(thought, origin=ORIGIN))
        parts += _said(message, place)
        if message.refusal:
            parts.append(Refusal(message.refusal))
        parts += [_call(call, f"{place}.tool_calls[{i}]") for i, call in enumerate(message.tool_calls or ())]
        if message.function_call is not None:
            self._functions += 1
            function = message.function_call
            parts.append(ToolCall(self._function_id(), function.name, _arguments(function)))
        return parts

    def _function_id(self) -> str:
        """Calls of the older kind have no id, and stand one at a time."""
        return f"call_function_{self._functions}"


def _said(message: _Message, place: str) -> list[Part]:
    """A message's content; texts without a letter say nothing, and some providers refuse them."""
    content = message.content
    if content is None or isinstance(content, str):
        return [Text(content, cache=message.cache_control is not None)] if content else []
    parts = [_part(part, f"{place}.content[{i}]") for i, part in enumerate(content)]
    found = [part for part in parts if part is not None]
    if message.cache_control is not None and found and isinstance(found[-1], Text | Media):
        found[-1].cache = True
    return found


def _part(part: _Part | str, place: str) -> Part | None:
    if isinstance(part, str):
        return Text(part) if part else None
    cache = part.cache_control is not None or part.prompt_cache_breakpoint is not None
    if part.type in ("text", "input_text", "output_text"):
        return Text(part.text, cache) if part.text else None
    if part.type == "refusal":
        return Refusal(part.refusal) if part.refusal else None
    if part.type == "thinking":
        text = _thought(part.thinking)
        return Thinking(text, origin=ORIGIN) if text else None
    if part.type == "image_url" and part.image_url:
        image = part.image_url if isinstance(part.image_url, _Url) else _Url(part.image_url)
        media_type, data, url = _source(image.url, f"{place}.image_url.url")
        return Media("image", media_type, data, url, detail=image.detail, cache=cache)
    if part.type == "input_audio" and part.input_audio is not None:
        sound = part.input_audio
        return Media("audio", SOUNDS.get(sound.format, f"audio/{sound.format}"), sound.data, cache=cache)
    if part.type == "file" and part.file is not None:
        return _file(part.file, cache, f"{place}.file")
    raise BadRequest(f"The parameter {place} is of a type that cannot be carried, or empty.", param=f"{place}.type")


def _file(file: _File, cache: bool, place: str) -> Media:
    if not file.file_data:
        raise BadRequest(f"The parameter {place} must hold file_data: others cannot fetch it.", param=place)
    if not file.file_data.startswith("data:"):
        return Media("file", _PDF, file.file_data, name=file.filename, cache=cache)
    media_type, data, _ = _source(file.file_data, f"{place}.file_data")
    return Media("file", media_type, data, name=file.filename, cache=cache)


def _source(url: str, place: str) -> tuple[str | None, str | None, str | None]:
    """A URL as media type, base64 data and URL, of which data or URL is None."""
    if not url.startswith("data:"):
        return None, None, url
    found = _DATA_URL.match(url)
    if found is None:
        raise BadRequest(f"The parameter {place} must be a base64 data URL.", param=place)
    return found[1].lower(), url[found.end() :], None


def _thought(thinking: Any) -> str:
    """Mistral's thinking is a list of text parts."""
    if isinstance(thinking, list):
        texts = [part.get("text") for part in thinking if isinstance(part, dict)]
        return "".join(text for text in texts if isinstance(text, str))
    return thinking if isinstance(thinking, str) else ""


def _call(call: _Call, place: str) -> ToolCall:
    function = call.function or call.custom
    if function is None or not call.id:
        raise BadRequest(f"The parameter {place} must hold an id, and a function or a custom call.", param=place)
    google = call.extra_content.get("google") if isinstance(call.extra_content, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return ToolCall(
        call.id,
        function.name,
        _arguments(function),
        custom=call.function is None,
        signature=signature if isinstance(signature, str) else None,
    )


def _arguments(function: _Function) -> str:
    given = function.input if function.arguments is None else function.arguments
    return given if isinstance(given, str) else msgspec.json.encode(given or {}).decode()
