"""What the other processes under the same ledger have under way: those of this gateway, and other gateways'.

Each looks once a second whether somebody watches; only then does it say what it does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec

from app.stores.words import Words

EVERY_S = 1.0


class Told(msgspec.Struct):
    """One process's word. `gateway` is the same for all workers of one, `name` is for people; `count` calls are under
    way, of which `calls` are the oldest; `troubled` are the circuits that are not closed."""

    gateway: str
    name: str
    draining: bool
    count: int
    calls: list[dict[str, Any]]
    troubled: list[dict[str, Any]]


class Others:
    """`words` None: there are no other processes. `mine`: this process's word."""

    def __init__(self, words: Words | None, mine: Callable[[], Told]) -> None:
        self._words = words
        self._mine = mine

    async def run(self) -> None:
        """Tell the others while somebody watches, for ever; nothing where there are none."""
        while self._words is not None:
            if await self._words.watched():
                await self._words.tell(msgspec.json.encode(self._mine()))
            await asyncio.sleep(EVERY_S)

    async def heard(self) -> list[Told]:
        """What the others said last; those of another version that cannot be read are left out."""
        found = []
        for word in [] if self._words is None else await self._words.heard():
            with contextlib.suppress(msgspec.MsgspecError):
                found.append(msgspec.json.decode(word, type=Told))
        return found

    async def close(self) -> None:
        """Let go of the store."""
        if self._words is not None:
            await self._words.close()
