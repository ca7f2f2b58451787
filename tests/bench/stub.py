"""A very cheap upstream: raw Protocols and prebuilt bytes. `python -m tests.bench.stub [PORT]` prints its port.

What it sends depends on two things in the request's body: `stream`, and the pace in the prompt (canned.py).
"""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import time
from typing import cast

import uvloop

from tests.bench.canned import (
    CHUNKS,
    PACE,
    STREAM_AT_ONCE,
    STREAM_CHUNK,
    STREAM_END,
    STREAM_START,
    WHOLE_REPLY,
    stamped,
)

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_STREAM = (b'"stream":true', b'"stream": true')
_LAST_CHUNK = b"\r\n0\r\n\r\n"


def request_size(data: bytes) -> int:
    """The bytes of the first request in `data`; 0 until it is complete."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 0
    length = _LENGTH.search(data, 0, end + 2)
    if length is not None:
        size = end + 4 + int(length[1])
        return size if size <= len(data) else 0
    if _CHUNKED.search(data, 0, end + 2) is None:
        return end + 4
    last = data.find(_LAST_CHUNK, end)
    return last + len(_LAST_CHUNK) if last >= 0 else 0


class Upstream(asyncio.Protocol):
    """One connection. Requests are answered one after another."""

    __slots__ = ("_due_s", "_loop", "_pace_s", "_rest", "_sent", "_transport")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """uvloop has set TCP_NODELAY."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        """Answer every complete request."""
        data = self._rest + data if self._rest else data
        while size := request_size(data):
            self._answer(data[:size])
            data = data[size:]
        self._rest = data

    def _answer(self, request: bytes) -> None:
        if not any(mark in request for mark in _STREAM):
            self._transport.write(WHOLE_REPLY)
            return
        pace = PACE.search(request)
        if pace is None:
            self._transport.write(stamped(STREAM_AT_ONCE, time.monotonic_ns()))
            return
        self._pace_s, self._sent, self._due_s = int(pace[1]) / 1000, 0, self._loop.time()
        self._transport.write(STREAM_START)
        self._next_chunk()

    def _next_chunk(self) -> None:
        if self._transport.is_closing():
            return
        self._sent += 1
        chunk = stamped(STREAM_CHUNK, time.monotonic_ns())
        if self._sent == CHUNKS:
            self._transport.write(chunk + STREAM_END)
            return
        self._transport.write(chunk)
        # Counted from the start, so that a late chunk does not delay the whole stream.
        self._due_s += self._pace_s
        self._loop.call_at(self._due_s, self._next_chunk)


async def serve(port: int) -> None:
    """Listen on loopback, say where, and go on until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Upstream(loop), "127.0.0.1", port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    gc.collect()
    gc.disable()  # nothing here makes cycles
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
