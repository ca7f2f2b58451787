"""A Messages upstream's replies as events, however the bytes are cut."""

from __future__ import annotations

import json
from typing import Any

import pytest

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
    HandedOver,
    Ran,
    Said,
    Thought,
    Used,
)
from app.core.money import Usage
from app.core.sse import Frame, SseParser
from app.dialects.anthropic.dialect import DIALECT
from app.dialects.base import BadEvent
from tests.dialects.anthropic.texts import block, end, event, read, spoken, start, text, thinking, tool

PING = event("ping")
BEGIN = Begin("msg_01", "claude-opus-5-5-20260901")
FIRST = Used(Usage(25, 1), final=False)
PLAIN = start() + PING + text(0, "Hello", " wörld") + end()
LOOP = (
    start(cache_read_input_tokens=100, cache_creation_input_tokens=30)
    + thinking(0, "Let me", " see")
    + text(1, "I look.")
    + tool(2, "toolu_1", "bash", '{"cmd"', ': "ls"}')
    + tool(3, "toolu_2", "now")
    + end("tool_use", output_tokens=89)
)


def own(text: str = "", **members: Any) -> Thought:
    return Thought(text, origin="anthropic", **members)


LOOP_EVENTS: list[Event] = [
    BEGIN,
    Used(Usage(155, 1, 100, 30), final=False),
    own("Let me"),
    own(" see"),
    own(signature="EqQBCg=="),
    own(ends=True),
    Said("I look."),
    CallBegins(0, "toolu_1", "bash"),
    CallPiece(0, '{"cmd"'),
    CallPiece(0, ': "ls"}'),
    CallEnds(0),
    CallBegins(1, "toolu_2", "now"),
    CallPiece(1, "{}"),
    CallEnds(1),
    Finished("tool_calls"),
    Used(Usage(155, 89, 100, 30)),
    Done(),
]


@pytest.mark.parametrize("step", [0, 1, 7, 1000])
@pytest.mark.parametrize("after", [b"", b": bye\n\n", PING, b"\n\n"])
def test_streams(step: int, after: bytes) -> None:
    assert spoken(read(PLAIN + after, step)) == [
        BEGIN,
        FIRST,
        Said("Hello"),
        Said(" wörld"),
        Finished("stop"),
        Used(Usage(25, 15)),
        Done(),
    ]
    assert spoken(read(LOOP + after, step)) == LOOP_EVENTS


def test_line_ends_of_other_servers() -> None:
    assert spoken(read(LOOP.replace(b"\n", b"\r\n"), 1)) == LOOP_EVENTS
    assert spoken(read(LOOP.rstrip())) == LOOP_EVENTS


def test_every_frame_of_a_block_gives_an_event() -> None:
    """A relay holds frames by their events: one without any could get lost before the first real one."""
    search = block(
        2, "server_tool_use", {"type": "input_json_delta", "partial_json": '{"query"'}, id="s", name="web_search"
    )
    result = block(3, "web_search_tool_result", tool_use_id="s", content=[{"type": "web_search_result"}])
    cited = block(4, "text", {"type": "citations_delta", "citation": {}}, {"type": "text_delta", "text": "x"}, text="")
    half = tool(5, "toolu_1", "f", '{"a')
    reader = DIALECT.reader()
    for frame in (start() + thinking(0) + text(1) + search + result + cited + half).split(b"\n\n")[:-1]:
        assert reader.read(Frame(frame + b"\n\n", frame.partition(b"data: ")[2])), frame


def test_what_the_providers_tools_are_asked_is_metered_and_their_blocks_go_on() -> None:
    pieces = [{"type": "input_json_delta", "partial_json": part} for part in ('{"query":', '"x"}')]
    search = block(0, "server_tool_use", *pieces, id="s", name="web_search", input={})
    result = block(1, "web_search_tool_result", tool_use_id="s", content=[{"url": "u"}])
    told = spoken(read(start() + search + result + end()))
    assert told[2:5] == [
        Ran("web_search"),
        own('{"query":', id="server_tool_use"),
        own('"x"}', id="server_tool_use"),
    ]
    extras = [found for found in told if isinstance(found, Extra)]
    assert [(found.name, found.origin) for found in extras] == [("content_block", "anthropic")] * 2
    assert json.loads(extras[0].raw)["input"] == {"query": "x"}
    assert json.loads(extras[1].raw)["content"] == [{"url": "u"}]


def test_code_is_billed_by_the_container_of_a_reply() -> None:
    uses = [
        block(place, "server_tool_use", id=f"s{place}", name=name, input={})
        for place, name in enumerate(
            ("bash_code_execution", "text_editor_code_execution", "web_search", "web_search", "advisor", "advisor")
        )
    ]
    told = [found for found in read(start() + b"".join(uses) + end()) if isinstance(found, Ran)]
    assert told == [Ran("code_execution"), *[Ran("web_search")] * 2, *[Ran("advisor")] * 2]


def test_another_model_goes_on_where_one_declined() -> None:
    hop: dict[str, Any] = {
        "from": {"model": "a"},
        "to": {"model": "b"},
        "trigger": {"type": "refusal", "category": None},
    }
    told = read(start() + text(0, "I wo") + block(1, "fallback", **hop) + text(2, "Well.") + end())
    assert [place for place, found in enumerate(told) if found == HandedOver()] == [5]
    assert told[6] == own("", id="fallback")
    (whole,) = [found for found in told if isinstance(found, Extra)]
    assert json.loads(whole.raw) == {"type": "fallback", **hop}


def test_a_compaction_goes_on() -> None:
    compacted = {"type": "compaction_delta", "content": "what was", "encrypted_content": "e"}
    told = spoken(read(start() + block(0, "compaction", compacted, content=None) + end()))
    assert told[2] == own("what was", id="compaction")
    assert isinstance(told[3], Extra)
    assert json.loads(told[3].raw) == {"type": "compaction", "content": "what was", "encrypted_content": "e"}


def test_citations_go_on() -> None:
    citation = {"type": "char_location", "cited_text": "x"}
    stream = block(
        0, "text", {"type": "text_delta", "text": "x"}, {"type": "citations_delta", "citation": citation}, text=""
    )
    (found,) = [found for found in read(stream) if isinstance(found, Extra)]
    assert (found.name, json.loads(found.raw)) == ("citation", citation)


def test_hidden_thinking_keeps_its_data() -> None:
    told = spoken(
        read(start() + block(0, "redacted_thinking", data="xyz") + block(1, "thinking", signature="s") + end())
    )
    assert told[2:5] == [own(encrypted="xyz"), own(ends=True), own(signature="s")]


def test_a_call_that_was_broken_off_has_no_end() -> None:
    told = spoken(read(start() + tool(0, "toolu_1", "bash", '{"cmd": "rm -') + end("max_tokens")))
    assert not [event for event in told if isinstance(event, CallEnds)]
    assert Finished("length") in told


def test_a_call_without_arguments_is_whole_once_something_follows() -> None:
    bare = start() + tool(0, "toolu_1", "now")
    whole: list[Event] = [CallPiece(0, "{}"), CallEnds(0)]
    assert spoken(read(bare))[2:] == [CallBegins(0, "toolu_1", "now")]
    assert spoken(read(bare + text(1, "a")))[3:5] == whole
    assert spoken(read(bare + end("tool_use")))[3:5] == whole
    assert not [found for found in spoken(read(bare + end("max_tokens"))) if isinstance(found, CallPiece | CallEnds)]


def test_arguments_that_come_with_the_block() -> None:
    told = read(start() + block(0, "tool_use", id="t", name="f", input={"a": 1}) + end("tool_use"))
    assert told[2:5] == [CallBegins(0, "t", "f"), CallPiece(0, '{"a": 1}'), CallEnds(0)]
    both = block(
        0, "tool_use", {"type": "input_json_delta", "partial_json": '{"a": 1}'}, id="t", name="f", input={"a": 1}
    )
    assert [found for found in read(start() + both) if isinstance(found, CallPiece)] == [CallPiece(0, '{"a": 1}')]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("end_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
        ("novel", "novel"),
    ],
)
def test_reasons(reason: str, expected: str) -> None:
    assert Finished(expected) in read(start() + end(reason))


def test_a_stop_sequence_is_named() -> None:
    assert Finished("stop", stop_sequence="END") in read(start() + end("stop_sequence", "END"))


class TestUsage:
    @pytest.mark.parametrize(
        ("first", "last", "expected"),
        [
            ({}, {}, Usage(25, 15)),
            ({}, {"input_tokens": 30}, Usage(30, 15)),
            ({"cache_read_input_tokens": 5}, {"cache_read_input_tokens": 0}, Usage(25, 15)),
            ({"cache_read_input_tokens": 5}, {"cache_read_input_tokens": None}, Usage(30, 15, 5)),
            ({"input_tokens": 0}, {"input_tokens": 40, "cache_read_input_tokens": 2}, Usage(42, 15, 2)),
            ({"cache_creation_input_tokens": 7}, {}, Usage(32, 15, 0, 7)),
            (
                {
                    "cache_creation_input_tokens": 7,
                    "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4},
                },
                {},
                Usage(32, 15, 0, 3, 4),
            ),
            ({"cache_creation": {"ephemeral_1h_input_tokens": 4}}, {}, Usage(29, 15, 0, 0, 4)),
            ({}, {"output_tokens_details": {"thinking_tokens": 9}}, Usage(25, 15, reasoning=9)),
            ({}, {"output_tokens_details": {"thinking_tokens": 99}}, Usage(25, 15, reasoning=15)),
            ({}, {"cost": 0.25}, Usage(25, 15, cost_nano=250_000_000)),
            ({}, {"cost": "free"}, Usage(25, 15)),
            ({}, {"output_tokens": -3}, Usage(25, 0)),
            (
                {},
                {
                    "iterations": [
                        {"type": "message", "input_tokens": 25, "output_tokens": 15},
                        {"type": "compaction", "input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": 50},
                    ]
                },
                Usage(175, 25, 50),
            ),
        ],
    )
    def test_input_is_the_whole_of_it(self, first: Any, last: Any, expected: Usage) -> None:
        assert read(start(**first) + end(**last))[-2] == Used(expected)

    @pytest.mark.parametrize(
        ("last", "expected"),
        [
            ({"input_tokens": 0, "output_tokens": 5}, Usage(1000 + 50 + 7, 5, 50, 7)),
            ({"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 5}, Usage(1057, 5, 50, 7)),
            ({"input_tokens": 12, "output_tokens": 5}, Usage(12 + 50 + 7, 5, 50, 7)),
            ({"input_tokens": 0, "cache_read_input_tokens": 900, "output_tokens": 5}, Usage(907, 5, 900, 7)),
        ],
    )
    def test_an_end_that_counts_no_input_says_nothing_of_it(self, last: dict[str, Any], expected: Usage) -> None:
        first = {"input_tokens": 1000, "cache_read_input_tokens": 50, "cache_creation_input_tokens": 7}
        assert read(start(**first) + end(**last))[-2] == Used(expected)

    @pytest.mark.parametrize(("speed", "served"), [("fast", "fast"), ("standard", "default"), (None, None), (1, None)])
    def test_the_speed_at_which_it_was_served(self, speed: Any, served: str | None) -> None:
        reader = DIALECT.reader()
        for frame in SseParser().feed(start() + end(output_tokens=5, speed=speed)):
            reader.read(frame)
        assert reader.served == served

    @pytest.mark.parametrize(
        ("speed", "place", "served"),
        [("standard", "us", "us"), (None, "us", "us"), ("fast", "us", "fast-us"), ("fast", "global", "fast"),
         ("standard", "not_available", "default"), (None, "global", None)],
    )  # fmt: skip
    def test_the_place_at_which_it_was_served(self, speed: Any, place: str, served: str | None) -> None:
        reader = DIALECT.reader()
        for frame in SseParser().feed(start(inference_geo=place) + end(output_tokens=5, speed=speed)):
            reader.read(frame)
        assert reader.served == served

    def test_a_beginning_that_counts_no_input_is_mended_by_the_end(self) -> None:
        found = read(start(input_tokens=0, output_tokens=0) + end(input_tokens=9, output_tokens=5))[-2]
        assert found == Used(Usage(9, 5))

    def test_a_report_before_the_end_is_not_final(self) -> None:
        early = event("message_delta", delta={"stop_reason": None}, usage={"output_tokens": 5})
        assert read(start() + early)[-1] == Used(Usage(25, 5), final=False)

    @pytest.mark.parametrize("usage", [None, {}])
    def test_none_is_none(self, usage: Any) -> None:
        stream = event("message_start", message={"id": "m"}) + event(
            "message_delta", delta={"stop_reason": "end_turn"}, usage=usage
        )
        assert read(stream) == [Begin("m"), Finished("stop")]


LLAMACPP = b"""event: message_start
data: {"type":"message_start","message":{"id":"chatcmpl-Qfme","type":"message","role":"assistant","content":[],\
"model":"smollm2","stop_reason":null,"stop_sequence":null,"usage":{"cache_read_input_tokens":21,"input_tokens":1,\
"output_tokens":0}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":6}}

event: message_stop
data: {"type":"message_stop"}


"""


def test_a_recording_of_llama_cpp() -> None:
    """Of the embedded server, xllamacpp 0.1: one blank line too many at the end, and ids of chat's."""
    assert spoken(read(LLAMACPP, 3)) == [
        Begin("chatcmpl-Qfme", "smollm2"),
        Used(Usage(22, 0, 21), final=False),
        Said("Hello"),
        Finished("stop"),
        Used(Usage(22, 6, 21)),
        Done(),
    ]


class TestOddities:
    @pytest.mark.parametrize("kind", ["ping", "content_block_pause", ""])
    def test_unknown_events_are_nothing(self, kind: str) -> None:
        assert read(event(kind, delta=None, index=None)) == []

    @pytest.mark.parametrize("data", [b"data: \n\n", b": keepalive\n\n", b"event: ping\n\n"])
    def test_empty_frames_are_nothing(self, data: bytes) -> None:
        assert read(data) == []

    def test_the_mark_of_chat_is_an_end(self) -> None:
        assert read(b"data: [DONE]\n\n") == [Done()]

    @pytest.mark.parametrize("error", [{"type": "overloaded_error", "message": "Overloaded"}, {}, None])
    def test_errors(self, error: Any) -> None:
        (failed,) = read(event("error", error=error))
        assert isinstance(failed, Failed)
        assert failed.message
        assert failed.kind == (error or {}).get("type", "")

    @pytest.mark.parametrize(
        "data", [b"{", b"null", b"[]", b'"\xff"', b'{"type": 5}', b'{"type":"message_start","message":5}']
    )
    def test_what_is_no_event_is_bad(self, data: bytes) -> None:
        with pytest.raises(BadEvent):
            read(b"data: " + data + b"\n\n")

    def test_missing_and_null_members(self) -> None:
        stream = event("content_block_start", content_block=None) + event("content_block_delta", index=0, delta=None)
        stream += event("message_delta") + event("content_block_stop") + event("content_block_stop", index=7)
        assert spoken(read(stream)) == []

    def test_a_second_stop_and_late_arguments(self) -> None:
        late = event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": "{}"})
        again = tool(0, "t", "f", "{}") + event("content_block_stop", index=0) + late
        assert sum(isinstance(found, CallEnds) for found in read(again + end("tool_use"))) == 1

    def test_a_server_that_numbers_every_block_alike(self) -> None:
        told = read(tool(0, "t", "f", "{}") + tool(0, "u", "f", "{}"))
        assert [found.index for found in told if isinstance(found, CallEnds)] == [0, 1]


class TestWhole:
    def whole(self, **members: Any) -> list[Event]:
        message = {"id": "msg_01", "type": "message", "model": "m", "stop_reason": "end_turn", "content": [], **members}
        return spoken(DIALECT.reader().whole(json.dumps(message).encode()))

    def test_blocks(self) -> None:
        told = self.whole(
            content=[
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "d"},
                {"type": "text", "text": "Hi", "citations": [{"type": "x"}]},
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": 1}},
                {"type": "tool_use", "id": "t", "name": "f", "input": {"a": [1]}},
                {"type": "tool_use", "id": "u", "name": "g", "input": {}},
            ],
            stop_reason="tool_use",
            usage={"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 5},
        )
        assert told == [
            Begin("msg_01", "m"),
            own("hm", signature="s"),
            own(ends=True),
            own(encrypted="d"),
            own(ends=True),
            Said("Hi"),
            Extra("citation", b'{"type": "x"}', "anthropic"),
            Ran("web_search"),
            own('{"q": 1}', id="server_tool_use"),
            Extra(
                "content_block",
                b'{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": 1}}',
                "anthropic",
            ),
            CallBegins(0, "t", "f"),
            CallPiece(0, '{"a": [1]}'),
            CallEnds(0),
            CallBegins(1, "u", "g"),
            CallPiece(1, "{}"),
            CallEnds(1),
            Finished("tool_calls"),
            Used(Usage(8, 4, 5)),
            Done(),
        ]

    def test_without_usage(self) -> None:
        assert self.whole(stop_reason="stop_sequence", stop_sequence="X") == [
            Begin("msg_01", "m"),
            Finished("stop", stop_sequence="X"),
            Done(),
        ]

    def test_an_error(self) -> None:
        body = b'{"type":"error","error":{"type":"api_error","message":"no"}}'
        assert DIALECT.reader().whole(body) == [Failed("no", "api_error"), Done()]

    @pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"content":5}', b'{"type":"message"}'])
    def test_what_is_no_message_is_bad(self, body: bytes) -> None:
        with pytest.raises(BadEvent):
            DIALECT.reader().whole(body)
