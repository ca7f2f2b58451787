"""A Messages upstream's reply as canonical events.

Every frame of a content block gives at least one event, be it an empty piece: a relay holds frames by their events,
and a block must not lose its beginning. Sources: https://platform.claude.com/docs/en/build-with-claude/streaming
(events, deltas, error events; unknown events are to be ignored) and
https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons
"""

from __future__ import annotations

import msgspec

from app.core.events import (
    Begin,
    CallBegins,
    CallEnds,
    CallPiece,
    Done,
    Event,
    Failed,
    Finished,
    Said,
    Thought,
    Used,
)
from app.core.sse import Frame
from app.dialects.anthropic.proof import ORIGIN
from app.dialects.anthropic.usage import UsageShape, merged, usage_of
from app.dialects.base import BadEvent

REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_ABSENT = msgspec.Raw()
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _Block(msgspec.Struct):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = _ABSENT


class _Delta(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    content: msgspec.Raw = _ABSENT
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _Error(msgspec.Struct):
    message: str | None = None
    type: str | None = None


class _Message(msgspec.Struct):
    type: str = ""
    id: str | None = None
    model: str | None = None
    content: list[_Block] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: UsageShape | None = None
    error: _Error | None = None


class _Event(msgspec.Struct):
    type: str = ""
    index: int | None = None
    message: msgspec.Raw = _ABSENT
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: UsageShape | None = None
    error: _Error | None = None


_event = msgspec.json.Decoder(_Event)
_message = msgspec.json.Decoder(_Message)
_string = msgspec.json.Decoder(str | None)


class MessagesReader:
    """Reads one reply. A stream's blocks come one after another; `index` names the one a delta belongs to."""

    def __init__(self) -> None:
        self._kinds: dict[int, str] = {}
        self._calls: dict[int, int] = {}
        self._called = 0
        self._arguments: dict[int, list[str]] = {}
        self._whole_inputs: dict[int, str] = {}
        self._bare_call: int | None = None
        self._usage: UsageShape | None = None

    def read(self, frame: Frame) -> list[Event]:
        """The events of one frame. Raises BadEvent."""
        if frame.data is None or not frame.data.strip():
            return []
        if frame.data.strip() == b"[DONE]":
            return [Done()]  # some servers end every stream so
        try:
            event = _event.decode(frame.data)
            match event.type:
                case "message_start":
                    return self._begin(_message.decode(event.message))
                case "content_block_start":
                    return self._start(event.index or 0, event.content_block or _Block())
                case "content_block_delta":
                    return self._delta(event.index or 0, event.delta or _Delta())
                case "content_block_stop":
                    return self._stop(event.index or 0)
                case "message_delta":
                    return self._end(event.delta or _Delta(), event.usage)
        except _UNREADABLE as error:
            raise BadEvent(str(error)) from None
        if event.type == "message_stop":
            return [Done()]
        return [_failed(event.error or _Error())] if event.type == "error" else []

    def whole(self, body: bytes) -> list[Event]:
        """The events of a reply that is not streamed. Raises BadEvent."""
        try:
            message = _message.decode(body)
        except _UNREADABLE as error:
            raise BadEvent(str(error)) from None
        if message.type == "error":
            return [_failed(message.error or _Error()), Done()]
        if message.content is None:
            raise BadEvent("the reply has no content")
        usage, message.usage = message.usage, None
        events = self._begin(message)
        for index, block in enumerate(message.content):
            events += self._start(index, block)
            events += self._stop(index)
        ending = _Delta(stop_reason=message.stop_reason or "end_turn", stop_sequence=message.stop_sequence)
        return [*events, *self._end(ending, usage), Done()]

    def _begin(self, message: _Message) -> list[Event]:
        events: list[Event] = [Begin(message.id or "", message.model or "")]
        return events + self._used(message.usage, final=False)

    def _used(self, shape: UsageShape | None, *, final: bool) -> list[Event]:
        if shape is None:
            return []
        self._usage = merged(self._usage, shape)
        usage = usage_of(self._usage)
        return [] if usage is None else [Used(usage, final)]

    def _start(self, index: int, block: _Block) -> list[Event]:
        self._kinds[index] = block.type
        return [*self._bare_end(), *self._begun(index, block)]

    def _begun(self, index: int, block: _Block) -> list[Event]:
        match block.type:
            case "text":
                return [Said(block.text or "")]
            case "thinking":
                return [Thought(block.thinking or "", block.signature or None, origin=ORIGIN)]
            case "redacted_thinking":
                return [Thought(encrypted=block.data or None, origin=ORIGIN)]
            case "tool_use":
                call = self._calls[index] = self._called
                self._called += 1
                self._arguments[index] = []
                given = bytes(block.input).decode() if block.input else ""
                if given not in ("", "{}", "null"):
                    self._whole_inputs[index] = given
                return [CallBegins(call, block.id or f"toolu_{call}", block.name or "")]
        # What the provider's own tools are asked is billed as output too; elsewhere nobody sees such blocks.
        given = bytes(block.input).decode() if block.input and bytes(block.input) != b"{}" else ""
        return [Thought(given, origin=ORIGIN)]

    def _delta(self, index: int, delta: _Delta) -> list[Event]:
        match delta.type:
            case "text_delta":
                return [Said(delta.text or "")]
            case "thinking_delta":
                return [Thought(delta.thinking or "", origin=ORIGIN)]
            case "signature_delta":
                return [Thought(signature=delta.signature or None, origin=ORIGIN)]
            case "input_json_delta" if index in self._arguments:
                self._arguments[index].append(delta.partial_json or "")
                return [CallPiece(self._calls[index], delta.partial_json or "")]
            case "input_json_delta":
                return [Thought(delta.partial_json or "", origin=ORIGIN)]
            case "compaction_delta":
                return [Thought(_string.decode(delta.content) or "" if delta.content else "", origin=ORIGIN)]
        return [Said("")] if self._kinds.get(index) == "text" else [Thought(origin=ORIGIN)]

    def _stop(self, index: int) -> list[Event]:
        kind = self._kinds.pop(index, None)
        if kind == "text":
            return [Said("")]
        if kind != "tool_use":
            return [Thought(ends=kind in ("thinking", "redacted_thinking"), origin=ORIGIN)]
        call, arguments = self._calls[index], "".join(self._arguments.pop(index, ()))
        if not arguments and index in self._whole_inputs:
            arguments = self._whole_inputs.pop(index)
            return [CallPiece(call, arguments), CallEnds(call)]
        # A call that `max_tokens` broke off is stopped like a whole one, and one without arguments comes without any.
        if not arguments:
            self._bare_call = call
        return [CallEnds(call)] if arguments and is_whole(arguments) else [CallPiece(call, "")]

    def _bare_end(self) -> list[Event]:
        """The end of a call that came without arguments: what follows it shows that it was not broken off."""
        call, self._bare_call = self._bare_call, None
        return [] if call is None else [CallPiece(call, "{}"), CallEnds(call)]

    def _end(self, delta: _Delta, usage: UsageShape | None) -> list[Event]:
        events: list[Event] = []
        if delta.stop_reason:
            reason = REASONS.get(delta.stop_reason, delta.stop_reason)
            if reason != "length":
                events += self._bare_end()
            events.append(Finished(reason, 0, delta.stop_sequence))
        return events + self._used(usage, final=bool(delta.stop_reason))


def is_whole(arguments: str) -> bool:
    """True where a call's arguments are all there."""
    if not arguments:
        return True
    try:
        msgspec.json.decode(arguments)
    except _UNREADABLE:
        return False
    return True


def _failed(error: _Error) -> Failed:
    return Failed(error.message or "The provider reported an error in its stream.", error.type or "")
