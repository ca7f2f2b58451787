"""What a reply of a Responses upstream says, whatever its server leaves out."""

from __future__ import annotations

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
    Failed,
    Finished,
    Ran,
    Said,
    Thought,
    Used,
)
from app.core.money import Usage
from app.core.sse import Frame
from app.dialects.base import BadEvent
from app.dialects.openai_responses.dialect import DIALECT
from tests.dialects.openai_responses import replies
from tests.dialects.openai_responses.replies import CALL_A, CUSTOM, MESSAGE, REASONING, events_of, joined, sse

USED = Used(Usage(20, 7, cache_read=8, reasoning=3))
ORIGIN = "openai_responses"


def without_reply(events: list[Event]) -> list[Event]:
    return [Finished(event.reason) if isinstance(event, Finished) else event for event in events]


def test_a_text_is_told_piece_by_piece() -> None:
    events = without_reply(events_of(replies.text_reply()))
    assert events == [Begin("resp_1", "gpt-x", 17), Said("Hé "), Said("llo"), Finished("stop"), USED, Done()]


def test_thinking_and_calls_side_by_side() -> None:
    events = without_reply(events_of(replies.tools_reply()))
    assert joined(events) == [
        Begin("resp_1", "gpt-x", 17),
        Thought("**One** think\n\n**Two**", encrypted="gAAA", ends=True, origin=ORIGIN, id="rs_1"),
        CallBegins(0, "call_a", "find"),
        CallPiece(0, '{"q":"x"}'),
        CallEnds(0),
        CallBegins(1, "call_b", "shut"),
        CallPiece(1, "{}"),
        CallEnds(1),
        CallBegins(2, "call_c", "patch", custom=True),
        CallPiece(2, '*** "Begin"\n'),
        CallEnds(2),
        Finished("tool_calls"),
        USED,
        Done(),
    ]


@pytest.mark.parametrize("step", [1, 7])
@pytest.mark.parametrize("stream", [replies.text_reply(), replies.tools_reply(), replies.llama_reply()])
def test_any_segmentation_and_trailing_bytes_say_the_same(stream: bytes, step: int) -> None:
    assert events_of(stream, step) == events_of(stream)
    assert events_of(stream + b": bye\n\ndata: [DONE]\n\n", step) == events_of(stream)


def test_calls_whose_pieces_alternate() -> None:
    other = {**CALL_A, "id": "fc_2", "call_id": "call_b", "arguments": "[2]"}
    stream = sse(
        *replies.begins(),
        replies.added(0, CALL_A),
        replies.added(1, other),
        replies.at("function_call_arguments.delta", 1, other, delta="[2]"),
        replies.at("function_call_arguments.delta", 0, CALL_A, delta=CALL_A["arguments"]),
        replies.done(1, other),
        replies.done(0, CALL_A),
        replies.ends(CALL_A, other),
    )
    assert events_of(stream)[3:7] == [
        CallPiece(1, "[2]"),
        CallPiece(0, '{"q":"x"}'),
        CallEnds(1),
        CallEnds(0),
    ]


def test_llama_cpp_ends_half_a_call_as_completed_and_is_not_believed() -> None:
    events = without_reply(joined(events_of(replies.llama_reply())))
    assert events == [
        Begin("resp_l", "", 0),
        Thought("hm", origin=ORIGIN, id="rs_l"),
        Said("Hé llo"),
        CallBegins(0, "call_9", "find"),
        CallPiece(0, '{"q":"x'),
        Thought(ends=True, origin=ORIGIN, id="rs_l"),
        Finished("tool_calls"),
        Used(Usage(5, 4, cache_read=1)),
        Done(),
    ]


@pytest.mark.parametrize("numbered", [True, False])
def test_servers_that_send_whole_items_only(numbered: bool) -> None:
    items = (REASONING, MESSAGE, CALL_A, CUSTOM)
    bare = [{"type": "response.output_item.done", "item": item} for item in items]
    placed = [replies.done(place, item) for place, item in enumerate(items)]
    whole = without_reply(DIALECT.reader().whole(json.dumps(replies.ends(*items)["response"]).encode()))
    told = placed if numbered else bare
    assert without_reply(events_of(sse(*told, replies.ends(*items)))) == [Begin(), *whole[1:]]
    assert without_reply(events_of(sse(*told, replies.ends()))) == [Begin(), *whole[1:]]
    assert without_reply(events_of(sse(replies.ends(*items)))) == whole


def test_what_deltas_left_out_comes_from_the_done_events() -> None:
    stream = sse(
        replies.added(0, MESSAGE),
        replies.at("output_text.done", 0, MESSAGE, text="Hé llo"),
        replies.done(0, MESSAGE),
        replies.added(1, CALL_A),
        replies.at("function_call_arguments.delta", 1, CALL_A, delta='{"q'),
        replies.at("function_call_arguments.done", 1, CALL_A, arguments=CALL_A["arguments"]),
        replies.done(1, CALL_A),
    )
    assert events_of(stream) == [
        Begin(),
        Said("Hé llo"),
        CallBegins(0, "call_a", "find"),
        CallPiece(0, '{"q'),
        CallPiece(0, '":"x"}'),
        CallEnds(0),
    ]


def test_an_item_named_differently_from_event_to_event_is_known_by_its_place() -> None:
    stream = sse(
        replies.added(0, {**MESSAGE, "id": "a"}),
        replies.at("output_text.delta", 0, {"id": "b"}, delta="Hé llo"),
        replies.done(0, {**MESSAGE, "id": "c"}),
        replies.ends(MESSAGE),
    )
    assert [event for event in events_of(stream) if isinstance(event, Said)] == [Said("Hé llo")]


@pytest.mark.parametrize(
    ("reason", "finish"), [("max_output_tokens", "length"), ("content_filter", "content_filter"), (None, "length")]
)
def test_an_incomplete_reply(reason: str | None, finish: str) -> None:
    last = replies.ends(MESSAGE, status="incomplete", incomplete_details={"reason": reason})
    events = events_of(sse(*replies.begins(), *replies.saying(), last))
    assert without_reply(events)[-3:] == [Finished(finish), USED, Done()]


def test_half_a_call_that_is_named_incomplete_does_not_end() -> None:
    half = {**CALL_A, "arguments": "{}", "status": "incomplete"}
    last = replies.ends(half, status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    events = events_of(sse(replies.added(0, CALL_A), replies.done(0, half), last))
    assert CallEnds(0) not in events
    assert CallPiece(0, "{}") in events


def test_the_reply_is_kept_as_its_provider_repeats_it() -> None:
    last = replies.ends({**MESSAGE, "phase": "final_answer"})
    finished = next(event for event in events_of(sse(last)) if isinstance(event, Finished))
    assert json.loads(finished.reply or b"") == last["response"]


@pytest.mark.parametrize(
    ("event", "failed"),
    [
        (
            {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "x"}}},
            Failed("x", "server_error"),
        ),
        ({"type": "error", "code": "busy", "message": "slow", "param": None}, Failed("slow", "busy")),
        ({"type": "error", "error": {"type": "overloaded", "message": "full"}}, Failed("full", "overloaded")),
        ({"type": "", "error": "no"}, Failed("no")),
        ({"type": "", "error": {"code": 500, "message": "bad", "type": "server_error"}}, Failed("bad", "500")),
        (
            {"type": "response.cancelled", "response": {"status": "cancelled"}},
            Failed("The provider reported an error in its stream.", "cancelled"),
        ),
    ],
)
def test_errors_in_the_stream(event: dict[str, Any], failed: Failed) -> None:
    assert events_of(sse(event))[-1] == failed


def test_a_failure_tells_its_usage() -> None:
    last = replies.ends(status="failed", error={"code": "server_error", "message": "x"})
    assert events_of(sse(last))[-2:] == [USED, Failed("x", "server_error")]


def test_what_says_nothing_here_is_passed_over() -> None:
    quiet: list[dict[str, Any]] = [
        {"type": "response.web_search_call.searching", "item_id": "ws", "output_index": 0},
        {"type": "response.output_item.added", "item": {"type": "web_search_call", "id": "ws", "action": {}}},
        {"type": "response.output_text.annotation.added", "annotation": {"type": "url_citation"}},
        {"type": "response.output_text.delta", "delta": None},
        {"type": "response.function_call_arguments.delta", "delta": "lost"},
        {"type": "something.new", "delta": {"a": 1}},
    ]
    assert events_of(sse(*quiet)) == []
    assert events_of(b": keepalive\n\n") == []


@pytest.mark.parametrize("data", [b"no json", b"[]", b'"text"', b'{"type":"response.completed","response":3}'])
def test_what_is_no_event_is_refused(data: bytes) -> None:
    with pytest.raises(BadEvent):
        DIALECT.reader().read(Frame(b"", data))


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"output":3}', b'{"choices":[]}'])
def test_what_is_no_reply_is_refused(body: bytes) -> None:
    with pytest.raises(BadEvent):
        DIALECT.reader().whole(body)


def test_a_whole_reply_may_be_an_error() -> None:
    assert DIALECT.reader().whole(b'{"error":{"message":"m","code":"c"}}')[-1] == Failed("m", "c")


def test_usage_counts_cached_input_once_and_takes_the_providers_cost() -> None:
    usage = {**replies.USAGE, "cost": 0.25, "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 5}}
    body = json.dumps({"output": [], "usage": usage}).encode()
    assert Used(Usage(20, 7, 8, 5, 0, 3, 250_000_000)) in DIALECT.reader().whole(body)


def test_code_is_billed_by_the_container() -> None:
    """In the stream as at its end; one that is not named may be another each time."""
    places = ["c1", "c1", "c2", None, None]
    items = [
        {"type": "code_interpreter_call", "id": f"ci_{place}", "status": "completed", "container_id": container}
        for place, container in enumerate(places)
    ]
    events = events_of(sse(*({"type": "response.output_item.done", "item": item} for item in items)))
    assert [event for event in events if isinstance(event, Ran)] == [Ran("code_execution")] * 4
    body = json.dumps({"output": items, "usage": replies.USAGE}).encode()
    (used,) = [event for event in DIALECT.reader().whole(body) if isinstance(event, Used)]
    assert used.usage.tools == (("code_execution", 4),)


def test_a_shell_is_billed_where_it_runs_at_the_provider() -> None:
    places: list[Any] = [
        None, {"type": "local"}, {"type": "container_reference", "container_id": "c1"},
        {"type": "container_reference", "container_id": "c1"}, "odd",
    ]  # fmt: skip
    items = [{"type": "shell_call", "id": f"sh_{n}", "environment": place} for n, place in enumerate(places)]
    events = events_of(sse(*({"type": "response.output_item.done", "item": item} for item in items)))
    assert [event for event in events if isinstance(event, Ran)] == [Ran("code_execution")]


NAMES = st.sampled_from(
    ["type", "response", "item", "delta", "error", "output", "usage", "status", "arguments", "id", "content", "summary"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)


@given(VALUES)
def test_no_event_brings_the_reader_down(value: Any) -> None:
    for kind in ("response.output_text.delta", "response.output_item.done", "response.completed", "error"):
        event = {**value, "type": kind} if isinstance(value, dict) else {"type": kind, "response": value, "item": value}
        try:
            events_of(sse(event))
        except BadEvent:
            continue
