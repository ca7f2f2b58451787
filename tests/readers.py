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

_readers: dict[asyncio.AbstractEventLoop, Callable[[], bool]] = {}


@contextlib.contextmanager
def reading(loop: asyncio.AbstractEventLoop, busy: Callable[[], bool]) -> Iterator[None]:
    """Pace replies by this loop; while `busy` (asked in the loop) they do not go on."""
    _readers[loop] = busy
    try:
        yield
    finally:
        del _readers[loop]


async def done_reading() -> None:
    """Wait, in any loop, until all readers are done with what was sent."""
    for loop, busy in list(_readers.items()):
        done: Future[None] = Future()
        with contextlib.suppress(RuntimeError):  # it has closed meanwhile
            loop.call_soon_threadsafe(_turn, loop, busy, done, TURNS)
            await asyncio.wrap_future(done)


def _turn(loop: asyncio.AbstractEventLoop, busy: Callable[[], bool], done: Future[None], left: int) -> None:
    if left:
        loop.call_soon(_turn, loop, busy, done, left - 1)
    elif busy() and loop in _readers:
        loop.call_later(LATER_S, _turn, loop, busy, done, 1)
    else:
        with contextlib.suppress(InvalidStateError):  # the reply was cancelled
            done.set_result(None)
