"""uvicorn's HTTP protocol with a short way for hot routes: the same rules on the wire at a third of the cost.

What uvicorn does for each request stays: parsing, keep-alive, pipelining, flow control, the plain ASGI messages that
the API's routes use. A hot route finds its `Cycle` in the scope's extensions, writes through it without messages, and
hears from it when the client leaves, so that a call needs no second task to listen for that.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.http.asgi import AsgiDownstream, Head

WIRE = "bursar.wire"
HEAD_S = 30.0
"""How long a head may take from its first piece to its last."""
MAX_HEAD_BYTES = 256 * 1024
"""More than any client's headers; without a limit a connection could fill memory for HEAD_S."""
UPGRADING = frozenset((b"connection", b"upgrade", b"http2-settings"))
"""What a client says who would rather speak another protocol."""
MAX_URLS = 1024
"""Parsed URLs that are remembered; clients choose them."""


class Cycle(RequestResponseCycle):
    """One request and its reply. `on_left` is called once if the client leaves before the reply is complete."""

    on_left: Callable[[], None] | None = None

    def whole_body(self) -> bytes | None:
        """The request's body, where all of it has come; None where some is to come, or nobody is there any more."""
        if self.more_body or self.disconnected or self.waiting_for_100_continue:
            return None
        body, self.body = bytes(self.body), bytearray()
        self.message_event.clear()
        if self.flow.read_paused:
            self.flow.resume_reading()
        return body

    def begin(self, status: int, headers: Head, framing: bytes) -> bytes:
        """The reply's head, for a body that `framing` tells the length of. Raises RuntimeError for a header that
        would end its line, or for a reply that has begun."""
        every = [*self.default_headers, *headers]
        head = b"%b%b\r\n%b" % (STATUS_LINE[status], b"\r\n".join(map(b": ".join, every)), framing)
        if self.response_started or head.count(b"\n") != len(every) + 1 + framing.count(b"\n"):
            raise RuntimeError("a reply begins once, and no header has a line break")
        self.response_started = True
        self.waiting_for_100_continue = False
        if b"\r\nconnection: close\r\n" in head:
            self.keep_alive = False
        elif not self.keep_alive:
            head += b"connection: close\r\n"
        return head + b"\r\n"

    def end(self) -> None:
        """The reply is complete."""
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def left(self) -> None:
        """The client has gone."""
        if not self.response_complete:
            self.disconnected = True
            if self.on_left is not None:
                self.on_left()
        self.message_event.set()


class WireDownstream(AsgiDownstream):
    """The client's side of a call, written without ASGI messages. After the client has left, writes do nothing."""

    __slots__ = ("_chunked", "_cycle")

    def __init__(self, cycle: Cycle) -> None:
        send: Any = cycle.send  # whose messages are typed
        super().__init__(send)
        self._cycle = cycle
        self._chunked = cycle.scope["http_version"] != "1.0"

    @property
    def writable(self) -> bool:
        return not (self._cycle.flow.write_paused or self._cycle.disconnected)

    async def start(self, status: int, headers: Head) -> None:
        if self.opened:
            return
        self.opened = True
        framing = b"transfer-encoding: chunked\r\n" if self._chunked else b""
        if not self._chunked:
            self._cycle.keep_alive = False  # RFC 9112, section 6.3: only the connection's end tells the body's
        await self._write(self._cycle.begin(status, headers, framing))

    def push(self, data: bytes) -> bool:
        cycle = self._cycle
        if cycle.flow.write_paused or cycle.disconnected or not self._chunked:
            return False
        cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if data else b"")
        return True

    async def write(self, data: bytes) -> None:
        await self._write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked and data else data)

    async def finish(self, data: bytes) -> None:
        if self.before_end is not None:
            self.sound = await self.before_end(data)
        self.finished = True
        if self._chunked:
            data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
        await self._write(data)
        if not self._cycle.disconnected:
            self._cycle.end()

    async def reply(self, status: int, headers: Head, body: bytes) -> None:
        if self.before_end is not None:
            self.sound = await self.before_end(body)
        self.finished = True
        await self._write(self._cycle.begin(status, headers, b"content-length: %d\r\n" % len(body)) + body)
        if not self._cycle.disconnected:
            self._cycle.end()

    async def _write(self, data: bytes) -> None:
        cycle = self._cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if not cycle.disconnected:
            cycle.transport.write(data)


class _Dropped(list[tuple[bytes, bytes]]):
    """A list that keeps nothing."""

    def append(self, _: tuple[bytes, bytes]) -> None:
        """Nothing."""


TRAILERS = _Dropped()
"""Where the parser puts what comes behind a body: no proxy looks at it, so no header may come from there (RFC 9110,
section 6.5), and nobody reads it."""


def refusal(status: bytes, message: str) -> bytes:
    """The reply to what is no request, as errors are told everywhere; the connection ends with it."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": "invalid_request"}
    body = json.dumps({"error": error}).encode()
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    return head % (status, len(body)) + body


class WireProtocol(HttpToolsProtocol):
    """One connection. Overrides how a request begins, how its client's leaving is told, and how its silences are timed:
    one clock runs for a connection, where uvicorn starts and stops one for each request."""

    _urls: dict[bytes, tuple[str, bytes, bytes]] = {}  # noqa: RUF012  (one table for all connections)
    _answering: Cycle | None = None
    _in_head = _upgrading = False
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    _silent_since_s = math.inf  # in the loop's time; while something is asked or answered, it is not silent

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """One that never says a word is closed like one that falls silent."""
        super().connection_made(transport)
        self._silent_since_s = self.loop.time()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """The clock rings: a silence that has lasted ends the connection, and no other can be over before it rings
        again."""
        now_s = self.loop.time()
        left_s = min(self._silent_since_s, now_s) + self.timeout_keep_alive - now_s
        if left_s > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left_s, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def data_received(self, data: bytes) -> None:
        """A head nearly always comes in one piece; only one that does not needs a clock, and a limit."""
        self._silent_since_s = math.inf
        while data:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserError:
                self._refuse(b"400 Bad Request", "That is no HTTP request.")
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = self._as_if_not_asked(data[upgrade.args[0] :])
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(b"431 Request Header Fields Too Large", "The request's headers are too large.")
            elif self._head_timer is None:
                self._head_timer = self.loop.call_later(HEAD_S, self._head_is_late)
        elif (
            self.cycle is None or self.cycle.response_complete
        ):  # a blank line, or the rest of what is answered already
            self._silent_since_s = self.loop.time()

    def _as_if_not_asked(self, rest: bytes) -> bytes:
        """The client would rather speak another protocol, as Java's says of HTTP/2: it is served in this one (RFC 9110,
        section 7.8). The parser takes such a head for a request without a body, so another is given it anew, with what
        came behind it; nothing where the client wants a tunnel."""
        parser, said = self.parser, b"".join([value.lower() for name, value in self.headers if name == b"connection"])
        if parser.get_method() == b"CONNECT":
            self._refuse(b"400 Bad Request", "This is no proxy.")
            return b""
        kept = [(name, value) for name, value in self.headers if name not in UPGRADING]
        kept += [(b"connection", b"close")] if b"close" in said else []
        lines = [b"%b: %b\r\n" % header for header in kept]
        head = b"%b %b HTTP/%b\r\n%b\r\n" % (
            parser.get_method(), self.url, parser.get_http_version().encode(), b"".join(lines),
        )  # fmt: skip
        self._upgrading = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's: no reason not to answer
        return head + rest

    def on_message_begin(self) -> None:
        """httptools: a head begins."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_message_complete(self) -> None:
        """httptools: the request has come."""
        if not self._upgrading:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def _head_is_late(self) -> None:
        self._refuse(b"408 Request Timeout", "The request stopped arriving.")

    def _refuse(self, status: bytes, message: str) -> None:
        """Nothing that can be served came. Where that is behind a request that is being answered, or its answer has
        begun, the connection ends without a word, which would be taken for the answer."""
        if self.transport.is_closing():
            return
        asked = self._answering
        if asked is None or asked.response_complete or (asked.more_body and not asked.response_started):
            self.transport.write(refusal(status, message))
        self.transport.close()

    def on_headers_complete(self) -> None:
        """httptools: the head has come."""
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        parser, scope = self.parser, self.scope
        if parser.should_upgrade():
            self._upgrading = True
            return
        self.headers = TRAILERS
        version = parser.get_http_version()
        scope["method"] = parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"], scope["raw_path"], scope["query_string"] = self._target(self.url)
        before = self.cycle
        cycle = self.cycle = Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        known: Any = {WIRE: cycle}
        scope["extensions"] = known
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def _target(self, url: bytes) -> tuple[str, bytes, bytes]:
        found = self._urls.get(url)
        if found is None:
            parsed = httptools.parse_url(url)
            path = parsed.path.decode("ascii")
            if len(self._urls) >= MAX_URLS:
                self._urls.clear()
            found = self._urls[url] = unquote(path), parsed.path, parsed.query or b""
        return found

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """As uvicorn's; named, since asyncio makes up and prints a name for each task that has none."""
        self._answering = cycle  # `cycle` of the connection is the latest that came, which may wait behind it
        task = asyncio.Task(cycle.run_asgi(app), loop=self.loop, name="request")
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def on_response_complete(self) -> None:
        """The answer is out: whatever waits behind it is served, or a silence begins."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._silent_since_s = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, for the request that is being answered too."""
        if self._head_timer is not None:
            self._head_timer.cancel()
        if self._answering is not None:
            self._answering.left()
        super().connection_lost(exc)
