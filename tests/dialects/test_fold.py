"""Folding a stream into a completion: nothing lost, nothing doubled, for every shape of delta."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from app.dialects.openai_chat.fold import Folder
from tests.dialects.stream_texts import calls, chunk, ends, says, usage


def fold(*datas: bytes, **how: Any) -> dict[str, Any]:
    """The completion of these chunks."""
    folder = Folder()
    for data in datas:
        folder.add(data)
    completion: dict[str, Any] = json.loads(folder.body(**{"usage": usage(1, 2), "cost_nano": 7, **how}))
    return completion


def message(*deltas: dict[str, Any]) -> dict[str, Any]:
    """The message of one choice made of these deltas."""
    found = fold(*(chunk({"index": 0, "delta": d, "finish_reason": None}) for d in deltas))["choices"][0]["message"]
    return dict(found)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 2), st.text(max_size=6)), min_size=1, max_size=25))
def test_texts_of_each_choice_are_joined_in_order(said: list[tuple[int, str]]) -> None:
    completion = fold(*(says(text, index) for index, text in said))
    for choice in completion["choices"]:
        expected = "".join(text for index, text in said if index == choice["index"])
        assert choice["message"] == {"role": "assistant", "content": expected}
    assert [c["index"] for c in completion["choices"]] == sorted({index for index, _ in said})


def test_a_number_that_only_text_can_hold_costs_no_answer() -> None:
    """Elsewhere its bytes go on as they came."""
    completion = fold(says("Hi").replace(b'"created":17', b'"created":17,"score":1e400'), ends())
    assert completion["choices"][0]["message"]["content"] == "Hi"
    assert completion["score"] is None


def test_the_envelope_is_a_completions() -> None:
    first = {"id": "", "model": "", "created": 0, "object": "", "choices": [], "prompt_filter_results": [1]}
    completion = fold(json.dumps(first).encode(), says("Hi", obfuscation="xx"), ends(service_tier="default"))
    assert completion == {
        "id": "chatcmpl-1",
        "model": "m",
        "created": 17,
        "prompt_filter_results": [1],
        "service_tier": "default",
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": usage(1, 2, cost=7e-09),
    }


def test_usage_is_the_upstreams_unless_more_was_seen() -> None:
    theirs = chunk(usage=usage(10, 5, cost=0.5, details={"a": 1}))
    assert fold(theirs)["usage"] == usage(10, 5, cost=7e-09, details={"a": 1})
    assert fold(theirs, cost_nano=None)["usage"]["cost"] is None
    assert fold(theirs, usage=usage(10, 9, estimated=True))["usage"] == usage(10, 9, estimated=True, cost=7e-09)
    assert fold(ends(x_groq={"usage": usage(3, 4)}))["usage"] == usage(3, 4, cost=7e-09)
    assert fold(says("x"))["usage"] == usage(1, 2, cost=7e-09)


def test_a_soft_cut_ends_open_choices_and_says_so() -> None:
    completion = fold(says("a"), says("b", 1), ends("stop", 1), finish="length", cut=b'{"scope":"task"}')
    assert [c["finish_reason"] for c in completion["choices"]] == ["length", "stop"]
    assert completion["bursar"] == {"cut": {"scope": "task"}}


def test_an_empty_finish_reason_is_none() -> None:
    empty = chunk({"index": 0, "delta": {}, "finish_reason": ""})
    assert fold(empty, says("a"))["choices"][0]["finish_reason"] is None
    assert fold(ends(), empty)["choices"][0]["finish_reason"] == "stop"


def test_parallel_calls_are_put_together_by_index() -> None:
    def part(index: int, arguments: str, **more: Any) -> dict[str, Any]:
        return {"index": index, "function": {"arguments": arguments, **more.pop("function", {})}, **more}

    found = message(
        {"tool_calls": [part(0, "", id="a", type="function", function={"name": "x"})]},
        {"tool_calls": [part(1, '{"k"', id="b", type="function", function={"name": "y"}), part(0, "{")]},
        {"tool_calls": [part(0, "}", id="", function={"name": ""}), part(1, ":2}")]},
    )["tool_calls"]
    assert found == [
        {"id": "a", "type": "function", "function": {"name": "x", "arguments": "{}"}},
        {"id": "b", "type": "function", "function": {"name": "y", "arguments": '{"k":2}'}},
    ]


def test_whole_calls_without_an_index_or_all_with_index_zero_stay_apart() -> None:
    for index in ({}, {"index": 0}, {"index": None}):
        one = {"id": "a", "function": {"name": "x", "arguments": "{}"}, **index}
        two = {"id": "b", "function": {"name": "x", "arguments": '{"a":1}'}, **index}
        assert [c["id"] for c in message({"tool_calls": [one]}, {"tool_calls": [two]})["tool_calls"]] == ["a", "b"]
        assert [c["id"] for c in message({"tool_calls": [one, two]})["tool_calls"]] == ["a", "b"]


def test_pieces_of_a_call_without_an_index_go_to_the_last() -> None:
    start = {"id": "a", "function": {"name": "x", "arguments": '{"k"'}}
    found = message({"tool_calls": [start]}, {"tool_calls": [{"function": {"arguments": ":1}"}}]})["tool_calls"]
    assert found == [{"id": "a", "function": {"name": "x", "arguments": '{"k":1}'}}]


def test_a_new_id_on_each_piece_is_still_one_call() -> None:
    """Early vLLM made up an id for every delta."""
    deltas = [{"index": 0, "id": f"i{n}", "function": {"arguments": str(n)}} for n in range(3)]
    deltas[0]["function"] = {"name": "x", "arguments": "0"}
    (call,) = message(*({"tool_calls": [d]} for d in deltas))["tool_calls"]
    assert call["function"] == {"name": "x", "arguments": "012"}


def test_arguments_given_as_an_object_stay_one() -> None:
    whole = {"id": "a", "function": {"name": "x", "arguments": {"k": 1}}}
    assert message({"tool_calls": [whole]})["tool_calls"] == [whole]


def test_content_in_parts_and_strings_is_merged() -> None:
    thinking: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": [{"type": "text", "text": t}]} for t in ("a", "b")
    ]
    thinking[1]["closed"] = True
    found = message(
        {"content": ""},
        {"content": thinking[:1]},
        {"content": thinking[1:]},
        {"content": [{"type": "text", "text": "1"}]},
        {"content": "2"},
        {"content": [{"type": "image_url", "image_url": {"url": "u"}}]},
    )
    assert found["content"] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "ab"}], "closed": True},
        {"type": "text", "text": "12"},
        {"type": "image_url", "image_url": {"url": "u"}},
    ]


def test_other_members_reasoning_audio_annotations_and_refusals_are_kept() -> None:
    found = message(
        {"role": "assistant", "content": None, "reasoning": "a", "reasoning_details": [{"index": 0, "text": "a"}]},
        {"reasoning": "b", "reasoning_details": [{"index": 0, "text": "b", "signature": "s"}], "refusal": None},
        {"refusal": "no", "annotations": [{"type": "url"}], "extra": {"a": "x"}},
        {"annotations": [{"type": "url2"}], "audio": {"id": "1", "data": "AA", "transcript": "h"}},
        {"audio": {"id": "1", "data": "BB", "transcript": "i"}, "extra": {"a": "y"}},
        {"audio": {"id": "1", "expires_at": 9}, "role": "assistant"},
    )
    assert found == {
        "role": "assistant",
        "content": None,
        "reasoning": "ab",
        "reasoning_details": [{"index": 0, "text": "ab", "signature": "s"}],
        "refusal": "no",
        "annotations": [{"type": "url"}, {"type": "url2"}],
        "extra": {"a": "xy"},
        "audio": {"id": "1", "data": "AABB", "transcript": "hi", "expires_at": 9},
    }


def test_logprobs_are_appended_to_the_last_digit() -> None:
    def with_logprobs(value: Any) -> bytes:
        return chunk({"index": 0, "delta": {}, "logprobs": value, "finish_reason": None})

    tokens = [{"token": "a", "logprob": -0.1234567890123456}, {"token": "b", "logprob": -1e-09}]
    parts = [{"content": [token], "refusal": None} for token in tokens]
    found = fold(with_logprobs(None), *map(with_logprobs, parts), with_logprobs(None), with_logprobs(-0.25))
    assert found["choices"][0]["logprobs"] == {"content": tokens, "refusal": None}


def test_half_a_call_is_known() -> None:
    def half(*datas: bytes) -> bool:
        folder = Folder()
        for data in datas:
            folder.add(data)
        return folder.half_a_call

    assert half(calls('{"a', name="x"))
    assert half(chunk({"index": 0, "delta": {"function_call": {"name": "x", "arguments": '{"a'}}}))
    assert half(calls("{}", name="x"), calls('{"a', 1, name="y"))
    assert not half(calls('{"a":', name="x"), calls("1}"))
    assert not half(calls("", name="x"))
    assert not half(says("x"))
