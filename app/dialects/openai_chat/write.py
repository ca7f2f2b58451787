"""OpenAI Chat Completions, a streamed reply for a client whose upstream speaks another dialect.

Chunks: https://platform.openai.com/docs/api-reference/chat-streaming; ends: shared WIRE.md, as in `relay.py`.
`reasoning_content` is DeepSeek's and vLLM's name for visible thinking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from app.core.errors import BursarError
from app.core.events import Begin, CallBegins, CallEnds, CallPiece, Event, Finished, Said, Thought
from app.core.sse import Frame, sse_event
from app.core.types import ChatRequest
from app.dialects.base import Counts
from app.dialects.openai_chat.chunks import one_line, usage_members
from app.dialects.openai_chat.counted import usage_object
from app.dialects.openai_chat.errors import error_body
from app.dialects.openai_chat.made import made_id
from app.dialects.openai_chat.render import object_bytes
from app.dialects.openai_chat.talk_options import custom_names, legacy_functions
from app.dialects.openai_responses.custom import InputText

DONE: Final = b"data: [DONE]\n\n"
REASONS: Final = frozenset(("stop", "length", "tool_calls", "content_filter"))
"""Every other reason is told as `stop`: a word that they do not know makes some agents ask again without end."""
_ENVELOPE: Final = ("id", "object", "created", "model", "system_fingerprint")
_EMPTY, _EMPTY_LIST = msgspec.Raw(b"{}"), msgspec.Raw(b"[]")
_encode = msgspec.json.encode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def reply_id(request: ChatRequest, begin: Begin) -> str:
    """The provider's id for the reply, or one made of what was asked."""
    return begin.id or made_id("chatcmpl", bytes(request.members["messages"]).decode(errors="replace"))


def finish_word(reason: str, *, legacy: bool) -> str:
    """A finish reason as chat's clients know it."""
    if legacy and reason == "tool_calls":
        return "function_call"
    return reason if reason in REASONS else "stop"


def call_member(name: str, text: str, *, custom: bool) -> dict[str, Any]:
    """A call's type, and its name and text under the member that goes with it."""
    if custom:
        return {"type": "custom", "custom": {"name": name, "input": text}}
    return {"type": "function", "function": {"name": name, "arguments": text}}


class ChatWriter:
    """Writes one reply; see `base.Writer`."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._legacy = legacy_functions(request)
        self._begin = Begin()
        self._head = b""
        self._tail = b'],"usage":null}\n\n' if request.show_usage else b"]}\n\n"
        self._said: set[int] = set()
        self._told: set[int] = set()
        self._calls: dict[tuple[int, int], bool] = {}
        self._empty: set[tuple[int, int]] = set()
        self._customs = custom_names(request)
        self._inputs: dict[tuple[int, int], InputText] = {}
        self._last: bytes | None = None
        self._usage: bytes | None = None

    def write(self, events: Sequence[Event]) -> bytes:
        """One chunk for each event that says something; a choice's first is preceded by its role."""
        out: list[bytes] = []
        for event in events:
            if isinstance(event, Said):
                if event.text:
                    name = b'{"refusal":%b}' if event.refusal else b'{"content":%b}'
                    self._say(event.choice, name % _encode(event.text), out)
            elif isinstance(event, Thought):
                if event.text:
                    self._say(event.choice, b'{"reasoning_content":%b}' % _encode(event.text), out)
            elif isinstance(event, CallBegins):
                self._begin_call(event, out)
            elif isinstance(event, CallPiece):
                self._add_piece(event, out)
            elif isinstance(event, CallEnds):
                self._end_call(event.choice, event.index, out)
            elif isinstance(event, Begin):
                self._begin, self._head = event, b""
        return b"".join(out)

    def passed(self, frame: Frame, events: Sequence[Event]) -> bytes:
        """A chunk as it came, without its usage: the end tells that, with its cost, to those who asked."""
        for event in events:
            if isinstance(event, Finished):
                self._told.add(event.choice)
        return self._pass(frame)

    def complete(self, finished: Sequence[Event], counts: Counts, held: Sequence[Frame]) -> bytes:
        """Finish reasons, usage for those who asked, `[DONE]`."""
        out = [self._pass(frame) for frame in held]
        if not held:
            for choice, index in sorted({*self._empty, *self._inputs}):
                self._end_call(choice, index, out)
            for event in finished:
                if isinstance(event, Finished) and event.choice not in self._told:
                    self._told.add(event.choice)
                    finish = _encode(finish_word(event.reason, legacy=self._legacy))
                    self._say(event.choice, b"{}", out, finish)
        return b"".join([*out, self._usage_chunk(counts), DONE])

    def cut(self, error: BursarError, counts: Counts) -> bytes:
        """Usage for those who asked, the error, `[DONE]`; no finish reason."""
        return self._usage_chunk(counts) + sse_event(error_body(error)) + DONE

    def cut_softly(self, cut: bytes, counts: Counts) -> bytes:
        """Finish reason `length` on every open choice, what happened under `bursar`, usage, `[DONE]`."""
        open_choices = [index for index in range(self._request.choices) if index not in self._told]
        choices = [{"index": i, "delta": _EMPTY, "logprobs": None, "finish_reason": "length"} for i in open_choices]
        chunk = self._envelope() | {
            "choices": msgspec.Raw(_encode(choices)),
            "bursar": msgspec.Raw(b'{"cut":' + cut + b"}"),
        }
        return sse_event(object_bytes(chunk)) + self._usage_chunk(counts) + DONE

    def broken(self, error: BursarError) -> bytes:
        """The error, and no `[DONE]`, so that nobody takes it for the end."""
        return sse_event(error_body(error))

    def _say(self, choice: int, delta: bytes, out: list[bytes], finish: bytes = b"null") -> None:
        if choice not in self._said:
            self._said.add(choice)
            self._say(choice, b'{"role":"assistant","content":""}', out)
        head = self._head or self._make_head()
        out.append(
            b'%b{"index":%d,"delta":%b,"logprobs":null,"finish_reason":%b}%b'
            % (head, choice, delta, finish, self._tail)
        )

    def _make_head(self) -> bytes:
        named = b"".join(b'"%b":%b,' % (name.encode(), value) for name, value in self._envelope().items())
        self._head = b'data: {%b"choices":[' % named
        return self._head

    def _envelope(self) -> dict[str, msgspec.Raw]:
        if self._last is not None:
            members = _members.decode(self._last)
            return {name: members[name] for name in _ENVELOPE if name in members}
        begin = self._begin
        values: dict[str, Any] = {
            "id": reply_id(self._request, begin),
            "object": "chat.completion.chunk",
            "created": begin.created,
            "model": begin.model or self._request.model,
        }
        return {name: msgspec.Raw(_encode(value)) for name, value in values.items()}

    def _begin_call(self, event: CallBegins, out: list[bytes]) -> None:
        custom = event.custom or event.name in self._customs
        self._calls[event.choice, event.index] = custom
        if custom and not event.custom:
            self._inputs[event.choice, event.index] = InputText()
        elif not custom:
            self._empty.add((event.choice, event.index))
        if self._legacy:
            # An answer of the older kind has room for one call, and `conversation` asked for no more.
            if event.index == 0:
                function = {"name": event.name, "arguments": ""}
                self._say(event.choice, b'{"function_call":%b}' % _encode(function), out)
            return
        id = event.id or made_id("call", self._begin.id, event.choice, event.index)
        shown: dict[str, Any] = {"index": event.index, "id": id, **call_member(event.name, "", custom=custom)}
        if event.signature is not None:
            shown["extra_content"] = {"google": {"thought_signature": event.signature}}
        self._say(event.choice, b'{"tool_calls":[%b]}' % _encode(shown), out)

    def _add_piece(self, event: CallPiece, out: list[bytes]) -> None:
        custom = self._calls.get((event.choice, event.index))
        if custom is None or not event.text:
            return
        self._empty.discard((event.choice, event.index))
        given = self._inputs.get((event.choice, event.index))
        self._say_piece(event if given is None else replace(event, text=given.feed(event.text)), out, custom=custom)

    def _say_piece(self, event: CallPiece, out: list[bytes], *, custom: bool) -> None:
        if not event.text:
            return
        if not self._legacy:
            piece = b'{"tool_calls":[{"index":%d,"%b":{"%b":%b}}]}'
            kind, text = (b"custom", b"input") if custom else (b"function", b"arguments")
            self._say(event.choice, piece % (event.index, kind, text, _encode(event.text)), out)
        elif event.index == 0:
            self._say(event.choice, b'{"function_call":{"arguments":%b}}' % _encode(event.text), out)

    def _end_call(self, choice: int, index: int, out: list[bytes]) -> None:
        """Clients parse arguments as JSON, and no text is none. Of a custom call's input the rest is told."""
        given = self._inputs.pop((choice, index), None)
        if given is not None:
            self._say_piece(CallPiece(index, given.close()[0], choice), out, custom=True)
        if (choice, index) in self._empty:
            self._add_piece(CallPiece(index, "{}", choice), out)

    def _pass(self, frame: Frame) -> bytes:
        if frame.data is None:
            return frame.raw
        data = frame.data.strip()
        if not data or data == b"[DONE]":
            return b""
        members = _members.decode(data)
        usage = usage_members(members)
        if "choices" in members and bytes(members["choices"]) != b"[]":
            self._last = data
        elif usage is not None:
            self._usage = data
            return b""
        if usage is None or "usage" not in members:
            return frame.raw
        self._usage = data
        return sse_event(one_line(object_bytes({name: value for name, value in members.items() if name != "usage"})))

    def _usage_chunk(self, counts: Counts) -> bytes:
        if not self._request.show_usage:
            return b""
        if self._usage is not None and counts.exact:
            members = _members.decode(self._usage)
            usage: dict[str, Any] = {**(usage_members(members) or {}), **counts.money()}
        else:
            members, usage = self._envelope(), usage_object(counts)
        members |= {"choices": _EMPTY_LIST, "usage": msgspec.Raw(_encode(usage))}
        return sse_event(one_line(object_bytes(members)))
