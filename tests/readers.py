"""Those who read from scripted upstreams in this process: a paced reply goes on when they are done with what came.

Otherwise a busy machine would let an upstream generate in its own thread while the gateway gets no turn: many words
would come in one read, and a test of what a cut costs would measure the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError

TURNS = 4
"""Of an event loop until it is done with bytes that had been sent before: it reads, wakes the call, and runs it."""
LATER_S = 0.001

Reader = tuple[asyncio.AbstractEventLoop, Callable[[], bool]]
_readers: list[Reader] = []


@contextlib.contextmanager
def reading(loop: asyncio.AbstractEventLoop, busy: Callable[[], bool]) -> Iterator[None]:
    """Pace replies by this loop; while `busy` (asked in the loop) they do not go on."""
    reader = (loop, busy)
    _readers.append(reader)
    try:
        yield
    finally:
        _readers.remove(reader)


async def done_reading() -> None:
    """Wait, in any loop, until all readers are done with what was sent."""
    for reader in tuple(_readers):
        done: Future[None] = Future()
        with contextlib.suppress(RuntimeError):  # it has closed meanwhile
            reader[0].call_soon_threadsafe(_turn, reader, done, TURNS)
            await asyncio.wrap_future(done)


def _turn(reader: Reader, done: Future[None], left: int) -> None:
    loop, busy = reader
    if left:
        loop.call_soon(_turn, reader, done, left - 1)
    elif reader in _readers and busy():
        loop.call_later(LATER_S, _turn, reader, done, 1)
    else:
        with contextlib.suppress(InvalidStateError):  # the reply was cancelled
            done.set_result(None)
