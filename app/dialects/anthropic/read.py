"""A Messages upstream's reply as canonical events.

Sources: https://platform.claude.com/docs/en/build-with-claude/streaming (events, deltas, error events; unknown events
are to be ignored) and https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons
"""

from __future__ import annotations

import msgspec

from app.core.events import Begin, Done, Event, Extra, Failed, Finished, Used
from app.core.raw import ABSENT, UNREADABLE
from app.core.sse import Frame
from app.dialects.anthropic.proof import ORIGIN
from app.dialects.anthropic.read_blocks import CONTAINER, MANAGEMENT, BlocksReader, Delta
from app.dialects.anthropic.usage import UsageShape, merged, usage_of
from app.dialects.base import BadEvent
from app.dialects.server_tools import messages_tier

REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_NOTHING = (b"", b"null")


class _Error(msgspec.Struct):
    message: str | None = None
    type: str | None = None


class _Message(msgspec.Struct):
    type: str = ""
    id: str | None = None
    model: str | None = None
    content: list[msgspec.Raw] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: UsageShape | None = None
    container: msgspec.Raw = ABSENT
    context_management: msgspec.Raw = ABSENT
    error: _Error | None = None


class _Event(msgspec.Struct):
    type: str = ""
    index: int | None = None
    message: msgspec.Raw = ABSENT
    content_block: msgspec.Raw = ABSENT
    delta: Delta | None = None
    usage: UsageShape | None = None
    context_management: msgspec.Raw = ABSENT
    error: _Error | None = None


_event = msgspec.json.Decoder(_Event)
_message = msgspec.json.Decoder(_Message)


class MessagesReader:
    """Reads one reply of an upstream."""

    marks_end = False

    def __init__(self) -> None:
        self.served: str | None = None
        self._blocks = BlocksReader()
        self._usage: UsageShape | None = None

    def read(self, frame: Frame) -> list[Event]:
        """The events of one frame. Raises BadEvent."""
        if frame.data is None or not frame.data.strip():
            return []
        if frame.data.strip() == b"[DONE]":
            return [Done()]  # some servers end every stream so
        try:
            return self._read(_event.decode(frame.data))
        except UNREADABLE as error:
            raise BadEvent(str(error)) from None

    def _read(self, event: _Event) -> list[Event]:
        match event.type:
            case "content_block_delta":
                return self._blocks.delta(event.index or 0, event.delta or Delta())
            case "content_block_start":
                return self._blocks.start(event.index or 0, event.content_block)
            case "content_block_stop":
                return self._blocks.stop(event.index or 0)
            case "message_start":
                return self._begin(_message.decode(event.message))
            case "message_delta":
                return self._end(event.delta or Delta(), event.usage, event.context_management)
            case "message_stop":
                return [Done()]
            case "error":
                return [_failed(event.error or _Error())]
        return []

    def whole(self, body: bytes) -> list[Event]:
        """The events of a reply that is not streamed. Raises BadEvent."""
        try:
            message = _message.decode(body)
            if message.type == "error":
                return [_failed(message.error or _Error()), Done()]
            if message.content is None:
                raise BadEvent("the reply has no content")
            usage, message.usage = message.usage, None
            events = self._begin(message)
            for index, block in enumerate(message.content):
                events += self._blocks.start(index, block)
                events += self._blocks.stop(index)
        except UNREADABLE as error:
            raise BadEvent(str(error)) from None
        reason = message.stop_reason or "end_turn"
        ending = Delta(stop_reason=reason, stop_sequence=message.stop_sequence, container=message.container)
        return [*events, *self._end(ending, usage, message.context_management), Done()]

    def _begin(self, message: _Message) -> list[Event]:
        return [Begin(message.id or "", message.model or ""), *self._used(message.usage, final=False)]

    def _used(self, shape: UsageShape | None, *, final: bool) -> list[Event]:
        if shape is None:
            return []
        self._usage = merged(self._usage, shape)
        self.served = messages_tier(self._usage.speed, self._usage.inference_geo)
        usage = usage_of(self._usage)
        return [] if usage is None else [Used(usage, final)]

    def _end(self, delta: Delta, usage: UsageShape | None, management: msgspec.Raw) -> list[Event]:
        told = ((CONTAINER, delta.container), (MANAGEMENT, management))
        events: list[Event] = [Extra(name, bytes(raw), ORIGIN) for name, raw in told if bytes(raw) not in _NOTHING]
        if delta.stop_reason:
            reason = REASONS.get(delta.stop_reason, delta.stop_reason)
            if reason != "length":
                events += self._blocks.bare_end()
            events.append(Finished(reason, 0, delta.stop_sequence))
        return events + self._used(usage, final=bool(delta.stop_reason))


def _failed(error: _Error) -> Failed:
    return Failed(error.message or "The provider reported an error in its stream.", error.type or "")
