"""Messages, request side: what is understood, and how bad input is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import BadRequest, ModelNotFound, ThreadsNotHeld
from app.dialects.anthropic.dialect import DIALECT
from app.dialects.anthropic.parse import parse_count
from app.dialects.anthropic.user_id import session_of
from tests.dialects.anthropic.texts import USER, body, parsed

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 4000}}
TOOL = {"name": "bash", "input_schema": {"type": "object", "properties": {}}}


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"max_tokens": ...}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 2**40}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"model": ...}, "model"),
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"messages": ...}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [USER, {"role": "tool", "content": "x"}]}, "messages[1].role"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages"),
        ({"system": 5}, "system"),
        ({"stream": "yes"}, "stream"),
        ({"tools": {}}, "tools"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"user_id": 5}}, "metadata.user_id"),
        ({"metadata": {"task_id": "a|b"}}, "metadata.task_id"),
        ({"max_cost_usd": -1}, "max_cost_usd"),
        ({"thinking": 5}, "thinking"),
        ({"output_config": []}, "output_config"),
    ],
)
def test_bad_input_names_its_parameter(members: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parsed(**members)
    assert caught.value.param == param
    assert param in caught.value.message


@pytest.mark.parametrize("thread", [{"type": "create"}, {"type": "continue", "previous_message_id": "m"}, 5])
def test_turns_that_a_provider_holds_are_refused(thread: Any) -> None:
    with pytest.raises(ThreadsNotHeld):
        parsed(thread=thread, messages=[])
    assert parsed(thread=None).model
    assert parse_count(body(thread=thread), {}).model, "a count has nothing to send again"


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"5", b'{"messages": "\xff"}', b"[" * 100_000])
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        DIALECT.parse(data, {}, {})


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=4), lambda x: st.lists(x) | st.dictionaries(st.text(max_size=4), x)
    )
)
def test_any_value_anywhere_is_understood_or_refused(value: Any) -> None:
    for name in ("system", "messages", "tools", "metadata", "thinking", "output_config", "output_format", "max_tokens"):
        try:
            DIALECT.conversation(parsed(**{name: value}))
        except (BadRequest, ModelNotFound) as error:
            named = error.param
        else:
            named = name
        assert named


def test_the_ordinary_request() -> None:
    request = parsed(stream=True, max_tokens=50)
    assert (request.model, request.dialect, request.stream, request.choices) == (
        "claude-opus-5-5",
        "anthropic",
        True,
        1,
    )
    assert (request.output_limit, request.limit_fields) == (50, ("max_tokens",))
    assert (request.session, request.task_id, request.max_cost_nano) == (None, None, None)


def test_a_limit_of_zero_reserves_one_token() -> None:
    assert parsed(max_tokens=0).output_limit == 1


def test_counting_needs_no_limit() -> None:
    request = parse_count(body(max_tokens=...), {})
    assert (request.output_limit, request.stream) == (None, False)


def test_headers_of_the_dialect_go_on_and_no_others() -> None:
    headers = {"anthropic-beta": "a,b", "anthropic-version": "2023-06-01", "x-api-key": "secret", "host": "h"}
    assert parsed(headers=headers).forward == {"anthropic-beta": "a,b", "anthropic-version": "2023-06-01"}


def test_the_task_and_the_cap_of_this_request() -> None:
    request = parsed(metadata={"task_id": "t-1", "user_id": "u"}, max_cost_usd="0.5")
    assert (request.task_id, request.max_cost_nano, request.session) == ("t-1", 500_000_000, None)


@pytest.mark.parametrize(
    ("user_id", "session"),
    [
        (json.dumps({"device_id": "d", "account_uuid": "", "session_id": "5f0e-1"}), "5f0e-1"),
        (
            "user_" + "ab12" * 16 + "_account__session_0f4cbe5e-83a7-4d5a-b6d2-0c4f8f3b6c11",
            "0f4cbe5e-83a7-4d5a-b6d2-0c4f8f3b6c11",
        ),
        ("user_ab_account_77-88_session_99", "99"),
        ("customer-5", None),
        ("{not json", None),
        ('{"session_id": 5}', None),
        ('{"session_id": "a|b"}', None),
        ('{"session_id": "' + "x" * 300 + '"}', None),
        ("{}", None),
        ("", None),
    ],
)
def test_claude_codes_session(user_id: str, session: str | None) -> None:
    assert session_of(user_id) == session
    assert parsed(metadata={"user_id": user_id}).session == session


def test_what_the_prompt_says() -> None:
    request = parsed(
        {"role": "user", "content": "first"},
        {"role": "system", "content": [{"type": "text", "text": "reminder"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "bash", "input": {}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "out"}, IMAGE]},
                IMAGE,
            ],
        },
        system=[{"type": "text", "text": "You are", "cache_control": {"type": "ephemeral"}}],
        tools=[TOOL],
        output_config={"effort": "max", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    )
    prompt = request.prompt
    assert (prompt.system, prompt.first_user, prompt.last_user) == ("You are\nreminder", "first", "first")
    assert (prompt.turns, prompt.messages, prompt.history_chars) == (3, 4, 3)
    assert (prompt.images, prompt.attachments, prompt.in_tool_loop) == (2, 2, True)
    assert (prompt.tools, prompt.tool_schema_bytes) == (1, len(json.dumps([TOOL])))
    assert (prompt.wants_schema, prompt.reasoning_effort) == (True, "max")
    assert prompt.text_bytes < 1500, "attachments are counted by number, not by their base64"


@pytest.mark.parametrize(("budget", "word"), [(1024, "low"), (8000, "medium"), (20_000, "high"), (200_000, "max")])
def test_a_budget_for_thinking_is_an_effort_to_routers(budget: int, word: str) -> None:
    assert parsed(thinking={"type": "enabled", "budget_tokens": budget}).prompt.reasoning_effort == word


def test_a_tool_loop_ends_with_the_users_words() -> None:
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}
    assert parsed(USER, result).prompt.in_tool_loop
    assert parsed(USER, result, {"role": "system", "content": "note"}).prompt.in_tool_loop
    assert not parsed(USER, result, USER).prompt.in_tool_loop


def test_the_old_member_for_a_shape_counts_too() -> None:
    assert parsed(output_format={"type": "json_schema", "schema": {}}).prompt.wants_schema
    assert not parsed(output_format=None).prompt.wants_schema
