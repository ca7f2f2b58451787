"""All pairs of dialects: replies of any content, and every ending, as a client reads them."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.events import Begin, CallBegins, CallEnds, CallPiece, Done, Event, Failed, Finished, Said, Thought
from app.core.money import Usage
from app.core.sse import SseParser
from app.dialects.event_relay import EventRelay
from app.dialects.openai_chat.errors import budget_error
from app.dialects.registry import CHAT, GEMINI, MESSAGES, NAMES, RESPONSES, dialect_named
from tests.dialects.pairs import PAIRS, asking, gist, of_origin, read, relayed, relaying, spoken
from tests.dialects.test_pairs import kept

USAGE = Usage(100, 20, cache_read=40, cache_write=10, cache_write_1h=5, reasoning=8)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=6,
)


@st.composite
def calls(draw: st.DrawFn, index: int) -> list[Event]:
    """One call, its arguments cut anywhere."""
    text = json.dumps(draw(st.dictionaries(TEXTS, VALUES, max_size=3)), ensure_ascii=draw(st.booleans()))
    places = sorted({0, len(text), *draw(st.lists(st.integers(0, len(text)), max_size=6))})
    pieces: list[Event] = [CallPiece(index, text[a:b]) for a, b in itertools.pairwise(places)]
    ends: list[Event] = [CallEnds(index)] if draw(st.booleans()) else []
    return [CallBegins(index, f"call_{index}", draw(st.sampled_from(["weather", "time"]))), *pieces, *ends]


@st.composite
def replies(draw: st.DrawFn) -> list[Event]:
    """A reply: thoughts, text and calls, in the order in which providers say them."""
    script: list[Event] = [Begin("id_1", "model-1")]
    thoughts = draw(st.lists(TEXTS, max_size=3))
    script += [Thought(text) for text in thoughts]
    if thoughts:
        script.append(Thought("", signature="c2ln", ends=True))
    script += [Said(text) for text in draw(st.lists(TEXTS, max_size=3))]
    count = draw(st.integers(0, 3))
    for index in range(count):
        script += draw(calls(index))
    reasons = ["tool_calls"] if count else ["stop", "length", "content_filter"]
    return [*script, Finished(draw(st.sampled_from(reasons)))]


@pytest.mark.parametrize(("upstream", "client"), PAIRS)
def test_any_reply_says_the_same(upstream: str, client: str) -> None:
    @settings(max_examples=30, deadline=None, database=None)
    @given(replies(), st.lists(st.integers(0, 100_000), max_size=8))
    def any_reply(script: list[Event], places: list[int]) -> None:
        script = of_origin(script, upstream)
        body = spoken(upstream, script, USAGE)
        stream, relay = relayed(upstream, client, body, places)
        assert relay.broken is None
        assert gist(read(client, stream)) == kept(script, upstream, client)
        folded, _ = relayed(upstream, client, body, places, folds=True)
        assert gist(dialect_named(client).reader().whole(folded)) == kept(script, upstream, client)

    any_reply()


@pytest.mark.parametrize("client", [CHAT, GEMINI])
def test_fewer_choices_than_asked_for_are_whole_where_none_is_open(client: str) -> None:
    """Gemini has no mark for the end of a stream but the ends of its candidates."""
    said = {
        choice: spoken(GEMINI, [Begin("id_1", "m"), Said("Hi", choice), Finished("stop", choice)], USAGE)
        for choice in (0, 1)
    }
    begun = spoken(GEMINI, [Begin("id_1", "m"), Said("Hi", 1)], USAGE)
    for body, whole, ended in (
        (said[0], True, False),
        (begun + said[0], False, False),
        (said[0] + said[1], True, True),
    ):
        relay = relaying(GEMINI, client, choices=2)
        relay.feed(SseParser().feed(body))
        assert (relay.whole, relay.ended, relay.broken) == (whole, ended, None)


@pytest.mark.parametrize(("upstream", "client"), PAIRS)
def test_done_may_end_a_stream_of_any_dialect(upstream: str, client: str) -> None:
    """Some gateways on the way end every stream with it; none but chat's clients could read it."""
    body = spoken(upstream, [Begin("id_1", "model-1"), Said("Hello"), Finished("stop")], USAGE)
    stream, _ = relayed(upstream, client, body, [])
    marked, relay = relayed(upstream, client, body.removesuffix(b"data: [DONE]\n\n") + b"data: [DONE]\n\n", [])
    assert (relay.broken, relay.ended) == (None, True)
    assert gist(read(client, marked)) == gist(read(client, stream))
    if client == GEMINI:
        assert marked == stream


IN_TEXT: list[Event] = [Begin("id_1", "model-1"), Thought("hm"), Said("Hel"), Said("lo")]
IN_CALL: list[Event] = [*IN_TEXT, CallBegins(0, "call_a", "time"), CallPiece(0, '{"a":"b')]
IN_SECOND: list[Event] = [
    *IN_TEXT, CallBegins(0, "call_a", "time"), CallPiece(0, '{"a":"b"}'), CallEnds(0), CallBegins(1, "call_b", "time"),
    CallPiece(1, '{"a":"b'),
]  # fmt: skip
ERROR = budget_error("task")


def half_way(upstream: str, client: str, script: list[Event]) -> tuple[bytes, EventRelay]:
    """What a client has of what an upstream said so far, and the relay between them."""
    writer = dialect_named(upstream).writer(asking(upstream))
    said = b"".join(writer.write([event]) for event in of_origin(script, upstream))
    relay = relaying(upstream, client)
    out = relay.feed(SseParser().feed(said))
    # Gemini's calls are told when they are whole, so that none of this one is on the wire.
    assert relay.in_tool == (script is not IN_TEXT and upstream != GEMINI)
    return out, relay


@pytest.mark.parametrize(("upstream", "client"), PAIRS)
@pytest.mark.parametrize("script", [IN_TEXT, IN_CALL, IN_SECOND], ids=["text", "call", "second"])
def test_a_cut_is_an_error_and_no_finish(upstream: str, client: str, script: list[Event]) -> None:
    out, relay = half_way(upstream, client, script)
    stream = out + relay.end_cut(ERROR, 1_500)
    events = read(client, stream)
    assert [event.message for event in events if isinstance(event, Failed)] == [ERROR.message]
    assert not any(isinstance(event, Finished) for event in events)
    text = "".join(event.text for event in events if isinstance(event, Said))
    assert text == "Hello"
    assert (b"[DONE]" in stream) == (client == CHAT)
    if client == GEMINI:
        assert stream.rstrip().endswith(b"}")
        assert b"data:" not in stream[stream.rindex(b"FAILED_PRECONDITION") - 300 :].partition(b'{"error"')[2]
    if client == MESSAGES:
        assert b"message_stop" not in stream
        assert b"billing_error" in stream
    if client == RESPONSES:
        assert b"response.failed" in stream
        assert b"invalid_prompt" in stream


@pytest.mark.parametrize(("upstream", "client"), PAIRS)
def test_of_two_calls_the_one_that_a_cut_broke_off_is_not_whole(upstream: str, client: str) -> None:
    """The first one is whole, and may be told as such; of the second nothing must look like its end."""
    out, relay = half_way(upstream, client, IN_SECOND)
    stream = out + relay.end_cut(ERROR, 1_500)
    begun: dict[int, str] = {}
    texts: dict[int, str] = {}
    ended = set()
    for event in read(client, stream):
        if isinstance(event, CallBegins):
            begun[event.index] = event.id
        elif isinstance(event, CallPiece):
            texts[event.index] = texts.get(event.index, "") + event.text
        elif isinstance(event, CallEnds):
            ended.add(begun[event.index])
    assert ended <= {"call_a"}
    told = {begun[index]: text for index, text in texts.items()}
    assert told.get("call_b", '{"a":"b') == '{"a":"b'
    assert json.loads(told.get("call_a", '{"a":"b"}')) == {"a": "b"}
    if client == RESPONSES:  # whose clients execute a call that is `done`
        frames = [json.loads(frame.data) for frame in SseParser().feed(stream) if frame.data]
        done = [frame["item"] for frame in frames if frame["type"] == "response.output_item.done"]
        assert {item["call_id"] for item in (*done, *frames[-1]["response"]["output"]) if "call_id" in item} <= {
            "call_a"
        }


@pytest.mark.parametrize(("upstream", "client"), PAIRS)
def test_a_soft_cut_is_the_limit(upstream: str, client: str) -> None:
    out, relay = half_way(upstream, client, IN_TEXT)
    stream = out + relay.end_cut_softly(b'{"reason":"budget"}', 1_500)
    events = read(client, stream)
    assert [event.reason for event in events if isinstance(event, Finished)] == ["length"]
    assert "".join(event.text for event in events if isinstance(event, Said)) == "Hello"
    assert b'"bursar":{"cut":' in stream.replace(b": ", b":")


@pytest.mark.parametrize(("upstream", "client"), PAIRS)
@pytest.mark.parametrize("script", [IN_TEXT, IN_CALL], ids=["text", "call"])
def test_an_upstream_that_goes_away_has_no_end(upstream: str, client: str, script: list[Event]) -> None:
    out, relay = half_way(upstream, client, script)
    stream = out + relay.end_broken(ERROR)
    events = read(client, stream)
    assert sum(isinstance(event, Failed) for event in events) == 1
    assert not any(isinstance(event, Finished | Done) for event in events)


@pytest.mark.parametrize(("upstream", "client"), PAIRS)
def test_half_a_call_that_our_clamp_broke_off_never_looks_whole(upstream: str, client: str) -> None:
    """The provider ends such a call like any other; the client must see neither its end nor a finish reason."""
    script = of_origin([*IN_CALL, CallEnds(0), Finished("length")], upstream)
    if upstream == GEMINI:
        return  # its calls come whole or not at all
    relay = relaying(upstream, client, clamp_tokens=20)
    out = relay.feed(SseParser().feed(spoken(upstream, script, Usage(100, 20))))
    assert relay.clamped
    events = read(client, out + relay.end_cut(ERROR, 1_500))
    assert not any(isinstance(event, Finished | CallEnds) for event in events)
    assert isinstance(events[-1], Done | Failed)


def test_every_dialect_is_in_a_pair() -> None:
    assert {name for pair in PAIRS for name in pair} == set(NAMES)
