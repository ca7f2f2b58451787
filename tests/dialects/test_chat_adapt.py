"""A chat request for a model that its client did not name: what that one would refuse is left out, and no more."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.core.policy import ChatHabits
from app.dialects.openai_chat.parse import parse_chat
from app.dialects.openai_chat.render import render_chat

SAID: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "Hi"}]}
OPENAI, ANY = ChatHabits("max_completion_tokens"), ChatHabits()
ONLY, MISTRAL = ChatHabits(only=True), ChatHabits(only=True, include_usage=False)


def sent(
    model: str,
    habits: ChatHabits = ANY,
    *,
    asked: str = "auto",
    limit: int | None = None,
    stream: bool = False,
    **more: Any,
) -> Any:
    """What reaches the provider of what stands beside model and messages, in its order."""
    request = parse_chat(json.dumps({**SAID, "model": asked, **more}).encode())
    body = render_chat(request, upstream_model=model, limit_tokens=limit, habits=habits, stream=stream)
    return {name: value for name, value in json.loads(body).items() if name not in SAID}


@pytest.mark.parametrize(
    ("model", "asked", "effort"),
    [
        ("gpt-5.4", "minimal", "low"),
        ("gpt-5.4", "xhigh", "xhigh"),
        ("gpt-5", "none", "minimal"),
        ("gpt-4o", "high", None),
        ("openai/gpt-oss-120b", "none", "low"),
        ("qwen3-8b", "minimal", "minimal"),
        ("gpt-5.4", None, None),
        ("gpt-5.4", "odd", None),
    ],
)
def test_the_nearest_effort_that_the_model_knows(model: str, asked: str | None, effort: str | None) -> None:
    assert sent(model, reasoning_effort=asked).get("reasoning_effort") == effort


def test_sampling_that_reasoning_models_refuse() -> None:
    given: dict[str, Any] = {
        "temperature": 0.2,
        "top_p": 1,
        "presence_penalty": 0.5,
        "frequency_penalty": None,
        "seed": 7,
    }
    assert sent("gpt-5", **given) == {"top_p": 1, "frequency_penalty": None, "seed": 7}
    effort: dict[str, Any] = {"reasoning_effort": "none"}
    for model, more in (("gpt-4o", {}), ("some-model", {}), ("gpt-5.4", effort)):
        assert sent(model, **given, **more) == given | more


def test_whoever_names_the_model_gets_what_was_sent() -> None:
    given: dict[str, Any] = {"max_tokens": 9, "temperature": 0.2, "reasoning_effort": "minimal"}
    assert sent("gpt-5.4", OPENAI, asked="gpt-5.4", **given) == given


@pytest.mark.parametrize(
    ("model", "habits", "given", "expected"),
    [
        ("gpt-5.4", OPENAI, {"max_tokens": 9}, {"max_completion_tokens": 9}),
        ("o4-mini", ANY, {"max_tokens": 9, "max_completion_tokens": 7}, {"max_completion_tokens": 7}),
        ("gpt-4o", OPENAI, {"max_tokens": 9}, {"max_tokens": 9}),
        ("other", ANY, {"max_completion_tokens": 9}, {"max_completion_tokens": 9}),
        ("deepseek-v4-flash", ONLY, {"max_completion_tokens": 9}, {"max_tokens": 9}),
        ("deepseek-v4-flash", ONLY, {"max_tokens": 9, "max_completion_tokens": 7}, {"max_tokens": 7}),
        ("other", ANY, {}, {}),
    ],
)
def test_the_limit_has_a_name_that_is_known(
    model: str, habits: ChatHabits, given: dict[str, Any], expected: dict[str, int]
) -> None:
    assert sent(model, habits, **given) == expected
    assert sent(model, habits, **given, seed=7) == {**expected, "seed": 7}
    clamped = sent(model, habits, limit=5, **given)
    assert clamped == (dict.fromkeys(expected, 5) if expected else {habits.limit_field: 5})


def test_one_who_knows_no_other_name_is_told_by_it_whoever_names_the_model() -> None:
    assert sent("m", ONLY, asked="m", max_completion_tokens=9) == {"max_tokens": 9}
    assert sent("m", ONLY, asked="m", max_tokens=9) == {"max_tokens": 9}


def test_a_stream_is_not_asked_for_usage_where_that_is_refused() -> None:
    options = {"include_usage": True}
    assert sent("m", MISTRAL, stream=True, stream_options=options) == {"stream": True}
    assert sent("m", MISTRAL, stream_options=options) == {}
    assert sent("m", ONLY, stream=True) == {"stream": True, "stream_options": options}


THOUGHTFUL: dict[str, Any] = {
    "role": "assistant",
    "content": None,
    "reasoning_content": "hm",
    "reasoning": "hm",
    "reasoning_details": [{"type": "reasoning.text", "text": "hm"}],
    "tool_calls": [
        {
            "id": "c1",
            "type": "function",
            "function": {"name": "f", "arguments": '{"reasoning": 1}'},
            "extra_content": {"google": {"thought_signature": "x"}},
        }
    ],
}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": 'the "reasoning": none'}


def history(habits: ChatHabits, *messages: dict[str, Any], asked: str = "auto") -> Any:
    request = parse_chat(json.dumps({"model": asked, "messages": messages}).encode())
    body = render_chat(request, upstream_model="m", limit_tokens=None, habits=habits, stream=False)
    return json.loads(body)["messages"]


@pytest.mark.parametrize("asked", ["auto", "m"])
def test_what_was_thought_stays_away_from_whoever_refuses_it(asked: str) -> None:
    said = (*SAID["messages"], THOUGHTFUL, RESULT)
    call = {name: THOUGHTFUL["tool_calls"][0][name] for name in ("id", "type", "function")}
    bare = {"role": "assistant", "content": None, "tool_calls": [call]}
    strict = ChatHabits(takes_reasoning=False)
    assert history(strict, *said, asked=asked) == [*SAID["messages"], bare, RESULT]
    assert history(ANY, *said, asked=asked) == [*said]


def test_messages_without_thoughts_keep_their_bytes() -> None:
    body = b'{"model":"auto","messages":[ {"role":"user", "content":"a \\u00e9"},{"content":"x","role":"assistant"} ]}'
    request = parse_chat(body)
    sent = render_chat(
        request, upstream_model="m", limit_tokens=None, habits=ChatHabits(takes_reasoning=False), stream=False
    )
    assert bytes(request.members["messages"]) in sent


@pytest.mark.parametrize("calls", ['{"extra_content":1}', '["x",{"extra_content":1}]', '[null,{"extra_content":1}]'])
def test_what_are_no_calls_is_the_providers_to_refuse(calls: str) -> None:
    said = f'{{"role":"assistant","content":"x","reasoning":"hm","tool_calls":{calls}}}'
    request = parse_chat(f'{{"model":"auto","messages":[{said}]}}'.encode())
    strict = ChatHabits(takes_reasoning=False)
    body = render_chat(request, upstream_model="m", limit_tokens=None, habits=strict, stream=False)
    (message,) = json.loads(body)["messages"]
    assert message == {"role": "assistant", "content": "x", "tool_calls": json.loads(calls)}


@pytest.mark.parametrize("value", [b"1e999", b'"\xff"'])
def test_a_value_that_cannot_be_read_is_no_default(value: bytes) -> None:
    request = parse_chat(b'{"model":"auto","messages":[{"role":"user","content":"Hi"}],"temperature":%b}' % value)
    body = render_chat(request, upstream_model="gpt-5", limit_tokens=None, habits=ANY, stream=False)
    assert b"temperature" not in body
