"""What the tests of this dialect share: requests, streams as Google documents them, and the official SDK on a pipe."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import httpx
from google import genai
from google.genai import types

from app.core.errors import BursarError
from app.core.events import Done, Event, Finished, Used
from app.core.money import Usage
from app.core.sse import Frame, SseParser
from app.core.types import ChatRequest
from app.dialects.base import Counts
from app.dialects.gemini.dialect import DIALECT
from app.dialects.gemini.write import GeminiWriter
from app.dialects.openai_chat.errors import budget_error

COUNTS = Counts(Usage(10, 7, 4, reasoning=2), exact=True, cost_nano=1_500)
USER = {"role": "user", "parts": [{"text": "Hello"}]}
WEATHER = {
    "name": "weather",
    "description": "The weather of a place",
    "parametersJsonSchema": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
}
SIGNATURE = "AbC0ZGVmZ2hpag=="


def parsed(
    *, model: str = "gemini-2.5-pro", verb: str = "generateContent", alt: str = "", **members: Any
) -> ChatRequest:
    """A parsed request with these members besides contents."""
    body = json.dumps({"contents": [USER], **members}).encode()
    return DIALECT.parse(body, {}, {"model": model, "verb": verb, "alt": alt})


def streamed(**members: Any) -> ChatRequest:
    """A request whose reply is streamed as server-sent events."""
    return parsed(verb="streamGenerateContent", alt="sse", **members)


def chunk(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """One chunk of a stream with one candidate; `finish` ends it, `usage` reports."""
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if "finish" in more:
        candidate["finishReason"] = more["finish"]
    found: dict[str, Any] = {"candidates": [candidate]}
    if "usage" in more:
        found["usageMetadata"] = more["usage"]
    return {**found, "modelVersion": "gemini-2.5-pro", "responseId": "yTPIaLzQBYun-vdIP5YyX8AM"}


def sse(*chunks: dict[str, Any], end: str = "\r\n\r\n") -> bytes:
    """A stream as Google writes it."""
    return b"".join(b"data: " + json.dumps(data).encode() + end.encode() for data in chunks)


def frames(body: bytes, reads: Iterable[bytes] | None = None) -> list[Frame]:
    """The frames of a stream, whole or in these reads."""
    parser = SseParser()
    found = [frame for read in (reads if reads is not None else [body]) for frame in parser.feed(read)]
    return found + parser.close()


def read(body: bytes) -> list[Event]:
    """The events of a stream."""
    reader = DIALECT.reader()
    return [event for frame in frames(body) for event in reader.read(frame)]


def written(request: ChatRequest, events: Sequence[Event], counts: Counts = COUNTS) -> bytes:
    """The stream of these events to its ordinary end, as the gateway writes it."""
    writer = GeminiWriter(request)
    body = b"".join(writer.write([event]) for event in events if not isinstance(event, Finished | Used | Done))
    return body + writer.complete([event for event in events if isinstance(event, Finished)], counts, [])


def denied() -> BursarError:
    """The denial of a task that is out of money."""
    return budget_error("task")


def client(
    body: bytes | Sequence[bytes], status: int = 200, seen: Callable[[httpx.Request], None] | None = None
) -> genai.Client:
    """The official SDK, answered with these bytes; a sequence comes in as many pieces."""

    def answer(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen(request)
        content = body if isinstance(body, bytes) else iter(body)
        return httpx.Response(status, headers={"content-type": "application/json"}, content=content)

    options = types.HttpOptions(httpx_client=httpx.Client(transport=httpx.MockTransport(answer)))
    return genai.Client(api_key="unused", vertexai=False, http_options=options)
