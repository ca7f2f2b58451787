"""What a request says, in no dialect's words: the way between two dialects leads through it.

Only requests that go to an upstream of another dialect are read this far; where both speak the same one, the
bytes go on as they came. What a dialect cannot carry is refused or dropped by its table (`dropped` says what).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec

Role = Literal["system", "user", "assistant"]


@dataclass(slots=True)
class Text:
    """Plain text. `cache`: the client marks the prefix up to here as worth caching (Anthropic's `cache_control`)."""

    text: str
    cache: bool = False


@dataclass(slots=True)
class Media:
    """An image, a document or a sound: base64 `data` of `media_type`, or a `url`. `detail` is OpenAI's for images."""

    kind: Literal["image", "file", "audio"]
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    name: str | None = None
    detail: str | None = None
    cache: bool = False


@dataclass(slots=True)
class Thinking:
    """What an assistant thought. `signature` and `encrypted` are proofs that only their own dialect's provider can
    read (Anthropic's signature and redacted data, Responses' encrypted content, Gemini's thoughtSignature), so they
    go on only within it; `origin` is that dialect."""

    text: str = ""
    signature: str | None = None
    encrypted: str | None = None
    origin: str = ""
    id: str | None = None


@dataclass(slots=True)
class ToolCall:
    """A call that the assistant made. `arguments` is JSON text, but free text where `custom`."""

    id: str
    name: str
    arguments: str
    custom: bool = False
    signature: str | None = None


@dataclass(slots=True)
class ToolResult:
    """What came of a call; it stands in a user's message. `name` is the tool's, where the dialect says it."""

    id: str
    parts: list[Text | Media]
    is_error: bool = False
    name: str | None = None
    cache: bool = False


@dataclass(slots=True)
class Refusal:
    """The assistant's own words for not answering."""

    text: str


Part = Text | Media | Thinking | ToolCall | ToolResult | Refusal


@dataclass(slots=True)
class Message:
    """One turn. System messages stand where the client put them; renderers gather them where a dialect has one place.
    `developer`: a system message that OpenAI's newer models know under that role."""

    role: Role
    parts: list[Part]
    developer: bool = False


@dataclass(slots=True)
class Tool:
    """A tool on offer. `schema`: JSON Schema of its arguments, bytes as they came, None for a custom tool, which takes
    free text (`format`: its grammar, bytes as they came)."""

    name: str
    description: str | None = None
    schema: msgspec.Raw | None = None
    strict: bool | None = None
    custom: bool = False
    format: msgspec.Raw | None = None
    cache: bool = False


@dataclass(slots=True)
class Shape:
    """The wanted shape of the answer: any JSON object, or (`schema`) one of this JSON Schema."""

    schema: msgspec.Raw | None = None
    name: str | None = None
    strict: bool | None = None


@dataclass(slots=True)
class Conversation:
    """A request to a model, without its name, its output limit and whether it streams (`ChatRequest` has those).

    `tool_choice`: auto, none, required, or (`tool_named`) the one tool that must be called. `effort`: the client's
    word for how much to think; `think_tokens`: its budget in tokens; `show_thoughts`: it wants to read them.
    `own`: what only OpenAI's two dialects have words for, by its names in Chat (`openai_chat/own.py`).
    `caching`: the provider's cache may be used where the client says nothing of it. `dropped`: names of the client's
    parameters that the canonical form cannot hold, for the record.
    """

    messages: list[Message]
    tools: list[Tool] = field(default_factory=list)
    tool_choice: Literal["auto", "none", "required"] | None = None
    tool_named: str | None = None
    parallel_tools: bool | None = None
    shape: Shape | None = None
    stop: list[str] = field(default_factory=list)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    effort: str | None = None
    think_tokens: int | None = None
    show_thoughts: bool = False
    user: str | None = None
    own: dict[str, str] = field(default_factory=dict)
    choices: int = 1
    caching: bool = False
    dropped: list[str] = field(default_factory=list)


def drop_thinking(talk: Conversation) -> bool:
    """Take the thinking out of a conversation; False where there is none."""
    found = False
    for message in talk.messages:
        kept: list[Part] = [part for part in message.parts if not isinstance(part, Thinking)]
        found = found or len(kept) < len(message.parts)
        message.parts = kept
    return found
