"""Frames do not depend on how the bytes arrive, and carry the bytes they came as."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.core.sse import MAX_EVENT_BYTES, Frame, SseOverflow, SseParser, sse_event

pieces_of_stream = st.lists(
    st.sampled_from(
        [
            b"data: a",
            b"data:b",
            b"data",
            b"data: ",
            b": note",
            b"event: x",
            b"id: 1",
            b"\n",
            b"\r",
            b"\r\n",
            b"\xc3\xbc",
            b"\xe2\x98",
            b"\xff",
        ]
    ),
    max_size=24,
).map(b"".join)


def parsed(reads: list[bytes]) -> list[Frame]:
    parser = SseParser()
    found = [frame for read in reads for frame in parser.feed(read)]
    return found + parser.close()


def by_the_standard(stream: bytes) -> list[bytes | None]:
    """The interpretation of the HTML standard, line by line; what is left at the end counts as an event."""
    stream = stream.decode(errors="replace").encode()
    lines = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    events: list[bytes | None] = []
    block: list[bytes] = []
    for line in [*lines, b""]:
        if line:
            block.append(line)
        elif block:
            fields = [b.partition(b":") for b in block]
            data = [value.removeprefix(b" ") for name, _, value in fields if name == b"data"]
            events.append(b"\n".join(data) if data else None)
            block = []
    return events


@settings(max_examples=150, deadline=None)
@given(pieces_of_stream, st.lists(st.integers(0, 200), max_size=8), st.booleans())
@example(b"data: a\n\r\ndata:b\r\r\n", [1, 2], False)
@example(b"data: a\r\r", [8], True)
def test_any_segmentation_gives_the_same_frames(stream: bytes, places: list[int], marked: bool) -> None:
    stream = b"\xef\xbb\xbf" * marked + stream
    whole = parsed([stream])
    assert [frame.data for frame in whole] == by_the_standard(stream)
    assert parsed([stream[i : i + 1] for i in range(len(stream))]) == whole
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    assert parsed([stream[a:b] for a, b in itertools.pairwise(edges)]) == whole


@settings(max_examples=80, deadline=None)
@given(pieces_of_stream)
def test_frames_keep_the_bytes_they_came_as(stream: bytes) -> None:
    stream = stream.decode(errors="replace").encode()
    raws = b"".join(frame.raw for frame in parsed([stream]))
    assert [line for line in raws.split() if line] == [line for line in stream.split() if line]


def test_a_multi_line_event_is_joined_and_its_bytes_kept() -> None:
    raw = b'event: m\r\ndata: {\r\ndata:  "a": 1\r\ndata: }\r\n\r\n'
    assert SseParser().feed(raw) == [Frame(raw, b'{\n "a": 1\n}')]


@pytest.mark.parametrize("tail", [b"data: x", b"data: x\n", b"data: x\r", b"data: x\r\n", b"data: x\r\n\r"])
def test_the_last_event_needs_no_blank_line(tail: bytes) -> None:
    parser = SseParser()
    assert parser.feed(b": hello\n\n" + tail) == [Frame(b": hello\n\n", None)]
    assert parser.close() == [Frame(b"data: x\n\n", b"x")]
    assert parser.close() == []


def test_a_byte_order_mark_is_ignored_once_only_at_the_start() -> None:
    mark = b"\xef\xbb\xbf"
    assert [f.data for f in parsed([mark[:1], mark[1:] + b"data: x\n\n"])] == [b"x"]
    assert [f.data for f in parsed([b"data: x\n\n" + mark + b"data: y\n\n"])] == [b"x", None]
    assert [f.data for f in parsed([b"\n\n" + mark + b"data: y\n\n"])] == [None]


def test_an_event_without_end_is_refused_before_it_fills_the_memory() -> None:
    parser = SseParser()
    parser.feed(b"data: " + b"x" * (MAX_EVENT_BYTES - 6))
    with pytest.raises(SseOverflow):
        parser.feed(b"x")


def test_a_large_event_in_small_reads_is_whole() -> None:
    event = sse_event(b"x" * 300_000)
    frames = parsed([event[i : i + 1460] for i in range(0, len(event), 1460)])
    assert frames == [Frame(event, b"x" * 300_000)]
