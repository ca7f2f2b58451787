"""A request for an upstream of the same dialect keeps its bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dialects.openai_responses.dialect import DIALECT
from app.dialects.openai_responses.proofs import sealed, sealed_call
from tests.dialects.openai_responses.replies import request_of


def patched(body: bytes, limit: int | None = None, stream: bool = False) -> bytes:
    request = DIALECT.parse(body, {}, {})
    return DIALECT.patch(request, model="up", limit_tokens=limit, stream=stream).body


def test_only_what_must_change_is_changed() -> None:
    body = (
        b'{"model":"m", "input" : [ {"role":"user",\n"content":"hi", "cache_control": {"a" : 1}} ], "store":false,'
        b'"new_thing":{"b" : [1.50, 1e3]},"stream":true,"max_output_tokens":100,"max_cost_usd":0.5,'
        b'"metadata":{"task_id":"t","k":"v"},"previous_response_id":"resp_0","include":["x"]}'
    )
    assert patched(body, limit=40, stream=True) == (
        b'{"model":"up","input":[ {"role":"user",\n"content":"hi", "cache_control": {"a" : 1}} ],"store":false,'
        b'"new_thing":{"b" : [1.50, 1e3]},"stream":true,"max_output_tokens":40,'
        b'"metadata":{"k":"v"},"previous_response_id":"resp_0","include":["x"]}'
    )


def test_path_and_headers() -> None:
    request = DIALECT.parse(b'{"model":"m","input":""}', {"openai-beta": "x"}, {})
    sent = DIALECT.patch(request, model="up", limit_tokens=None, stream=False)
    assert (sent.path, sent.headers, sent.body) == ("/responses", {"openai-beta": "x"}, b'{"model":"up","input":""}')


@pytest.mark.parametrize(("asked", "sent"), [(True, False), (False, True), (True, True), (False, False)])
def test_what_is_streamed_upstream_is_not_the_clients_choice(asked: bool, sent: bool) -> None:
    body = json.dumps({"model": "m", "input": "", "stream": asked, "stream_options": {"include_obfuscation": False}})
    members = json.loads(patched(body.encode(), stream=sent))
    assert members["stream"] is sent
    assert ("stream_options" in members) is sent


def test_a_limit_is_added_where_the_client_set_none() -> None:
    assert json.loads(patched(b'{"model":"m","input":""}', limit=7))["max_output_tokens"] == 7


def test_metadata_of_ours_alone_leaves_nothing() -> None:
    assert b"metadata" not in patched(b'{"model":"m","input":"","metadata":{"task_id":"t"}}')


def test_thoughts_of_other_providers_are_taken_out_and_nothing_else() -> None:
    proofs = (
        sealed("anthropic", "sig", None),
        sealed("gemini", None, "enc"),
        sealed("", None, None),
        sealed_call("sig"),
    )
    foreign: list[dict[str, Any]] = [
        {"type": "reasoning", "summary": [], "encrypted_content": proof} for proof in proofs
    ]
    own: list[dict[str, Any]] = [
        {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "gAAA"},
        {"role": "user", "content": 'what is "bursar:x"?', "odd": "bursar:y"},
    ]
    items = [own[0], *foreign, own[1]]
    body = DIALECT.patch(request_of(input=items), model="up", limit_tokens=None, stream=False).body
    assert json.loads(body)["input"] == own


@given(
    st.dictionaries(
        st.text(min_size=1).filter(
            lambda name: name not in ("model", "input", "stream", "stream_options", "metadata", "max_cost_usd")
        ),
        st.recursive(
            st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda x: st.lists(x, max_size=3),
        ),
        max_size=5,
    )
)
def test_members_unknown_here_pass(members: dict[str, Any]) -> None:
    known = {"background", "max_output_tokens", "instructions", "prompt_cache_key", "tools", "text", "reasoning"}
    members = {name: value for name, value in members.items() if name not in known}
    body = json.dumps({"model": "up", "input": "hi", **members}, separators=(",", ":"), ensure_ascii=False).encode()
    assert patched(body) == body
