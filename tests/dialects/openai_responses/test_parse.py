"""Requests as clients of Responses send them, and bad ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.core.errors import BadRequest, ModelNotFound
from app.dialects.openai_responses.dialect import DIALECT
from app.dialects.openai_responses.names import offered_tools
from tests.dialects.openai_responses.replies import request_of

PICTURE = "data:image/png;base64," + "A" * 4000


def test_a_request_of_codex() -> None:
    request = request_of(
        instructions="You are codex.",
        stream=True,
        store=False,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="thread-1",
        reasoning={"effort": "high", "summary": "auto"},
        text={"format": {"type": "json_schema", "name": "a", "schema": {}}, "verbosity": "low"},
        tools=[
            {"type": "function", "name": "shell", "parameters": {}},
            {"type": "namespace", "name": "ns", "description": "", "tools": [{"type": "function", "name": "a"}] * 2},
            {"type": "web_search"},
        ],
        input=[
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "rules"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "first"}]},
            {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"},
            {"type": "function_call", "call_id": "a", "name": "shell", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": "ok"},
        ],
    )
    prompt = request.prompt
    assert (request.stream, request.session, request.show_usage, request.dialect) == (
        True,
        "thread-1",
        True,
        "openai_responses",
    )
    assert (prompt.system, prompt.first_user, prompt.last_user) == ("You are codex.\nrules", "first", "first")
    assert (prompt.tools, prompt.in_tool_loop, prompt.messages, prompt.turns) == (4, True, 6, 4)
    assert (prompt.wants_json, prompt.wants_schema, prompt.reasoning_effort) == (True, True, "high")


def test_a_bare_string_is_the_user() -> None:
    request = request_of(input="héllo")
    assert (request.prompt.last_user, request.prompt.messages, request.prompt.turns) == ("héllo", 1, 1)
    assert (request.stream, request.output_limit, request.limit_fields) == (False, None, ())


def test_attachments_are_counted_and_are_no_text() -> None:
    parts: list[dict[str, Any]] = [
        {"type": "input_text", "text": "see"},
        {"type": "input_image", "image_url": PICTURE, "detail": "auto"},
        {"type": "input_file", "filename": "a.pdf", "file_data": PICTURE},
    ]
    prompt = request_of(
        input=[
            {"role": "user", "content": parts},
            {"type": "function_call_output", "call_id": "a", "output": parts[1:2]},
        ]
    ).prompt
    assert (prompt.attachments, prompt.images) == (3, 2)
    assert prompt.text_bytes < 500


def test_limits_caps_and_tasks() -> None:
    request = request_of(max_output_tokens=50, max_cost_usd="0.01", metadata={"task_id": "t-1", "a": "b"})
    assert (request.output_limit, request.limit_fields) == (50, ("max_output_tokens",))
    assert (request.max_cost_nano, request.task_id) == (10_000_000, "t-1")


def test_headers_that_an_upstream_must_see() -> None:
    headers = {"openai-beta": "responses=v1", "authorization": "Bearer secret"}
    assert DIALECT.parse(b'{"model":"m","input":""}', headers, {}).forward == {"openai-beta": "responses=v1"}


@pytest.mark.parametrize("name", ["previous_response_id", "conversation", "prompt"])
def test_input_may_be_left_out_where_the_provider_has_it(name: str) -> None:
    assert DIALECT.parse(json.dumps({"model": "m", name: "x"}).encode(), {}, {}).prompt.messages == 0


def test_items_unknown_here_are_for_the_upstream_to_judge() -> None:
    unknown = [{"type": "shell_call", "action": {"commands": []}}, {"type": "next", "content": {"a": 1}, "output": 3}]
    assert request_of(input=unknown).prompt.messages == 2


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"input": None}, "input"),
        ({"input": 3}, "input"),
        ({"input": [3]}, "input[0]"),
        ({"input": [{"role": 3}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": 3}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": 3}]}]}, "input[0].content[0].text"),
        ({"background": True}, "background"),
        ({"stream": "yes"}, "stream"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 2**40}, "max_output_tokens"),
        ({"tools": [{"name": "a"}]}, "tools[0]"),
        ({"text": {"format": "json"}}, "text.format"),
        ({"reasoning": "high"}, "reasoning"),
        ({"max_cost_usd": -1}, "max_cost_usd"),
        ({"metadata": {"task_id": "a|b"}}, "metadata.task_id"),
        ({"prompt_cache_key": 3}, "prompt_cache_key"),
    ],
)
def test_a_bad_request_names_the_parameter(members: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as raised:
        request_of(**members)
    assert raised.value.param == param


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"model":"m"}', b'{"input":"x"}', b"[" * 5000])
def test_a_body_that_is_no_request(body: bytes) -> None:
    with pytest.raises(BadRequest):
        DIALECT.parse(body, {}, {})


def test_an_endless_name_is_no_model() -> None:
    with pytest.raises(ModelNotFound):
        request_of(model="m" * 300)


def test_a_list_of_a_servers_tools_offers_none() -> None:
    """What OpenAI has said of an MCP server, which clients send back."""
    told = {"type": "mcp_list_tools", "id": "m", "server_label": "s", "tools": [{"name": "a", "input_schema": {}}]}
    request = request_of(input=[told, {"role": "user", "content": "hi"}])
    assert (request.prompt.tools, list(offered_tools(request))) == (0, [])
