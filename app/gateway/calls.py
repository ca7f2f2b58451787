"""Who owns the calls: every call is a task of its own here, so that it settles whatever its client does."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from enum import Enum
from typing import Any, Protocol, TypeVar

import structlog

log = structlog.get_logger()

WATCH_EVERY_S = 0.125
FLUSH_EVERY = 2
"""Running costs are written on every second look, those of all calls together: every 250 ms, in one round trip."""
SETTLE_S = 5.0
T = TypeVar("T")


class Stop(Enum):
    """Why a call was told to stop waiting."""

    CLIENT_GONE = "client_gone"
    SHUTDOWN = "shutdown"
    LATE = "late"


class Stopped(Exception):
    """The wait was interrupted; the call's `stopped` says why."""


class Downstream(Protocol):
    """The client's side of one call. After the client has left, writes do nothing. `opened`: the head is out."""

    opened: bool

    @property
    def writable(self) -> bool:
        """True where sending now would surely not wait for the client."""

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head of a stream, once."""

    async def write(self, data: bytes) -> None:
        """Send a part of a stream; waits while the client is slow."""

    def push(self, data: bytes) -> bool:
        """Send a part of a stream at once; False, and nothing is sent, where that has to wait for the client."""

    async def finish(self, data: bytes) -> None:
        """Send the last part."""

    async def reply(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Send a whole answer."""


class Waits:
    """The interruptible waits of one call. Only blocks under `with waits` can be stopped: money verbs always finish.

    `deadline_s` (loop time) is checked by the watcher; a passed deadline stops the wait with Stop.LATE, which the
    call may clear and go on from; a client that left cannot be cleared.
    """

    __slots__ = ("_task", "_waiting", "deadline_s", "stopped")

    def __init__(self) -> None:
        self.stopped: Stop | None = None
        self.deadline_s = float("inf")
        self._task: asyncio.Task[None] | None = None
        self._waiting = False

    def bind(self, task: asyncio.Task[None]) -> None:
        """The task whose waits these are."""
        self._task = task

    def stop(self, why: Stop) -> None:
        """Interrupt the present wait, or the next one."""
        if self.stopped is None or self.stopped is Stop.LATE:
            self.stopped = why
            if self._waiting and self._task is not None:
                self._task.cancel()

    def clear_late(self) -> None:
        """Go on after a passed deadline."""
        if self.stopped is Stop.LATE:
            self.stopped = None
        self.deadline_s = float("inf")

    def last_word(self) -> None:
        """All is settled, and there is something to tell: what was to stop the call comes too late, unless its client
        has left."""
        if self.stopped is not Stop.CLIENT_GONE:
            self.stopped = None

    def is_over(self) -> bool:
        """True once nobody wants the answer any more."""
        return self.stopped in (Stop.CLIENT_GONE, Stop.SHUTDOWN)

    def __enter__(self) -> None:
        """Waits in the block may be interrupted: they raise Stopped. No money verb may be awaited in it."""
        if self.stopped is not None:
            raise Stopped
        self._waiting = True

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._waiting = False
        # `stop` cancels only a task that is suspended inside the block, so the cancellation always lands here.
        if kind is asyncio.CancelledError and self.stopped is not None and self._task is not None:
            self._task.uncancel()
            raise Stopped from None

    async def io(self, wait: Coroutine[Any, Any, T]) -> T:
        """Await one piece of network I/O; raises Stopped when told to stop."""
        if self.stopped is not None:
            wait.close()
            raise Stopped
        try:  # what `with self` does, without the calls: every reply goes this way
            self._waiting = True
            return await wait
        except asyncio.CancelledError as error:
            self.__exit__(type(error))
            raise
        finally:
            self._waiting = False


class Runner(Protocol):
    """A call that can be run and watched. `quiet_until_s` (loop time): its client needs a sign of life by then."""

    waits: Waits
    quiet_until_s: float

    async def run(self) -> None:
        """Serve the client; must not raise."""

    def flush(self) -> None:
        """Write the running cost to the ledger, where it has risen; called every 250 ms or so."""

    async def show_life(self, now_s: float) -> None:
        """Send the client a sign that it is still being served."""


class Calls:
    """All calls under way in this process.

    `leaving`: the gateway still serves, and says that it is not ready. `draining`: it takes no new call.
    """

    def __init__(self) -> None:
        self._running: dict[asyncio.Task[None], Runner] = {}
        self._all_ended: asyncio.Event | None = None
        self.leaving = False
        self.draining = False

    def __len__(self) -> int:
        return len(self._running)

    def under_way(self) -> list[Runner]:
        """The calls that run now, for whoever watches."""
        return list(self._running.values())

    def spawn(self, call: Runner) -> asyncio.Task[None]:
        """Start a call as a task that outlives its client."""
        task = asyncio.get_running_loop().create_task(call.run())
        call.waits.bind(task)
        self._running[task] = call
        task.add_done_callback(self._ended)
        return task

    async def run(self, call: Runner) -> None:
        """Run a call in the present task, which must outlive its client."""
        task = asyncio.current_task()
        assert task is not None
        call.waits.bind(task)
        self._running[task] = call
        try:
            await call.run()
        finally:
            self._forget(task)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        if not self._running and self._all_ended is not None:
            self._all_ended.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._forget(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a call ended with an unexpected error", exc_info=error)

    async def watch(self) -> None:
        """Stop the waits whose deadline has passed, and have running costs written; runs until cancelled."""
        loop = asyncio.get_running_loop()
        for look in itertools.count():
            await asyncio.sleep(WATCH_EVERY_S)
            now_s = loop.time()
            for call in list(self._running.values()):
                if now_s > call.waits.deadline_s:
                    call.waits.stop(Stop.LATE)
                if now_s > call.quiet_until_s:
                    await call.show_life(now_s)
                if look % FLUSH_EVERY:
                    call.flush()

    async def drain(self, limit_s: float) -> None:
        """Let calls finish, then stop what is left: each is cut off honestly and settled."""
        self.leaving = self.draining = True
        ended = self._all_ended = asyncio.Event()
        if not self._running:
            return
        try:
            await asyncio.wait_for(ended.wait(), limit_s)
        except TimeoutError:
            log.warning("calls were still running at shutdown", calls=len(self._running))
            for call in list(self._running.values()):
                call.waits.stop(Stop.SHUTDOWN)
            try:
                await asyncio.wait_for(ended.wait(), SETTLE_S)
            except TimeoutError:
                log.error("calls did not settle in time", calls=len(self._running))
