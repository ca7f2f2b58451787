"""Cohere's v2 stream, line by line, as the pieces that litellm's iterators make. Pure; imports no litellm.

litellm's own parser (1.106) takes every line for JSON, so that the `event:` lines break it, looks for ends and usage in
a member that the API does not send, and for calls in another. Source: https://docs.cohere.com/v2/docs/streaming.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

FINISHES: Final = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
}
_decode = msgspec.json.decode


def cohere_piece(line: str | bytes) -> dict[str, Any]:
    """One line of the stream; a piece that says nothing for those that are no data. Raises ValueError for data that are
    no JSON, or an end that is an error."""
    told = line.encode() if isinstance(line, str) else bytes(line)
    event = _decode(told.removeprefix(b"data:")) if told.startswith((b"data:", b"{")) else {}
    kind, delta = event.get("type"), event.get("delta") or {}
    message = delta.get("message") or {}
    piece: dict[str, Any] = {
        "text": "",
        "tool_use": None,
        "is_finished": False,
        "finish_reason": "",
        "usage": None,
        "index": 0,
        "provider_specific_fields": None,
    }
    if kind == "content-delta":
        piece["text"] = (message.get("content") or {}).get("text") or ""
    elif kind in ("tool-call-start", "tool-call-delta"):
        piece["tool_use"] = _call(message.get("tool_calls") or {}, event.get("index") or 0)
    elif kind == "message-end":
        reason = delta.get("finish_reason") or ""
        if reason not in FINISHES:
            raise ValueError("the provider ended its reply with an error")
        piece |= {"is_finished": True, "finish_reason": FINISHES[reason], "usage": _usage(delta.get("usage") or {})}
    return piece


def _call(given: Mapping[str, Any], index: int) -> dict[str, Any]:
    function = given.get("function") or {}
    said = {"name": function.get("name"), "arguments": function.get("arguments") or ""}
    return {"id": given.get("id"), "type": "function", "function": said, "index": index}


def _usage(given: Mapping[str, Any]) -> dict[str, int] | None:
    counts = given.get("tokens") or given.get("billed_units") or {}
    if not counts:
        return None
    asked, said = int(counts.get("input_tokens") or 0), int(counts.get("output_tokens") or 0)
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}
