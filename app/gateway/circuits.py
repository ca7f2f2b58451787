"""Circuits told among processes: twice a second, aside of all calls, each tells what is not closed and hears others.

Where there are no others, or the store does not answer, each goes by what it sees itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets

import msgspec

from app.core.circuits import CircuitsWord, SharedCircuits
from app.gateway.services import Services
from app.stores.words import Words

EVERY_S = 0.5


class ToldCircuits:
    """This process's circuits among others'; `words` None: there are none."""

    def __init__(self, words: Words | None, services: Services) -> None:
        self._words = words
        health = services.health

        def known(name: str) -> bool:
            return name in services.view.circuits or name in health.breakers

        self._process, self._told = secrets.token_hex(8), False
        self._circuits = SharedCircuits(self._process, health, known)

    async def keep(self) -> None:
        """Tell and hear, for ever; nothing where there are no others."""
        while self._words is not None:
            await self._exchange(self._words)
            await asyncio.sleep(EVERY_S)

    async def _exchange(self, words: Words) -> None:
        now = asyncio.get_running_loop().time
        mine = self._circuits.word(now())
        if mine is not None or self._told:  # the last time there is nothing left, or old trouble would be heard on
            await words.tell(msgspec.json.encode(mine or CircuitsWord(self._process, {}, {})))
        self._told = mine is not None
        found = []
        for word in await words.heard(watching=False):
            with contextlib.suppress(msgspec.MsgspecError):  # of another version
                found.append(msgspec.json.decode(word, type=CircuitsWord))
        self._circuits.hear(found, now())

    async def close(self) -> None:
        """Let go of the store."""
        if self._words is not None:
            await self._words.close()
