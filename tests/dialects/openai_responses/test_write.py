"""What a client of Responses is sent: events in order, and the four ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import UpstreamError, UpstreamRejected, UpstreamTooLong
from app.core.events import (
    Begin,
    CallBegins,
    CallEnds,
    CallPiece,
    Done,
    Event,
    Finished,
    Said,
    Thought,
    Used,
)
from app.core.money import Usage
from app.dialects.base import Counts
from app.dialects.openai_responses.dialect import DIALECT
from tests.dialects.openai_responses import replies
from tests.dialects.openai_responses.replies import COUNTS, OUT, events_of, joined, request_of, told

NAMESPACED = [
    {"type": "function", "name": "find", "parameters": {"type": "object"}},
    {"type": "custom", "name": "patch", "format": {"type": "text"}},
    {
        "type": "namespace",
        "name": "mcp__docs",
        "description": "d",
        "tools": [{"type": "function", "name": "read"}, {"type": "custom", "name": "note"}],
    },
]
BEGIN = Begin("chatcmpl-9", "deep-1", 17)
BEGUN = ["response.created", "response.in_progress"]


def kinds(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def completed(events: list[Event], reason: str = "stop", **members: Any) -> list[dict[str, Any]]:
    writer = DIALECT.writer(request_of(**members))
    return told(writer.write(events) + writer.complete([Finished(reason)], COUNTS, []))


def test_a_text_in_the_order_of_the_documentation() -> None:
    events = completed([BEGIN, Said("Hé "), Said("llo")])
    assert kinds(events) == kinds(told(replies.text_reply()))
    assert [event["delta"] for event in events if "delta" in event] == ["Hé ", "llo"]
    last = events[-1]["response"]
    assert (last["id"], last["model"], last["created_at"], last["status"]) == (
        "resp_9",
        "deep-1",
        17,
        "completed",
    )
    assert last["output"] == [events[-2]["item"]]
    assert last["output"][0]["content"] == [
        {"type": "output_text", "text": "Hé llo", "annotations": [], "logprobs": []}
    ]
    assert last["usage"] == {
        "input_tokens": 20,
        "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 27,
        "cost": 0.0000015,
    }


def test_the_response_repeats_its_request() -> None:
    sent = {
        "instructions": "be\nbrief",
        "tools": NAMESPACED,
        "metadata": {"task_id": "t", "a": "b"},
        "temperature": None,
        "max_cost_usd": 1,
    }
    body = json.dumps({"model": "m", "input": "hi", **sent}, indent=2).encode()
    writer = DIALECT.writer(DIALECT.parse(body, {}, {}))
    response = told(writer.write([BEGIN]))[0]["response"]
    assert response["instructions"] == "be\nbrief"
    assert response["tools"] == NAMESPACED
    assert response["metadata"] == {"a": "b"}
    assert response["temperature"] == 1.0
    assert "max_cost_usd" not in response


def test_kinds_of_text_are_parts_of_one_message() -> None:
    events = completed([BEGIN, Said("a"), Said("no", refusal=True), Said("b")])
    assert kinds(events).count("response.output_item.done") == 1
    assert [part["type"] for part in events[-1]["response"]["output"][0]["content"]] == [
        "output_text",
        "refusal",
        "output_text",
    ]
    assert [event["content_index"] for event in events if event["type"] == "response.content_part.added"] == [0, 1, 2]


def test_thinking_goes_with_its_proof_and_comes_back() -> None:
    thought = Thought("hm", origin="anthropic")
    events = completed(
        [BEGIN, thought, Thought("m", origin="anthropic"), Thought(signature="sig", ends=True), Said("a")]
    )
    assert kinds(events)[2:8] == [
        "response.output_item.added",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
    ]
    output = events[-1]["response"]["output"]
    assert output[0]["summary"] == [{"type": "summary_text", "text": "hmm"}]
    talk = DIALECT.conversation(request_of(input=output))
    (part, _) = talk.messages[0].parts
    assert (part.text, part.signature, part.origin) == ("hmm", "sig", "anthropic")  # type: ignore[union-attr]


def test_the_signature_of_a_call_comes_back_to_it() -> None:
    events = completed([BEGIN, CallBegins(0, "c", "find", signature="sig"), CallPiece(0, "{}"), CallEnds(0)])
    talk = DIALECT.conversation(request_of(input=events[-1]["response"]["output"]))
    assert [(part.name, part.signature) for part in talk.messages[0].parts] == [("find", "sig")]  # type: ignore[union-attr]


def test_calls_whose_pieces_alternate_stay_apart() -> None:
    events = completed(
        [
            BEGIN,
            CallBegins(0, "a", "find"),
            CallBegins(1, "b", "find"),
            CallPiece(1, "[2"),
            CallPiece(0, "[1]"),
            CallPiece(1, "]"),
        ],
        "tool_calls",
        tools=NAMESPACED,
    )
    output = events[-1]["response"]["output"]
    assert [(item["call_id"], item["arguments"], item["status"]) for item in output] == [
        ("a", "[1]", "completed"),
        ("b", "[2]", "completed"),
    ]


def test_a_call_without_arguments_has_an_empty_object() -> None:
    events = completed([BEGIN, CallBegins(0, "", "find"), CallEnds(0)], "tool_calls")
    item = events[-1]["response"]["output"][0]
    assert item["arguments"] == "{}"
    assert item["call_id"]


def test_names_get_their_namespace_back() -> None:
    events = completed(
        [BEGIN, CallBegins(0, "a", "mcp__docs__read"), CallPiece(0, "{}")], "tool_calls", tools=NAMESPACED
    )
    item = events[-1]["response"]["output"][0]
    assert (item["type"], item["namespace"], item["name"]) == ("function_call", "mcp__docs", "read")
    assert events[2]["item"]["namespace"] == "mcp__docs"


@pytest.mark.parametrize(("name", "namespace"), [("patch", None), ("mcp__docs__note", "mcp__docs")])
@pytest.mark.parametrize("step", [1, 3, 100])
def test_a_function_is_turned_back_into_a_custom_tool(name: str, namespace: str | None, step: int) -> None:
    text = '*** "Begin"\n\\ é 😀 \u2028'
    arguments = json.dumps({"input": text})
    pieces: list[Event] = [CallPiece(0, arguments[at : at + step]) for at in range(0, len(arguments), step)]
    events = completed([BEGIN, CallBegins(0, "a", name), *pieces, CallEnds(0)], "tool_calls", tools=NAMESPACED)
    item = events[-1]["response"]["output"][0]
    assert (item["type"], item["input"], item.get("namespace")) == ("custom_tool_call", text, namespace)
    deltas = [event["delta"] for event in events if event["type"] == "response.custom_tool_call_input.delta"]
    assert "".join(deltas) == text
    assert step > 3 or len(deltas) > 3
    assert next(event for event in events if event["type"].endswith("input.done"))["input"] == text


def test_free_text_of_a_custom_tool_goes_on_as_it_is() -> None:
    call: list[Event] = [CallBegins(0, "a", "patch", custom=True), CallPiece(0, '{"input": 1}'), CallEnds(0)]
    events = completed([BEGIN, *call], "tool_calls", tools=NAMESPACED)
    assert events[-1]["response"]["output"][0]["input"] == '{"input": 1}'


def test_the_clients_own_limit_leaves_half_a_call_without_its_end() -> None:
    half: list[Event] = [CallBegins(0, "a", "find"), CallPiece(0, '{"q":"x"}'), CallBegins(1, "b", "find")]
    events = completed([BEGIN, Said("a"), *half, CallPiece(1, '{"q":')], "length")
    assert events[-1]["type"] == "response.incomplete"
    last = events[-1]["response"]
    assert (last["status"], last["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert [item["status"] for item in last["output"]] == ["completed", "completed", "incomplete"]
    ended = [event["item"].get("call_id") for event in events if event["type"] == "response.output_item.done"]
    assert ended == [None, "a"]


def test_a_filter_makes_a_reply_incomplete() -> None:
    assert completed([BEGIN], "content_filter")[-1]["response"]["incomplete_details"] == {"reason": "content_filter"}


def test_a_cut_fails_with_the_code_that_codex_takes_as_final() -> None:
    writer = DIALECT.writer(request_of())
    stream = writer.write([BEGIN, Said("half a"), CallBegins(0, "a", "find"), CallPiece(0, '{"q":"x"}')])
    events = told(stream + writer.cut(OUT, Counts(Usage(5, 2), exact=False, cost_nano=None)))
    assert events[-1]["type"] == "response.failed"
    last = events[-1]["response"]
    assert (last["status"], last["error"]) == ("failed", {"code": "invalid_prompt", "message": OUT.message})
    assert [item["type"] for item in last["output"]] == ["message"]
    assert (last["usage"]["output_tokens"], last["usage"]["cost"], last["usage"]["estimated"]) == (2, None, True)
    assert "function_call" not in str([event for event in events if event["type"].endswith("item.done")])


def test_a_cut_in_a_text_tells_what_there_is_of_it() -> None:
    writer = DIALECT.writer(request_of())
    events = told(writer.write([BEGIN, Said("half a")]) + writer.cut(OUT, COUNTS))
    (item,) = events[-1]["response"]["output"]
    assert (item["status"], item["content"][0]["text"]) == ("incomplete", "half a")


def test_a_cut_before_the_first_event_is_a_stream_too() -> None:
    writer = DIALECT.writer(request_of())
    assert kinds(told(writer.cut(OUT, COUNTS))) == [*BEGUN, "response.failed"]


def test_a_soft_cut_ends_as_the_output_limit_does() -> None:
    writer = DIALECT.writer(request_of())
    events = told(writer.write([BEGIN, Said("half a")]) + writer.cut_softly(b'{"limit":"task"}', COUNTS))
    assert kinds(events)[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    last = events[-1]["response"]
    assert last["incomplete_details"] == {"reason": "max_output_tokens"}
    assert last["bursar"] == {"cut": {"limit": "task"}}
    assert last["output"][0]["status"] == "incomplete"


def test_a_dead_upstream_is_an_error_that_clients_may_retry() -> None:
    writer = DIALECT.writer(request_of())
    events = told(writer.write([BEGIN, Said("a")]) + writer.broken(UpstreamError("gone")))
    assert events[-1]["response"]["error"] == {"code": "server_error", "message": "gone"}
    assert events[-1]["response"]["usage"] is None


@pytest.mark.parametrize("body", [b'{"message":"Bad schema.","type":"t","code":null}', b'"?"'])
def test_a_refusal_after_comments_is_final_and_says_why(body: bytes) -> None:
    """The head was sent while the provider thought, so its 400 can only be told in the stream."""
    rejected = UpstreamRejected("Refused.", upstream_status=400, body=body)
    said = told(DIALECT.writer(request_of()).broken(rejected))[-1]["response"]["error"]
    assert said == {"code": "invalid_prompt", "message": "Bad schema." if b"Bad" in body else "Refused."}


def test_a_prompt_that_is_too_long_is_told_by_the_code_that_makes_codex_compact() -> None:
    """Tried with codex 0.169: by any other code the conversation stays as long as it is."""
    body = b'{"message": "It does not fit.", "type": "invalid_request_error", "param": null, "code": null}'
    error = UpstreamTooLong("Refused.", upstream_status=400, body=body)
    said = told(DIALECT.writer(request_of()).broken(error))[-1]["response"]["error"]
    assert said == {"code": "context_length_exceeded", "message": "It does not fit."}


TEXTS = st.text(min_size=1, max_size=8)


@st.composite
def turns(draw: st.DrawFn) -> list[Event]:
    events: list[Event] = [Begin("resp_1", "m", 3)]
    calls = 0
    for kind in draw(st.lists(st.sampled_from(["said", "refused", "thought", "call", "custom"]), max_size=6)):
        pieces = draw(st.lists(TEXTS, min_size=1, max_size=3))
        if kind == "thought":
            proof = draw(st.none() | st.just("gAAA"))
            events += [Thought(text, origin="openai_responses") for text in pieces]
            events.append(Thought(encrypted=proof, ends=True, origin="openai_responses"))
        elif kind in ("said", "refused"):
            events += [Said(text, refusal=kind == "refused") for text in pieces]
        else:
            custom = kind == "custom"
            arguments = pieces if custom else [json.dumps({"a": "".join(pieces)})]
            events.append(CallBegins(calls, f"call_{calls}", "patch" if custom else "find", custom=custom))
            events += [CallPiece(calls, text) for text in arguments]
            events.append(CallEnds(calls))
            calls += 1
    return events


def plain(events: list[Event]) -> list[Event]:
    made = [Finished(event.reason) if isinstance(event, Finished) else event for event in joined(events)]
    for event in made:
        if isinstance(event, Thought):
            event.id = None
    return made


@given(turns())
def test_what_the_writer_writes_the_reader_reads(events: list[Event]) -> None:
    request = request_of(tools=NAMESPACED)
    reason = "tool_calls" if any(isinstance(event, CallBegins) for event in events) else "stop"
    ends: list[Event] = [Finished(reason), Used(COUNTS.usage), Done()]
    writer = DIALECT.writer(request)
    stream = writer.write(events) + writer.complete([Finished(reason)], COUNTS, [])
    told(stream)
    read = plain(events_of(stream))
    expected = [
        Used(Usage(20, 7, 8, 0, 0, 3, 1500)) if isinstance(event, Used) else event for event in [*events, *ends]
    ]
    assert read == plain(expected)
    whole = DIALECT.whole(request, [*events, *ends], COUNTS, None)
    assert json.loads(whole) == json.loads(replies.frames_of(stream)[-1].data or b"")["response"]
    assert plain(DIALECT.reader().whole(whole)) == plain(expected)


@given(turns(), st.data(), st.sampled_from(["cut", "soft", "broken", "length"]))
def test_no_end_anywhere_tells_of_half_a_call_as_whole(events: list[Event], data: st.DataObject, end: str) -> None:
    events = events[: data.draw(st.integers(0, len(events)))]
    writer = DIALECT.writer(request_of(tools=NAMESPACED))
    ends = {
        "cut": lambda: writer.cut(OUT, COUNTS),
        "soft": lambda: writer.cut_softly(b"{}", COUNTS),
        "broken": lambda: writer.broken(UpstreamError("gone")),
        "length": lambda: writer.complete([Finished("length")], COUNTS, []),
    }
    found = told(writer.write(events) + ends[end]())
    whole = {event.index for event in events if isinstance(event, CallEnds)}
    begun = [event for event in events if isinstance(event, CallBegins)]
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    output = found[-1]["response"]["output"]
    told_whole = {item["call_id"] for item in [*done, *output] if "call_id" in item and item["status"] == "completed"}
    halves = {call.id for call in begun if call.index not in whole and call.custom}
    assert {call.id for call in begun if call.index in whole} <= told_whole
    assert not halves & told_whole
    assert all(json.loads(item["arguments"]) is not None for item in done if item["type"] == "function_call")
    last = "response.incomplete" if end in ("soft", "length") else "response.failed"
    assert [event["type"] for event in found if event["type"] in (last, "response.completed")] == [last]
    assert found[-1]["type"] == last
