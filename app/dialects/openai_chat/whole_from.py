"""Canonical events as one chat completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from app.core.events import Begin, CallBegins, CallPiece, Event, Finished, Said, Thought
from app.core.types import ChatRequest
from app.dialects.base import Counts
from app.dialects.openai_chat.counted import usage_object
from app.dialects.openai_chat.made import made_id
from app.dialects.openai_chat.talk_options import custom_names, legacy_functions
from app.dialects.openai_chat.write import call_member, finish_word, reply_id
from app.dialects.openai_responses.custom import input_of


class _Choice:
    """One choice as it comes together."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.refusals: list[str] = []
        self.calls: dict[int, tuple[CallBegins, list[str]]] = {}
        self.reason: str | None = None

    def add(self, event: Said | Thought | CallBegins | CallPiece | Finished) -> None:
        if isinstance(event, Said):
            (self.refusals if event.refusal else self.texts).append(event.text)
        elif isinstance(event, Thought):
            self.thoughts.append(event.text)
        elif isinstance(event, CallBegins):
            self.calls[event.index] = event, []
        elif isinstance(event, CallPiece):
            if event.index in self.calls:
                self.calls[event.index][1].append(event.text)
        else:
            self.reason = event.reason

    def message(self, reply: str, customs: frozenset[str], *, legacy: bool) -> dict[str, Any]:
        text = "".join(self.texts)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if not text and (self.calls or self.refusals) else text,
            "refusal": "".join(self.refusals) or None,
        }
        thought = "".join(self.thoughts)
        if thought:
            message["reasoning_content"] = thought
        calls = [_call(begins, "".join(pieces), reply, customs) for begins, pieces in self.calls.values()]
        if calls and legacy:
            message["function_call"] = calls[0]["function"]
        elif calls:
            message["tool_calls"] = calls
        return message


def completion(request: ChatRequest, events: Sequence[Event], counts: Counts, cut: bytes | None) -> bytes:
    """The reply as one JSON object. `cut`: JSON about a soft cut, whose finish reason is `length`."""
    begin, choices = Begin(), {index: _Choice() for index in range(request.choices)}
    for event in events:
        if isinstance(event, Begin):
            begin = event
        elif isinstance(event, Said | Thought | CallBegins | CallPiece | Finished):
            choices.setdefault(event.choice, _Choice()).add(event)
    legacy, reply, customs = legacy_functions(request), reply_id(request, begin), custom_names(request)
    shown: dict[str, Any] = {
        "id": reply,
        "object": "chat.completion",
        "created": begin.created,
        "model": begin.model or request.model,
        "choices": [
            {
                "index": index,
                "message": choice.message(begin.id, customs, legacy=legacy),
                "logprobs": None,
                "finish_reason": finish_word(choice.reason or ("stop" if cut is None else "length"), legacy=legacy),
            }
            for index, choice in sorted(choices.items())
        ],
        "usage": usage_object(counts),
    }
    if cut is not None:
        shown["bursar"] = {"cut": msgspec.Raw(cut)}
    return msgspec.json.encode(shown)


def _call(begins: CallBegins, text: str, reply: str, customs: frozenset[str]) -> dict[str, Any]:
    id = begins.id or made_id("call", reply, begins.choice, begins.index)
    custom = begins.custom or begins.name in customs
    if custom and not begins.custom:
        text = input_of(text)  # the provider knows it as a function of one string
    elif not custom:
        text = text or "{}"
    call: dict[str, Any] = {"id": id, **call_member(begins.name, text, custom=custom)}
    if begins.signature is not None:
        call["extra_content"] = {"google": {"thought_signature": begins.signature}}
    return call
