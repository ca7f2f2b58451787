"""The bytes of the benchmark: the replies of the stub and the requests of the load generator, built beforehand.

The stub reads its pace from the prompt, so that one route, one model and one port serve every scenario,
through any gateway that hands the prompt on.
"""

from __future__ import annotations

import json
import re
from typing import Any

ROUTE = "auto"
KEY = "sk-bursar-benchmark"
CHUNKS = 50
"""Chunks with text in one stream; role, finish reason, usage and `[DONE]` come on top and are not counted."""
STAMP_DIGITS = 19
UNSTAMPED = b"@" + b"0" * STAMP_DIGITS
STAMP = re.compile(rb"@(\d{19})")
"""In each chunk: CLOCK_MONOTONIC in ns when the stub wrote it; the clock is the same in all processes."""
PACE = re.compile(rb"\[pace (\d+) ms\]")
TASK_HEADER = b"X-Bursar-Task-Id"

_IDS = {"id": "chatcmpl-Zq8Lw3Tn5Rv7Xb1Ym4Kd9Hc2Jf6Gs", "created": 1750000000, "model": "bench-1"}
_SAID = "Every figure in this answer was typed beforehand, so that nothing but the way here takes any time at all."
_SENTENCE = "The eastern warehouse shipped nine hundred crates in May, hired four packers and closed one of two gates; "
_ASKED = "Read the notes below, list the three largest risks for the coming season and name an owner for each. "


def _usage(output_tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": 480,
        "completion_tokens": output_tokens,
        "total_tokens": 480 + output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _event(choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
    chunk = {**_IDS, "object": "chat.completion.chunk", "choices": choices, "usage": usage}
    return b"data: " + _compact(chunk) + b"\n\n"


def _delta(delta: dict[str, Any], finish: str | None = None) -> list[dict[str, Any]]:
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]


def _framed(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


FIRST_EVENT = _event(_delta({"role": "assistant", "content": "", "refusal": None}))
TEXT_EVENT = _event(_delta({"content": f"{UNSTAMPED.decode()} a chunk of some seventy characters, as providers send"}))
LAST_EVENTS = (_event(_delta({}, "stop")), _event([], _usage(CHUNKS * 16)), b"data: [DONE]\n\n")
EVENTS = (FIRST_EVENT, *(TEXT_EVENT for _ in range(CHUNKS)), *LAST_EVENTS)
"""One whole stream, without the framing of HTTP."""

WHOLE_BODY = _compact(
    {
        **_IDS,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": " ".join([_SAID] * 8), "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": _usage(180),
    }
)
WHOLE_REPLY = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: req_bench\r\n\r\n%b"
    % (len(WHOLE_BODY), WHOLE_BODY)
)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n"
    b"cache-control: no-cache\r\nx-request-id: req_bench\r\n\r\n"
)
STREAM_START = STREAM_HEAD + _framed(FIRST_EVENT)
STREAM_CHUNK = _framed(TEXT_EVENT)
STREAM_END = b"".join(_framed(event) for event in LAST_EVENTS) + b"0\r\n\r\n"
STREAM_AT_ONCE = STREAM_START + STREAM_CHUNK * CHUNKS + STREAM_END


def stamped(data: bytes, now_ns: int) -> bytes:
    """The same bytes with the time in every chunk."""
    return data.replace(UNSTAMPED, b"@%019d" % now_ns)


def chat_body(*, prompt_bytes: int, stream: bool, pace_ms: int | None) -> bytes:
    """A chat completion request whose prompt is about that long; `pace_ms`: between chunks (None: all in one write)."""
    pace = "" if pace_ms is None else f" [pace {pace_ms} ms]"
    notes = _SENTENCE * max((prompt_bytes - len(_ASKED)) // len(_SENTENCE), 1)
    body: dict[str, Any] = {
        "model": ROUTE,
        "messages": [
            {"role": "system", "content": f"You are a careful assistant.{pace}"},
            {"role": "user", "content": _ASKED + notes},
        ],
        "max_tokens": 1200,
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(body).encode()


def chat_request(host: str, path: str, body: bytes, *, task: bytes | None = None) -> bytes:
    """The body as HTTP, with the benchmark's key."""
    lines = [
        b"POST %b HTTP/1.1" % path.encode(),
        b"Host: %b" % host.encode(),
        b"Authorization: Bearer %b" % KEY.encode(),
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
    ]
    if task is not None:
        lines.append(b"%b: %b" % (TASK_HEADER, task))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
