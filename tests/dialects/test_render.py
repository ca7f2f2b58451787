"""The body for the upstream: what must change is changed, every other value keeps its bytes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.policy import ChatHabits
from app.core.types import ChatRequest
from app.dialects.openai_chat.parse import parse_chat
from app.dialects.openai_chat.render import object_bytes, render_chat

HABITS = ChatHabits()


def members_of(body: bytes) -> dict[str, bytes]:
    """The top-level members of an object, as bytes."""
    return {name: bytes(value) for name, value in msgspec.json.decode(body, type=dict[str, msgspec.Raw]).items()}


def render(body: bytes | ChatRequest, **how: Any) -> dict[str, bytes]:
    """The members of the rendered body."""
    parsed = body if isinstance(body, ChatRequest) else parse_chat(body)
    settled = {"upstream_model": "up-1", "limit_tokens": None, "habits": HABITS, "stream": False, **how}
    return members_of(render_chat(parsed, **settled))


def body(members: bytes = b"") -> bytes:
    return b'{"messages":[{"role":"user","content":"x"}],"model":"m"' + (b"," + members if members else b"") + b"}"


def test_only_the_model_changes_where_nothing_else_must() -> None:
    odd = b'"x" : {"b":1.0,  "a":[1e5,"\\u00e9\xc3\xa9"]},"tools":[{"z":1, "a":2}] ,"seed":007'.replace(b"007", b"7")
    sent = members_of(body(odd))
    assert render(body(odd)) == {**sent, "model": b'"up-1"'}
    assert list(render(body(odd))) == list(sent)


json_text = st.recursive(
    st.sampled_from(
        [b"null", b"true", b"1.50", b"-0", b"1E5", b'"\\u00e9"', b'"\xc3\xa9\\n"', b'""', b"12345678901234567890"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: b"[ " + b" ,\t".join(items) + b"]")
        | st.lists(inner, max_size=3).map(
            lambda items: b"{" + b", ".join(b'"k%d" :' % i + v for i, v in enumerate(items)) + b"}"
        )
    ),
    max_leaves=8,
)
names = st.text(max_size=6).filter(
    lambda name: (
        name
        not in {"model", "messages", "stream", "stream_options", "n", "max_tokens", "metadata", "tools", "functions"}
    )
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(names, json_text, max_size=5), st.booleans())
def test_unknown_members_keep_their_bytes(unknown: dict[str, bytes], stream: bool) -> None:
    text = b",".join(msgspec.json.encode(name) + b":" + value for name, value in unknown.items())
    rendered = render(body(text), stream=stream, limit_tokens=9)
    for name, value in unknown.items():
        assert rendered[name] == value.strip()


def test_the_limit_goes_into_every_field_that_carries_one() -> None:
    both = body(b'"max_tokens":500,"max_completion_tokens":400')
    assert render(both, limit_tokens=50) == {
        **members_of(both),
        "model": b'"up-1"',
        "max_tokens": b"50",
        "max_completion_tokens": b"50",
    }
    one = body(b'"max_completion_tokens":400')
    assert render(one, limit_tokens=50)["max_completion_tokens"] == b"50"
    assert "max_tokens" not in render(one, limit_tokens=50)
    assert render(body(), limit_tokens=50, habits=ChatHabits("max_completion_tokens"))["max_completion_tokens"] == b"50"
    assert render(body(b'"max_tokens":null'), limit_tokens=50)["max_tokens"] == b"50"
    assert render(both)["max_tokens"] == b"500"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, b'{"include_usage":true}'),
        (b"null", b'{"include_usage":true}'),
        (b"{}", b'{"include_usage":true}'),
        (b'{"include_usage":false}', b'{"include_usage":true}'),
        (b'{"include_obfuscation": false, "x":[ 1]}', b'{"include_obfuscation":false,"x":[ 1],"include_usage":true}'),
    ],
)
def test_a_stream_always_asks_for_usage(options: bytes | None, expected: bytes) -> None:
    sent = body(b'"stream":false' + (b',"stream_options":' + options if options else b""))
    rendered = render(sent, stream=True)
    assert (rendered["stream"], rendered["stream_options"]) == (b"true", expected)
    plain = render(sent)
    assert plain.get("stream_options") == options
    assert plain["stream"] == b"false"


def test_our_own_fields_stay_with_us() -> None:
    assert "max_cost_usd" not in render(body(b'"max_cost_usd":0.5'))
    assert "metadata" not in render(body(b'"metadata":{"task_id":"t"}'))
    assert "metadata" not in render(body(b'"metadata":{"task_id":"t"},"store":true'))
    kept = render(body(b'"metadata":{"task_id":"t","a" : "b"}'))
    assert kept["metadata"] == b'{"a":"b"}'


@pytest.mark.parametrize("metadata", [b'{"a" :  "b"}', b"{}", b"null"])
def test_metadata_without_a_task_keeps_its_bytes_even_if_a_header_named_one(metadata: bytes) -> None:
    parsed = parse_chat(body(b'"metadata":' + metadata))
    parsed.task_id = "from-a-header"
    assert render(parsed)["metadata"] == metadata


def test_rendering_leaves_the_request_as_it_was() -> None:
    parsed = parse_chat(body(b'"stream":true,"metadata":{"task_id":"t"},"max_tokens":9'))
    before = dict(parsed.members)
    first = render_chat(parsed, upstream_model="a", limit_tokens=3, habits=HABITS, stream=True)
    assert parsed.members == before
    assert first == render_chat(parsed, upstream_model="a", limit_tokens=3, habits=HABITS, stream=True)


@given(st.dictionaries(st.text(max_size=8), st.integers(), max_size=6))
def test_objects_are_written_as_json(members: dict[str, int]) -> None:
    written = object_bytes({name: msgspec.Raw(str(value).encode()) for name, value in members.items()})
    assert json.loads(written) == members
