"""Cohere's v2 stream as litellm's pieces: what each kind of line says, and which say nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.bridged_cohere import cohere_piece

SILENT = {
    "text": "", "tool_use": None, "is_finished": False, "finish_reason": "", "usage": None, "index": 0,
    "provider_specific_fields": None,
}  # fmt: skip


def told(kind: str, **fields: Any) -> dict[str, Any]:
    """What a line of this event adds to a silent piece."""
    line = f"data: {json.dumps({'type': kind, **fields})}"
    assert cohere_piece(line) == cohere_piece(line.encode())
    return {name: value for name, value in cohere_piece(line).items() if value != SILENT[name]}


@pytest.mark.parametrize("line", ["", "event: content-delta", ": comment", "id: 4", b"event: message-end"])
def test_lines_that_are_no_data_say_nothing(line: str | bytes) -> None:
    assert cohere_piece(line) == SILENT


def test_words() -> None:
    assert told("content-delta", index=0, delta={"message": {"content": {"text": "caf\u00e9"}}}) == {
        "text": "caf\u00e9"
    }
    assert told("content-delta", index=0, delta={"message": {"content": {"thinking": "hm"}}}) == {}
    for kind in ("message-start", "content-start", "content-end", "tool-plan-delta", "citation-start", "unheard-of"):
        assert told(kind, delta={"message": {"role": "assistant", "content": {"type": "text", "text": "x"}}}) == {}


def test_calls() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": ""}}
    assert told("tool-call-start", index=2, delta={"message": {"tool_calls": call}})["tool_use"] == {**call, "index": 2}
    more = told("tool-call-delta", index=2, delta={"message": {"tool_calls": {"function": {"arguments": "{"}}}})
    assert more["tool_use"]["function"] == {"name": None, "arguments": "{"}
    assert (more["tool_use"]["id"], more["tool_use"]["index"]) == (None, 2)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("COMPLETE", "stop"), ("STOP_SEQUENCE", "stop"), ("MAX_TOKENS", "length"), ("TOOL_CALL", "tool_calls")],
)
def test_ends(reason: str, finish: str) -> None:
    usage = {"billed_units": {"input_tokens": 1, "output_tokens": 2}, "tokens": {"input_tokens": 7, "output_tokens": 2}}
    assert told("message-end", delta={"finish_reason": reason, "usage": usage}) == {
        "is_finished": True, "finish_reason": finish,
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    }  # fmt: skip
    assert told("message-end", delta={"finish_reason": reason}) == {"is_finished": True, "finish_reason": finish}


@pytest.mark.parametrize("reason", ["ERROR", "TIMEOUT", None])
def test_an_end_that_is_an_error_is_no_end(reason: str | None) -> None:
    with pytest.raises(ValueError, match="ended its reply with an error"):
        told("message-end", delta={"finish_reason": reason})


@given(st.text())
def test_text_comes_as_it_was(text: str) -> None:
    line = f"data: {json.dumps({'type': 'content-delta', 'delta': {'message': {'content': {'text': text}}}})}"
    assert cohere_piece(line)["text"] == text
