"""A reply put together of a stream of its own dialect has every member that the stream had, known here or not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.core.sse import SseParser
from app.dialects.registry import GEMINI, MESSAGES, RESPONSES
from tests.dialects.pairs import relaying
from tests.dialects.stream_texts import sse

COST = 1.5e-06
COUNTS: dict[str, Any] = {
    "input_tokens": 9, "cache_creation_input_tokens": 4, "cache_read_input_tokens": 3,
    "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 3},
    "service_tier": "priority", "inference_geo": "eu",
}  # fmt: skip
LATER = {
    "output_tokens": 20, "input_tokens": None, "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1},
    "output_tokens_details": {"thinking_tokens": 5}, "iterations": [{"type": "message", "model": "m"}],
}  # fmt: skip
MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "new": {"a": [1]}}
TOLD: dict[str, list[dict[str, Any]]] = {
    MESSAGES: [
        {"type": "message_start", "message": {**MESSAGE, "stop_reason": None, "usage": {**COUNTS, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta", "usage": LATER, "context_management": {"applied_edits": []}, "beside": 7,
            "delta": {"stop_reason": "end_turn", "stop_sequence": None, "stop_details": {"b": 1}, "container": None},
        },
        {"type": "message_stop"},
    ],
    GEMINI: [
        {
            "candidates": [{"content": {"parts": [{"text": "H"}], "role": "model"}, "index": 0, "tokenCount": 1}],
            "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 10, "candidatesTokenCount": 1},
            "modelVersion": "m", "responseId": "r", "createTime": "then", "modelStatus": {"stage": "stable"},
        },
        {
            "candidates": [{
                "content": {"parts": [{"text": "i"}], "role": "model"}, "index": 0, "tokenCount": 2,
                "finishReason": "STOP", "avgLogprobs": -0.5, "new": [1],
            }],
            "usageMetadata": {
                "promptTokenCount": 9, "candidatesTokenCount": 2, "totalTokenCount": 11, "trafficType": "ON_DEMAND",
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9}], "serviceTier": "flex",
                "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 2}],
            },
            "modelVersion": "m", "responseId": "r",
        },
    ],
    RESPONSES: [
        {"type": "response.created", "response": {"id": "resp_1", "model": "m", "status": "in_progress", "new": 1}},
        {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "delta": "Hi"},
        {
            "type": "response.completed",
            "response": {
                "id": "resp_1", "model": "m", "status": "completed", "output": [], "new": [2], "service_tier": "flex",
                "usage": {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11, "odd": {"a": 1}},
            },
        },
    ],
}  # fmt: skip
WHOLE: dict[str, dict[str, Any]] = {
    MESSAGES: {
        **MESSAGE, "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn", "stop_sequence": None,
        "usage": {**COUNTS, **LATER, "input_tokens": 9, "cost": COST}, "context_management": {"applied_edits": []},
        "beside": 7, "stop_details": {"b": 1}, "container": None,
    },
    GEMINI: {
        "candidates": [{
            "content": {"parts": [{"text": "Hi"}], "role": "model"}, "finishReason": "STOP", "index": 0,
            "avgLogprobs": -0.5, "tokenCount": 2, "new": [1],
        }],
        "usageMetadata": {**TOLD[GEMINI][1]["usageMetadata"], "cost": COST},
        "modelVersion": "m", "responseId": "r", "createTime": "then", "modelStatus": {"stage": "stable"},
    },
}  # fmt: skip


def folded(name: str, events: list[dict[str, Any]], cut: bytes | None = None) -> dict[str, Any]:
    """The whole reply made of this stream."""
    relay = relaying(name, name, folds=True)
    relay.feed(SseParser().feed(sse(*(json.dumps(event).encode() for event in events))))
    assert relay.broken is None
    found: dict[str, Any] = json.loads(relay.folded(1_500, cut))
    return found


@pytest.mark.parametrize("name", [MESSAGES, GEMINI])
def test_every_member_is_there(name: str) -> None:
    assert folded(name, TOLD[name]) == WHOLE[name]


def test_a_response_whose_end_repeats_no_output() -> None:
    found = folded(RESPONSES, TOLD[RESPONSES])
    assert (found["id"], found["new"], found["service_tier"], found["status"]) == ("resp_1", [2], "flex", "completed")
    assert found["usage"] == {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11, "odd": {"a": 1}, "cost": COST}
    assert [part["text"] for item in found["output"] for part in item["content"]] == ["Hi"]


@pytest.mark.parametrize("name", [MESSAGES, GEMINI, RESPONSES])
def test_half_a_stream_has_what_it_had(name: str) -> None:
    found = folded(name, TOLD[name][:-2] if name == MESSAGES else TOLD[name][:-1], b'{"scope":"task"}')
    assert found["bursar"] == {"cut": {"scope": "task"}}
    assert {MESSAGES: "new", GEMINI: "createTime", RESPONSES: "new"}[name] in found
    counted = found["usage" if name != GEMINI else "usageMetadata"]
    assert counted["cost"] == COST


@pytest.mark.parametrize("name", [MESSAGES, GEMINI])
def test_json_in_the_place_of_a_stream_is_the_reply(name: str) -> None:
    relay = relaying(name, name, folds=True)
    relay.unstreamed = True
    whole = json.loads(json.dumps(WHOLE[name]))
    del whole["usage" if name == MESSAGES else "usageMetadata"]["cost"]
    relay.feed(SseParser().feed(sse(json.dumps(whole).encode())))
    assert json.loads(relay.folded(1_500, None)) == WHOLE[name]
