"""A Gemini upstream's reply as canonical events, streamed or whole.

Source: https://ai.google.dev/api/generate-content#GenerateContentResponse. A call comes whole, in one part; the reason
for a candidate's end comes with its last part or alone, and usage with every chunk; a stream has no mark of its end.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from typing import Any

import msgspec

from app.core.events import (
    Begin,
    CallBegins,
    CallEnds,
    CallPiece,
    Done,
    Event,
    Extra,
    Failed,
    Finished,
    Said,
    Thought,
    Used,
)
from app.core.raw import ABSENT, UNREADABLE
from app.core.sse import Frame
from app.dialects.base import BadEvent
from app.dialects.gemini.errors import error_words
from app.dialects.gemini.paths import searches_are_billed_once
from app.dialects.gemini.proof import ORIGIN
from app.dialects.gemini.usage import UsageShape, usage_of

_NOT_ID = re.compile(r"[^A-Za-z0-9_-]")
MAX_SEED_CHARS = 40
"""Ids of calls may be no longer than 64 characters in Responses."""

REASONS = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
}
"""https://ai.google.dev/api/generate-content#FinishReason. Every other word goes on as it is, in small letters."""


class _Call(msgspec.Struct, rename="camel"):
    id: str | None = None
    name: str | None = None
    args: msgspec.Raw = ABSENT
    partial_args: msgspec.Raw = ABSENT
    will_continue: bool | None = None


class _Part(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _Call | None = None


class _Content(msgspec.Struct):
    parts: list[msgspec.Raw] | None = None


class _Candidate(msgspec.Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    index: int | None = None
    finish_message: msgspec.Raw = ABSENT
    safety_ratings: msgspec.Raw = ABSENT
    citation_metadata: msgspec.Raw = ABSENT
    grounding_metadata: msgspec.Raw = ABSENT
    url_context_metadata: msgspec.Raw = ABSENT
    avg_logprobs: msgspec.Raw = ABSENT
    logprobs_result: msgspec.Raw = ABSENT


class _Source(msgspec.Struct):
    maps: Any = None


class _Grounding(msgspec.Struct, rename="camel"):
    web_search_queries: list[str] | None = None
    chunks: list[_Source] | None = msgspec.field(name="groundingChunks", default=None)


class _Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class _Chunk(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: msgspec.Raw = ABSENT
    usage_metadata: UsageShape | None = None
    response_id: str | None = None
    model_version: str | None = None
    error: msgspec.Raw = ABSENT


_EXTRAS = {
    "finish_message": "finishMessage",
    "safety_ratings": "safetyRatings",
    "citation_metadata": "citationMetadata",
    "grounding_metadata": "groundingMetadata",
    "url_context_metadata": "urlContextMetadata",
    "avg_logprobs": "avgLogprobs",
    "logprobs_result": "logprobsResult",
}
_chunk = msgspec.json.Decoder(_Chunk)
_chunks = msgspec.json.Decoder(list[_Chunk])
_part = msgspec.json.Decoder(_Part)
_feedback = msgspec.json.Decoder(_Feedback | None)
_grounding = msgspec.json.Decoder(_Grounding | None)


class GeminiReader:
    """Reads one reply; see `base.Reader`. A call without an id gets one made of the reply's own id."""

    marks_end = False
    served = None  # told in a header only

    def __init__(self) -> None:
        self._begun = False
        self._seed = ""
        self._made = 0
        self._searches: set[str] = set()
        self._mapped = False
        self._each_query = True
        self._calls: dict[int, int] = {}
        self._open: set[int] = set()
        self._seen: set[int] = set()
        self._finished: set[int] = set()

    def read(self, frame: Frame) -> list[Event]:
        """The events of one frame. An error may stand in the stream bare, without `data:`; nothing else may. Raises
        BadEvent."""
        if frame.data is None:
            return self._bare(frame.raw.strip())
        data = frame.data.strip()
        if not data:
            return []
        if data == b"[DONE]":
            return [Done()]  # some gateways on the way end every stream so
        if data.startswith(b"["):
            raise BadEvent("an event is an array")
        return self._events(self._decoded(data)[0], data)

    def _bare(self, data: bytes) -> list[Event]:
        if not data.startswith((b"{", b"[")):
            return []
        events = [event for chunk in self._decoded(data) if chunk.error for event in self._events(chunk, data)]
        if not events:
            raise BadEvent("a stream without events")
        return events

    def whole(self, body: bytes) -> list[Event]:
        """The events of a whole reply, or of the array that a stream without `alt=sse` is. Raises BadEvent."""
        chunks = self._decoded(body)
        events = [event for chunk in chunks for event in self._events(chunk, body)]
        if not any(chunk.candidates or chunk.prompt_feedback or chunk.error for chunk in chunks):
            raise BadEvent("neither candidates nor an error")
        if any(isinstance(event, Failed) for event in events):
            return events
        events = [event for event in events if not isinstance(event, Done)]
        for choice in sorted(self._seen - self._finished):
            events.append(Finished(self._reason("STOP", choice), choice))
        return [*(Used(e.usage) if isinstance(e, Used) else e for e in events), Done()]

    @staticmethod
    def _decoded(data: bytes) -> list[_Chunk]:
        try:
            return _chunks.decode(data) if data.lstrip().startswith(b"[") else [_chunk.decode(data)]
        except UNREADABLE as error:
            raise BadEvent(str(error)) from None

    def _events(self, chunk: _Chunk, data: bytes) -> list[Event]:
        events: list[Event] = []
        if chunk.error and bytes(chunk.error) != b"null":
            return [Failed(*error_words(bytes(chunk.error)))]
        if not self._begun:
            self._begun = True
            seed = _NOT_ID.sub("", chunk.response_id or "")[:MAX_SEED_CHARS]
            self._seed = seed or hashlib.sha256(data).hexdigest()[:16]
            self._each_query = not searches_are_billed_once(chunk.model_version or "")
            events.append(Begin(chunk.response_id or "", chunk.model_version or ""))
        for candidate in chunk.candidates or ():
            self._read_candidate(candidate, events)
        if chunk.prompt_feedback:
            self._read_feedback(chunk.prompt_feedback, events)
        usage = usage_of(chunk.usage_metadata) if chunk.usage_metadata is not None else None
        if usage is not None:
            if self._searches or self._mapped:
                usage = msgspec.structs.replace(usage, tools=self._billed())
            events.append(Used(usage, final=bool(self._finished) and self._seen == self._finished))
        return events

    def _billed(self) -> tuple[tuple[str, int], ...]:
        """An answer from a search is billed once, or from Gemini 3 on each query that is not empty; one from maps once
        (https://ai.google.dev/gemini-api/docs/google-search#pricing and .../maps-grounding#pricing)."""
        searched = len(self._searches) if self._each_query else min(len(self._searches), 1)
        return tuple((tool, n) for tool, n in (("web_search", searched), ("maps", int(self._mapped))) if n)

    def _read_candidate(self, candidate: _Candidate, events: list[Event]) -> None:
        choice = candidate.index or 0
        self._seen.add(choice)
        if candidate.grounding_metadata:
            with contextlib.suppress(*UNREADABLE):
                grounding = _grounding.decode(candidate.grounding_metadata)
                if grounding is not None:
                    self._searches.update(filter(None, grounding.web_search_queries or ()))
                    self._mapped = self._mapped or any(chunk.maps is not None for chunk in grounding.chunks or ())
        for raw in (candidate.content.parts if candidate.content else None) or ():
            try:
                self._read_part(raw, _part.decode(raw), choice, events)
            except UNREADABLE as error:
                raise BadEvent(str(error)) from None
        for attribute, name in _EXTRAS.items():
            extra = getattr(candidate, attribute)
            if extra and bytes(extra) != b"null":
                events.append(Extra(name, bytes(extra), ORIGIN, choice))
        if candidate.finish_reason and candidate.finish_reason != "FINISH_REASON_UNSPECIFIED":
            self._finished.add(choice)
            events.append(Finished(self._reason(candidate.finish_reason, choice), choice))

    def _read_part(self, raw: msgspec.Raw, part: _Part, choice: int, events: list[Event]) -> None:
        if part.function_call is not None:
            self._read_call(part.function_call, part.thought_signature, choice, events)
        elif part.thought:
            signature = part.thought_signature
            events.append(
                Thought(part.text or "", signature=signature, ends=signature is not None, choice=choice, origin=ORIGIN)
            )
        elif part.text is not None:
            if part.text:
                events.append(Said(part.text, choice))
            if part.thought_signature is not None:
                # Of spoken text: nothing but Gemini reads it.
                signed = msgspec.json.encode({"text": "", "thoughtSignature": part.thought_signature})
                events.append(Extra("part", signed, ORIGIN, choice))
        else:
            events.append(Extra("part", bytes(raw), ORIGIN, choice))

    def _read_call(self, call: _Call, signature: str | None, choice: int, events: list[Event]) -> None:
        index = self._calls.get(choice, 0)
        if choice not in self._open:
            events.append(CallBegins(index, call.id or self._made_id(), call.name or "", False, choice, signature))
        if call.args and bytes(call.args) != b"null":
            events.append(CallPiece(index, bytes(call.args).decode(), choice))
        if call.partial_args:
            # Only a client of this dialect can have asked for these, and has the frames themselves: this is metered.
            events.append(CallPiece(index, bytes(call.partial_args).decode(), choice))
        if call.will_continue:
            self._open.add(choice)
            return
        self._open.discard(choice)
        self._calls[choice] = index + 1
        events.append(CallEnds(index, choice))

    def _made_id(self) -> str:
        self._made += 1
        return f"call_{self._seed}_{self._made - 1}"

    def _reason(self, word: str, choice: int) -> str:
        if word == "STOP" and self._calls.get(choice):
            return "tool_calls"
        return REASONS.get(word, word.lower())

    def _read_feedback(self, raw: msgspec.Raw, events: list[Event]) -> None:
        """A prompt that was refused has no candidates; the reply is over."""
        events.append(Extra("promptFeedback", bytes(raw), ORIGIN))
        try:
            feedback = _feedback.decode(raw)
        except UNREADABLE as error:
            raise BadEvent(str(error)) from None
        if feedback is not None and feedback.block_reason:
            self._seen.add(0)
            self._finished.add(0)
            events += [Finished("content_filter"), Done()]
