"""The shapes of chunks and completions, of every provider at once: every member is optional."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from app.core.raw import UNREADABLE
from app.dialects.base import BadEvent
from app.dialects.openai_chat.decode import UsageShape

ORIGIN: Final = "openai_chat"
"""Whose thoughts these are."""
UNSIGNED: Final = "unsigned"
"""Stands for the proof that chat's thoughts have none of."""


class Function(msgspec.Struct):
    """A function, or a custom tool's call."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None
    input: str | None = None

    @property
    def text(self) -> str:
        """Arguments as JSON text (Ollama's may be an object), or a custom call's input."""
        given = self.arguments or self.input or ""
        return given if isinstance(given, str) else msgspec.json.encode(given).decode()


class Call(msgspec.Struct):
    """A tool call, or a part of one."""

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: Function | None = None
    custom: Function | None = None
    extra_content: Any = None


class Audio(msgspec.Struct):
    """A spoken answer; its sound is not read."""

    transcript: str | None = None


class Delta(msgspec.Struct):
    """What a choice says: `delta` in a chunk, `message` in a completion."""

    content: str | list[Any] | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    thinking: Any = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None
    function_call: Function | None = None
    audio: Audio | None = None


class Choice(msgspec.Struct):
    """One choice."""

    index: int | None = None
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    usage: UsageShape | None = None


class Groq(msgspec.Struct):
    """Groq's own corner of a chunk."""

    usage: UsageShape | None = None


class Chunk(msgspec.Struct):
    """One chunk, or one completion."""

    id: str | None = None
    model: str | None = None
    created: float | None = None
    choices: list[Choice] | None = None
    usage: UsageShape | None = None
    error: msgspec.Raw = msgspec.Raw()
    x_groq: Groq | None = None
    service_tier: Any = None


_chunk = msgspec.json.Decoder(Chunk)


def decoded(data: bytes) -> Chunk:
    """One chunk or completion. Raises BadEvent."""
    try:
        return _chunk.decode(data)
    except UNREADABLE as error:
        raise BadEvent(str(error)) from None
