"""The short way to the wire keeps HTTP's rules: framing, keep-alive, pipelines, headers, clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from app.http.wire import Cycle, WireProtocol
from tests.gateway.live import PRICE, Live, policy, until
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Gate, Script, words


def asked(*, version: str = "1.1", stream: bool = False, expect: bool = False, path: str = "") -> bytes:
    """A chat call as bytes."""
    body = json.dumps({"model": "a", "stream": stream, "messages": [{"role": "user", "content": "Say it."}]}).encode()
    lines = [f"POST {path}/v1/chat/completions HTTP/{version}", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += ["Content-Type: application/json", *(["Expect: 100-continue"] if expect else []), "", ""]
    return "\r\n".join(lines).encode() + body


@contextlib.asynccontextmanager
async def connected(live: Live) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection to the gateway."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(live.url.rpartition(":")[2]))
    try:
        yield reader, writer
    finally:
        writer.close()


async def whole_reply(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of a reply that tells its length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return head, await reader.readexactly(length)


def cycles() -> int:
    """How many requests are in memory."""
    return sum(isinstance(known, Cycle) for known in gc.get_objects())


async def test_a_connection_serves_one_request_after_the_other(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words("One two three."))
    async with Live(tmp_path, policy({"a": upstream})) as live, connected(live) as (reader, writer):
        for _ in range(3):
            writer.write(asked())
            head, body = await whole_reply(reader)
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert head.lower().count(b"content-length") == 1
            assert json.loads(body)["choices"][0]["message"]["content"] == "One two three."


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_request_leaves_nothing_to_the_garbage_collector(
    tmp_path: Path, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    upstream.source = Script.of(words("One two three."))
    async with Live(tmp_path, policy({"a": upstream})) as live, connected(live) as (reader, writer):
        gc.collect()
        gc.disable()
        before = cycles()
        try:
            for _ in range(6):
                writer.write(asked(stream=stream))
                await (reader.readuntil(b"\r\n0\r\n\r\n") if stream else whole_reply(reader))
            left = cycles() - before
        finally:
            gc.enable()
    assert left <= 2  # the connection's latest, and one whose task is about to end


async def test_a_pipeline_is_answered_in_order(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = [Script.of(words("First.")), Script.of(words("Second."))]
    async with Live(tmp_path, policy({"a": upstream})) as live, connected(live) as (reader, writer):
        writer.write(asked() + asked(path="/t/other"))
        said = [json.loads((await whole_reply(reader))[1])["choices"][0]["message"]["content"] for _ in range(2)]
        assert said == ["First.", "Second."]


async def test_whoever_leaves_a_pipeline_stops_the_call_under_way(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.source = Script.of(words("One two three."), gate=gate)
    async with Live(tmp_path, policy({"a": upstream})) as live:
        async with connected(live) as (_, writer):
            writer.write(asked(stream=True) + asked())
            await upstream.until(lambda u: u.requests)
        await upstream.until(lambda u: u.requests[0].client_gone)
        assert len(upstream.requests) == 1


async def test_http_1_0_gets_no_chunks_and_the_end_of_the_connection(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.source = Script.of(words("One two three."))
    async with Live(tmp_path, policy({"a": upstream})) as live, connected(live) as (reader, writer):
        writer.write(asked(version="1.0", stream=True))
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        assert b"connection: close" in head
        assert body.startswith(b"data: ")
        assert body.endswith(b"data: [DONE]\n\n")


async def test_a_client_that_asks_first_is_told_to_go_on(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words("Yes."))
    async with Live(tmp_path, policy({"a": upstream})) as live, connected(live) as (reader, writer):
        head, _, body = asked(expect=True).partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await whole_reply(reader))[0].startswith(b"HTTP/1.1 200 ")
        assert (await live.balance("global:total")).spent_nano == upstream.bill(PRICE)


def cycle() -> Cycle:
    """A request that has come."""
    scope = {"http_version": "1.1", "method": "POST"}
    made = Cycle.__new__(Cycle)
    made.scope, made.response_started, made.keep_alive = scope, False, True  # type: ignore[assignment]
    made.waiting_for_100_continue, made.default_headers = False, [(b"date", b"today")]
    return made


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb"])
def test_no_header_ends_its_line(value: bytes) -> None:
    with pytest.raises(RuntimeError, match="line break"):
        cycle().begin(200, [(b"x-bursar-model", value)], b"content-length: 0\r\n")


def test_a_reply_begins_once() -> None:
    one = cycle()
    head = one.begin(200, [(b"a", b"b")], b"content-length: 0\r\n")
    assert head == b"HTTP/1.1 200 OK\r\ndate: today\r\na: b\r\ncontent-length: 0\r\n\r\n"
    with pytest.raises(RuntimeError, match="begins once"):
        one.begin(200, [], b"content-length: 0\r\n")


def test_the_table_of_urls_is_bounded() -> None:
    protocol = WireProtocol.__new__(WireProtocol)
    for number in range(3000):
        assert protocol._target(b"/t/%d/v1?a=b" % number) == (f"/t/{number}/v1", b"/t/%d/v1" % number, b"a=b")
    assert len(WireProtocol._urls) <= 1024


@pytest.mark.parametrize(
    ("silent_since_s", "left_s"),
    [(0.0, None), (5.0, None), (30.0, 25), (math.inf, 75)],
    ids=["never a word", "as long as may be", "not so long", "under way"],
)
def test_a_silence_that_lasts_ends_the_connection(silent_since_s: float, left_s: float | None) -> None:
    now_s, set_for, closed = 80.0, list[float](), list[float]()
    protocol = WireProtocol.__new__(WireProtocol)
    protocol.timeout_keep_alive, protocol._silent_since_s = 75, silent_since_s
    protocol.loop = cast(
        asyncio.AbstractEventLoop,
        SimpleNamespace(time=lambda: now_s, call_later=lambda after_s, _: set_for.append(after_s)),
    )
    protocol.transport = cast(
        asyncio.Transport, SimpleNamespace(is_closing=lambda: False, close=lambda: closed.append(now_s))
    )
    protocol.timeout_keep_alive_handler()
    assert (closed, set_for) == (([now_s], []) if left_s is None else ([], [left_s]))


async def test_a_connection_is_silent_only_between_its_requests(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.source = Script.of(words("One two three."), gate=gate)
    async with Live(tmp_path, policy({"a": upstream})) as live, connected(live) as (reader, writer):
        connections = live._server.server_state.connections
        await until(lambda: connections)
        (protocol,) = connections
        assert isinstance(protocol, WireProtocol)
        assert protocol._silent_since_s <= protocol.loop.time()
        writer.write(asked())
        await upstream.until(lambda u: u.requests)
        assert protocol._silent_since_s == math.inf
        gate.open()
        await whole_reply(reader)
        assert protocol._silent_since_s <= protocol.loop.time()


@pytest.mark.parametrize(
    "before", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 9\r\nHost: evil\r\n\r\n"]
)
async def test_what_asks_for_nothing_keeps_no_connection(
    tmp_path: Path, upstream: ScriptedUpstream, before: bytes
) -> None:
    """A blank line, and the rest of a body that was refused by its head: nobody else would ever end the connection."""
    async with Live(tmp_path, policy({"a": upstream})) as live, connected(live) as (reader, writer):
        connections = live._server.server_state.connections
        await until(lambda: connections)
        (protocol,) = connections
        assert isinstance(protocol, WireProtocol)
        if before:
            writer.write(before)
            assert (await whole_reply(reader))[0].startswith(b"HTTP/1.1 403 ")
        protocol.data_received(b"{}" if before else b"\r\n")
        assert protocol._silent_since_s <= protocol.loop.time()
        protocol.data_received(b"       " if before else b"\r\n")
        assert protocol._silent_since_s <= protocol.loop.time()


JAVA = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
"""What java.net.http.HttpClient says first, unless it is told to speak HTTP/1.1."""


@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize("expect", [False, True])
async def test_who_would_rather_speak_another_protocol_is_served_in_this_one(
    tmp_path: Path, upstream: ScriptedUpstream, pieces: int, expect: bool
) -> None:
    upstream.source = Script.of(words("One two three."))
    async with Live(tmp_path, policy({"a": upstream})) as live, connected(live) as (reader, writer):
        for again in (True, False):
            sent = asked(expect=expect).replace(b"Host:", JAVA.encode() + b"Host:") + asked() * again
            for start in range(0, len(sent), -(-len(sent) // pieces)):
                writer.write(sent[start : start + -(-len(sent) // pieces)])
                await writer.drain()
                await asyncio.sleep(0)
            if expect:
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
            for _ in range(1 + again):
                head, body = await whole_reply(reader)
                assert head.startswith(b"HTTP/1.1 200 OK\r\n")
                assert json.loads(body)["choices"][0]["message"]["content"] == "One two three."
        assert "Say it." in str(upstream.requests[0].body)


async def test_a_long_pipeline_of_such_requests_is_answered(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    async with Live(tmp_path, policy({"a": upstream})) as live, connected(live) as (reader, writer):
        writer.write((b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + JAVA.encode() + b"\r\n") * 1500)
        for _ in range(1500):
            assert (await whole_reply(reader))[1] == b'{"status":"ok"}'


@pytest.mark.parametrize("also", [b"", b"Upgrade: h2c\r\n"])
async def test_what_comes_behind_a_last_request_does_not_spoil_its_answer(
    tmp_path: Path, upstream: ScriptedUpstream, also: bytes
) -> None:
    upstream.source = Script.of(words("One two three."))
    async with Live(tmp_path, policy({"a": upstream})) as live, connected(live) as (reader, writer):
        writer.write(asked().replace(b"Host:", b"Connection: close, Upgrade\r\n" + also + b"Host:") + b"\r\n" + asked())
        head, _ = await whole_reply(reader)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nconnection: close\r\n" in head
        assert await reader.read() == b""


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /v1/realtime HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 404),
        (b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"CONNECT /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"hello\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 300_000, 431),
    ],
)
async def test_what_is_no_request_is_told_so_in_shape(
    tmp_path: Path, upstream: ScriptedUpstream, sent: bytes, status: int
) -> None:
    async with Live(tmp_path, policy({"a": upstream})) as live, connected(live) as (reader, writer):
        writer.write(sent)
        head, body = await whole_reply(reader)
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


async def test_rubbish_behind_a_request_is_not_its_answer(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.source = Script.of(words("One two three."), gate=gate)
    async with Live(tmp_path, policy({"a": upstream})) as live, connected(live) as (reader, writer):
        writer.write(asked() + b"hello\r\n\r\n")
        assert await reader.read() == b""


async def test_rubbish_behind_a_request_is_not_told_in_its_answer(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.source = Script.of(words("One two three."), gate=gate)
    async with Live(tmp_path, policy({"a": upstream})) as live, connected(live) as (reader, writer):
        gate.release(1)
        writer.write(asked(stream=True))
        seen = b""
        while b"One" not in seen:
            seen += await reader.read(4096)
        writer.write(b"\x00\x01rubbish\r\n\r\n")
        assert b"400" not in await reader.read()
        await upstream.until(lambda u: u.requests[0].client_gone)


async def test_trailers_are_no_headers(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """A proxy that sets or checks headers does not look at them (RFC 9110, section 6.5)."""
    upstream.source = Script.of(words("One two three."))
    head, _, body = asked().partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
    chunked = b"%x\r\n%b\r\n0\r\nX-Bursar-Task-Id: smuggled\r\nX-Bursar-Max-Cost-Usd: 0\r\n\r\n" % (len(body), body)
    async with Live(tmp_path, policy({"a": upstream})) as live, connected(live) as (reader, writer):
        writer.write(b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", b""]) + chunked)
        head, body = await whole_reply(reader)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"smuggled" not in head
