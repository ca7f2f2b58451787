"""Live updates: one sampler for all viewers, at work only while somebody watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

EVERY_S = 1.0
MAX_VIEWERS = 64


class TooManyViewers(Exception):
    """As many watch as may; the next comes when one leaves."""


class _Viewer:
    """Holds the latest frame only: whoever is slow misses some, and nothing piles up."""

    def __init__(self) -> None:
        self._frame: bytes | None = None
        self._came = asyncio.Event()
        self.ended = False

    def give(self, frame: bytes) -> None:
        self._frame = frame
        self._came.set()

    def end(self) -> None:
        self.ended = True
        self._came.set()

    async def next(self) -> bytes | None:
        """The next frame; None at the end."""
        await self._came.wait()
        self._came.clear()
        frame, self._frame = self._frame, None
        return frame


class Broadcast:
    """`sample` makes a frame, None when there will be no more."""

    def __init__(self, sample: Callable[[], Awaitable[bytes | None]], *, every_s: float = EVERY_S) -> None:
        self._sample = sample
        self._every_s = every_s
        self._viewers: set[_Viewer] = set()
        self._wanted = asyncio.Event()
        self._over = False

    @property
    def viewers(self) -> int:
        """How many watch."""
        return len(self._viewers)

    async def run(self) -> None:
        """Sample while somebody watches, until there is no more to tell."""
        while True:
            await self._wanted.wait()
            frame = await self._sample()
            for viewer in list(self._viewers):
                viewer.give(frame) if frame is not None else viewer.end()
            if frame is None:
                self._over = True
                return
            await asyncio.sleep(self._every_s)

    def join(self) -> AsyncGenerator[bytes]:
        """Frames as they come, for one more viewer, who counts from the first one asked for: of who leaves before that
        nothing would ever tell. Raises TooManyViewers."""
        if len(self._viewers) >= MAX_VIEWERS:
            raise TooManyViewers
        return self._frames()

    async def _frames(self) -> AsyncGenerator[bytes]:
        viewer = _Viewer()
        self._viewers.add(viewer)
        self._wanted.set()
        try:
            while not (self._over or viewer.ended) and (frame := await viewer.next()) is not None:
                yield frame
        finally:
            self._viewers.discard(viewer)
            if not self._viewers:
                self._wanted.clear()
