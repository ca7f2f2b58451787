"""Canonical events as a Messages stream; the ends are those of shared WIRE.md.

Blocks follow one another, as the real API sends them. A call whose pieces come while another's are not whole yet
waits for its turn. Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from app.core.errors import BursarError
from app.core.events import Begin, CallBegins, CallEnds, CallPiece, Event, Extra, Said, Thought
from app.core.money import Usage
from app.core.sse import Frame
from app.core.tokens import estimate_input
from app.core.types import ChatRequest
from app.dialects.anthropic.errors import error_body
from app.dialects.anthropic.passing import ended, open_block
from app.dialects.anthropic.proof import CALL_ORIGIN, ORIGIN, shown_proof
from app.dialects.anthropic.read_blocks import BLOCK, CONTAINER, MANAGEMENT, is_metered_only, is_whole
from app.dialects.anthropic.reply import message_id, stop_of
from app.dialects.anthropic.usage import usage_bytes, usage_object
from app.dialects.base import Counts

_encode = msgspec.json.encode
_DELTA = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":%b}}\n\n'
)
MESSAGE_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


@dataclass(slots=True)
class _Call:
    """A tool call on its way: what of its arguments was sent, what waits, and whether the provider ended it."""

    begins: CallBegins
    sent: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    ended: bool = False

    @property
    def whole(self) -> bool:
        """Nothing more will come: the provider said so, or its JSON is all there."""
        return self.ended or (bool(self.sent) and is_whole("".join(self.sent)))


class MessagesWriter:
    """Writes one reply. `_kind` is the open block's, None between blocks; while it is `tool_use` the block is that of
    the first call in the queue."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._started = self._refused = self._called = False
        self._index = -1
        self._kind: str | None = None
        self._signed = False
        self._calls: dict[int, _Call] = {}
        self._queue: list[_Call] = []
        self._last_block: bytes | None = None
        self._withheld = b""
        self._in_call = False
        self._told: dict[str, msgspec.Raw] = {}

    def write(self, events: Sequence[Event]) -> bytes:
        """Events as bytes; choices beyond the first do not exist here."""
        out: list[bytes] = []
        for event in events:
            if isinstance(event, Begin):
                self._begin(event, out)
            elif isinstance(event, Said) and not event.choice:
                self._say(event, out)
            elif isinstance(event, Thought) and not event.choice:
                self._think(event, out)
            elif isinstance(event, CallBegins | CallPiece | CallEnds) and not event.choice:
                self._call(event, out)
            elif isinstance(event, Extra) and event.origin == ORIGIN:
                self._extra(event, out)
        return b"".join(out)

    def passed(self, frame: Frame, events: Sequence[Event]) -> bytes:
        """The frame as it came. Only the stop of a call that is not whole waits: who sees it may run half a call."""
        self._started = True
        withheld, self._withheld = self._withheld, b""
        ends = False
        for event in events:
            if isinstance(event, CallBegins):
                self._in_call = True
            elif isinstance(event, CallEnds):
                self._in_call, ends = False, True
        if frame.data is not None and b"content_block_" in frame.data:
            self._last_block = frame.data
            if self._in_call and not ends and open_block(frame.data) is None:
                self._withheld = frame.raw
                return withheld
        return withheld + frame.raw

    def complete(self, finished: Sequence[Event], counts: Counts, held: Sequence[Frame]) -> bytes:
        """The ordinary end: the reason and the usage in one `message_delta`."""
        if held:
            return self._withheld + ended(held, counts, MESSAGE_STOP)
        reason, sequence = stop_of(finished, called=self._called, refused=self._refused)
        return self._end(reason, sequence, counts, None)

    def cut(self, error: BursarError, counts: Counts) -> bytes:
        """The error that clients take as final; no `message_stop`."""
        return _error_frame(error)

    def cut_softly(self, cut: bytes, counts: Counts) -> bytes:
        """The opt-in end: `max_tokens`, with what happened beside it under `bursar`."""
        return self._end("max_tokens", None, counts, cut)

    def broken(self, error: BursarError) -> bytes:
        """An error event, which clients may retry; no `message_stop`."""
        return _error_frame(error)

    def _end(self, reason: str, sequence: str | None, counts: Counts, cut: bytes | None) -> bytes:
        out: list[bytes] = []
        self._begin(Begin(), out)
        self._finish_calls(out)
        self._close(out)
        passed_open = open_block(self._last_block) if self._last_block is not None else None
        if passed_open is not None:
            out.append(_frame("content_block_stop", index=passed_open))
        said: dict[str, object] = {"stop_reason": reason, "stop_sequence": sequence}
        beside: dict[str, object] = {"usage": msgspec.Raw(usage_bytes(counts))}
        if CONTAINER in self._told:
            said[CONTAINER] = self._told[CONTAINER]
        if MANAGEMENT in self._told:
            beside[MANAGEMENT] = self._told[MANAGEMENT]
        if cut is not None:
            beside["bursar"] = {"cut": msgspec.Raw(cut)}
        data = _encode({"type": "message_delta", "delta": said, **beside})
        return b"".join([*out, b"event: message_delta\ndata: ", data, b"\n\n", MESSAGE_STOP])

    def _begin(self, begin: Begin, out: list[bytes]) -> None:
        if self._started:
            return
        self._started = True
        prompt = self._request.prompt
        # Clients show this until the end corrects it, and some read the input nowhere else.
        given = estimate_input(prompt.text_bytes, prompt.messages, prompt.attachments)
        message: dict[str, object] = {
            "id": message_id(begin.id, self._request),
            "type": "message",
            "role": "assistant",
            "model": begin.model or self._request.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_object(Usage(given, 0)),
        }
        out.append(_frame("message_start", message=message))

    def _say(self, said: Said, out: list[bytes]) -> None:
        if not said.text:
            return
        self._refused = self._refused or said.refusal
        if self._kind != "text":
            self._open("text", {"text": ""}, out)
        self._delta(b"text_delta", b"text", said.text, out)

    def _think(self, thought: Thought, out: list[bytes]) -> None:
        if is_metered_only(thought):
            return
        proof, data = shown_proof(thought.signature, thought.origin), shown_proof(thought.encrypted, thought.origin)
        if thought.text or proof:
            if self._kind != "thinking" or (thought.text and self._signed):
                self._open("thinking", {"thinking": "", "signature": ""}, out)
                self._signed = False
            if thought.text:
                self._delta(b"thinking_delta", b"thinking", thought.text, out)
            if proof:
                self._delta(b"signature_delta", b"signature", proof, out)
                self._signed = True
        if data:
            self._open("redacted_thinking", {"data": data}, out)
            self._close(out)
        if thought.ends and self._kind == "thinking":
            self._close(out)

    def _extra(self, extra: Extra, out: list[bytes]) -> None:
        """A block of the provider's own tools, whole; a citation of the text that is being said; or what is told at
        the end."""
        if extra.name in (CONTAINER, MANAGEMENT):
            self._told[extra.name] = msgspec.Raw(extra.raw)
        elif extra.name == BLOCK:
            self._finish_calls(out)
            self._begin(Begin(), out)
            self._close(out)
            self._index += 1
            block = msgspec.Raw(extra.raw)
            out.append(_frame("content_block_start", index=self._index, content_block=block))
            out.append(_frame("content_block_stop", index=self._index))
        elif self._kind == "text":
            self._delta(b"citations_delta", b"citation", msgspec.Raw(extra.raw), out)

    def _call(self, event: CallBegins | CallPiece | CallEnds, out: list[bytes]) -> None:
        if isinstance(event, CallBegins):
            self._called = True
            call = self._calls[event.index] = _Call(event)
            self._queue.append(call)
        elif (known := self._calls.get(event.index)) is None:
            return
        elif isinstance(event, CallPiece):
            known.waiting.append(event.text)
        else:
            known.ended = True
        while self._queue:
            first = self._queue[0]
            self._send_call(first, out)
            if not first.ended and (len(self._queue) == 1 or not first.whole):
                return
            self._queue.pop(0)
            self._close(out)

    def _send_call(self, call: _Call, out: list[bytes]) -> None:
        if self._kind != "tool_use":
            if proof := shown_proof(call.begins.signature, CALL_ORIGIN):
                self._start_block("redacted_thinking", {"data": proof}, out)
            self._start_block("tool_use", {"id": call.begins.id, "name": call.begins.name, "input": {}}, out)
        text = "".join(call.waiting)
        call.waiting.clear()
        if text:
            call.sent.append(text)
            self._delta(b"input_json_delta", b"partial_json", text, out)

    def _finish_calls(self, out: list[bytes]) -> None:
        """Something else follows, so the calls are all there is of them."""
        while self._queue:
            self._send_call(self._queue.pop(0), out)
            self._close(out)

    def _open(self, kind: str, members: dict[str, object], out: list[bytes]) -> None:
        self._finish_calls(out)
        self._start_block(kind, members, out)

    def _start_block(self, kind: str, members: dict[str, object], out: list[bytes]) -> None:
        self._begin(Begin(), out)
        self._close(out)
        self._index += 1
        self._kind = kind
        out.append(_frame("content_block_start", index=self._index, content_block={"type": kind, **members}))

    def _delta(self, kind: bytes, name: bytes, value: object, out: list[bytes]) -> None:
        out.append(_DELTA % (self._index, kind, name, _encode(value)))

    def _close(self, out: list[bytes]) -> None:
        if self._kind is not None:
            self._kind = None
            out.append(_frame("content_block_stop", index=self._index))


def _frame(kind: str, **members: object) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + _encode({"type": kind, **members}) + b"\n\n"


def _error_frame(error: BursarError) -> bytes:
    return b"event: error\ndata: " + error_body(error) + b"\n\n"
