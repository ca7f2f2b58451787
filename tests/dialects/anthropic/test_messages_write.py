"""Replies to Messages clients: made of events, passed on, and every way to end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import BudgetExceeded, UpstreamError
from app.core.events import Begin, CallBegins, CallEnds, CallPiece, Done, Event, Extra, Finished, Said, Thought, Used
from app.core.money import Usage
from app.core.sse import SseParser
from app.dialects.anthropic.dialect import DIALECT
from app.dialects.anthropic.write import MessagesWriter
from app.dialects.base import Counts
from app.dialects.openai_chat.errors import budget_error, budget_message
from tests.dialects.anthropic.texts import (
    COUNTS,
    block,
    end,
    event,
    parsed,
    read,
    spoken,
    start,
    text,
    thinking,
    told,
    tool,
)

STOP: list[Event] = [Finished("stop")]
CUT = b'{"scope":"task"}'


def writer() -> MessagesWriter:
    return MessagesWriter(parsed())


def written(events: list[Event], finished: list[Event] = STOP, counts: Counts = COUNTS) -> bytes:
    """Each event on its own, and the ordinary end."""
    made = writer()
    return b"".join(made.write([event]) for event in events) + made.complete(finished, counts, [])


def kinds(stream: bytes) -> list[str]:
    """Events by type, deltas and blocks by theirs."""
    found = []
    for data in told(stream):
        inner = data.get("content_block") or (data["delta"] if data["type"] == "content_block_delta" else {})
        found.append(inner.get("type", data["type"]) + (":" + str(data["index"]) if "index" in data else ""))
    return found


def own(text: str = "", **members: Any) -> Thought:
    return Thought(text, origin="anthropic", **members)


TALK: list[Event] = [
    Begin("msg_9", "m-1"),
    own("Let me"),
    own(" see", signature="sig"),
    own(ends=True),
    own(encrypted="xyz"),
    Said("I"),
    Said(" look"),
    CallBegins(0, "toolu_1", "bash"),
    CallPiece(0, '{"cmd"'),
    CallPiece(0, ': "ls"}'),
    CallEnds(0),
    CallBegins(1, "toolu_2", "now"),
    CallPiece(1, "{}"),
    CallEnds(1),
]


def test_what_is_written_reads_back() -> None:
    counts = Counts(Usage(155, 89, 100, 20, 10, 5), exact=True, cost_nano=1_500_000)
    stream = written(TALK, [Finished("tool_calls")], counts)
    assert spoken(read(stream)) == [
        TALK[0],
        Used(Usage(parsed_input(), 0), final=False),
        own("Let me"),
        own(" see"),
        own(signature="sig"),
        *TALK[3:5],
        own(ends=True),
        *TALK[5:],
        Finished("tool_calls"),
        Used(Usage(155, 89, 100, 20, 10, 5, 1_500_000)),
        Done(),
    ]
    for step in (1, 13):
        assert read(stream, step) == read(stream)


def parsed_input() -> int:
    return int(told(writer().write([Begin()]))[0]["message"]["usage"]["input_tokens"])


def test_blocks_as_the_real_api_sends_them() -> None:
    assert kinds(written(TALK)) == [
        "message_start",
        "thinking:0",
        "thinking_delta:0",
        "thinking_delta:0",
        "signature_delta:0",
        "content_block_stop:0",
        "redacted_thinking:1",
        "content_block_stop:1",
        "text:2",
        "text_delta:2",
        "text_delta:2",
        "content_block_stop:2",
        "tool_use:3",
        "input_json_delta:3",
        "input_json_delta:3",
        "content_block_stop:3",
        "tool_use:4",
        "input_json_delta:4",
        "content_block_stop:4",
        "message_delta",
        "message_stop",
    ]


words = st.text(min_size=1, max_size=6)
arguments = st.dictionaries(words, words, max_size=3).map(json.dumps)


@st.composite
def replies(draw: st.DrawFn) -> list[Event]:
    """Text, thoughts and calls in any order; calls in any pieces, their ends said or not."""
    events: list[Event] = [Begin("msg_1", "m")]
    calls = 0
    for kind in draw(st.lists(st.sampled_from(["text", "thought", "call"]), max_size=6)):
        if kind == "text":
            events += [Said(piece) for piece in draw(st.lists(words, min_size=1, max_size=3))]
        elif kind == "thought":
            events += [Thought(draw(words)), Thought(ends=True)]
        else:
            whole = draw(arguments)
            cut = draw(st.integers(0, len(whole)))
            events += [
                CallBegins(calls, f"c{calls}", "f"),
                CallPiece(calls, whole[:cut]),
                CallPiece(calls, whole[cut:]),
            ]
            if draw(st.booleans()):
                events.append(CallEnds(calls))
            calls += 1
    return events


def gist(events: list[Event]) -> list[Any]:
    """What a reply says, in whatever pieces."""
    found: list[list[Any]] = []
    for said in spoken(events):
        match said:
            case Said() | Thought() if said.text:
                if not found or found[-1][0] != type(said).__name__:
                    found.append([type(said).__name__, ""])
                found[-1][1] += said.text
            case CallBegins():
                found.append(["call", said.id, said.name, ""])
            case CallPiece():
                next(call for call in found if call[:2] == ["call", f"c{said.index}"])[3] += said.text
    return found


@given(replies())
def test_any_reply_reads_back(events: list[Event]) -> None:
    stream = written(events)
    assert gist(read(stream)) == gist(events)
    starts = [data for data in told(stream) if data["type"] == "content_block_start"]
    assert [data["index"] for data in starts] == list(range(len(starts)))
    open_blocks = 0
    for data in told(stream):
        open_blocks += {"content_block_start": 1, "content_block_stop": -1}.get(data["type"], 0)
        assert open_blocks in (0, 1)


@given(replies())
def test_a_whole_reply_says_what_the_stream_said(events: list[Event]) -> None:
    body = DIALECT.whole(parsed(), [*events, *STOP, Done()], COUNTS, None)
    assert gist(DIALECT.reader().whole(body)) == gist(events)


def test_calls_whose_pieces_alternate_come_one_after_another() -> None:
    events: list[Event] = [CallBegins(0, "c0", "f"), CallBegins(1, "c1", "g")]
    for piece in ('{"a"', ": 1", "}"):
        events += [CallPiece(0, piece), CallPiece(1, piece)]
    assert gist(read(written(events))) == [["call", "c0", "f", '{"a": 1}'], ["call", "c1", "g", '{"a": 1}']]
    assert kinds(written(events)).count("content_block_stop:0") == 1


def test_text_is_sent_at_once() -> None:
    made = writer()
    made.write([Begin("x", "m")])
    assert "Hello" in made.write([Said("Hello")]).decode()
    made.write([CallBegins(0, "a", "f")])
    assert "cmd" in made.write([CallPiece(0, '{"cmd')]).decode()


def test_empty_pieces_are_nothing() -> None:
    assert kinds(written([Begin(), Said(""), Thought(""), Thought(ends=True), CallPiece(5, "x"), CallEnds(9)])) == [
        "message_start",
        "message_delta",
        "message_stop",
    ]


def test_other_choices_do_not_exist_here() -> None:
    events: list[Event] = [Said("a", choice=1), Thought("a", choice=1), CallBegins(0, "a", "f", choice=1)]
    assert "content_block_start" not in written(events).decode()


def test_the_begin_without_an_id_or_model() -> None:
    made = told(writer().write([Said("x")]))[0]["message"]
    assert made["id"].startswith("msg_")
    assert made["model"] == "claude-opus-5-5"
    assert made["usage"]["output_tokens"] == 0
    assert made["id"] == told(writer().write([Begin()]))[0]["message"]["id"]


def test_proofs_of_others_travel_under_a_mark() -> None:
    events: list[Event] = [
        Thought("a", signature="s1", origin="gemini"),
        Thought(encrypted="e1", origin="openai_responses", ends=True),
        Thought("b", signature="of nobody"),
        CallBegins(0, "c", "f", signature="s2"),
    ]
    body = json.loads(DIALECT.whole(parsed(), events, COUNTS, None))
    stream = [data["content_block"] for data in told(written(events)) if data["type"] == "content_block_start"]
    assert [block["type"] for block in stream] == [block["type"] for block in body["content"]]
    signatures = [
        data["delta"] for data in told(written(events)) if data.get("delta", {}).get("type") == "signature_delta"
    ]
    assert [found["signature"] for found in signatures] == ["bursar-proof:gemini:s1"]
    assert body["content"][0]["signature"] == "bursar-proof:gemini:s1"
    assert body["content"][1] == stream[1] == {"type": "redacted_thinking", "data": "bursar-proof:openai_responses:e1"}
    assert body["content"][2]["signature"] == ""
    assert body["content"][3] == stream[3] == {"type": "redacted_thinking", "data": "bursar-proof:gemini-call:s2"}


def test_two_signed_thoughts_are_two_blocks() -> None:
    events: list[Event] = [own("a", signature="1"), own("b", signature="2")]
    assert kinds(written(events)).count("thinking:1") == 1
    content = json.loads(DIALECT.whole(parsed(), events, COUNTS, None))["content"]
    assert [(found["thinking"], found["signature"]) for found in content] == [("a", "1"), ("b", "2")]


def test_what_only_this_dialect_has_comes_back_where_a_reply_was_folded() -> None:
    citation = {"type": "char_location", "cited_text": "x"}
    cited = {"type": "text_delta", "text": "Hi"}, {"type": "citations_delta", "citation": citation}
    asked = {"type": "input_json_delta", "partial_json": '{"q":1}'}
    stream = start() + block(0, "server_tool_use", asked, id="s", name="w", input={})
    stream += block(1, "web_search_tool_result", tool_use_id="s", content=[]) + block(2, "text", *cited, text="")
    told_last: tuple[dict[str, Any], dict[str, Any]]
    told_last = {"container": {"id": "c", "expires_at": "later"}}, {"context_management": {"applied_edits": []}}
    delta = {"stop_reason": "end_turn", "stop_sequence": None, **told_last[0]}
    stream += event("message_delta", delta=delta, usage={"output_tokens": 15}, **told_last[1])
    stream += event("message_stop")
    content = [
        {"type": "server_tool_use", "id": "s", "name": "w", "input": {"q": 1}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        {"type": "text", "text": "Hi", "citations": [citation]},
    ]
    counts = Counts(Usage(20, 15, tools=(("web_search", 2),)), exact=True, cost_nano=1)
    body = DIALECT.whole(parsed(), read(stream), counts, None)
    again = written(DIALECT.reader().whole(body), counts=counts)
    for reply in (body, DIALECT.whole(parsed(), read(again), counts, None)):
        made = json.loads(reply)
        assert made["content"] == content
        assert {name: made[name] for name in ("container", "context_management")} == told_last[0] | told_last[1]
        assert made["usage"]["server_tool_use"] == {"web_search_requests": 2}
    foreign = [Extra("content_block", b"{}", "gemini"), Extra("citation", b"{}", "gemini")]
    assert "content_block_start" not in written(list(foreign)).decode()


@pytest.mark.parametrize(
    ("events", "finished", "expected"),
    [
        ([Said("a")], Finished("stop"), ("end_turn", None)),
        ([Said("a")], Finished("stop", stop_sequence="X"), ("stop_sequence", "X")),
        ([Said("a")], Finished("length"), ("max_tokens", None)),
        ([Said("a")], Finished("content_filter"), ("refusal", None)),
        ([Said("no", refusal=True)], Finished("stop"), ("refusal", None)),
        ([Said("a")], Finished("pause_turn"), ("pause_turn", None)),
        ([Said("a")], Finished("eos"), ("end_turn", None)),
        ([Said("a")], Finished("tool_calls"), ("end_turn", None)),
        ([CallBegins(0, "c", "f")], Finished("tool_calls"), ("tool_use", None)),
        ([CallBegins(0, "c", "f")], Finished("stop"), ("tool_use", None)),
        ([CallBegins(0, "c", "f")], Finished("length"), ("max_tokens", None)),
    ],
)
def test_reasons(events: list[Event], finished: Finished, expected: tuple[str, str | None]) -> None:
    delta = told(written(events, [finished]))[-2]["delta"]
    whole = json.loads(DIALECT.whole(parsed(), [*events, finished], COUNTS, None))
    assert (delta["stop_reason"], delta["stop_sequence"]) == expected
    assert (whole["stop_reason"], whole["stop_sequence"]) == expected


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (COUNTS, {"input_tokens": 20, "output_tokens": 7, "cost": 1.5e-06}),
        (Counts(Usage(9, 1), False, None), {"input_tokens": 9, "output_tokens": 1, "estimated": True, "cost": None}),
        (
            Counts(Usage(60, 7, 10, 20, 5, 3), True, 10**9),
            {
                "input_tokens": 25,
                "output_tokens": 7,
                "cache_read_input_tokens": 10,
                "cache_creation_input_tokens": 25,
                "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 5},
                "output_tokens_details": {"thinking_tokens": 3},
                "cost": 1,
            },
        ),
    ],
)
def test_usage_is_told_with_its_cost(counts: Counts, expected: Any) -> None:
    empty = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    assert told(written([Said("a")], counts=counts))[-2]["usage"] == empty | expected
    assert json.loads(DIALECT.whole(parsed(), [Said("a")], counts, None))["usage"] == empty | expected


class TestEnds:
    def test_a_cut_is_an_error_and_nothing_more(self) -> None:
        made = writer()
        made.write([Begin("x", "m"), CallBegins(0, "a", "bash"), CallPiece(0, '{"cmd": "rm')])
        (error,) = told(made.cut(budget_error("task"), COUNTS))
        assert error == {"type": "error", "error": {"type": "billing_error", "message": budget_message("task")}}

    def test_a_dead_upstream_is_an_error_that_may_be_retried(self) -> None:
        (error,) = told(writer().broken(UpstreamError("The provider broke off.")))
        assert error["error"] == {"type": "api_error", "message": "The provider broke off."}

    def test_a_soft_cut_ends_as_the_limit_does(self) -> None:
        made = writer()
        out = made.write([Begin("x", "m"), Said("Hel")]) + made.cut_softly(CUT, COUNTS)
        assert kinds(out)[-3:] == ["content_block_stop:0", "message_delta", "message_stop"]
        assert told(out)[-2]["delta"]["stop_reason"] == "max_tokens"
        assert told(out)[-2]["bursar"] == {"cut": {"scope": "task"}}
        whole = json.loads(DIALECT.whole(parsed(), [Said("Hel")], COUNTS, CUT))
        assert (whole["stop_reason"], whole["bursar"]) == ("max_tokens", {"cut": {"scope": "task"}})

    def test_a_soft_cut_before_anything_was_said(self) -> None:
        assert kinds(writer().cut_softly(CUT, COUNTS)) == ["message_start", "message_delta", "message_stop"]

    def test_half_a_call_is_not_shown_in_a_whole_reply(self) -> None:
        events: list[Event] = [Said("a"), CallBegins(0, "a", "bash"), CallPiece(0, '{"cmd": "rm'), Finished("length")]
        whole = json.loads(DIALECT.whole(parsed(), events, COUNTS, None))
        assert [found["type"] for found in whole["content"]] == ["text"]
        assert whole["stop_reason"] == "max_tokens"


class TestPassed:
    """The same dialect on both sides."""

    STREAM = (
        start() + event("ping") + thinking(0, "hm") + text(1, "Hi") + tool(2, "t", "f", '{"a":1}') + end("tool_use")
    )

    def relayed(self, stream: bytes, until: type[Event] = Finished) -> tuple[MessagesWriter, bytes, list[Any]]:
        """What goes out before the end, and the frames that are held from then on."""
        made, reader, out = writer(), DIALECT.reader(), list[bytes]()
        held: list[Any] = []
        for frame in SseParser().feed(stream):
            events = reader.read(frame)
            if held or any(isinstance(found, until) for found in events):
                held.append(frame)
            else:
                out.append(made.passed(frame, events))
        return made, b"".join(out), held

    def test_frames_go_on_as_they_came(self) -> None:
        made, out, held = self.relayed(self.STREAM)
        assert self.STREAM.startswith(out)
        whole = out + made.complete([Finished("tool_calls")], COUNTS, held)
        last = told(whole)[-2]
        assert last["usage"] == {"output_tokens": 15, "cost": 1.5e-06}
        assert told(whole)[:-2] == told(self.STREAM)[:-2]
        assert told(whole)[-1] == {"type": "message_stop"}
        assert spoken(read(whole))[:-2] == spoken(read(self.STREAM))[:-2]

    def test_the_ends_bytes_are_kept_but_for_usage(self) -> None:
        odd = (
            b'event: message_delta\ndata: {"type":"message_delta", "delta": {"stop_reason" : "end_turn"}, "x": [1.0],\n'
        )
        odd += b'data:  "usage": {"output_tokens" : 3}}\n\nevent: message_stop\ndata: {"type": "message_stop" }\n\n'
        made, _, held = self.relayed(start() + odd)
        assert made.complete(STOP, COUNTS, held) == (
            b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason" : "end_turn"},"x":[1.0],'
            b'"usage":{"output_tokens":3,"cost":0.0000015}}\n\nevent: message_stop\ndata: {"type": "message_stop" }\n\n'
        )

    def test_a_missing_stop_is_added_and_a_missing_usage_estimated(self) -> None:
        bare = event("message_delta", delta={"stop_reason": "end_turn"})
        made, _, held = self.relayed(start() + text(0, "Hi") + bare + b": late\n\n")
        out = made.complete(STOP, Counts(Usage(9, 2), False, None), held)
        assert out.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
        assert b": late" in out
        assert b'"estimated":true' in out

    def test_the_stop_of_half_a_call_waits_for_the_end(self) -> None:
        half = tool(1, "t", "bash", '{"cmd": "rm -')
        stream = start() + text(0, "Hi") + half + end("max_tokens")
        made, out, held = self.relayed(stream)
        assert told(out)[-1]["type"] == "content_block_delta"
        assert told(made.cut(BudgetExceeded("x"), COUNTS))[0]["type"] == "error"
        finished = out + made.complete([Finished("length")], COUNTS, held)
        assert [data["type"] for data in told(finished)] == [data["type"] for data in told(stream)]

    def test_a_soft_cut_closes_the_open_block(self) -> None:
        made, _, _ = self.relayed(start() + text(0, "a") + text(1, "b", stop=False))
        soft = made.cut_softly(CUT, COUNTS)
        assert [data["type"] for data in told(soft)] == ["content_block_stop", "message_delta", "message_stop"]
        assert told(soft)[0]["index"] == 1
        made, _, _ = self.relayed(start() + text(0, "a"))
        assert [data["type"] for data in told(made.cut_softly(CUT, COUNTS))] == ["message_delta", "message_stop"]

    def test_blocks_of_the_providers_tools_go_on(self) -> None:
        search = block(
            0, "server_tool_use", {"type": "input_json_delta", "partial_json": "{}"}, id="s", name="w", input={}
        )
        result = block(1, "web_search_tool_result", tool_use_id="s", content=[])
        _, out, _ = self.relayed(start() + search + result)
        assert out == start() + search + result


def test_the_cost_of_a_whole_reply_as_it_came() -> None:
    body = b'{"id":"m",  "content": [ {"x":1.0} ],"usage": {"input_tokens" : 3, "speed":"fast"},"zz":[ ]}'
    assert DIALECT.with_cost(parsed(), body, COUNTS) == (
        b'{"id":"m","content":[ {"x":1.0} ],"usage":{"input_tokens":3,"speed":"fast","cost":0.0000015},"zz":[ ]}'
    )
    assert (
        json.loads(DIALECT.with_cost(parsed(), b'{"id":"m"}', Counts(Usage(1, 2), False, None)))["usage"]["estimated"]
        is True
    )
