"""Answers about traces, kept for a moment, so that all who watch the same cost one question."""

from __future__ import annotations

import asyncio
import time

from app.core.errors import TracesDown
from app.http.dashboard.ask import Ask, FiguresUnavailable, Question

KEPT_S = 10.0
MAX_KEPT = 32


class Kept:
    """Asks once for all who ask the same within KEPT_S."""

    def __init__(self, ask: Ask, *, kept_s: float = KEPT_S) -> None:
        self._ask = ask
        self._kept_s = kept_s
        self._kept: dict[Question, tuple[float, asyncio.Future[bytes]]] = {}

    async def __call__(self, question: Question) -> bytes:
        """The answer as JSON. Raises TracesDown."""
        now_s = time.monotonic()
        self._kept = {asked: kept for asked, kept in self._kept.items() if now_s - kept[0] < self._kept_s}
        if (kept := self._kept.get(question)) is None:
            if len(self._kept) >= MAX_KEPT:
                raise TracesDown(
                    "Too many different questions are being asked; try again in some seconds.",
                    headers={"retry-after": "5"},
                )
            kept = self._kept[question] = now_s, asyncio.get_running_loop().create_future()
            await self._find(question, kept[1])
        try:
            return await asyncio.shield(kept[1])
        except FiguresUnavailable as error:
            raise TracesDown(str(error), headers={"retry-after": "5"}) from None

    async def _find(self, question: Question, coming: asyncio.Future[bytes]) -> None:
        """A failure is told to all who wait for it, and not kept."""
        try:
            coming.set_result(await self._ask(question))
        except FiguresUnavailable as error:
            coming.set_exception(error)
        finally:
            if not coming.done():  # whoever asked was cancelled, or something broke
                coming.set_exception(FiguresUnavailable("The question was given up."))
            if coming.exception() is not None:
                self._kept.pop(question, None)
