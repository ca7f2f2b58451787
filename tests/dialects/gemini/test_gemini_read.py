"""Streams as Google documents them, as canonical events, however they are cut up."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.events import (
    Begin,
    CallBegins,
    CallEnds,
    CallPiece,
    Done,
    Event,
    Extra,
    Failed,
    Finished,
    Said,
    Thought,
    Used,
)
from app.core.money import Usage
from app.core.sse import Frame
from app.dialects.base import BadEvent
from app.dialects.gemini.dialect import DIALECT
from tests.dialects.gemini.exchange import SIGNATURE, chunk, frames, read, sse

BEGIN = Begin("yTPIaLzQBYun-vdIP5YyX8AM", "gemini-2.5-pro")
CALL = {"functionCall": {"name": "weather", "args": {"place": "Zürich"}}}
USAGE = {
    "promptTokenCount": 20,
    "candidatesTokenCount": 8,
    "thoughtsTokenCount": 30,
    "cachedContentTokenCount": 16,
    "toolUsePromptTokenCount": 5,
    "totalTokenCount": 63,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 20}],
}
COUNTED = Usage(25, 38, 16, reasoning=30)

TEXT = sse(
    chunk({"text": "hm", "thought": True}, usage={"promptTokenCount": 20, "totalTokenCount": 20}),
    chunk({"text": "Grüße"}, usage={"promptTokenCount": 20, "totalTokenCount": 58, "thoughtsTokenCount": 30}),
    chunk({"text": "", "thoughtSignature": SIGNATURE}, finish="STOP", usage=USAGE),
)
CALLS = sse(
    chunk(CALL | {"thoughtSignature": SIGNATURE}, CALL, end=None),
    chunk({"functionCall": {"id": "given", "name": "time", "args": None}}, finish="STOP", usage=USAGE),
    end="\n\n",
)


def events_of(*parts: dict[str, Any], **more: Any) -> list[Event]:
    """The events of one chunk behind the first."""
    return [event for event in read(sse(chunk(*parts, **more))) if not isinstance(event, Begin)]


def test_text_and_thinking() -> None:
    signed = json.dumps({"text": "", "thoughtSignature": SIGNATURE}, separators=(",", ":")).encode()
    assert read(TEXT) == [
        BEGIN,
        Thought("hm", origin="gemini"),
        Used(Usage(20, 0), final=False),
        Said("Grüße"),
        Used(Usage(20, 38, reasoning=38), final=False),
        Extra("part", signed, "gemini"),
        Finished("stop"),
        Used(COUNTED, final=True),
    ]


def test_calls_come_whole_and_get_ids() -> None:
    arguments = '{"place": "Z\\u00fcrich"}'
    assert read(CALLS) == [
        BEGIN,
        CallBegins(0, "call_yTPIaLzQBYun-vdIP5YyX8AM_0", "weather", signature=SIGNATURE),
        CallPiece(0, arguments),
        CallEnds(0),
        CallBegins(1, "call_yTPIaLzQBYun-vdIP5YyX8AM_1", "weather"),
        CallPiece(1, arguments),
        CallEnds(1),
        CallBegins(2, "given", "time"),
        CallEnds(2),
        Finished("tool_calls"),
        Used(COUNTED),
    ]


def test_ids_differ_between_replies_that_have_none_themselves() -> None:
    def ids(text: str) -> list[str]:
        data = json.dumps({"candidates": [{"content": {"parts": [{"text": text}, CALL, CALL]}}]})
        events = DIALECT.reader().whole(data.encode())
        return [event.id for event in events if isinstance(event, CallBegins)]

    assert ids("a") == ids("a")
    assert len({*ids("a"), *ids("b")}) == 4
    assert all(len(id) <= 64 for id in ids("a"))


@pytest.mark.parametrize("body", [TEXT, CALLS])
@pytest.mark.parametrize("tail", [b"", b": late\n\n", b"\n\n", b"event: end\n\n"])
def test_byte_by_byte_and_with_trailing_bytes(body: bytes, tail: bytes) -> None:
    reader = DIALECT.reader()
    slow = frames(b"", [bytes([byte]) for byte in body + tail])
    assert [event for frame in slow for event in reader.read(frame)] == read(body)


@given(st.sets(st.integers(1, len(TEXT) - 1), max_size=6))
def test_any_segmentation(places: set[int]) -> None:
    edges = [0, *sorted(places), len(TEXT)]
    reader = DIALECT.reader()
    found = frames(b"", [TEXT[a:b] for a, b in itertools.pairwise(edges)])
    assert [event for frame in found for event in reader.read(frame)] == read(TEXT)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("SPII", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "malformed_function_call"),
        ("OTHER", "other"),
        ("BRAND_NEW", "brand_new"),
    ],
)
def test_finish_reasons(word: str, reason: str) -> None:
    assert events_of({"text": "x"}, finish=word)[-1] == Finished(reason)


def test_a_call_that_the_limit_followed_is_length() -> None:
    assert events_of(CALL, finish="MAX_TOKENS")[-1] == Finished("length")


def test_usage_is_final_when_every_candidate_has_ended() -> None:
    def two(*finish: str | None) -> bytes:
        candidates = [
            {"content": {"parts": [{"text": "x"}]}, "index": place} | ({"finishReason": word} if word else {})
            for place, word in enumerate(finish)
        ]
        return sse({"candidates": candidates, "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 2}})

    events = read(two(None, None) + two("STOP", None) + two(None, "STOP"))
    assert [event.final for event in events if isinstance(event, Used)] == [False, False, True]
    assert [event.choice for event in events if isinstance(event, Finished)] == [0, 1]
    assert [event.choice for event in events if isinstance(event, Said)] == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        ({"promptTokenCount": 5, "candidatesTokenCount": 3, "totalTokenCount": 8}, Usage(5, 3)),
        ({"promptTokenCount": 5, "totalTokenCount": 12}, Usage(5, 7, reasoning=7)),
        ({"promptTokenCount": 5, "cachedContentTokenCount": 9}, Usage(5, 0, 5)),
        ({"candidatesTokenCount": 3}, Usage(0, 3)),
        ({"promptTokenCount": -5, "candidatesTokenCount": 2**60}, Usage(0, 2**31 - 1)),
        ({"promptTokenCount": 5, "cost": 0.25}, Usage(5, 0, cost_nano=250_000_000)),
        ({"promptTokenCount": 5, "cost": None, "serviceTier": "x"}, Usage(5, 0)),
    ],
)
def test_usage_semantics(counts: dict[str, Any], usage: Usage) -> None:
    assert events_of({"text": "x"}, usage=counts)[-1] == Used(usage, final=False)


def test_counts_of_nothing_are_no_report() -> None:
    for counts in ({"trafficType": "ON_DEMAND"}, {"totalTokenCount": 9}):
        assert events_of({"text": "x"}, usage=counts) == [Said("x")]


def test_an_unspecified_reason_is_none() -> None:
    assert events_of({"text": "x"}, finish="FINISH_REASON_UNSPECIFIED") == [Said("x")]


def test_a_refused_prompt() -> None:
    feedback = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}}
    raw = json.dumps(feedback["promptFeedback"]).encode()
    expected = [
        Begin(),
        Extra("promptFeedback", raw, "gemini"),
        Finished("content_filter"),
        Done(),
        Used(Usage(4, 0), final=True),
    ]
    assert read(sse(feedback)) == expected
    whole = DIALECT.reader().whole(json.dumps(feedback).encode())
    assert [type(event).__name__ for event in whole].count("Finished") == 1
    assert whole[-1] == Done()


ERROR = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}


@pytest.mark.parametrize(
    "frame",
    [
        sse(ERROR),
        json.dumps(ERROR).encode(),
        json.dumps(ERROR, indent=2).encode(),
        json.dumps([ERROR], indent=2).encode() + b"\r\n",
    ],
)
def test_errors_in_a_stream(frame: bytes) -> None:
    assert read(sse(chunk({"text": "x"})) + frame)[-1] == Failed("The model is overloaded.", "UNAVAILABLE")


def test_errors_without_words() -> None:
    assert read(sse({"error": "x"})) == [Failed("The provider reported an error in its stream.", "")]
    assert read(sse({"error": None})) == [Begin()]


def test_what_only_gemini_can_say() -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    body = {
        "candidates": [
            {
                "content": {"parts": [picture, {"executableCode": {"code": "1"}}]},
                "groundingMetadata": {"webSearchQueries": ["x"]},
                "safetyRatings": None,
            }
        ]
    }
    assert read(sse(body))[1:] == [
        Extra("part", json.dumps(picture).encode(), "gemini"),
        Extra("part", b'{"executableCode": {"code": "1"}}', "gemini"),
        Extra("groundingMetadata", b'{"webSearchQueries": ["x"]}', "gemini"),
    ]


def test_arguments_in_pieces_are_metered_and_keep_the_call_open() -> None:
    begun = {"functionCall": {"name": "f", "willContinue": True}}
    more = {"functionCall": {"partialArgs": [{"jsonPath": "$.a", "stringValue": "x"}], "willContinue": True}}
    events = read(sse(chunk(begun), chunk(more), chunk({"functionCall": {}}), chunk(CALL, finish="STOP")))[1:]
    assert [type(event).__name__ for event in events] == [
        *("CallBegins", "CallPiece", "CallEnds"),
        *("CallBegins", "CallPiece", "CallEnds", "Finished"),
    ]
    assert [event.index for event in events if isinstance(event, CallBegins)] == [0, 1]


@pytest.mark.parametrize("odd", [{}, {"candidates": None}, {"candidates": [{}]}, {"candidates": [{"content": {}}]}])
def test_missing_members_are_borne(odd: dict[str, Any]) -> None:
    assert read(sse(odd)) == [Begin()]


@pytest.mark.parametrize(
    "odd", [b"nonsense", b"5", b"[]", b'{"candidates":5}', b'{"candidates":[{"content":{"parts":[5]}}]}']
)
def test_what_is_no_chunk(odd: bytes) -> None:
    with pytest.raises(BadEvent):
        DIALECT.reader().read(Frame(b"data: " + odd + b"\n\n", odd))
    with pytest.raises(BadEvent):
        DIALECT.reader().whole(odd)


def test_a_stream_that_is_an_array_is_no_stream_of_events() -> None:
    with pytest.raises(BadEvent):
        read(json.dumps([chunk({"text": "x"})], indent=1).encode())


def test_a_whole_reply() -> None:
    body = json.dumps(chunk({"text": "Hi"}, CALL, finish="STOP", usage=USAGE)).encode()
    assert [event for event in DIALECT.reader().whole(body) if not isinstance(event, CallPiece)] == [
        BEGIN,
        Said("Hi"),
        CallBegins(0, "call_yTPIaLzQBYun-vdIP5YyX8AM_0", "weather"),
        CallEnds(0),
        Finished("tool_calls"),
        Used(COUNTED),
        Done(),
    ]


def test_a_whole_reply_may_be_an_array_or_without_a_reason() -> None:
    body = json.dumps([chunk({"text": "Hel"}), chunk({"text": "lo"})]).encode()
    assert DIALECT.reader().whole(body) == [BEGIN, Said("Hel"), Said("lo"), Finished("stop"), Done()]
    assert DIALECT.reader().whole(json.dumps(ERROR).encode()) == [Failed("The model is overloaded.", "UNAVAILABLE")]
    with pytest.raises(BadEvent):
        DIALECT.reader().whole(b'{"usageMetadata":{"promptTokenCount":1}}')
