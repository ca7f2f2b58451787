"""What of a request is stored here, and how a response is told and kept."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import BadRequest
from app.core.events import Finished
from app.core.sse import SseParser
from app.core.stored import Stored
from app.core.types import ChatRequest
from app.dialects.openai_chat.parse import members_of
from app.dialects.openai_responses.dialect import DIALECT
from app.dialects.openai_responses.parse import parse_members
from app.dialects.openai_responses.stored import (
    Asked,
    by_id,
    going_on,
    gone_on_from,
    items_in,
    kept_in,
    listed,
    named,
    own_items,
    said_in,
    wants_stored,
)
from app.dialects.openai_responses.thoughts import refuses_thoughts
from tests.dialects.openai_responses.replies import COUNTS, OUT, request_of, sse

ANSWER = {"type": "message", "id": "a", "role": "assistant", "content": "1"}
STORED = Stored("resp_bursar_1", "resp_bursar_0")


def members(**given: Any) -> dict[str, msgspec.Raw]:
    return members_of(json.dumps({"model": "m", "input": "hi", **given}).encode())


def stored(**given: Any) -> ChatRequest:
    return parse_members(members(**given), {}, STORED)


def raws(*items: Any) -> list[msgspec.Raw]:
    return [msgspec.Raw(json.dumps(item).encode()) for item in items]


@pytest.mark.parametrize(
    ("given", "previous", "references", "elsewhere"),
    [
        ({}, None, [], False),
        ({"previous_response_id": "resp_1"}, "resp_1", [], False),
        ({"previous_response_id": None, "conversation": None}, None, [], False),
        ({"conversation": "conv_1"}, None, [], True),
        ({"prompt": {"id": "p"}}, None, [], True),
        ({"input": [{"type": "item_reference", "id": "a"}, {"id": "b"}]}, None, ["a", "b"], False),
        ({"input": [{"role": "user", "content": "x", "id": "a"}]}, None, [], False),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x", "id": "a"}]}, None, [], False),
        ({"input": 'a text with "id" in it'}, None, [], False),
    ],
)
def test_what_is_elsewhere(given: Any, previous: str | None, references: list[str], elsewhere: bool) -> None:
    asked = Asked(members(**given))
    assert (asked.previous_id, asked.references, asked.elsewhere) == (previous, references, elsewhere)


def test_an_item_is_said_once_however_often_it_is_named() -> None:
    given = members(input=[{"id": "a"}, {"id": "b"}, {"type": "item_reference", "id": "a"}, {"id": "nowhere"}])
    assert Asked(given).references == ["a", "b", "nowhere"]
    found = by_id(raws({"type": "reasoning", "id": "a"}, {"type": "reasoning", "id": "b"}))
    assert own_items(given, found) == [found["a"], found["b"], *raws({"id": "nowhere"})]
    assert own_items(given, found, [found["a"]]) == [found["b"], *raws({"id": "nowhere"})]


def test_half_a_call_is_not_gone_on_from() -> None:
    call = {"type": "function_call", "id": "c", "call_id": "c", "name": "look", "arguments": "{}"}
    output = [ANSWER, call, {**call, "arguments": '{"a'}, {**call, "status": "incomplete"}, {"type": "odd", "id": 5}]
    found = gone_on_from(json.dumps({**REPLY, "output": output}).encode())
    assert [json.loads(bytes(item)) for item in found] == [ANSWER, call, {"type": "odd", "id": 5}]


@pytest.mark.parametrize(("given", "wanted"), [({}, True), ({"store": None}, True), ({"store": True}, True)])
def test_whether_it_may_be_stored(given: Any, wanted: bool) -> None:
    assert wants_stored(members(**given)) is wanted
    assert not wants_stored(members(store=False))
    with pytest.raises(BadRequest) as refused:
        wants_stored(members(store="no"))
    assert refused.value.param == "store"


def test_a_request_becomes_the_whole_conversation() -> None:
    before = raws(
        {"role": "user", "content": "One"}, {"type": "message", "id": "a", "role": "assistant", "content": "1"}
    )
    given = members(input=[{"id": "b"}, {"role": "user", "content": "Two"}], previous_response_id="r", instructions="I")
    own = own_items(given, {"b": raws({"type": "reasoning", "id": "b", "summary": []})[0]})
    whole = going_on(given, before, own)
    assert list(whole) == ["model", "input", "instructions"]
    items = json.loads(bytes(whole["input"]))
    assert [item.get("type") or item["role"] for item in items] == ["user", "message", "reasoning", "user"]
    assert bytes(whole["input"]).startswith(b"[" + bytes(before[0])), "what is stored keeps its bytes"
    assert "previous_response_id" in going_on(given, None, own)


def test_a_text_is_an_item_and_nothing_is_none() -> None:
    (item,) = own_items(members(input="Hé"), {})
    assert json.loads(bytes(item))["content"] == [{"type": "input_text", "text": "Hé"}]
    given = members(previous_response_id="r")
    del given["input"]
    assert own_items(given, {}) == []


TURNS: st.SearchStrategy[list[Any]] = st.lists(
    st.one_of(
        st.text(min_size=1).map(lambda text: {"role": "user", "content": text}),
        st.text(min_size=1).map(
            lambda text: {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": text, "annotations": []}],
            }
        ),
        st.integers(0, 99).map(
            lambda number: {
                "type": "function_call",
                "call_id": f"c{number}",
                "name": "look",
                "arguments": json.dumps({"n": number}),
            }
        ),
        st.integers(0, 99).map(
            lambda number: {"type": "function_call_output", "call_id": f"c{number}", "output": str(number)}
        ),
    ),
    min_size=1,
    max_size=12,
)


@given(TURNS, st.data())
@settings(deadline=None)
def test_a_conversation_in_parts_is_the_conversation(turns: list[Any], data: st.DataObject) -> None:
    """Wherever it is stored, and whatever of it is only named."""
    items = [{**item, "id": f"i{place}"} for place, item in enumerate(turns)]
    cut = data.draw(st.integers(0, len(items) - 1))
    is_named = data.draw(st.lists(st.booleans(), min_size=len(items), max_size=len(items)))
    rest = [{"id": item["id"]} if named else item for item, named in zip(items[cut:], is_named[cut:], strict=True)]
    sent = members(input=rest, previous_response_id="r")
    before, found = raws(*items[:cut]), by_id(raws(*items))
    request = parse_members(going_on(sent, before, own_items(sent, found, before)), {}, STORED)
    whole = parse_members({**members(), "input": listed(raws(*items))}, {})
    assert DIALECT.conversation(request) == DIALECT.conversation(whole)
    assert request.prompt == whole.prompt
    assert json.loads(bytes(request.members["input"])) == items


REPLY = {"id": "r", "object": "response", "status": "completed", "output": [{"id": "a"}, {"type": "x"}, {"id": 5}]}


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    ("changed", "kept"),
    [
        ({}, True),
        ({"status": "incomplete"}, True),
        ({"status": "failed"}, False),
        ({"status": "in_progress"}, False),
        ({"object": "list"}, False),
        ({"output": None}, False),
    ],
)
def test_what_is_kept_of_a_reply(streamed: bool, changed: Any, kept: bool) -> None:
    reply = {**REPLY, **changed}
    end = json.dumps(reply).encode()
    if streamed:
        kind = f"response.{reply['status']}"
        end = sse({"type": "response.output_item.done", "item": {}}, {"type": kind, "response": reply})
        end += b": comment\n\ndata: [DONE]\n\n"
    found = kept_in(end, streamed=streamed)
    assert (found is not None) is kept
    if found is not None:
        assert json.loads(found) == reply
        assert len(said_in(found)) == 3
        assert list(by_id(said_in(found))) == ["a"]


@pytest.mark.parametrize("end", [b"", b"{}", b'{"error":{}}', b"data: {", b"data: \xff\n\n", b"null", b"[" * 5_000])
def test_what_is_no_reply_is_not_kept(end: bytes) -> None:
    assert kept_in(end, streamed=True) is None
    assert kept_in(end, streamed=False) is None


def test_items_are_listed_by_their_names() -> None:
    items = raws(
        {"role": "user", "content": "One"}, {"type": "message", "id": "a", "role": "assistant", "content": "1"}
    )
    found = [item.shown() for item in named(items, "resp_bursar_1", set())]
    assert found == [
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "One"}],
            "id": "msg_bursar_1_in_0",
            "type": "message",
            "status": "completed",
        },
        {
            "type": "message",
            "id": "a",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "1"}],
            "status": "completed",
        },
    ]
    assert items_in(bytes(listed(items))) == items


@pytest.mark.parametrize(
    ("model", "given", "included"),
    [
        ("gpt-5", {}, ["reasoning.encrypted_content"]),
        ("gpt-5", {"include": ["x"]}, ["x", "reasoning.encrypted_content"]),
        ("o3", {"include": ["reasoning.encrypted_content"]}, ["reasoning.encrypted_content"]),
        ("gpt-4.1", {}, None),
        ("qwen3", {"include": ["x"]}, ["x"]),
    ],
)
def test_what_is_stored_here_is_not_at_the_provider_and_its_thoughts_come_along(
    model: str, given: Any, included: Any
) -> None:
    for request, store in ((stored(**given), False), (request_of(**given), None)):
        sent = json.loads(DIALECT.patch(request, model=model, limit_tokens=None, stream=False).body)
        assert sent.get("store") is store
        assert sent.get("include") == (included if store is False else given.get("include"))
    with pytest.raises(BadRequest) as refused:
        DIALECT.patch(stored(include=5), model="gpt-5", limit_tokens=None, stream=False)
    assert refused.value.param == "include"


def told(stream: bytes) -> list[Any]:
    return [json.loads(frame.data) for frame in SseParser().feed(stream) if frame.data]


def test_a_passing_stream_has_one_name() -> None:
    theirs = {"id": "resp_up", "object": "response", "status": "in_progress", "output": [], "store": False}
    end = {**theirs, "status": "completed", "usage": None}
    stream = sse(
        {"type": "response.created", "response": theirs},
        {"type": "response.output_text.delta", "item_id": "a", "output_index": 0, "content_index": 0, "delta": "Hi"},
        {"type": "response.completed", "response": end},
    )
    writer, frames = DIALECT.writer(stored()), SseParser().feed(stream)
    out = writer.passed(frames[0], []) + writer.passed(frames[1], [])
    assert frames[1].raw in out, "what says nothing of the response passes as it came"
    out += writer.complete([Finished("stop")], COUNTS, [frames[2]])
    first, _, last = told(out)
    for event in (first, last):
        response = event["response"]
        assert (response["id"], response["store"]) == ("resp_bursar_1", True)
        assert response["previous_response_id"] == "resp_bursar_0"
    assert last["response"]["usage"]["cost"] == pytest.approx(0.0000015)
    cut = DIALECT.writer(stored())
    cut.passed(frames[0], [])
    (failed,) = told(cut.cut(OUT, COUNTS))
    assert failed["response"]["id"] == "resp_bursar_1"


def test_a_whole_reply_has_its_name_and_the_rest_of_its_bytes() -> None:
    body = b'{"id":"resp_up","store":false,"output":[ ],"usage":{"input_tokens" : 3},"zz":[ ]}'
    assert DIALECT.with_cost(stored(), body, COUNTS) == (
        b'{"id":"resp_bursar_1","store":true,"output":[ ],"usage":{"input_tokens":3,"cost":0.0000015},"zz":[ ],'
        b'"previous_response_id":"resp_bursar_0"}'
    )


def test_thoughts_that_a_provider_has_not_stored_are_left_out() -> None:
    """https://github.com/anomalyco/opencode/issues/7724"""
    said = "Item with id 'rs_1' not found. Items are not persisted when `store` is set to false."
    assert refuses_thoughts(json.dumps({"error": {"message": said}}).encode())
    assert not refuses_thoughts(json.dumps({"error": {"message": said.replace("rs_1", "msg_1")}}).encode())
