"""What is harder than a happy call: streams that come byte by byte, bodies that do not end, very many tools, very long
contexts, and clients that are half there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.http import wire
from tests.agents.stage import PATHS
from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, PRICE, Live, policy, read, until
from tests.upstream import PATIENCE_S, ScriptedUpstream
from tests.upstream_script import Gate, Script, text, tool, words

ROUTES = {
    "openai_chat": "/v1/chat/completions",
    "openai_responses": "/v1/responses",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/m:streamGenerateContent?alt=sse",
}
DIALECTS = pytest.mark.parametrize("dialect", ROUTES)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        running.source = Script()
        yield running


@pytest.fixture
async def live(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[Live]:
    upstream.requests.clear()
    async with Live(tmp_path, policy({"m": upstream})) as running:
        yield running


def asked(dialect: str, tools: int = 0) -> dict[str, Any]:
    """A streamed request of this dialect, with so many tools."""
    names = [f"tool_{number}" for number in range(tools)]
    if dialect == "gemini":
        declared = [{"name": name, "parametersJsonSchema": SCHEMA} for name in names]
        offered = {"tools": [{"functionDeclarations": declared}]} if tools else {}
        return {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], **offered}
    made: dict[str, Any] = {"model": "m", "stream": True}
    if dialect == "openai_responses":
        shaped = [{"type": "function", "name": n, "parameters": SCHEMA, "strict": False} for n in names]
        return {**made, "input": "hi", "store": False, **({"tools": shaped} if tools else {})}
    made["messages"] = [{"role": "user", "content": "hi"}]
    if dialect == "anthropic":
        offered_ = [{"name": name, "input_schema": SCHEMA} for name in names]
        return {**made, "max_tokens": 1000, **({"tools": offered_} if tools else {})}
    functions = [{"type": "function", "function": {"name": n, "parameters": SCHEMA}} for n in names]
    return {**made, **({"tools": functions} if tools else {})}


async def post(live: Live, dialect: str, body: dict[str, Any], task: str = "t") -> Any:
    headers = {"x-bursar-task-id": task, "anthropic-version": "2023-06-01"}
    async with live.client.session.post(live.url + ROUTES[dialect], json=body, headers=headers) as response:
        return await read(response)


async def spent(live: Live, task: str = "t") -> int:
    spent_usd: float = (await live.task(task))["spent_usd"]
    return round(spent_usd * 10**9)


@contextlib.asynccontextmanager
async def byte_by_byte(url: str) -> AsyncIterator[str]:
    """A way to `url` that lets replies through one byte at a time."""
    host, port = url.removeprefix("http://").split(":")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        async def forth() -> None:
            while data := await reader.read(65536):
                far_writer.write(data)
            far_writer.close()

        async def back() -> None:
            while data := await far_reader.read(65536):
                for place in range(len(data)):
                    writer.write(data[place : place + 1])
                    await asyncio.sleep(0)
            writer.close()

        with contextlib.suppress(ConnectionError):
            await asyncio.gather(forth(), back())

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@DIALECTS
@pytest.mark.parametrize("client", ["openai_chat", "anthropic"])
async def test_a_stream_that_comes_byte_by_byte(
    upstream: ScriptedUpstream, tmp_path: Path, dialect: str, client: str
) -> None:
    upstream.requests.clear()
    upstream.source = Script.of(
        text("Größe 🦉. "), tool(id="c1", name="tool_0"), tool('{"city":'), tool(' "Zürich 🏔"}'), input_tokens=12
    )
    for part in ("far", "near"):
        (tmp_path / part).mkdir()
    async with Live(tmp_path / "far", policy({"m": upstream})) as far, byte_by_byte(far.url) as slow:
        providers = {"m": {"dialect": dialect, "base_url": slow + PATHS[dialect]}}
        near = policy({"m": slow}, providers=providers)
        async with Live(tmp_path / "near", near) as live:
            answer = await post(live, client, asked(client, tools=1))
            assert answer.status == 200, answer.body
            said = answer.body.decode()
            assert "Größe 🦉. " in json.loads(json.dumps(said)) or "Gr\\u00f6\\u00dfe" in said
            assert "Zürich" in said
            assert '"tool_use"' in said or '"tool_calls"' in said
            assert await spent(live) == upstream.bill(PRICE)


@DIALECTS
async def test_two_hundred_tools(live: Live, upstream: ScriptedUpstream, dialect: str) -> None:
    upstream.source = Script.of(tool(id="c1", name="tool_199"), tool('{"city": "Biel"}'))
    answer = await post(live, dialect, asked(dialect, tools=200))
    assert answer.status == 200, answer.body
    assert b"tool_199" in answer.body
    offered = [tool_["function"] for tool_ in upstream.requests[0].body["tools"]]
    assert [found["name"] for found in offered] == [f"tool_{number}" for number in range(200)]
    assert offered[199]["parameters"]["required"] == ["city"]
    assert await spent(live) == upstream.bill(PRICE)


@DIALECTS
async def test_a_million_tokens_are_priced_by_their_tier(
    upstream: ScriptedUpstream, tmp_path: Path, dialect: str
) -> None:
    """The whole request at the rates of the tier that its input reaches, and what was read from the cache at its."""
    upstream.requests.clear()
    upstream.source = Script.of(words("One two."), input_tokens=1_000_000, cached_tokens=400_000)
    tiers = [
        {"above_tokens": 200_000, "input_per_1k": 0.002, "output_per_1k": 0.003, "cache_read_per_1k": 0.0002},
        {"above_tokens": 500_000, "input_per_1k": 0.004, "output_per_1k": 0.008, "cache_read_per_1k": 0.0004},
    ]
    pricing = {"input_per_1k": 0.001, "output_per_1k": 0.002, "cache_read_per_1k": 0.0001, "tiers": tiers}
    async with Live(tmp_path, policy({"m": upstream}, models={"m": {"pricing": pricing}})) as live:
        answer = await post(live, dialect, asked(dialect))
        assert answer.status == 200
        assert await spent(live) == 600_000 * 4_000 + 400_000 * 400 + 2 * 8_000


@DIALECTS
async def test_a_hundred_megabytes_are_refused_and_not_kept(
    live: Live, upstream: ScriptedUpstream, dialect: str
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 2**20
            yield b" " * 2**20

    headers = {"content-length": str(100 * 2**20), "content-type": "application/json"}
    url = live.url + ROUTES[dialect]
    async with live.client.session.post(url, data=endless(), headers=headers) as response:
        assert response.status == 413
        body = await response.json()
    told = {"gemini": ("error", "code"), "anthropic": ("error", "type")}.get(dialect, ("error", "code"))
    assert body[told[0]][told[1]] in ("request_too_large", 413)
    assert not upstream.requests


@contextlib.asynccontextmanager
async def raw(live: Live, path: str, sent: bytes, method: str = "POST") -> AsyncIterator[asyncio.StreamReader]:
    """A connection on which a head was sent, and so much of its body."""
    host, port = live.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n"
    writer.write(head.encode() + sent)
    try:
        yield reader
    finally:
        writer.close()


LATE = {"openai_chat": ("code", "request_timeout"), "openai_responses": ("code", "request_timeout"),
        "anthropic": ("type", "timeout_error"), "gemini": ("status", "DEADLINE_EXCEEDED")}  # fmt: skip


@pytest.mark.parametrize("sent", [b"", b'{"model": "m", '], ids=["never", "half"])
@DIALECTS
async def test_a_body_that_does_not_arrive(
    upstream: ScriptedUpstream, tmp_path: Path, dialect: str, sent: bytes
) -> None:
    async with Live(tmp_path, policy({"m": upstream}), settings={"body_idle_s": 0.2}) as live:
        async with raw(live, ROUTES[dialect], sent) as reader:
            head, _, body = (await asyncio.wait_for(reader.read(), PATIENCE_S)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in head.lower()
        name, value = LATE[dialect]
        assert json.loads(body)["error"][name] == value


@pytest.mark.parametrize("sent", [b"", b"{"], ids=["never", "half"])
@pytest.mark.parametrize(("method", "path"), [("PATCH", "/v1/tasks/t"), ("POST", "/v1/feedback")])
async def test_a_body_that_does_not_arrive_at_the_api(
    upstream: ScriptedUpstream, tmp_path: Path, method: str, path: str, sent: bytes
) -> None:
    async with Live(tmp_path, policy({"m": upstream}), settings={"body_idle_s": 0.2}) as live:
        async with raw(live, path, sent, method) as reader:
            answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"request_timeout"' in answer


async def test_a_body_that_trickles_has_a_deadline_too(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async with Live(tmp_path, policy({"m": upstream}), settings={"body_s": 0.3}) as live:
        host, port = live.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n")
        answering = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
        while not answering.done():
            writer.write(b" ")
            await asyncio.wait({answering}, timeout=0.02)
        assert (await answering).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_a_head_that_stops_arriving(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD_S", 0.1)
    host, port = live.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: loc")
    assert (await asyncio.wait_for(reader.read(), PATIENCE_S)).startswith(b"HTTP/1.1 408 ")
    writer.close()


async def test_a_head_in_two_pieces_is_served(live: Live, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words("One."))
    body = json.dumps(asked("openai_chat")).encode()
    host, port = live.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body)
    writer.write(head[:40])
    await writer.drain()
    writer.write(head[40:] + body)
    assert b"200 OK" in await asyncio.wait_for(reader.read(100), PATIENCE_S)
    writer.close()


async def test_a_client_that_closed_its_side(live: Live, upstream: ScriptedUpstream) -> None:
    """Half open: it sends nothing more and may or may not read. It is taken to have left; the upstream hears of it."""
    gate = Gate()
    upstream.source = Script.of(words("One two three four five."), gate=gate)
    host, port = live.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps({**asked("openai_chat"), "metadata": {"task_id": "half"}}).encode()
    head = f"POST {ROUTES['openai_chat']} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    gate.release(2)
    assert b"200 OK" in await asyncio.wait_for(reader.read(100), PATIENCE_S)
    writer.write_eof()
    await upstream.until(lambda u: u.requests[0].client_gone)
    await live.idle()
    assert await spent(live, "half") >= upstream.requests[0].tokens.input * INPUT_NANO + 2 * OUTPUT_NANO
    writer.close()


async def test_a_client_that_vanished_is_not_waited_for(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """Half open the other way: no FIN, no RST, nothing read. What fills up stops; the call ends by its own clock."""
    upstream.requests.clear()
    upstream.source = Script.of([text("yyyyyyy " * 2500, tokens=2500) for _ in range(3000)], delay_s=0.001)
    providers = {"m": {"deadlines": {"write_secs": 0.5}}}
    async with Live(tmp_path, policy({"m": upstream}, providers=providers)) as live:
        host, port = live.url.removeprefix("http://").split(":")
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await asyncio.to_thread(client.connect, (host, int(port)))
            body = json.dumps({**asked("openai_chat"), "metadata": {"task_id": "gone"}}).encode()
            head = f"POST {ROUTES['openai_chat']} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body)
            await upstream.until(lambda u: u.requests and u.requests[0].deltas_sent > 10)
            await live.idle(20)
        assert upstream.requests[0].deltas_sent < 3000
        await until(lambda: upstream.requests[0].client_gone)
        assert await spent(live, "gone") > 0
