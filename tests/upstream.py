"""A scripted OpenAI-compatible upstream: a real HTTP/1.1 server on loopback, in a thread of its own.

    with ScriptedUpstream({"small-v1": Script.of(words("one two three"), gate=(gate := Gate()))}) as upstream:
        ...  # point a gateway or an SDK at upstream.url, in this process or another
        gate.release(2)
        upstream.wait_for_disconnect(0)
        assert upstream.bill(ListPrice("0.0001", "0.0004")) <= cap_nano

What it bills is counted here, piece by piece as generated, and shares no code with Bursar: the truth that
tests compare a ledger with. All `wait*` methods block the calling thread; a test that runs the gateway in its
own event loop awaits `until`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Self, cast

import httptools

from tests.upstream_reply import Received, Reply, State
from tests.upstream_script import Act, ListPrice, Script

PATIENCE_S = 300.0
"""How long tests wait for what must come: only a defect makes one wait that long, and no busy machine fails one. A
virtual one has stood still for more than two minutes."""
Source = Script | Callable[[Received], Script] | Sequence["Source"] | Mapping[str, "Source"]
"""A script, a function of the request, one source per request in order (the last repeats), or one per model."""


class ScriptedUpstream:
    """The server. `source` may be replaced at any time; `requests` holds everything received, in order."""

    def __init__(self, source: Source | None = None, *, port: int = 0) -> None:
        self.source = Script() if source is None else source
        self.requests: list[Received] = []
        self.connections_opened = 0
        self.failures: list[BaseException] = []
        self._port = port
        self._changed = threading.Condition()
        self._open: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted-upstream", daemon=True)

    @property
    def port(self) -> int:
        """The TCP port, which stays the same through `refuse` and `accept`."""
        return self._port

    @property
    def url(self) -> str:
        """The base URL for an OpenAI SDK."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._open)

    def __enter__(self) -> Self:
        self._thread.start()
        self.accept()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()
        if self.failures and error is None:
            raise self.failures[0]

    def accept(self) -> None:
        """Listen (again)."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(PATIENCE_S)

    def refuse(self) -> None:
        """Refuse new connections and reset all open ones, as a provider that died; `accept` brings it back."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(PATIENCE_S)

    def wait(self, condition: Callable[[ScriptedUpstream], object], timeout_s: float = PATIENCE_S) -> None:
        """Block until the condition holds; TimeoutError saying what was received otherwise."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), timeout_s):
                seen = [(r.method, r.path, r.state, r.deltas_sent) for r in self.requests]
                raise TimeoutError(f"the scripted upstream waited in vain; it received {seen}")

    async def until(self, condition: Callable[[ScriptedUpstream], object], timeout_s: float = PATIENCE_S) -> None:
        """`wait` without blocking the running event loop."""
        await asyncio.to_thread(self.wait, condition, timeout_s)

    def wait_for_requests(self, count: int, timeout_s: float = PATIENCE_S) -> list[Received]:
        """Block until at least so many requests have arrived whole."""
        self.wait(lambda u: len(u.requests) >= count, timeout_s)
        return self.requests

    def wait_for_deltas(self, index: int, count: int, timeout_s: float = PATIENCE_S) -> Received:
        """Block until request `index` has been sent so many deltas."""
        self.wait(lambda u: len(u.requests) > index and u.requests[index].deltas_sent >= count, timeout_s)
        return self.requests[index]

    def wait_for_disconnect(self, index: int, timeout_s: float = PATIENCE_S) -> Received:
        """Block until the peer has closed request `index` before its reply was complete."""
        self.wait(lambda u: len(u.requests) > index and u.requests[index].client_gone, timeout_s)
        return self.requests[index]

    def wait_for_end(self, index: int, timeout_s: float = PATIENCE_S) -> Received:
        """Block until request `index` has ended, in whatever way."""
        self.wait(lambda u: len(u.requests) > index and u.requests[index].state != "open", timeout_s)
        return self.requests[index]

    def bill(self, prices: ListPrice | Mapping[str, ListPrice]) -> int:
        """What this provider charges for everything it generated, cancelled calls included, in nano-dollars."""
        if isinstance(prices, ListPrice):
            return sum(request.tokens.bill(prices) for request in self.requests)
        return sum(request.tokens.bill(prices[request.model]) for request in self.requests if request.model in prices)

    @property
    def source(self) -> Source:
        """What answers; a new one begins at its first script."""
        return self._source

    @source.setter
    def source(self, source: Source) -> None:
        self._source = source
        self._turns: dict[str, int] = {}

    def changed(self) -> None:
        """Wake everyone who waits for a condition (called on the server's thread)."""
        with self._changed:
            self._changed.notify_all()

    def script_for(self, request: Received) -> Script:
        """The script that answers this request."""
        source, place = self.source, ""
        while not isinstance(source, Script):
            if isinstance(source, Mapping):
                place = f"{place}/{request.model}"
                if request.model not in source:
                    message = f"The model {request.model!r} does not exist"
                    return Script.failure(404, message, code="model_not_found")
                source = source[request.model]
            elif isinstance(source, Sequence):
                turn = self._turns.get(place, 0)
                self._turns[place] = turn + 1
                turn = min(turn, len(source) - 1)
                source, place = source[turn], f"{place}[{turn}]"
            else:
                source = source(request)
        return source

    async def _listen(self) -> None:
        def build() -> _Connection:
            self.connections_opened += 1
            connection = _Connection(self, self.connections_opened)
            self._open.add(connection)
            return connection

        self._server = await self._loop.create_server(build, "127.0.0.1", self._port, backlog=1024)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._open):
            connection.reset()
        while self._open:
            await asyncio.sleep(0)

    def forget(self, connection: _Connection) -> None:
        """A connection has ended (called on the server's thread)."""
        self._open.discard(connection)
        self.changed()


class _Connection(asyncio.Protocol):
    """One TCP connection: parses requests and answers them one after the other."""

    def __init__(self, upstream: ScriptedUpstream, number: int) -> None:
        self._upstream = upstream
        self._number = number
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._request: Received | None = None
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._upstream.failures.append(error)
            self._transport.abort()

    def eof_received(self) -> bool:
        self._gone()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone()
        self._upstream.forget(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body = b"", [], []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        path, _, query = self._url.decode().partition("?")
        raw = b"".join(self._body)
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            body = None
        request = Received(
            index=len(self._upstream.requests),
            connection=self._number,
            method=self._parser.get_method().decode(),
            path=path,
            query=query,
            headers={n.decode().lower(): v.decode() for n, v in self._headers},
            raw=raw,
            body=body,
            received_at_s=time.monotonic(),
        )
        self._upstream.requests.append(request)
        self._request = request
        self._upstream.changed()
        self._task = asyncio.get_running_loop().create_task(self._serve(request))
        self._task.add_done_callback(self._served)

    def reset(self) -> None:
        """End the connection with a TCP RST."""
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.ended("broken")
        self._transport.abort()
        if self._task is not None:
            self._task.cancel()

    def ended(self, state: State) -> None:
        """The reply is over, one way or another; the first state stays."""
        if self._request is not None and self._request.state == "open":
            self._request.state, self._request.ended_at_s = state, time.monotonic()
            self._upstream.changed()

    def _gone(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _serve(self, request: Received) -> None:
        script = self._upstream.script_for(request) if request.method == "POST" else Script()
        await Reply(self, request, script).run()
        self.ended("answered")
        if not script.keep_alive or not script.chunked or script.drop_idle:
            self._transport.close()

    def _served(self, task: asyncio.Task[None]) -> None:
        """Only here, with the bill complete, is a cancelled reply marked as such."""
        if task.cancelled():
            self.ended("client_gone")
        elif (error := task.exception()) is not None:
            self._upstream.failures.append(error)
            self._transport.abort()

    async def send(self, data: bytes, segment: int | None) -> None:
        """Write, in TCP segments of so many bytes where asked, waiting while the peer does not read."""
        if segment is None:
            self._transport.write(data)
        else:
            for start in range(0, len(data), segment):
                self._transport.write(data[start : start + segment])
                await asyncio.sleep(0)
        if not self._writable.is_set():
            await self._writable.wait()

    async def act(self, act: Act) -> None:
        """Hang, reset or close; never returns."""
        if act.what == "reset":
            self.reset()
        elif act.what == "close":
            self.ended("broken")
            self._transport.close()
        await asyncio.get_running_loop().create_future()

    def sent_delta(self, request: Received) -> None:
        """Count a delta and tell those who wait."""
        request.deltas_sent += 1
        self._upstream.changed()
