"""Requests and streams in Messages' words, shaped as the vendor documents them
(https://platform.claude.com/docs/en/build-with-claude/streaming)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from app.core.conversation import Conversation
from app.core.events import Event
from app.core.money import Usage
from app.core.sse import SseParser
from app.core.types import ChatRequest
from app.dialects.anthropic.dialect import DIALECT
from app.dialects.base import Counts

USER = {"role": "user", "content": "Hi"}
COUNTS = Counts(Usage(20, 7), exact=True, cost_nano=1500)


def body(*messages: dict[str, Any], **members: Any) -> bytes:
    """A request; without messages it has one of the user's."""
    told = {"model": "claude-opus-5-5", "max_tokens": 1000, "messages": list(messages) or [USER], **members}
    return json.dumps({name: value for name, value in told.items() if value is not ...}).encode()


def parsed(*messages: dict[str, Any], headers: dict[str, str] | None = None, **members: Any) -> ChatRequest:
    return DIALECT.parse(body(*messages, **members), headers or {}, {})


def talk(*messages: dict[str, Any], **members: Any) -> Conversation:
    return DIALECT.conversation(parsed(*messages, **members))


def patched(
    request: ChatRequest, model: str = "claude-opus-5-5", limit: int | None = None, stream: bool = False
) -> Any:
    return json.loads(DIALECT.patch(request, model=model, limit_tokens=limit, stream=stream).body)


def rendered(
    found: Conversation, model: str = "claude-opus-5-5", limit: int | None = 1000, request: ChatRequest | None = None
) -> Any:
    """What a conversation is made for an upstream; the request beside it is a chat's without limit."""
    beside = request or ChatRequest({}, "auto", False, False, 1, None, (), parsed().prompt, dialect="openai_chat")
    return json.loads(DIALECT.render(beside, found, model=model, limit_tokens=limit, stream=False).body)


def event(kind: str, **members: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()


def start(**usage: Any) -> bytes:
    message: dict[str, Any] = {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-5-5-20260901",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 25, "output_tokens": 1, **usage},
    }
    return event("message_start", message=message)


def block(index: int, kind: str, *deltas: dict[str, Any], stop: bool = True, **members: Any) -> bytes:
    out = [event("content_block_start", index=index, content_block={"type": kind, **members})]
    out += [event("content_block_delta", index=index, delta=delta) for delta in deltas]
    return b"".join([*out, event("content_block_stop", index=index) if stop else b""])


def text(index: int, *pieces: str, stop: bool = True) -> bytes:
    return block(index, "text", *({"type": "text_delta", "text": piece} for piece in pieces), stop=stop, text="")


def thinking(index: int, *pieces: str, signature: str = "EqQBCg==") -> bytes:
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
    return block(
        index, "thinking", *deltas, {"type": "signature_delta", "signature": signature}, thinking="", signature=""
    )


def tool(index: int, call_id: str, name: str, *pieces: str, stop: bool = True) -> bytes:
    deltas = ({"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces))
    return block(index, "tool_use", *deltas, stop=stop, id=call_id, name=name, input={})


def end(reason: str = "end_turn", sequence: str | None = None, **usage: Any) -> bytes:
    delta = {"stop_reason": reason, "stop_sequence": sequence}
    return event("message_delta", delta=delta, usage={"output_tokens": 15, **usage}) + event("message_stop")


def read(stream: bytes, step: int = 0) -> list[Event]:
    """The events of a stream, cut into reads of `step` bytes."""
    parser, reader = SseParser(), DIALECT.reader()
    reads = [stream[at : at + step] for at in range(0, len(stream), step)] if step else [stream]
    frames = [frame for data in reads for frame in parser.feed(data)] + parser.close()
    return [event for frame in frames for event in reader.read(frame)]


def told(stream: bytes) -> list[Any]:
    """The data of a stream's events; each is named by its `event:` line as by its `type`."""
    found = []
    for frame in SseParser().feed(stream):
        data = json.loads(frame.data or b"null")
        assert frame.raw.startswith(b"event: " + data["type"].encode() + b"\n")
        found.append(data)
    return found


def spoken(events: Iterable[Event]) -> list[Event]:
    """Without empty pieces, which only hold the place of a frame."""
    return [found for found in events if getattr(found, "text", None) != "" or _proves(found)]


def _proves(found: Event) -> bool:
    return any(getattr(found, name, None) for name in ("signature", "encrypted", "ends"))
