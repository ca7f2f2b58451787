"""One HTTP/1.1 connection to a provider: carries one exchange after the other, and says whether it may carry another.

Framing is llhttp's (through httptools); which messages have a body, and where it ends, is RFC 9112, section 6.3:
https://www.rfc-editor.org/rfc/rfc9112#section-6.3
"""

from __future__ import annotations

import asyncio
import functools
from typing import cast

import httptools

from app.gateway.pool_origin import Origin, has_unacknowledged
from app.gateway.upstream import READ_BUFFER_BYTES, Take

MAX_HEAD_BYTES = 64 * 1024
"""Of a head, and of trailers; one that comes in many reads may be larger by the last of them."""
JOINED_BYTES = 16 * 1024
"""Up to here copying a body behind its head is cheaper than a second buffer to write."""


class _Refused(Exception):
    """Raised out of a parser's callback to stop it: this message is not one the gateway reads."""


class Connection(asyncio.Protocol):
    """`status` is 0 until a reply's head has come; `asked` is True from the request to the reply's end or its loss.

    `parts` is the body that has come and was not taken, of `size` bytes. At most one task waits, on `waiter`, which
    is woken once per read of the socket, and only by news: the head, some of the body, or the end. `error` says why
    the reply will not be complete, and `unread` that the provider cannot have read the request. `closed`: not open, or
    not any more.
    """

    __slots__ = (
        "_everyone",
        "_keep",
        "_news",
        "_parser",
        "_paused",
        "_silent_bytes",
        "asked",
        "closed",
        "error",
        "headers",
        "idle_since_s",
        "idle_until_s",
        "loop",
        "origin",
        "parts",
        "sink",
        "size",
        "status",
        "transport",
        "unread",
        "waiter",
    )

    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop, origin: Origin, everyone: set[Connection]) -> None:
        self.loop = loop
        self.origin = origin
        self._everyone = everyone
        self._parser: httptools.HttpResponseParser | None = None
        self.parts: list[bytes] = []
        self.size = 0
        self.waiter: asyncio.Future[None] | None = None
        self.sink: Take | None = None
        self.closed = True
        self.asked = self.unread = False
        self.idle_since_s = self.idle_until_s = 0.0
        self._paused = False
        self._begin()

    def _begin(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.error: str | None = None
        self._silent_bytes = 0
        self._keep = False
        self._news = False

    def send(self, head: bytes, body: bytes) -> None:
        """Write a request; `head` ends where the body's length in bytes belongs."""
        self._begin()
        self.asked = True
        if len(body) <= JOINED_BYTES:
            self.transport.write(b"%b%d\r\n\r\n%b" % (head, len(body), body))
        else:
            self.transport.writelines((b"%b%d\r\n\r\n" % (head, len(body)), body))

    def take(self) -> bytes:
        """The body that has come, out of the buffer."""
        parts = self.parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self.parts = []
        self.size = 0
        if self._paused:
            self._paused = False
            if not self.closed:
                self.transport.resume_reading()
        return data

    def finish(self) -> None:
        """The exchange is over: wait for another, or close where it did not end, or was the last."""
        if self.asked or not self._keep or self.closed or self._paused:
            self.abort()
        elif self.transport.get_write_buffer_size():
            self.abort()  # answered before it had the whole request: what is left would be read as the next one
        else:
            self.parts, self.size = [], 0
            self.origin.put(self, self.loop.time())

    def abort(self) -> None:
        """Close at once: nothing is flushed and nobody is waited for."""
        if not self.closed:
            self.closed = True
            self.transport.abort()
        self._broken("the connection was closed")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Both asyncio and uvloop set TCP_NODELAY on every TCP connection.
        self.transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)
        self.closed = False

    def data_received(self, data: bytes) -> None:
        if not self.asked or self._parser is None:
            # Nobody asked: whatever it is, it must not be taken for the reply to the next request.
            self.abort()
            return
        try:
            if len(data) > MAX_HEAD_BYTES and not self.status:
                self._parser.feed_data(data[:MAX_HEAD_BYTES])
                data = data[MAX_HEAD_BYTES:]
                if not self.status:
                    raise _Refused("its head is too large")
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, _Refused) as error:
            why = error.__context__ if isinstance(error.__context__, _Refused) else error
            self._broken(f"the provider's reply is malformed: {why}")
            self.abort()
        if self._news:
            self._news = False
            self._silent_bytes = 0
            if self.sink is not None and self.asked and self.parts:
                self._pour(self.sink)
            else:
                self._wake()
            if self.size > READ_BUFFER_BYTES and self.asked and not self._paused:
                self._paused = True
                self.transport.pause_reading()
        elif self.asked:
            # A head, chunk framing or trailers; llhttp keeps what is not yet whole, without bound.
            self._silent_bytes += len(data)
            if self._silent_bytes > MAX_HEAD_BYTES:
                self._broken("the provider's reply has a head or trailers too large")
                self.abort()

    def eof_received(self) -> None:
        # Not the transport's own close: that would first flush a request to a peer that reads no more.
        self._ended(None)
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._ended(exc)
        self._everyone.discard(self)
        if self in self.origin.idle:
            self.origin.idle.remove(self)
        self._parser = None  # it holds this object's methods
        self._wake()  # the pool's close, which waits for each connection's end

    def _ended(self, exc: Exception | None) -> None:
        """No more will come: the end of a body that only this delimits, or a break."""
        framed = "content-length" in self.headers or "transfer-encoding" in self.headers
        if exc is None and self.status and not framed and self.asked:
            self.asked = False
            self._wake()
        elif self.asked:
            self.unread = not (self.status or self._silent_bytes) and has_unacknowledged(self.transport, exc)
            self._broken(f"the connection was lost: {exc or 'closed by the provider'}")

    def _broken(self, why: str) -> None:
        if self.asked:
            self.asked = False
            self.error = why
            self._wake()

    def _pour(self, sink: Take) -> None:
        """Hand on what has come, and wake the reader where no more is wanted (`sink` is None then)."""
        waiter = self.waiter
        if waiter is None or waiter.done():
            return  # stopped meanwhile: what comes waits in the buffer
        try:
            more = sink(self.take())
        except Exception as error:
            self.sink = self.waiter = None
            waiter.set_exception(error)
            return
        if not more:
            self.sink = None
            self._wake()

    def _wake(self) -> None:
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def on_message_begin(self) -> None:
        """httptools: the first byte of a message."""
        if not self.asked:
            self._keep = False
            raise _Refused("bytes after the end of the reply")

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: a header, or a trailer."""
        if self.status:
            return
        headers, key, text = self.headers, _name(name), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text

    def on_headers_complete(self) -> None:
        """httptools: the end of a head, which may be an interim one (RFC 9110, section 15.2)."""
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < 200:
            if status < 100 or status == 101:
                raise _Refused(f"status {status}")
            self.headers = {}
            return
        if self.headers.get("transfer-encoding", "chunked").strip().lower() != "chunked":
            raise _Refused("a transfer coding the gateway did not ask for")
        self._keep = self._parser.should_keep_alive()
        self.status = status
        self._news = True

    def on_body(self, data: bytes) -> None:
        """httptools: some of the body."""
        self.parts.append(data)
        self.size += len(data)
        self._news = True

    def on_message_complete(self) -> None:
        """httptools: the end of a message."""
        if self.status:
            self.asked = False
            self._news = True


@functools.lru_cache(maxsize=512)
def _name(raw: bytes) -> str:
    """A header's name; providers send the same ones with every reply."""
    return raw.decode("latin-1").lower()
