"""Replies of Responses upstreams, in the shapes that their documentation and sources show, and what reads them."""

from __future__ import annotations

import json
from typing import Any

from app.core.errors import BudgetExceeded
from app.core.events import CallPiece, Event, Said, Thought
from app.core.money import Usage
from app.core.sse import Frame, SseParser
from app.core.types import ChatRequest
from app.dialects.base import Counts
from app.dialects.openai_responses.dialect import DIALECT

OUT = BudgetExceeded("Task is out of budget: the cost cap set for this task has been reached. Do not resend.")
COUNTS = Counts(Usage(20, 7, cache_read=8, reasoning=3), exact=True, cost_nano=1_500)
USAGE = {
    "input_tokens": 20,
    "input_tokens_details": {"cached_tokens": 8},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 27,
}


def request_of(**members: Any) -> ChatRequest:
    """A parsed request; model and input have values of their own."""
    return DIALECT.parse(json.dumps({"model": "m", "input": "hi", **members}).encode(), {}, {})


def sse(*events: dict[str, Any], numbered: bool = True) -> bytes:
    """Events as OpenAI puts them on the wire."""
    out = b""
    for number, event in enumerate(events):
        data = {**event, "sequence_number": number} if numbered else event
        out += f"event: {event['type']}\ndata: ".encode() + json.dumps(data).encode() + b"\n\n"
    return out


def frames_of(stream: bytes, step: int = 0) -> list[Frame]:
    """The frames of a stream, fed whole or `step` bytes at a time."""
    parser, found = SseParser(), []
    for at in range(0, len(stream), step or max(len(stream), 1)):
        found += parser.feed(stream[at : at + (step or len(stream))])
    return [*found, *parser.close()]


def events_of(stream: bytes, step: int = 0) -> list[Event]:
    """What the reader makes of a stream."""
    reader = DIALECT.reader()
    return [event for frame in frames_of(stream, step) for event in reader.read(frame)]


def told(stream: bytes) -> list[dict[str, Any]]:
    """The data of each event of a stream; every frame must name its type, and the numbers must go up by one."""
    found = []
    for frame in frames_of(stream):
        data = json.loads(frame.data or b"null")
        assert frame.raw.startswith(f"event: {data['type']}\ndata: ".encode())
        found.append(data)
    numbers = [event["sequence_number"] for event in found]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return found


def joined(events: list[Event]) -> list[Event]:
    """Events with neighbouring pieces put together, as their segmentation says nothing."""
    made: list[Event] = []
    for event in events:
        last = made[-1] if made else None
        if isinstance(event, Said) and isinstance(last, Said) and last.refusal == event.refusal:
            made[-1] = Said(last.text + event.text, refusal=event.refusal)
        elif isinstance(event, CallPiece) and isinstance(last, CallPiece) and last.index == event.index:
            made[-1] = CallPiece(event.index, last.text + event.text)
        elif isinstance(event, Thought) and isinstance(last, Thought) and not last.ends:
            made[-1] = Thought(
                last.text + event.text,
                signature=event.signature or last.signature,
                encrypted=event.encrypted or last.encrypted,
                ends=event.ends,
                origin=event.origin,
                id=event.id or last.id,
            )
        else:
            made.append(event)
    return made


def _response(status: str, **members: Any) -> dict[str, Any]:
    head = {"id": "resp_1", "object": "response", "created_at": 17, "model": "gpt-x", "status": status}
    return {**head, "output": [], "usage": None, "error": None, "incomplete_details": None, **members}


REASONING: dict[str, Any] = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "**One** think"}, {"type": "summary_text", "text": "**Two**"}],
    "encrypted_content": "gAAA",
}
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "status": "completed",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "Hé llo", "annotations": [], "logprobs": []}],
}
CALL_A: dict[str, Any] = {
    "id": "fc_1",
    "type": "function_call",
    "status": "completed",
    "call_id": "call_a",
    "name": "find",
    "arguments": '{"q":"x"}',
}
CALL_B = {**CALL_A, "id": "fc_2", "call_id": "call_b", "name": "shut", "arguments": "{}"}
CUSTOM: dict[str, Any] = {
    "id": "ctc_1",
    "type": "custom_tool_call",
    "status": "completed",
    "call_id": "call_c",
    "name": "patch",
    "input": '*** "Begin"\n',
}


def _in_progress(item: dict[str, Any]) -> dict[str, Any]:
    empty = {"content": [], "summary": [], "arguments": "", "input": "", "encrypted_content": "", "status": ""}
    return {name: empty.get(name, value) for name, value in item.items()} | {"status": "in_progress"}


def added(place: int, item: dict[str, Any]) -> dict[str, Any]:
    """An item begins."""
    return {"type": "response.output_item.added", "output_index": place, "item": _in_progress(item)}


def done(place: int, item: dict[str, Any]) -> dict[str, Any]:
    """An item ends."""
    return {"type": "response.output_item.done", "output_index": place, "item": item}


def at(kind: str, place: int, item: dict[str, Any], **members: Any) -> dict[str, Any]:
    """An event inside of an item."""
    return {"type": f"response.{kind}", "item_id": item["id"], "output_index": place, **members}


def begins() -> list[dict[str, Any]]:
    """The first two events."""
    kinds = ("response.created", "response.in_progress")
    return [{"type": kind, "response": _response("in_progress")} for kind in kinds]


def ends(*output: dict[str, Any], status: str = "completed", **members: Any) -> dict[str, Any]:
    """The last event."""
    response = _response(status, output=list(output), usage=USAGE, **members)
    return {"type": f"response.{status}", "response": response}


def thinking(place: int = 0) -> list[dict[str, Any]]:
    """A reasoning item of two summary parts."""
    events = [added(place, REASONING)]
    for part, pieces in enumerate((["**One**", " think"], ["**Two**"])):
        text = "".join(pieces)
        where = {"summary_index": part}
        events += [
            at("reasoning_summary_part.added", place, REASONING, **where, part={"type": "summary_text", "text": ""}),
            *[at("reasoning_summary_text.delta", place, REASONING, **where, delta=piece) for piece in pieces],
            at("reasoning_summary_text.done", place, REASONING, **where, text=text),
            at("reasoning_summary_part.done", place, REASONING, **where, part={"type": "summary_text", "text": text}),
        ]
    return [*events, done(place, REASONING)]


def saying(place: int = 0) -> list[dict[str, Any]]:
    """A message of one text."""
    part = MESSAGE["content"][0]
    where = {"content_index": 0}
    return [
        added(place, MESSAGE),
        at("content_part.added", place, MESSAGE, **where, part={**part, "text": ""}),
        at("output_text.delta", place, MESSAGE, **where, delta="Hé "),
        at("output_text.delta", place, MESSAGE, **where, delta="llo"),
        at("output_text.done", place, MESSAGE, **where, text="Hé llo"),
        at("content_part.done", place, MESSAGE, **where, part=part),
        done(place, MESSAGE),
    ]


def calling(place: int, item: dict[str, Any]) -> list[dict[str, Any]]:
    """A function's or custom tool's call, its arguments in two pieces."""
    custom = item["type"] == "custom_tool_call"
    kind, name = ("custom_tool_call_input", "input") if custom else ("function_call_arguments", "arguments")
    text = item[name]
    return [
        added(place, item),
        at(f"{kind}.delta", place, item, delta=text[:2]),
        at(f"{kind}.delta", place, item, delta=text[2:]),
        at(f"{kind}.done", place, item, **{name: text}),
        done(place, item),
    ]


def tools_reply() -> bytes:
    """Thinking, then two functions and a custom tool called side by side."""
    items = (REASONING, CALL_A, CALL_B, CUSTOM)
    events = [*begins(), *thinking(), *calling(1, CALL_A), *calling(2, CALL_B), *calling(3, CUSTOM), ends(*items)]
    return sse(*events)


def text_reply() -> bytes:
    """A plain answer."""
    return sse(*begins(), *saying(), ends(MESSAGE))


def llama_reply() -> bytes:
    """llama.cpp (tools/server/server-task.cpp): no numbers, no places; all items end together; half a call is
    `completed`, and so is the response."""
    bare = {"id": "resp_l", "object": "response", "status": "in_progress"}
    thought = {"id": "rs_l", "type": "reasoning", "summary": [], "encrypted_content": ""}
    whole_thought = {**thought, "content": [{"type": "reasoning_text", "text": "hm"}]}
    call = {"id": "fc_9", "type": "function_call", "call_id": "call_9", "name": "find", "arguments": ""}
    half = {**call, "arguments": '{"q":"x', "status": "completed"}
    message = {**MESSAGE, "id": "msg_l"}
    usage = {"input_tokens": 5, "output_tokens": 4, "total_tokens": 9, "input_tokens_details": {"cached_tokens": 1}}
    last = {"id": "resp_l", "object": "response", "created_at": 9, "status": "completed", "model": "l"}
    return sse(
        {"type": "response.created", "response": bare},
        {"type": "response.in_progress", "response": bare},
        {"type": "response.output_item.added", "item": {**thought, "content": [], "status": "in_progress"}},
        {"type": "response.reasoning_text.delta", "delta": "hm", "item_id": "rs_l"},
        {"type": "response.output_item.added", "item": {**message, "content": [], "status": "in_progress"}},
        {"type": "response.content_part.added", "item_id": "msg_l", "part": {"type": "output_text", "text": ""}},
        {"type": "response.output_text.delta", "item_id": "msg_l", "delta": "Hé llo"},
        {"type": "response.output_item.added", "item": {**call, "status": "in_progress"}},
        {"type": "response.function_call_arguments.delta", "item_id": "fc_9", "delta": '{"q":"x'},
        {"type": "response.output_item.done", "item": whole_thought},
        {"type": "response.output_text.done", "item_id": "msg_l", "text": "Hé llo"},
        {"type": "response.content_part.done", "item_id": "msg_l", "part": MESSAGE["content"][0]},
        {"type": "response.output_item.done", "item": message},
        {"type": "response.output_item.done", "item": half},
        {"type": "response.completed", "response": {**last, "output": [whole_thought, message, half], "usage": usage}},
        numbered=False,
    )
