"""Streams for Gemini's clients: chunks and nothing else, whole calls, and every ending as WIRE.md has it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import UpstreamError, UpstreamTimeout
from app.core.events import (
    Begin,
    CallBegins,
    CallEnds,
    CallPiece,
    Done,
    Event,
    Extra,
    Finished,
    Said,
    Thought,
    Used,
)
from app.core.money import Usage
from app.core.sse import Frame
from app.dialects.base import Counts
from app.dialects.gemini.dialect import DIALECT
from app.dialects.gemini.proof import thinking_of
from app.dialects.gemini.write import GeminiWriter
from tests.dialects.gemini.exchange import (
    COUNTS,
    SIGNATURE,
    chunk,
    denied,
    frames,
    parsed,
    read,
    sse,
    streamed,
    written,
)

BEGIN = Begin("r1", "other-model")


def array() -> Any:
    """A request whose reply is streamed as an array."""
    return parsed(verb="streamGenerateContent")


def objects(body: bytes) -> list[dict[str, Any]]:
    """The chunks of a stream."""
    return [json.loads(frame.data) for frame in frames(body) if frame.data is not None]


def parts(body: bytes) -> list[dict[str, Any]]:
    """All parts of the only candidate."""
    return [part for data in objects(body) for part in data["candidates"][0]["content"]["parts"]]


def test_text() -> None:
    assert written(streamed(), [BEGIN, Said("Grü\nße"), Finished("stop")]).decode() == (
        'data: {"candidates":[{"content":{"parts":[{"text":"Grü\\nße"}],"role":"model"},"index":0}],'
        '"modelVersion":"other-model","responseId":"r1"}\n\n'
        'data: {"candidates":[{"content":{"parts":[{"text":""}],"role":"model"},"finishReason":"STOP","index":0}],'
        '"usageMetadata":{"promptTokenCount":10,"candidatesTokenCount":5,"totalTokenCount":17,"thoughtsTokenCount":2,'
        '"cachedContentTokenCount":4,"cost":0.0000015},"modelVersion":"other-model","responseId":"r1"}\n\n'
    )


def test_an_unknown_cost_is_null_and_an_estimate_says_so() -> None:
    usage = objects(written(streamed(), [Finished("stop")], Counts(Usage(3, 4), exact=False, cost_nano=None)))
    assert usage[-1]["usageMetadata"] == {
        "promptTokenCount": 3,
        "candidatesTokenCount": 4,
        "totalTokenCount": 7,
        "estimated": True,
        "cost": None,
    }


def test_calls_are_whole_and_parallel() -> None:
    body = written(
        streamed(),
        [
            CallBegins(0, "a", "f", signature=SIGNATURE),
            CallBegins(1, "b", "g"),
            CallPiece(1, '{"y":\n1'),
            CallPiece(0, '{"x": "'),
            CallPiece(1, "}"),
            CallPiece(0, '1"}'),
            CallEnds(1),
            CallBegins(2, "c", "h"),
            Finished("tool_calls"),
        ],
    )
    assert parts(body) == [
        {"functionCall": {"id": "b", "name": "g", "args": {"y": 1}}},
        {"functionCall": {"id": "a", "name": "f", "args": {"x": "1"}}, "thoughtSignature": SIGNATURE},
        {"functionCall": {"id": "c", "name": "h", "args": {}}},
    ]
    assert [data["candidates"][0].get("finishReason") for data in objects(body)] == [None, None, "STOP"]


def test_a_call_is_sent_as_soon_as_another_thing_begins() -> None:
    writer = GeminiWriter(streamed())
    assert writer.write([CallBegins(0, "a", "f"), CallPiece(0, '{"x":1}')]) == b""
    assert b'"id":"a"' in writer.write([CallBegins(1, "b", "f")])


@pytest.mark.parametrize(
    ("reason", "word"),
    [("tool_calls", "MALFORMED_FUNCTION_CALL"), ("stop", "MALFORMED_FUNCTION_CALL"), ("length", "MAX_TOKENS")],
)
@pytest.mark.parametrize("arguments", ['{"x": "ha', "[1]", '"x"'])
def test_half_a_call_is_never_sent(reason: str, word: str, arguments: str) -> None:
    events: list[Event] = [Said("Hi"), CallBegins(0, "a", "f"), CallPiece(0, arguments), Finished(reason)]
    body = written(streamed(), events)
    assert b"functionCall" not in body
    assert objects(body)[-1]["candidates"][0]["finishReason"] == word


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("stop", "STOP"),
        ("tool_calls", "STOP"),
        ("length", "MAX_TOKENS"),
        ("content_filter", "SAFETY"),
        ("malformed_function_call", "MALFORMED_FUNCTION_CALL"),
        ("pause_turn", "OTHER"),
    ],
)
def test_finish_reasons(reason: str, word: str) -> None:
    assert objects(written(streamed(), [Finished(reason)]))[-1]["candidates"][0]["finishReason"] == word


def test_thinking_of_others_travels_under_our_mark() -> None:
    events: list[Event] = [
        Thought("hm", origin="anthropic"),
        Thought("", signature="c2ln+/==", ends=True, origin="anthropic"),
        Thought("", encrypted="secret:ü", ends=True, origin="openai_responses", id="rs_1"),
        Thought("", signature="whose", ends=True),
        Finished("stop"),
    ]
    found = parts(written(streamed(), events))
    thoughts = [thinking_of(part["text"], part.get("thoughtSignature")) for part in found if part.get("thought")]
    assert [(t.text, t.signature, t.encrypted, t.origin, t.id) for t in thoughts] == [
        ("hm", None, None, "gemini", None),
        ("", "c2ln+/==", None, "anthropic", None),
        ("", None, "secret:ü", "openai_responses", "rs_1"),
    ]


def test_several_candidates() -> None:
    request = streamed(generationConfig={"candidateCount": 2})
    writer = GeminiWriter(request)
    body = writer.write([Said("a"), Said("b", 1), Said("c")])
    assert [c["content"]["parts"] for c in objects(body)[0]["candidates"]] == [[{"text": "ac"}], [{"text": "b"}]]
    ended = objects(writer.complete([Finished("stop", 1), Finished("length")], COUNTS, []))[0]["candidates"]
    assert [(c["index"], c["finishReason"]) for c in ended] == [(1, "STOP"), (0, "MAX_TOKENS")]


def test_the_cut_is_bare_json_in_a_piece_of_its_own() -> None:
    writer = GeminiWriter(streamed())
    writer.write([BEGIN, Said("Hi"), CallBegins(0, "a", "f"), CallPiece(0, '{"x":1')])
    error = writer.cut(denied(), COUNTS)
    assert error.startswith(b'{"error":{"code":402,"message":"Task is out of budget')
    assert json.loads(error) == {"error": {"code": 402, "message": denied().message, "status": "FAILED_PRECONDITION"}}
    assert b"\n" not in error


def test_the_soft_cut() -> None:
    writer = GeminiWriter(streamed(generationConfig={"candidateCount": 2}))
    writer.write([BEGIN, Said("Hi")])
    [data] = objects(writer.cut_softly(b'{"reason":"cost"}', COUNTS))
    assert [c["finishReason"] for c in data["candidates"]] == ["MAX_TOKENS", "MAX_TOKENS"]
    assert data["bursar"] == {"cut": {"reason": "cost"}}
    assert data["usageMetadata"]["cost"] == 0.0000015
    assert data["responseId"] == "r1"


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [(UpstreamError("It died."), 502, "UNAVAILABLE"), (UpstreamTimeout("Late."), 504, "DEADLINE_EXCEEDED")],
)
def test_a_dead_upstream_is_an_error_that_clients_retry(error: UpstreamError, code: int, status: str) -> None:
    found = json.loads(GeminiWriter(streamed()).broken(error))
    assert found == {"error": {"code": code, "message": error.message, "status": status}}


def test_an_array() -> None:
    whole = written(array(), [BEGIN, Said("a"), Said("b"), Finished("stop")])
    assert whole.startswith(b'[{"candidates"')
    assert b'"}]}' not in whole
    assert b"},\r\n{" in whole
    assert b"data:" not in whole
    assert ["".join(part["text"] for part in c["candidates"][0]["content"]["parts"]) for c in json.loads(whole)] == [
        *("a", "b", "")
    ]


@pytest.mark.parametrize("said", [[], [Said("a")]])
def test_an_array_is_closed_at_every_end(said: list[Event]) -> None:
    for end in ("cut", "soft", "broken", "complete"):
        writer = GeminiWriter(array())
        body = writer.write(said)
        if end == "soft":
            body += writer.cut_softly(b"{}", COUNTS)
        elif end == "complete":
            body += writer.complete([], COUNTS, [])
        else:
            body += writer.cut(denied(), COUNTS) if end == "cut" else writer.broken(UpstreamError("It died."))
        found = json.loads(body)
        assert len(found) == len(said) + 1
        assert ("error" in found[-1]) == (end in ("cut", "broken"))


HELD = sse(chunk({"text": "b"}, finish="STOP", usage={"promptTokenCount": 3, "unknown": [1, 2.50]}), chunk())
FRAME = sse(chunk({"text": "a"}))


def test_the_same_dialect_passes_as_it_came() -> None:
    writer = GeminiWriter(streamed())
    first, comment = frames(FRAME)[0], Frame(b": keepalive\n\n", None)
    assert writer.passed(first, [BEGIN]) == FRAME
    assert writer.passed(comment, []) == b""
    assert writer.passed(Frame(b"data: \n\n", b""), []) == b""
    mixed = Frame(b": ping\n" + FRAME, first.data)
    assert frames(writer.passed(mixed, []))[0].data == first.data
    ended = writer.complete([Finished("stop")], COUNTS, [*frames(HELD), comment])
    kept = [frame.data for frame in frames(HELD)]
    assert kept[0] is not None
    assert [frame.data for frame in frames(ended)] == [kept[0].replace(b"2.5]", b'2.5],"cost":0.0000015'), kept[1]]


def test_the_same_dialect_without_usage_gets_ours() -> None:
    ended = GeminiWriter(streamed()).complete([Finished("stop")], COUNTS, frames(sse(chunk(finish="STOP"))))
    assert objects(ended)[0]["usageMetadata"]["promptTokenCount"] == 10


def test_the_same_dialect_as_an_array() -> None:
    writer = GeminiWriter(array())
    body = b"".join(writer.passed(frame, []) for frame in frames(FRAME + FRAME))
    body += writer.complete([Finished("stop")], COUNTS, frames(HELD))
    assert [c["candidates"][0]["content"]["parts"] for c in json.loads(body)] == [
        *([{"text": "a"}], [{"text": "a"}], [{"text": "b"}], [])
    ]
    cut = GeminiWriter(array())
    cut.passed(frames(FRAME)[0], [])
    assert cut.cut(denied(), COUNTS).startswith(b',\r\n{"error"')


def test_extras_go_on_within_the_dialect() -> None:
    picture = b'{"inlineData":\n{"mimeType":"image/png","data":"AA"}}'
    events: list[Event] = [
        Extra("part", picture, "gemini"),
        Extra("part", b'{"foreign":1}', "anthropic"),
        Extra("groundingMetadata", b'{"a":1}', "gemini"),
        Finished("stop"),
    ]
    body = written(streamed(), events)
    assert json.loads(picture) in parts(body)
    assert objects(body)[-1]["candidates"][0]["groundingMetadata"] == {"a": 1}
    assert b"foreign" not in body


def test_a_whole_reply() -> None:
    events: list[Event] = [
        BEGIN,
        Thought("h"),
        Thought("m", signature=SIGNATURE, ends=True, origin="gemini"),
        Said("Hel"),
        Said("lo"),
        CallBegins(0, "a", "f"),
        CallPiece(0, "{}"),
        Finished("tool_calls"),
        Used(Usage(1, 1)),
        Done(),
    ]
    reply = json.loads(DIALECT.whole(streamed(), events, COUNTS, None))
    assert reply["candidates"] == [
        {
            "content": {
                "parts": [
                    {"text": "hm", "thought": True, "thoughtSignature": SIGNATURE},
                    {"text": "Hello"},
                    {"functionCall": {"id": "a", "name": "f", "args": {}}},
                ],
                "role": "model",
            },
            "finishReason": "STOP",
            "index": 0,
        }
    ]
    assert (reply["usageMetadata"]["cost"], reply["modelVersion"], reply["responseId"]) == (
        0.0000015,
        "other-model",
        "r1",
    )


def test_a_whole_reply_that_was_cut() -> None:
    events: list[Event] = [Said("Hi"), CallBegins(0, "a", "f"), CallPiece(0, "{}")]
    reply = json.loads(DIALECT.whole(parsed(), events, COUNTS, b'{"reason":"cost"}'))
    assert reply["candidates"][0]["content"]["parts"] == [{"text": "Hi"}]
    assert reply["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert reply["bursar"] == {"cut": {"reason": "cost"}}
    nothing = json.loads(DIALECT.whole(parsed(), [], COUNTS, b"{}"))
    assert [c["finishReason"] for c in nothing["candidates"]] == ["MAX_TOKENS"]


def test_a_refused_prompt_stays_one() -> None:
    events: list[Event] = [
        Extra("promptFeedback", b'{"blockReason":"SAFETY"}', "gemini"),
        Finished("content_filter"),
        Done(),
    ]
    reply = json.loads(DIALECT.whole(parsed(), events, COUNTS, None))
    assert reply["promptFeedback"] == {"blockReason": "SAFETY"}
    assert "candidates" not in reply
    [chunk_of_it] = objects(written(streamed(), events))
    assert chunk_of_it["promptFeedback"] == {"blockReason": "SAFETY"}
    assert "candidates" not in chunk_of_it


def test_feedback_without_a_refusal_stands_beside_the_candidates() -> None:
    events: list[Event] = [Said("Hi"), Extra("promptFeedback", b'{"safetyRatings":[]}', "gemini"), Finished("stop")]
    for reply in (DIALECT.whole(parsed(), events, COUNTS, None), frames(written(streamed(), events))[-1].data or b""):
        found = json.loads(reply)
        assert found["promptFeedback"] == {"safetyRatings": []}
        assert found["candidates"][0]["finishReason"] == "STOP"


def test_the_cost_is_added_to_a_reply_as_it_came() -> None:
    body = b'{\n "candidates": [ ],\n "usageMetadata": { "promptTokenCount": 1.0 },\n "x": "\\u00e9"}'
    expected = body.replace(b"1.0 }", b'1.0,"cost":0.0000015}')
    assert DIALECT.with_cost(parsed(), body, COUNTS) == expected
    again = json.loads(DIALECT.with_cost(parsed(), expected, Counts(Usage(1, 1), True, None)))
    assert again["usageMetadata"] == {"promptTokenCount": 1.0, "cost": None}
    none = json.loads(DIALECT.with_cost(parsed(), b'{"candidates":[]}', COUNTS))
    assert none["usageMetadata"]["totalTokenCount"] == 17


SAYING = (
    st.builds(Said, st.text(min_size=1))
    | st.builds(Thought, st.text(min_size=1), origin=st.just("gemini"))
    | st.builds(Thought, st.text(), signature=st.just(SIGNATURE), ends=st.just(True), origin=st.just("gemini"))
)
CALLED = st.tuples(st.text(min_size=1), st.dictionaries(st.text(), st.integers(-9, 9) | st.text()))


@given(st.lists(SAYING | CALLED, max_size=8), st.booleans())
def test_what_is_written_reads_the_same(said: list[Any], folded: bool) -> None:
    events: list[Event] = [BEGIN]
    calls = 0
    for item in said:
        if not isinstance(item, tuple):
            events.append(item)
            continue
        arguments = json.dumps(item[1], ensure_ascii=False, separators=(",", ":"))
        events += [CallBegins(calls, f"id{calls}", item[0]), CallPiece(calls, arguments), CallEnds(calls)]
        calls += 1
    events.append(Finished("tool_calls" if calls else "stop"))
    usage = Used(Usage(10, 7, 4, reasoning=2, cost_nano=1_500))
    if folded:
        again = DIALECT.reader().whole(DIALECT.whole(streamed(), events, COUNTS, None))
        assert _told(again) == _told([*events, usage, Done()])
    else:
        again = read(written(streamed(), events))
        assert [event for event in again if event != Said("")] == [*events, usage]


def _told(events: list[Event]) -> list[Event]:
    """The events with the pieces of one text or thought in one."""
    told: list[Event] = []
    for event in events:
        last = told[-1] if told else None
        if isinstance(event, Said) and isinstance(last, Said):
            told[-1] = Said(last.text + event.text)
        elif isinstance(event, Thought) and isinstance(last, Thought) and not last.ends:
            told[-1] = Thought(last.text + event.text, event.signature, None, event.ends, 0, event.origin)
        else:
            told.append(event)
    return told
