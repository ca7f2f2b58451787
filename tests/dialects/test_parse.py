"""Requests: what the gateway needs is read, all else is kept, and bad input names the parameter at fault."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import BadRequest
from app.core.types import ChatRequest
from app.dialects.openai_chat.parse import MAX_LIMIT, checked_task_id, parse_chat, parse_dollars

USER = {"role": "user", "content": "Hello"}


def request(**members: Any) -> ChatRequest:
    """A parsed request with these members besides a model and a message."""
    return parse_chat(json.dumps({"model": "m", "messages": [USER], **members}).encode())


def raw(members: bytes) -> bytes:
    """A body with these members written out."""
    return b'{"model":"m","messages":[{"role":"user","content":"x"}],' + members + b"}"


def fault(body: bytes) -> tuple[str | None, str]:
    """The parameter and message of the refusal."""
    with pytest.raises(BadRequest) as caught:
        parse_chat(body)
    assert caught.value.status == 400
    return caught.value.param, caught.value.message


def test_a_plain_request() -> None:
    parsed = request()
    assert (parsed.model, parsed.stream, parsed.show_usage, parsed.choices) == ("m", False, False, 1)
    assert (parsed.output_limit, parsed.limit_fields, parsed.max_cost_nano, parsed.task_id) == (None, (), None, None)
    assert bytes(parsed.members["messages"]) == b'[{"role": "user", "content": "Hello"}]'


def test_what_the_gateway_reads() -> None:
    parsed = request(
        stream=True,
        stream_options={"include_usage": True, "include_obfuscation": False},
        n=3,
        max_tokens=50,
        max_completion_tokens=40,
        max_cost_usd=0.1,
        metadata={"task_id": "t:1 é", "other": 1},
    )
    assert (parsed.stream, parsed.show_usage, parsed.choices) == (True, True, 3)
    assert (parsed.output_limit, parsed.limit_fields) == (40, ("max_completion_tokens", "max_tokens"))
    assert (parsed.max_cost_nano, parsed.task_id) == (100_000_000, "t:1 é")


def test_null_is_absent() -> None:
    names = ("stream", "stream_options", "n", "max_tokens", "max_completion_tokens", "max_cost_usd", "metadata")
    more = ("tools", "functions", "response_format", "reasoning_effort")
    parsed = request(**dict.fromkeys(names + more))
    assert parsed == ChatRequest(**{**as_dict(request()), "members": parsed.members, "prompt": parsed.prompt})
    assert parsed.prompt.tools == 0
    assert request(stream_options={"include_usage": None}, metadata={"task_id": None}).task_id is None


def as_dict(parsed: ChatRequest) -> dict[str, Any]:
    return {name: getattr(parsed, name) for name in ChatRequest.__struct_fields__}


@pytest.mark.parametrize(
    ("members", "param"),
    [
        (b'"max_tokens":true', "max_tokens"),
        (b'"max_tokens":1.5', "max_tokens"),
        (b'"max_tokens":"5"', "max_tokens"),
        (b'"max_tokens":0', "max_tokens"),
        (b'"max_tokens":-1', "max_tokens"),
        (b'"max_tokens":%d' % (MAX_LIMIT + 1), "max_tokens"),
        (b'"max_completion_tokens":' + b"9" * 400, "max_completion_tokens"),
        (b'"max_completion_tokens":' + b"9" * 9000, "max_completion_tokens"),
        (b'"n":0', "n"),
        (b'"n":true', "n"),
        (b'"n":129', "n"),
        (b'"n":[1]', "n"),
        (b'"stream":1', "stream"),
        (b'"stream":"true"', "stream"),
        (b'"stream_options":[]', "stream_options"),
        (b'"stream_options":{"include_usage":"yes"}', "stream_options.include_usage"),
        (b'"max_cost_usd":-1', "max_cost_usd"),
        (b'"max_cost_usd":true', "max_cost_usd"),
        (b'"max_cost_usd":{}', "max_cost_usd"),
        (b'"max_cost_usd":1e999', "max_cost_usd"),
        (b'"max_cost_usd":1e15', "max_cost_usd"),
        (b'"max_cost_usd":"NaN"', "max_cost_usd"),
        (b'"max_cost_usd":"Infinity"', "max_cost_usd"),
        (b'"max_cost_usd":"ten"', "max_cost_usd"),
        (b'"max_cost_usd":"1_0"', "max_cost_usd"),
        (b'"max_cost_usd":' + b"9" * 5000, "max_cost_usd"),
        (b'"metadata":[]', "metadata"),
        (b'"metadata":{"task_id":5}', "metadata.task_id"),
        (b'"metadata":{"task_id":""}', "metadata.task_id"),
        (b'"metadata":{"task_id":"a|b"}', "metadata.task_id"),
        (b'"metadata":{"task_id":"a\\nb"}', "metadata.task_id"),
        (b'"metadata":{"task_id":"' + b"a" * 201 + b'"}', "metadata.task_id"),
        (b'"metadata":{"\xff":1}', "metadata"),
        (b'"tools":{}', "tools"),
        (b'"functions":5', "functions"),
        (b'"response_format":"json"', "response_format"),
        (b'"response_format":{"type":5}', "response_format.type"),
        (b'"reasoning_effort":5', "reasoning_effort"),
        (b'"model":5', "model"),
        (b'"model":""', "model"),
        (b'"model":null', "model"),
        (b'"model":"\xff"', "model"),
        (b'"messages":null', "messages"),
        (b'"messages":{}', "messages"),
        (b'"messages":[]', "messages"),
        (b'"messages":[1]', "messages[0]"),
        (b'"messages":[{}]', "messages[0]"),
        (b'"messages":[{"role":"user"},{"role":null}]', "messages[1].role"),
        (b'"messages":[{"role":"user","content":5}]', "messages[0].content"),
        (b'"messages":[{"role":"user","content":{}}]', "messages[0].content"),
        (b'"messages":[{"role":"user","content":[null]}]', "messages[0].content[0]"),
        (b'"messages":[{"role":"user","content":[{"type":"text","text":5}]}]', "messages[0].content[0].text"),
        (b'"messages":[{"role":"user","content":"\xff\xfe"}]', "messages"),
    ],
)
def test_bad_input_names_its_parameter(members: bytes, param: str) -> None:
    found, message = fault(raw(members))
    assert found == param
    assert param.partition("[")[0] in message
    assert "`" not in message
    assert "msgspec" not in message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"[]",
        b"null",
        b"5",
        b'"x"',
        b"{",
        b"{}x",
        b"\xff",
        b'{"\xff":1}',
        b"{'a':1}",
        raw(b'"temperature":NaN'),
        raw(b'"x":Infinity'),
        raw(b'"x":nul'),
        raw(b'"x":01'),
        raw(b'"x":' + b"[" * 100000 + b"]" * 100000),
        raw(b'"tools":' + b'[{"a":' * 50000 + b"1" + b"}]" * 50000),
        b'{"model":"m","messages":[{"role":"user","content":' + b"[" * 100000 + b"]" * 100000 + b"}]}",
        b'{"model":"m","messages":[{"role":"user","content":"a\nb"}]}',
    ],
)
def test_what_is_not_json_is_refused_whole(body: bytes) -> None:
    assert fault(body)[0] is None


def test_halves_of_characters_and_a_byte_order_mark_are_no_fault() -> None:
    """Agents cut what their tools print by UTF-16 units, and send it again in every later step."""
    half = b'{"model":"m","messages":[{"role":"user","content":"a\\ud83d \\ud83d\\ude00"}],"x":"\\ude00"}'
    for body in (half, b"\xef\xbb\xbf" + half):
        members = parse_chat(body).members
        assert bytes(members["messages"]) == b'[{"role":"user","content":"a\\ufffd \\ud83d\\ude00"}]'
        assert bytes(members["x"]) == b'"\\ufffd"'


def test_model_and_messages_are_required() -> None:
    assert fault(b'{"model":"m"}')[0] == "messages"
    assert fault(b'{"messages":[{"role":"user"}]}')[0] == "model"


def test_of_a_member_given_twice_the_last_counts_for_us_and_for_the_upstream() -> None:
    parsed = parse_chat(raw(b'"max_tokens":5,"model":"other","max_tokens":7'))
    assert (parsed.model, parsed.output_limit) == ("other", 7)
    assert bytes(parsed.members["max_tokens"]) == b"7"


@pytest.mark.parametrize("content", [None, "", [], ["a"], [{"type": "text"}], [{"type": "new", "x": {}}]])
@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool", "function", "from_the_future"])
def test_roles_and_contents_of_any_kind_are_accepted(role: str, content: Any) -> None:
    parsed = parse_chat(json.dumps({"model": "m", "messages": [{"role": role, "content": content}]}).encode())
    assert parsed.prompt.messages == 1
    assert parsed.prompt.in_tool_loop == (role in ("tool", "function"))


def test_the_prompt_as_features_see_it() -> None:
    picture: dict[str, Any] = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5000}}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "be brief"},
        {"role": "developer", "content": [{"type": "text", "text": "and kind"}]},
        {
            "role": "user",
            "content": [{"type": "text", "text": "look"}, picture, {"type": "image_url", "image_url": None}],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "42"},
        {"role": "user", "content": "and now?"},
    ]
    tools = [{"type": "function", "function": {"name": "f"}}] * 2
    prompt = request(messages=messages, tools=tools, response_format={"type": "json_schema", "json_schema": {}}).prompt
    assert (prompt.system, prompt.first_user, prompt.last_user) == ("be brief\nand kind", "look", "and now?")
    assert (prompt.messages, prompt.turns, prompt.images, prompt.tools) == (6, 4, 1, 2)
    assert (prompt.wants_json, prompt.wants_schema, prompt.in_tool_loop) == (True, True, False)
    calls_chars = len(json.dumps(messages[3]["tool_calls"]))
    assert prompt.history_chars == len("look") + calls_chars + len("42")
    sent = len(json.dumps(messages)) + len(json.dumps(tools)) + len('{"type": "json_schema", "json_schema": {}}')
    assert prompt.text_bytes == sent - len(json.dumps(picture["image_url"]))


def test_audio_and_files_are_attachments_too() -> None:
    parts = [{"type": "input_audio", "input_audio": {"data": "A" * 900}}, {"type": "file", "file": {"file_data": "B"}}]
    prompt = request(messages=[{"role": "user", "content": parts}]).prompt
    assert (prompt.attachments, prompt.images) == (2, 0)
    assert prompt.text_bytes < 300


def test_kinds_of_response_format() -> None:
    kinds = {kind: request(response_format={"type": kind}).prompt for kind in ("text", "json_object", "json_schema")}
    assert {k: (p.wants_json, p.wants_schema) for k, p in kinds.items()} == {
        "text": (False, False),
        "json_object": (True, False),
        "json_schema": (True, True),
    }


def test_a_hundred_kilobytes_take_no_time_to_speak_of() -> None:
    body = json.dumps({"model": "m", "messages": [USER | {"content": "word " * 200}] * 100}).encode()
    assert len(body) > 100_000
    started = time.perf_counter()
    for _ in range(20):
        parse_chat(body)
    assert (time.perf_counter() - started) / 20 < 0.02


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
known = st.sampled_from(
    [
        "model",
        "messages",
        "n",
        "stream",
        "stream_options",
        "max_tokens",
        "max_cost_usd",
        "metadata",
        "tools",
        "functions",
        "response_format",
        "reasoning_effort",
        "max_completion_tokens",
        "x",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(known, json_values, max_size=6), json_values)
def test_any_json_is_parsed_or_refused_and_never_breaks_the_parser(members: dict[str, Any], message: Any) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": message}], **members}).encode()
    fault_at: str | None = "messages"
    try:
        parsed = parse_chat(body)
    except BadRequest as error:
        fault_at = error.param
    else:
        assert 1 <= parsed.choices <= 128
        assert parsed.prompt.text_bytes >= 0
    assert fault_at is None or fault_at.split("[")[0].split(".")[0] in {"messages", *members}


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_refused_politely(body: bytes) -> None:
    assert fault(body)[1]


def test_dollars_of_headers_and_bodies_are_read_alike() -> None:
    for value in (0.1, "0.1", "1e-1", " 0.1 "):
        assert parse_dollars(value, "p") == 100_000_000
    for bad in ("", "-0.1", "0x1", "1,5", float("nan"), "1_000"):
        with pytest.raises(BadRequest) as caught:
            parse_dollars(bad, "p")
        assert caught.value.param == "p"


@pytest.mark.parametrize("task", ["a", "A b:c/d", "ü-字-🦉", "x" * 200, "%7C", "task:k:1", "{tag}"])
def test_task_ids_may_look_odd(task: str) -> None:
    assert checked_task_id(task, "p") == task


@pytest.mark.parametrize("task", ["", "x" * 201, "a|b", "a\x00", "a\n", "a\u2028b", "\ud800", "a\x7f"])
def test_task_ids_that_could_confuse_are_refused(task: str) -> None:
    with pytest.raises(BadRequest) as caught:
        checked_task_id(task, "p")
    assert caught.value.param == "p"
