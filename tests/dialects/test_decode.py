"""What the meter sees of an event, and usage in every shape that providers have."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.heard import Heard
from app.core.money import Usage
from app.dialects.base import BadEvent
from app.dialects.openai_chat.decode import MAX_TOKENS, decode_event, decode_usage, decode_whole
from tests.dialects.stream_texts import calls, chunk, ends, says, usage


def delta(**members: Any) -> int:
    """The pieces of one delta."""
    return decode_event(chunk({"index": 0, "delta": members})).pieces


@pytest.mark.parametrize(
    ("members", "pieces"),
    [
        ({"content": "Hello"}, 1),
        ({"content": ""}, 0),
        ({"content": None}, 0),
        ({"content": [{"type": "text", "text": "Hello"}, "you", 5]}, 2),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "one two"}]}]}, 2),
        ({"reasoning_content": "Hm"}, 1),
        ({"reasoning": "Hm", "reasoning_content": "Hm"}, 1),
        ({"reasoning": "Hm", "reasoning_details": [{"text": "Hm"}]}, 1),
        ({"refusal": "I cannot"}, 2),
        ({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]}, 2),
        ({"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}, 2),
        ({"tool_calls": [{"custom": {"name": "f", "input": "x"}}]}, 2),
        ({"tool_calls": [{}]}, 1),
        ({"tool_calls": None}, 0),
        ({"function_call": {"arguments": "x"}}, 1),
        ({"audio": {"transcript": "Hi", "data": "A" * 3201}}, 3),
        ({"audio": {"id": "a"}}, 0),
        ({"unknown": {"deep": ["x"]}}, 0),
    ],
)
def test_everything_that_is_billed_is_counted_once(members: dict[str, Any], pieces: int) -> None:
    assert delta(**members) == pieces


def test_choices_of_one_event_add_up_and_finish_by_index() -> None:
    both = chunk(
        {"index": 0, "delta": {"content": "a"}, "finish_reason": None},
        {"index": 1, "delta": {"content": "b"}, "finish_reason": "stop"},
        {"index": 2, "finish_reason": ""},
    )
    event = decode_event(both)
    assert (event.pieces, event.finished, event.has_choices) == (2, {1: "stop"}, True)
    assert decode_event(ends("length")).finished == {0: "length"}
    assert not decode_event(chunk()).has_choices


def test_parts_of_tool_calls_are_marked() -> None:
    assert decode_event(calls("{}")).in_tool
    assert decode_event(chunk({"index": 0, "delta": {"function_call": {"arguments": ""}}})).in_tool
    assert not decode_event(says("x")).in_tool
    assert not decode_event(chunk({"index": 0, "delta": {"tool_calls": []}})).in_tool


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"null",
        b"[]",
        b"5",
        b'"x"',
        b"{",
        b'{"choices":{}}',
        b'{"choices":[5]}',
        b'{"choices":[{"index":"a"}]}',
        b'{"choices":[{"delta":{"content":"\xff"}}]}',
        b'{"a":' + b"[" * 100000 + b"]" * 100000 + b"}",
        b"{}x",
    ],
)
def test_what_is_not_a_chunk_is_a_bad_event(data: bytes) -> None:
    for decode in (decode_event, decode_whole, decode_usage):
        if decode is decode_usage and b"choices" in data:
            continue
        with pytest.raises(BadEvent):
            decode(data)


def test_an_error_is_given_as_it_came() -> None:
    assert decode_event(b'{"error": {"message":"x",  "code":5}}').error == b'{"message":"x",  "code":5}'
    assert decode_event(b'{"error":"boom"}').error == b'"boom"'
    for empty in (b"null", b"false", b'""', b"{}"):
        assert decode_event(b'{"error":' + empty + b"}").error is None


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5}, Usage(10, 5)),
        (usage(10, 5), Usage(10, 5)),
        (usage(10, 5, prompt_tokens_details={"cached_tokens": 4}), Usage(10, 5, cache_read=4)),
        (usage(10, 5, prompt_tokens_details={"cached_tokens": 4, "cache_write_tokens": 3}), Usage(10, 5, 4, 3)),
        (usage(10, 5, prompt_cache_hit_tokens=8, prompt_cache_miss_tokens=2), Usage(10, 5, cache_read=8)),
        (usage(10, 5, cached_tokens=6), Usage(10, 5, cache_read=6)),
        (usage(10, 5, cache_read_input_tokens=2, cache_creation_input_tokens=3), Usage(10, 5, 2, 3)),
        (usage(10, 5, prompt_tokens_details={"cached_tokens": 99}), Usage(10, 5, cache_read=10)),
        (usage(10, 5, completion_tokens_details={"reasoning_tokens": 3}), Usage(10, 5, reasoning=3)),
        (usage(10, 5, reasoning_tokens=3), Usage(10, 5, reasoning=3)),
        (usage(10, 5) | {"total_tokens": 40}, Usage(10, 30, reasoning=25)),
        (
            usage(10, 5, completion_tokens_details={"reasoning_tokens": 25}) | {"total_tokens": 40},
            Usage(10, 30, reasoning=25),
        ),
        (usage(10, 5, cost=0.25), Usage(10, 5, cost_nano=250_000_000)),
        (usage(10, 5, cost=0), Usage(10, 5, cost_nano=0)),
        (usage(10, 5, cost="0.25"), Usage(10, 5)),
        (usage(10, 5, cost=True), Usage(10, 5)),
        (usage(10, 5, cost=-1), Usage(10, 5)),
        (usage(10, 5, cost=1e9), Usage(10, 5)),
        (usage(10, 5, cost={"total_cost": 0.5, "request_cost": 0.1}), Usage(10, 5, cost_nano=500_000_000)),
        (
            usage(10, 5, cost=0.1, is_byok=True, cost_details={"upstream_inference_cost": 0.4}),
            Usage(10, 5, cost_nano=500_000_000),
        ),
        (
            usage(10, 5, cost=0.1, is_byok=False, cost_details={"upstream_inference_cost": None}),
            Usage(10, 5, cost_nano=10**8),
        ),
        (usage(10, 5, cost_in_usd_ticks=37_756_000), Usage(10, 5, cost_nano=3_775_600)),
        (usage(10, 5, cost_in_usd_ticks=1), Usage(10, 5, cost_nano=1)),
        (usage(10, 5, cost_in_usd_ticks=37_756_000, cost=0.5), Usage(10, 5, cost_nano=500_000_000)),
        (usage(10, 5, cost_in_usd_ticks=-1), Usage(10, 5)),
        (usage(10, 5, cost_in_usd_ticks=10**30), Usage(10, 5)),
        (usage(10, 5, cost_in_usd_ticks=True), Usage(10, 5)),
        (usage(10, 5, cost_in_usd_ticks="9"), Usage(10, 5)),
        (usage(10, 5, estimated_cost=8.775e-06), Usage(10, 5, cost_nano=8_775)),
        (usage(10, 5, estimated_cost=None), Usage(10, 5)),
        (usage(-5, -7), Usage(0, 0)),
        (usage(10**30, 10**30), Usage(MAX_TOKENS, MAX_TOKENS)),
        (usage(10.0, 5.0), Usage(10, 5)),
        (usage(10, 4.2), Usage(10, 5)),
        (usage(10, 1e300), Usage(10, MAX_TOKENS)),
        ({"prompt_tokens": 10, "completion_tokens": None, "total_tokens": 10}, Usage(10, 0)),
        ({"total_tokens": 10}, None),
        ({}, None),
        (None, None),
    ],
)
def test_usage_in_every_shape(shape: Any, expected: Usage | None) -> None:
    found = decode_event(chunk(usage=shape)).usage
    assert found == expected
    assert decode_usage(msgspec.json.encode({"usage": shape})) == expected
    assert decode_event(ends(x_groq={"usage": shape})).usage == expected
    assert decode_event(chunk({"index": 0, "delta": {}, "usage": shape})).usage == expected


def test_a_whole_reply_with_usage_is_not_counted_and_without_it_is() -> None:
    choices = [{"index": 0, "message": {"content": "one two"}, "finish_reason": "stop"}]
    known = decode_whole(msgspec.json.encode({"choices": choices, "usage": usage(3, 4)}))
    assert (known.usage, known.pieces, known.has_choices) == (Usage(3, 4), 0, True)
    unknown = decode_whole(msgspec.json.encode({"choices": choices, "usage": None}))
    assert (unknown.usage, unknown.pieces, unknown.finished) == (None, 2, {0: "stop"})
    assert decode_whole(b'{"error":{"message":"x"}}').error == b'{"message":"x"}'


counts = st.none() | st.integers(-(10**12), 10**12)


@given(counts, counts, counts, counts, counts, counts)
def test_usage_is_consistent_whatever_is_reported(
    given_tokens: int | None,
    output: int | None,
    total: int | None,
    cached: int | None,
    written: int | None,
    reasoning: int | None,
) -> None:
    found = decode_event(
        chunk(
            usage={
                "prompt_tokens": given_tokens,
                "completion_tokens": output,
                "total_tokens": total,
                "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
                "completion_tokens_details": {"reasoning_tokens": reasoning},
            }
        )
    ).usage
    if found is not None:
        assert 0 <= found.cache_read + found.cache_write <= found.input
        assert 0 <= found.reasoning <= found.output <= 2 * MAX_TOKENS
        assert found.output >= min(max(output or 0, 0), MAX_TOKENS)


@pytest.mark.parametrize("counted", [True, False])
def test_a_whole_reply_is_heard_and_counted_at_once(counted: bool) -> None:
    choices = [{"index": 0, "finish_reason": "stop", "message": {"content": "Four score and seven years."}}]
    body = msgspec.json.encode({"choices": choices, "usage": usage(3, 4) if counted else None})
    heard = Heard()
    event = decode_whole(body, heard)
    assert (heard.text, heard.finish) == ("Four score and seven years.", "stop")
    assert event.usage == decode_whole(body).usage
    assert (event.pieces == 0) == counted
    assert event.has_choices


def test_what_cannot_be_heard_can_be_passed_on() -> None:
    body = msgspec.json.encode({"choices": [{"index": 0, "message": {"content": 7}}], "usage": usage(3, 4)})
    heard = Heard()
    assert decode_whole(body, heard) == decode_whole(body)
    assert not heard.said
