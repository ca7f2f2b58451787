"""A cheap closed-loop load generator: `python -m tests.bench.load SPEC`, SPEC being a Load as JSON; prints a Result.

Each connection sends its next request when the last reply is complete. A stream counts as a success only
when all its chunks and `[DONE]` have come.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import re
import sys
import time
from array import array
from collections.abc import Sequence
from typing import Literal, cast

import msgspec
import uvloop

from tests.bench.canned import CHUNKS, STAMP, STAMP_DIGITS, chat_body, chat_request

LINGER_S = 30.0
"""How long requests under way when the time is up may take to finish."""
MAX_ERRORS = 1000
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_DONE = b"data: [DONE]"


class Load(msgspec.Struct, frozen=True):
    """What to send where. It ends after `seconds`, or after that many `requests` where given.

    `stagger_s`: connections begin spread over this time. `tasks`: which requests share a task.
    """

    host: str
    port: int
    path: str
    connections: int
    seconds: float
    stream: bool = False
    pace_ms: int | None = None
    prompt_bytes: int = 2000
    stagger_s: float = 0.0
    requests: int | None = None
    tasks: Literal["none", "connection", "request"] = "none"
    task_prefix: str = "bench"


class Result(msgspec.Struct, frozen=True):
    """What came of it; times in microseconds. `late_*`: from the stub's write of a chunk to its arrival here."""

    requests: int
    errors: int
    seconds: float
    chunks: int
    p50_us: float
    p99_us: float
    first_p50_us: float
    first_p99_us: float
    late_p50_us: float
    late_p99_us: float
    first_error: str | None = None


class Run:
    """The state that all connections share."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.loop = asyncio.get_running_loop()
        self.over = asyncio.Event()
        self.errors = 0
        self.first_error: str | None = None
        self.total_ns, self.first_ns, self.late_ns = array("q"), array("q"), array("q")
        self.began_ns = self.ended_ns = time.monotonic_ns()
        self._until_ns = self.began_ns + int((load.seconds + load.stagger_s) * 1e9)
        self._started = 0
        self._under_way = 0
        self._numbers = itertools.count()
        host = f"{load.host}:{load.port}"
        body = chat_body(prompt_bytes=load.prompt_bytes, stream=load.stream, pace_ms=load.pace_ms)
        self._plain = chat_request(host, load.path, body)
        head, self._body = chat_request(host, load.path, body, task=b"%b").split(b"\r\n\r\n", 1)
        self._head = head + b"\r\n\r\n"

    def request(self, connection: int) -> bytes:
        """The next request of a connection."""
        if self.load.tasks == "none":
            return self._plain
        number = connection if self.load.tasks == "connection" else next(self._numbers)
        return self._head % f"{self.load.task_prefix}-{number}".encode() + self._body

    def may_begin(self) -> bool:
        """Whether one more request is wanted; counts it."""
        wanted = self.load.requests
        ended = time.monotonic_ns() >= self._until_ns if wanted is None else self._started >= wanted
        if ended or self.errors >= MAX_ERRORS:
            self._check_over()
            return False
        self._started += 1
        self._under_way += 1
        return True

    def finished(self, error: str | None) -> None:
        """A request has ended."""
        self._under_way -= 1
        self.ended_ns = time.monotonic_ns()
        if error is not None:
            self.errors += 1
            self.first_error = self.first_error or error

    def give_up(self, error: str) -> None:
        """End the run: there is nobody to ask."""
        self.errors += 1
        self.first_error = self.first_error or error
        self.over.set()

    def _check_over(self) -> None:
        if not self._under_way:
            self.over.set()

    def result(self) -> Result:
        """Everything, as numbers."""
        total, first, late = (sorted(times) for times in (self.total_ns, self.first_ns, self.late_ns))
        return Result(
            requests=len(total),
            errors=self.errors + self._under_way,
            seconds=round((self.ended_ns - self.began_ns) / 1e9, 3),
            chunks=len(late),
            p50_us=_percentile(total, 0.5),
            p99_us=_percentile(total, 0.99),
            first_p50_us=_percentile(first, 0.5),
            first_p99_us=_percentile(first, 0.99),
            late_p50_us=_percentile(late, 0.5),
            late_p99_us=_percentile(late, 0.99),
            first_error=self.first_error,
        )


class Client(asyncio.Protocol):
    """One connection, opened again where the server closes it."""

    def __init__(self, run: Run, number: int) -> None:
        self._run, self._number = run, number
        self._busy = False

    async def connect(self) -> None:
        """Open the connection and begin, at this connection's turn."""
        load = self._run.load
        await asyncio.sleep(load.stagger_s * self._number / load.connections)
        try:
            await self._run.loop.create_connection(lambda: self, load.host, load.port)
        except OSError as error:
            self._run.give_up(f"cannot connect: {error}")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._begin()

    def connection_lost(self, error: Exception | None) -> None:
        """A reply that was under way is an error; a new connection goes on."""
        if self._busy:
            self._end(f"the connection was closed in mid-reply ({error})")
            self._again = self._run.loop.create_task(self.connect())

    def _begin(self) -> None:
        if not self._run.may_begin():
            self._transport.close()
            return
        self._busy = True
        self._head = b""
        self._in_head = True
        self._left: int | None = None
        self._began_ns = time.monotonic_ns()
        self._first_ns = 0
        self._tail = b""
        self._carry = b""
        self._done = False
        self._late_ns: list[int] = []
        self._transport.write(self._run.request(self._number))

    def data_received(self, data: bytes) -> None:
        """Take a part of the reply; at its end, count it and send the next request."""
        now_ns = time.monotonic_ns()
        if self._in_head:
            data = self._take_head(data)
        if not data:
            return
        self._first_ns = self._first_ns or now_ns
        if self._run.load.stream:
            self._take_chunks(data, now_ns)
        if self._left is not None:
            self._left -= len(data)
            complete = self._left <= 0
        else:
            self._tail = (self._tail + data)[-len(_LAST_CHUNK) :]
            complete = self._tail == _LAST_CHUNK
        if complete:
            self._complete(data, now_ns)

    def _take_head(self, data: bytes) -> bytes:
        """Keep the head until it is whole; the part of `data` after it."""
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            return b""
        self._in_head = False
        data = self._head[end + 4 :]
        self._head = self._head[: end + 2]
        length = _LENGTH.search(self._head)
        self._left = int(length[1]) if length is not None else None
        if length is None and _CHUNKED.search(self._head) is None:
            self._transport.abort()  # its end would be the connection's: this load keeps connections
            return b""
        return data

    def _take_chunks(self, data: bytes, now_ns: int) -> None:
        """Note when each chunk was written; one that is split between two reads is found in the second."""
        text, end = self._carry + data, 0
        for stamp in STAMP.finditer(text):
            self._late_ns.append(now_ns - int(stamp[1]))
            end = stamp.end()
        self._done = self._done or _DONE in text
        self._carry = text[max(end, len(text) - STAMP_DIGITS) :]

    def _complete(self, data: bytes, now_ns: int) -> None:
        run = self._run
        error = None
        if not self._head.startswith(b"HTTP/1.1 200 "):
            error = (self._head + data[:500]).decode("latin-1")
        elif run.load.stream and (len(self._late_ns) != CHUNKS or not self._done):
            error = f"a stream ended with {len(self._late_ns)} chunks, [DONE]: {self._done}"
        else:
            run.total_ns.append(now_ns - self._began_ns)
            run.first_ns.append(self._first_ns - self._began_ns)
            run.late_ns.extend(self._late_ns)
        self._end(error)
        self._begin()

    def _end(self, error: str | None) -> None:
        self._busy = False
        self._run.finished(error)


def _percentile(sorted_ns: Sequence[int], at: float) -> float:
    """In microseconds; 0.0 of nothing."""
    return round(sorted_ns[int((len(sorted_ns) - 1) * at + 0.5)] / 1000, 1) if sorted_ns else 0.0


async def generate(load: Load) -> Result:
    """Carry the load out."""
    gc.disable()  # a pause here would be taken for the gateway's
    run = Run(load)
    clients = [Client(run, number) for number in range(load.connections)]
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.connect())
    try:
        async with asyncio.timeout(load.seconds + LINGER_S):
            await run.over.wait()
    except TimeoutError:
        run.first_error = run.first_error or "requests were still under way at the end"
    return run.result()


if __name__ == "__main__":
    print(msgspec.json.encode(uvloop.run(generate(msgspec.json.decode(sys.argv[1], type=Load)))).decode())
