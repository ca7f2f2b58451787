"""One reply of an upstream that speaks Responses, as canonical events.

Servers leave events out: llama.cpp numbers nothing and ends all items together at the end, vLLM names an item
differently from event to event, others send whole items only. So what an event should have said is taken from the next
one that says it: a piece, its `done`, its item, the response.
Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from app.core.events import Begin, Done, Event, Failed, Finished, Ran, Used
from app.core.raw import NO_ERROR, UNREADABLE
from app.core.sse import Frame
from app.dialects.base import BadEvent
from app.dialects.openai_responses.read_items import ItemReader, OutputItem
from app.dialects.openai_responses.usage import ResponsesUsage
from app.dialects.server_tools import served_tier

_REASONS = {"max_output_tokens": "length", "max_tokens": "length"}


class _Error(msgspec.Struct):
    message: str | None = None
    code: Any = None
    type: Any = None


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class _Response(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    created_at: float | None = None
    status: str | None = None
    error: msgspec.Raw = msgspec.Raw()
    incomplete_details: _Incomplete | None = None
    output: list[OutputItem] | None = None
    usage: ResponsesUsage | None = None
    service_tier: Any = None


class _Event(msgspec.Struct):
    type: str = ""
    delta: Any = None
    text: str | None = None
    refusal: str | None = None
    arguments: Any = None
    input: str | None = None
    item_id: str | None = None
    output_index: int | None = None
    summary_index: int | None = None
    item: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    code: Any = None
    message: str | None = None


_event = msgspec.json.Decoder(_Event)
_item = msgspec.json.Decoder(OutputItem)
_response = msgspec.json.Decoder(_Response)
_error = msgspec.json.Decoder(_Error | str)

_DELTAS = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.reasoning_summary_text.delta": "thought",
    "response.reasoning_text.delta": "thought",
    "response.reasoning.delta": "thought",
    "response.function_call_arguments.delta": "call",
    "response.custom_tool_call_input.delta": "call",
}
_WHOLE = {
    "response.output_text.done": "text",
    "response.refusal.done": "refusal",
    "response.function_call_arguments.done": "call",
    "response.custom_tool_call_input.done": "call",
}
_ENDS = frozenset(f"response.{end}" for end in ("completed", "incomplete", "failed", "cancelled", "done"))


class ResponsesReader:
    """Reads one reply."""

    marks_end = False

    def __init__(self) -> None:
        self.served: str | None = None
        self._items = ItemReader()
        self._begun = False
        self._containers: set[str] = set()

    def read(self, frame: Frame) -> list[Event]:
        """The events of one frame, none for a comment or an event that says nothing here. Raises BadEvent."""
        data = frame.data.strip() if frame.data is not None else b""
        if not data or data == b"[DONE]":
            return []
        try:
            events = self._read(_event.decode(data))
        except UNREADABLE as error:
            raise BadEvent(str(error)) from None
        if events and not self._begun:
            self._begun = True
            return [Begin(), *events]
        return events

    def whole(self, body: bytes) -> list[Event]:
        """The events of a whole response object. Raises BadEvent."""
        try:
            response = _response.decode(body)
            if bytes(response.error) in NO_ERROR and response.output is None:
                raise BadEvent("neither a response nor an error")
            return self._end(response, None)
        except UNREADABLE as error:
            raise BadEvent(str(error)) from None

    def _read(self, event: _Event) -> list[Event]:
        kind = event.type
        if (what := _DELTAS.get(kind)) is not None:
            return self._items.piece(what, event.delta, event.item_id, event.output_index, event.summary_index)
        if (what := _WHOLE.get(kind)) is not None:
            whole = {"text": event.text, "refusal": event.refusal, "call": event.arguments or event.input}[what]
            return self._items.rest(what, whole, event.item_id, event.output_index)
        if kind == "response.output_item.added":
            return self._items.added(_item.decode(event.item), event.output_index)
        if kind == "response.output_item.done":
            item = _item.decode(event.item)
            events = self._items.done(item, event.output_index)
            return events if (tool := item.billed(self._containers)) is None else [*events, Ran(tool)]
        if kind in _ENDS:
            return self._end(_response.decode(event.response), event.response, kind.removeprefix("response."))
        if kind == "error" or bytes(event.error) not in NO_ERROR:
            return [_failed(event.error, event.message, event.code)]
        return self._begin(_response.decode(event.response)) if event.response else []

    def _begin(self, response: _Response) -> list[Event]:
        if self._begun:
            return []
        self._begun = True
        return [Begin(response.id or "", response.model or "", int(response.created_at or 0))]

    def _end(self, response: _Response, reply: msgspec.Raw | None, said: str = "") -> list[Event]:
        """The last event of a stream, or a whole response."""
        events = self._begin(response)
        self.served = served_tier(response.service_tier)
        usage = response.usage.counted() if response.usage is not None else None
        containers: set[str] = set()
        ran = Counter(tool for item in response.output or () if (tool := item.billed(containers)) is not None)
        if usage is not None and ran:
            usage = msgspec.structs.replace(usage, tools=tuple(ran.items()))
        used: list[Event] = [] if usage is None else [Used(usage)]
        status = response.status or said
        if bytes(response.error) not in NO_ERROR or status in ("failed", "cancelled"):
            return [*events, *used, _failed(response.error, None, status)]
        for item in response.output or ():
            events += self._items.unseen(item)
        reason = "tool_calls" if self._items.calls else "stop"
        if status == "incomplete":
            given = response.incomplete_details.reason if response.incomplete_details else None
            reason = _REASONS.get(given or "", given or "length")
        finished = Finished(reason, reply=bytes(reply) if reply and response.output else None)
        return [*events, finished, *used, Done()]


def _failed(error: msgspec.Raw, message: str | None, code: object) -> Failed:
    """`{"message", "code"}` under `error`, or beside the type; a string; or nothing."""
    given = _error.decode(error) if bytes(error) not in NO_ERROR else None
    if isinstance(given, str):
        message = given
    elif given is not None:
        message, code = given.message or message, given.code or given.type or code
    return Failed(message or "The provider reported an error in its stream.", str(code) if code else "")
