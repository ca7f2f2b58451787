"""A connection fed by hand: whatever the segments, the same reply; whatever the bytes, no surprise."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.pool_connection import MAX_HEAD_BYTES, Connection
from app.gateway.pool_origin import IDLE_S, Origin, idle_limit_s
from app.gateway.upstream import READ_BUFFER_BYTES


class Wire(asyncio.Transport):
    """A transport that only remembers what was done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.aborted = self.paused = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return 0


@dataclass
class Heard:
    """What a client learns from a reply."""

    status: int
    headers: dict[str, str]
    error: bool
    complete: bool
    reusable: bool
    body: bytes = field(default=b"")


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def asked(loop: asyncio.AbstractEventLoop) -> tuple[Connection, Wire]:
    """A connection on which a request has just been written."""
    connection, wire = Connection(loop, Origin("host", 80, tls=False), set()), Wire()
    connection.connection_made(wire)
    connection.send(b"POST / HTTP/1.1\r\nContent-Length: ", b"{}")
    assert wire.written == [b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"]
    return connection, wire


def hear(loop: asyncio.AbstractEventLoop, segments: Sequence[bytes], *, ends: bool = False) -> Heard:
    """Feed the segments, and the connection's end where `ends`; read everything."""
    connection, wire = asked(loop)
    body = b""
    for segment in segments:
        connection.data_received(segment)
        body += connection.take()
        assert not wire.paused
        if wire.aborted:
            break
    if ends:
        connection.eof_received()
        connection.connection_lost(None)
    complete, error = not connection.asked and connection.error is None, connection.error is not None
    connection.finish()
    idle = connection in connection.origin.idle
    return Heard(connection.status, connection.headers, error, complete, idle, body)


def cut(wire: bytes, places: Sequence[int]) -> list[bytes]:
    """The bytes in segments that end at these places."""
    edges = [0, *sorted(place % (len(wire) + 1) for place in places), len(wire)]
    return [wire[start:end] for start, end in pairwise(edges) if start < end]


interims = st.lists(
    st.sampled_from([b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nlink: a\r\n\r\n"]), max_size=2
)
names = st.sampled_from([b"x-a", b"X-Request-Id", b"Retry-After"])
values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20).map(str.encode)
extensions = st.sampled_from([b"", b";a", b";a=b", b';a="b c"'])


@st.composite
def replies(draw: st.DrawFn) -> tuple[bytes, bytes, bool]:
    """A reply's bytes, its body, and whether only the connection's end ends it."""
    body_parts = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
    body = b"".join(body_parts)
    lines = b"".join(b"%b: %b\r\n" % header for header in draw(st.lists(st.tuples(names, values), max_size=3)))
    head = b"".join(draw(interims)) + b"HTTP/1.1 200 OK\r\n" + lines
    framing = draw(st.sampled_from(["chunked", "length", "close"]))
    if framing == "length":
        return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body), body, False
    if framing == "close":
        return head + b"\r\n" + body, body, True
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(part), draw(extensions), part) for part in body_parts)
    trailers = draw(st.sampled_from([b"", b"x-sum: 1\r\n", b"x-sum: 1\r\nx-b: 2\r\n"]))
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailers + b"\r\n", body, False


@given(reply=replies(), places=st.lists(st.integers(min_value=0), max_size=12))
def test_segments_do_not_matter(
    loop: asyncio.AbstractEventLoop, reply: tuple[bytes, bytes, bool], places: list[int]
) -> None:
    wire, body, until_close = reply
    heard = hear(loop, cut(wire, places), ends=until_close)
    assert heard == hear(loop, [wire], ends=until_close)
    assert heard == hear(loop, [bytes([byte]) for byte in wire], ends=until_close)
    assert (heard.status, heard.body, heard.complete, heard.reusable) == (200, body, True, not until_close)
    assert "x-sum" not in heard.headers
    assert "link" not in heard.headers


@given(reply=replies(), place=st.integers(min_value=0))
def test_a_reply_cut_short_is_never_complete(
    loop: asyncio.AbstractEventLoop, reply: tuple[bytes, bytes, bool], place: int
) -> None:
    wire, body, until_close = reply
    part = wire[: place % len(wire)]
    heard = hear(loop, [part], ends=True)
    assert body.startswith(heard.body)
    assert heard.complete == (until_close and heard.status != 0)
    assert heard.error != heard.complete
    assert not heard.reusable


@given(wire=st.binary(max_size=200), prefix=st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 "]))
def test_nonsense_raises_nothing_and_is_not_reused(loop: asyncio.AbstractEventLoop, wire: bytes, prefix: bytes) -> None:
    heard = hear(loop, [prefix + wire], ends=True)
    assert heard.complete != heard.error
    assert not heard.reusable


@given(reply=replies(), extra=st.binary(min_size=1, max_size=20).filter(lambda data: data.strip(b"\r\n")))
def test_bytes_after_the_reply_end_the_connection_and_not_the_reply(
    loop: asyncio.AbstractEventLoop, reply: tuple[bytes, bytes, bool], extra: bytes
) -> None:
    wire, body, until_close = reply
    for segments in ([wire + extra], [wire, extra]):
        heard = hear(loop, segments, ends=until_close)
        assert heard.complete
        assert heard.body == (body + extra if until_close else body)
        assert not heard.reusable


def test_reading_pauses_above_the_buffer_and_resumes_below(loop: asyncio.AbstractEventLoop) -> None:
    connection, wire = asked(loop)
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * READ_BUFFER_BYTES)
    assert not wire.paused
    connection.data_received(b"x")
    assert wire.paused
    assert len(connection.take()) == READ_BUFFER_BYTES + 1
    assert not wire.paused
    connection.connection_lost(ConnectionResetError("reset"))
    assert connection.error is not None
    assert "reset" in connection.error


def test_the_waiter_is_woken_once_a_segment_and_only_by_news(loop: asyncio.AbstractEventLoop) -> None:
    connection, _ = asked(loop)
    waiter = connection.waiter = loop.create_future()
    connection.data_received(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: ")
    assert not waiter.done()
    connection.data_received(b"chunked\r\n\r\n")
    assert waiter.done()
    waiter = connection.waiter = loop.create_future()
    connection.data_received(b"3\r\n")
    assert not waiter.done()
    connection.data_received(b"abc\r\n3\r\ndef\r\n")
    assert waiter.done()
    assert connection.take() == b"abcdef"


def test_a_head_is_bounded_however_it_comes(loop: asyncio.AbstractEventLoop) -> None:
    line = b"x-a: " + b"y" * 4096 + b"\r\n"
    wire = b"HTTP/1.1 200 OK\r\n" + line * (MAX_HEAD_BYTES // 4096 + 1) + b"\r\n"
    assert hear(loop, [wire]).error
    assert hear(loop, cut(wire, range(0, len(wire), 1000))).error
    assert not hear(loop, [b"HTTP/1.1 200 OK\r\n" + line * 8 + b"content-length: 0\r\n\r\n"]).error


def test_how_long_an_idle_connection_is_kept() -> None:
    assert idle_limit_s(None) == IDLE_S
    assert idle_limit_s("max=100") == IDLE_S
    assert idle_limit_s("timeout=5, max=100") == 4.0
    assert idle_limit_s("max=7, Timeout = 30") == 29.0
    assert idle_limit_s("timeout=600") == IDLE_S
