"""Every recorded provider through the reader: the same events in any segmentation, and what each recording says."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.events import (
    Begin,
    CallBegins,
    CallPiece,
    Done,
    Event,
    Failed,
    Finished,
    Said,
    Thought,
    Used,
)
from app.core.money import NANO_PER_USD, Usage
from app.core.sse import SseParser
from app.dialects.base import BadEvent
from app.dialects.openai_chat.finishes import FAILURES, FINISHES
from app.dialects.openai_chat.read import ChatReader
from tests.dialects.stream_texts import DONE, calls, chunk, ends, says, sse, usage
from tests.wire_cases import WireCase, stream_cases, whole_cases

STREAMS = stream_cases()
WHOLE = [case for case in whole_cases() if case.status == 200]


def read(body: bytes, places: Iterable[int] = ()) -> list[Event]:
    """The events of a stream that arrives in reads ending at these places."""
    parser, reader, events = SseParser(), ChatReader(), list[Event]()
    edges = sorted({0, len(body), *(place % (len(body) + 1) for place in places)})
    for start, end in itertools.pairwise(edges):
        for frame in parser.feed(body[start:end]):
            events += reader.read(frame)
    for frame in parser.close():
        events += reader.read(frame)
    return events


def stream(*datas: bytes) -> list[Event]:
    """The events of a stream of these datas."""
    return read(sse(*datas))


def check(case: WireCase, events: list[Event]) -> None:
    """The events say what the recording's own page says."""
    begins = [event for event in events if isinstance(event, Begin)]
    assert [begin.model for begin in begins] == [case.model]
    assert events[0] is begins[0]
    for index, expected in case.choices.items():
        said = [event for event in events if getattr(event, "choice", None) == index]
        text = "".join(event.text for event in said if isinstance(event, Said) and not event.refusal)
        assert text == expected.text or (expected.audio is not None and text == expected.audio["transcript"])
        assert "".join(event.text for event in said if isinstance(event, Thought)) == expected.reasoning
        assert "".join(event.text for event in said if isinstance(event, Said) and event.refusal) == expected.refusal
        check_calls(case, index, said)
        reasons = [event.reason for event in said if isinstance(event, Finished)]
        if expected.finish is None or expected.finish in FAILURES:
            assert not case.stream or reasons == []
        else:
            assert reasons == [FINISHES[expected.finish]]
    assert {getattr(event, "choice", 0) for event in events} == set(case.choices)


def check_calls(case: WireCase, index: int, said: list[Event]) -> None:
    begun = [event for event in said if isinstance(event, CallBegins)]
    arguments = {
        call.index: "".join(e.text for e in said if isinstance(e, CallPiece) and e.index == call.index)
        for call in begun
    }
    found = [(call.id, call.name, arguments[call.index]) for call in begun]
    expected = case.choices[index]
    if expected.function_call is not None:
        assert [call[1:] for call in found] == [expected.function_call]
        assert found[0][0]
        return
    assert found == [(call.id, call.name, call.arguments) for call in expected.tool_calls]
    assert [call.index for call in begun] == list(range(len(begun)))


def check_usage(case: WireCase, events: list[Event]) -> None:
    reports = [event for event in events if isinstance(event, Used)]
    if case.usage is None:
        assert reports == []
        return
    last, expected = reports[-1].usage, case.usage
    output = case.true_output or expected.output
    assert (last.input, last.output, last.cache_read) == (expected.input, output, expected.cached)
    assert last.reasoning == expected.reasoning
    assert last.cost_nano == (None if case.cost_usd is None else round(float(case.cost_usd) * NANO_PER_USD))
    if case.stream:
        assert reports[-1].final
    assert all(one.usage.output <= two.usage.output for one, two in itertools.pairwise(reports))


@pytest.mark.parametrize("case", STREAMS, ids=repr)
def test_every_recorded_stream_is_read_as_its_page_says(case: WireCase) -> None:
    events = read(case.body)
    check(case, events)
    check_usage(case, events)
    failures = [event for event in events if isinstance(event, Failed)]
    assert len(failures) == (case.error is not None)
    if case.error is not None:
        assert failures[0].message == case.error["message"]
        assert failures[0].kind
    assert sum(isinstance(event, Done) for event in events) == case.done
    assert not case.done or isinstance(events[-1], Done)


@pytest.mark.parametrize("case", STREAMS, ids=repr)
def test_any_segmentation_gives_the_same_events(case: WireCase) -> None:
    whole = read(case.body)
    assert read(case.body, range(len(case.body))) == whole

    @settings(max_examples=15, deadline=None, database=None)
    @given(
        st.lists(st.integers(0, 100_000), max_size=12), st.sampled_from((b": late\n\n", b"data: {\n\n", b"\x00\xff"))
    )
    def at_random(places: list[int], epilogue: bytes) -> None:
        assert read(case.body, places) == whole
        if case.done:
            assert read(case.body.rstrip(b"\r\n") + b"\n\n" + epilogue, places) == whole

    at_random()


@pytest.mark.parametrize("case", WHOLE, ids=repr)
def test_every_recorded_completion_is_read_as_its_page_says(case: WireCase) -> None:
    events = ChatReader().whole(case.body)
    check(case, events)
    if case.name != "llamacpp_n2_whole":
        check_usage(case, events)
    assert isinstance(events[-1], Done)


def test_usage_that_counts_one_choice_of_several_is_not_believed() -> None:
    body = next(case.body for case in WHOLE if case.name == "llamacpp_n2_whole")
    assert not any(isinstance(event, Used) for event in ChatReader().whole(body))
    reply = json.loads(body)
    del reply["timings"]  # as other servers may that count so
    for choice in reply["choices"]:
        choice["message"]["content"] = "word " * 1000
    assert not any(isinstance(event, Used) for event in ChatReader().whole(json.dumps(reply).encode()))
    reply["choices"] = reply["choices"][:1]
    reply["choices"][0]["message"]["content"] = "Hello, I'm"
    assert any(isinstance(event, Used) for event in ChatReader().whole(json.dumps(reply).encode()))


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"5", b"{}", b'{"choices":[]}', b'{"choices":null}', b"\xff", b"{" * 2000]
)
def test_what_is_no_completion_is_a_bad_event(body: bytes) -> None:
    with pytest.raises(BadEvent):
        ChatReader().whole(body)


@pytest.mark.parametrize(
    "data", [b"{", b"null", b"[]", b"5", b'{"choices":5}', b'"\xff"', b'{"usage":{"prompt_tokens":"a"}}']
)
def test_an_event_that_is_no_chunk_is_a_bad_event(data: bytes) -> None:
    with pytest.raises(BadEvent):
        stream(says("Hi"), data)


def test_members_that_nobody_knows_and_empty_events_say_nothing() -> None:
    assert stream(b"{}", b"", b'{"obfuscation":"x","choices":null}', b'{"choices":[{"index":0,"delta":null}]}') == [
        Begin()
    ]


@pytest.mark.parametrize(
    "error", [{"message": "no", "code": 429}, "no", {"message": "no", "type": None, "code": "busy"}]
)
def test_an_error_in_the_place_of_a_reply(error: Any) -> None:
    body = json.dumps({"error": error}).encode()
    failed = ChatReader().whole(body)
    assert stream(body) == failed
    assert isinstance(failed[0], Failed)
    assert failed[0].message == "no"
    assert failed[0].kind == ("busy" if "busy" in str(error) else "server_error")


@pytest.mark.parametrize("word", sorted(FAILURES))
def test_an_end_that_is_none_is_a_failure(word: str) -> None:
    events = stream(says("Hi"), ends(word))
    assert isinstance(events[-1], Failed)
    assert not any(isinstance(event, Finished) for event in events)


@pytest.mark.parametrize(
    ("said", "meant"), [("STOP", "stop"), ("eos", "stop"), ("what", "what"), ("safety", "content_filter")]
)
def test_finish_words(said: str, meant: str) -> None:
    assert stream(says("Hi"), ends(said))[-1] == Finished(meant)


def test_stop_after_a_call_means_the_call() -> None:
    assert stream(calls("{}", name="f"), ends("stop"))[-1] == Finished("tool_calls")
    assert stream(says("a"), ends("stop"), calls("{}", index=1, name="f"))[2] == Finished("stop")


def test_vllms_stop_reason_is_the_stop_sequence() -> None:
    stop = chunk({"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "END"})
    token = chunk({"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": 151645})
    assert stream(stop)[-1] == Finished("stop", 0, "END")
    assert stream(token)[-1] == Finished("stop")


@pytest.mark.parametrize(
    "names", [("reasoning_content",), ("reasoning",), ("thinking",), ("reasoning", "reasoning_content")]
)
def test_a_thought_is_one_thought_under_any_name(names: tuple[str, ...]) -> None:
    delta = dict.fromkeys(names, "hm")
    assert stream(chunk({"index": 0, "delta": delta, "finish_reason": None}))[1:] == [
        Thought("hm", origin="openai_chat")
    ]


def test_the_end_of_a_thought_is_marked() -> None:
    thinks = chunk({"index": 0, "delta": {"reasoning": "hm"}, "finish_reason": None})
    end = Thought(signature="unsigned", ends=True, origin="openai_chat")
    assert stream(thinks, thinks, says("A"), ends())[3:] == [end, Said("A"), Finished("stop")]
    assert stream(thinks, ends())[2:] == [end, Finished("stop")]
    assert stream(thinks, calls("{}", name="f"))[2] == end


def delta_calls(*items: dict[str, Any]) -> bytes:
    """A chunk whose delta has these tool calls."""
    return chunk({"index": 0, "delta": {"tool_calls": list(items)}, "finish_reason": None})


def function(name: str | None, arguments: Any, **members: Any) -> dict[str, Any]:
    """One tool call of a delta."""
    return {**members, "type": "function", "function": {"name": name, "arguments": arguments}}


ODD_CALLS = {
    "whole, no index": [delta_calls(function("f", '{"a":1}', id="x")), delta_calls(function("f", '{"a":2}', id="y"))],
    "whole, all of index 0": [
        delta_calls(function("f", '{"a":1}', id="x", index=0)),
        delta_calls(function("f", '{"a":2}', id="y", index=0)),
    ],
    "both in one delta": [delta_calls(function("f", '{"a":1}', id="x"), function("f", '{"a":2}', id="y"))],
    "arguments as an object": [delta_calls(function("f", {"a": 1}, id="x"), function("f", {"a": 2}, id="y"))],
    "in pieces, interleaved": [
        delta_calls(function("f", "", id="x", index=0), function("f", '{"a"', id="y", index=1)),
        delta_calls(function(None, '{"a":', index=0)),
        delta_calls(function(None, ":2}", index=1), function(None, "1}", index=0)),
    ],
    "name and id on every piece": [
        delta_calls(function("f", '{"a"', id="x", index=0)),
        delta_calls(function("f", ":1}", id="x", index=0)),
        delta_calls(function("f", '{"a":2}', id="y", index=1)),
    ],
    "name after the id": [
        delta_calls({"index": 3, "id": "x"}),
        delta_calls(function(None, '{"a"', index=3)),
        delta_calls(function("f", ":1}", index=3)),
        delta_calls(function("f", '{"a":2}', id="y", index=7)),
    ],
}


@pytest.mark.parametrize("name", ODD_CALLS)
def test_calls_in_every_shape(name: str) -> None:
    events = stream(*ODD_CALLS[name], ends("tool_calls"))
    assert [event for event in events if isinstance(event, CallBegins)] == [
        CallBegins(0, "x", "f"),
        CallBegins(1, "y", "f"),
    ]
    for index, arguments in enumerate(('{"a":1}', '{"a":2}')):
        pieces = [event.text for event in events if isinstance(event, CallPiece) and event.index == index]
        assert "".join(pieces).replace(" ", "") == arguments


def test_calls_without_ids_get_some_that_are_always_the_same() -> None:
    for index in (None, 0):
        datas = [delta_calls(function("f", '{"a":1}', index=index)), delta_calls(function("f", '{"a":2}', index=index))]
        begun = [event for event in stream(*datas) if isinstance(event, CallBegins)]
        assert len({event.id for event in begun}) == 2
        assert begun == [event for event in stream(*datas) if isinstance(event, CallBegins)]


def test_custom_calls_and_googles_signatures() -> None:
    custom = {"index": 0, "id": "x", "type": "custom", "custom": {"name": "sql", "input": "select"}}
    assert stream(delta_calls(custom))[1:] == [CallBegins(0, "x", "sql", custom=True), CallPiece(0, "select")]
    signed = function("f", "{}", id="x", extra_content={"google": {"thought_signature": "c2ln"}})
    assert stream(delta_calls(signed))[1] == CallBegins(0, "x", "f", signature="c2ln")


def test_a_call_that_never_names_its_tool_is_none() -> None:
    assert (
        stream(delta_calls({"index": 0, "id": "x"}), delta_calls(function(None, "{}", index=0)), ends("stop"))[1:-1]
        == []
    )


def test_a_message_behind_its_deltas_is_the_same_once_more() -> None:
    again = chunk({"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "ab"}})
    events = stream(says("a"), says("b"), again, DONE)
    assert [event.text for event in events if isinstance(event, Said)] == ["a", "b"]
    assert [event for event in events if isinstance(event, Finished)] == [Finished("stop")]
    alone = stream(again, DONE)
    assert [event.text for event in alone if isinstance(event, Said)] == ["ab"]


def test_cumulative_reports_are_not_final_until_the_end() -> None:
    datas = [
        says("a", usage=usage(5, 1)),
        says("b", usage=usage(5, 2)),
        ends(usage=usage(5, 2)),
        chunk(usage=usage(5, 2)),
    ]
    reports = [event for event in stream(*datas, DONE) if isinstance(event, Used)]
    assert [(report.usage.output, report.final) for report in reports] == [(1, False), (2, False), (2, True), (2, True)]


def test_a_report_beside_several_choices_is_kept_for_the_end() -> None:
    datas = [says("a"), says("b", index=1), ends(), ends(index=1, usage=usage(5, 9))]
    events = stream(*datas, DONE)
    assert events[-2:] == [Used(Usage(5, 9)), Done()]
    events = stream(*datas, chunk(usage=usage(5, 11)), DONE)
    assert [event for event in events if isinstance(event, Used)] == [Used(Usage(5, 11))]
