"""What a reply says, event by event, in no dialect's words. A whole reply is the same events at once."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.money import Usage

FAILED_CALLS = frozenset(
    (
        "malformed_function_call",
        "unexpected_tool_call",
        "too_many_tool_calls",
        "missing_thought_signature",
        "malformed_response",
    )
)
"""Reasons of `Finished` that are no end: the model failed to call a tool. Gemini's words
(https://ai.google.dev/api/generate-content#FinishReason); the other dialects have none for it."""


@dataclass(slots=True)
class Begin:
    """The reply begins: the provider's id for it, and the model it names; either may be empty. `created`: Unix time in
    whole seconds, 0 where the provider does not say."""

    id: str = ""
    model: str = ""
    created: int = 0


@dataclass(slots=True)
class Said:
    """A piece of text of one choice; `refusal`: of a refusal."""

    text: str
    choice: int = 0
    refusal: bool = False


@dataclass(slots=True)
class Thought:
    """A piece of thinking. `signature`, `encrypted`, `origin` and `id`: see `core/conversation.py`; `ends`: this
    thought is whole."""

    text: str = ""
    signature: str | None = None
    encrypted: str | None = None
    ends: bool = False
    choice: int = 0
    origin: str = ""
    id: str | None = None


@dataclass(slots=True)
class CallBegins:
    """A tool call begins. `index` counts the calls of a choice from 0; pieces and the end of a call name it again."""

    index: int
    id: str
    name: str
    custom: bool = False
    choice: int = 0
    signature: str | None = None


@dataclass(slots=True)
class CallPiece:
    """A piece of a call's arguments, which are JSON text (free text where the call is custom)."""

    index: int
    text: str
    choice: int = 0


@dataclass(slots=True)
class CallEnds:
    """The provider says that this call is whole. Dialects that do not say so end calls with `Finished`."""

    index: int
    choice: int = 0


@dataclass(slots=True)
class Finished:
    """A choice ends. `reason`: stop, length, tool_calls, content_filter, or the provider's own word. `reply`: the whole
    reply again, in a dialect that repeats it at the end of a stream (Responses)."""

    reason: str
    choice: int = 0
    stop_sequence: str | None = None
    reply: bytes | None = None


@dataclass(slots=True)
class Used:
    """A usage report, cumulative. `final`: no later one will say more."""

    usage: Usage
    final: bool = True


@dataclass(slots=True)
class Ran:
    """The provider used one of its own tools, which it bills by the piece (`core/types.SERVER_TOOLS`)."""

    tool: str


@dataclass(slots=True)
class HandedOver:
    """The model that answered declined, and another of its provider's goes on in its place."""


@dataclass(slots=True)
class Failed:
    """The provider reports an error in its stream: a message to show, and words by which to classify it."""

    message: str
    kind: str = ""


@dataclass(slots=True)
class Done:
    """The provider's own mark of the end (`[DONE]`, `message_stop`, `response.completed`)."""


@dataclass(slots=True)
class Extra:
    """What no other dialect can say (Gemini's pictures, run code, sources of a search), bytes as they came: it goes on
    within the dialect that is its `origin`, and other writers leave it out. `name`: of the member that holds it."""

    name: str
    raw: bytes
    origin: str
    choice: int = 0


Event = (
    Begin
    | Said
    | Thought
    | CallBegins
    | CallPiece
    | CallEnds
    | Finished
    | Used
    | Ran
    | HandedOver
    | Failed
    | Done
    | Extra
)
