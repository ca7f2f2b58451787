"""Streams for tests of the relay: chunks and frames made in one line, and a price at which a token costs a nano."""

from __future__ import annotations

import json
from typing import Any

from app.core.errors import BudgetExceeded
from app.core.meter import Meter
from app.core.money import Price, Rates
from app.core.sse import Frame, SseParser
from app.dialects.openai_chat.fold import Folder
from app.dialects.openai_chat.relay import ChatRelay

ONE_NANO = Price(Rates(1_000_000, 1_000_000))
ERROR = BudgetExceeded("out")


def chunk(*choices: dict[str, Any], **members: Any) -> bytes:
    """The data of one event, as OpenAI writes it."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 17, "model": "m"}
    return json.dumps({**head, "choices": list(choices), **members}, separators=(",", ":")).encode()


def says(content: str, index: int = 0, **members: Any) -> bytes:
    """A chunk with text."""
    return chunk({"index": index, "delta": {"content": content}, "finish_reason": None}, **members)


def calls(arguments: str, index: int = 0, name: str | None = None, **choice: Any) -> bytes:
    """A chunk with a part of a tool call."""
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    call = {"index": 0, "id": "call_1", "type": "function", "function": function} if name else {"function": function}
    return chunk({"index": index, "delta": {"tool_calls": [{"index": 0, **call}]}, "finish_reason": None, **choice})


def ends(reason: str = "stop", index: int = 0, **members: Any) -> bytes:
    """A chunk with a finish reason."""
    return chunk({"index": index, "delta": {}, "finish_reason": reason}, **members)


def usage(given: float, output: float, **more: Any) -> dict[str, Any]:
    """The `usage` of a provider."""
    return {"prompt_tokens": given, "completion_tokens": output, "total_tokens": given + output, **more}


ROLE = chunk({"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None})
DONE = b"[DONE]"


def sse(*datas: bytes) -> bytes:
    """The stream of these events."""
    return b"".join(b"data: " + data + b"\n\n" for data in datas)


def frames(*datas: bytes) -> list[Frame]:
    """The frames of one read."""
    return SseParser().feed(sse(*datas))


def relay(
    *,
    choices: int = 1,
    show: bool = True,
    clamp: int | None = None,
    limit: int | None = None,
    folder: Folder | None = None,
    given: int = 0,
) -> ChatRelay:
    """A relay whose tokens cost one nano-dollar each, pieces being tokens."""
    meter = Meter(ONE_NANO, given, 1000)
    return ChatRelay(meter, choices=choices, show_usage=show, clamp_tokens=clamp, limit_tokens=limit, folder=folder)


def told(stream: bytes) -> list[Any]:
    """What a client reads: the JSON of each event, and "[DONE]"."""
    events = [f.data for f in SseParser().feed(stream) if f.data is not None]
    return [event.decode() if event == DONE else json.loads(event) for event in events]


def texts(stream: bytes, index: int = 0) -> str:
    """The text a client has read of one choice."""
    chosen = [c for e in told(stream) if isinstance(e, dict) for c in e.get("choices", []) if c["index"] == index]
    return "".join(choice["delta"].get("content") or "" for choice in chosen)


def finishes(stream: bytes) -> list[tuple[int, str]]:
    """The finish reasons a client has read, with their choices."""
    choices = [c for e in told(stream) if isinstance(e, dict) for c in e.get("choices", [])]
    return [(c["index"], c["finish_reason"]) for c in choices if c.get("finish_reason")]
