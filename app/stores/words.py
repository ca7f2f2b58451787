"""What processes tell one another of this moment: one word of each about one thing, its latest.

They meet in Redis where it is shared, in a folder where a gateway has several workers, and nowhere else. Of what is
only told while somebody watches, this says whether somebody does. Nothing is kept: a word older than FRESH_S is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import Protocol

FRESH_S = 3.5
"""An older word is of a process that is gone, or of a time when nobody watched."""


class Words(Protocol):
    """One process's place among the others. Its methods raise nothing: a store that does not answer has no words."""

    async def watched(self) -> bool:
        """True where somebody has heard the others within FRESH_S."""

    async def tell(self, word: bytes) -> None:
        """This process's word, in place of the one before."""

    async def heard(self, *, watching: bool = True) -> list[bytes]:
        """The other processes' fresh words; and from now on somebody watches, if so said."""

    async def close(self) -> None:
        """Let go of the store."""


class FileWords:
    """Workers of one gateway, on files in the folder that they share."""

    def __init__(self, folder: Path, about: str = "words") -> None:
        self._folder = folder
        self._about = about
        self._watched = folder / f"{about}-watched"
        self._own = folder / f"{about}-{os.getpid()}.json"

    async def watched(self) -> bool:
        return _is_fresh(self._watched)

    async def tell(self, word: bytes) -> None:
        await asyncio.to_thread(self._tell, word)

    async def heard(self, *, watching: bool = True) -> list[bytes]:
        return await asyncio.to_thread(self._heard, watching)

    async def close(self) -> None:
        """Whoever made the folder removes it."""

    def _tell(self, word: bytes) -> None:
        aside = self._own.with_suffix(".tmp")
        with contextlib.suppress(OSError):
            aside.write_bytes(word)
            aside.replace(self._own)

    def _heard(self, watching: bool) -> list[bytes]:
        found = []
        if watching:
            with contextlib.suppress(OSError):
                self._watched.touch()
        for file in self._folder.glob(f"{self._about}-*.json"):
            with contextlib.suppress(OSError):
                if not _is_fresh(file):
                    file.unlink(missing_ok=True)
                elif file != self._own:
                    found.append(file.read_bytes())
        return found


def _is_fresh(file: Path) -> bool:
    try:
        return time.time() - file.stat().st_mtime < FRESH_S
    except OSError:
        return False
