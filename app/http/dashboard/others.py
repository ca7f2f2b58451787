"""What the other workers of this gateway have under way, told through files in the folder they share.

Each looks once a second whether somebody watches; only then does it write what it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

EVERY_S = 1.0
FRESH_S = 3.5
"""A word older than this is of a worker that is gone, or of a time when nobody watched."""
_WATCHED = "dashboard-watched"
_OWN = "dashboard-calls-{}.json"


class Told(msgspec.Struct):
    """One worker's word: how many calls it has under way, and the oldest of them."""

    count: int
    calls: list[dict[str, Any]]


class Others:
    """`folder` None: there are no other workers. `mine`: this worker's word."""

    def __init__(self, folder: Path | None, mine: Callable[[], Told]) -> None:
        self._folder = folder
        self._mine = mine

    async def run(self) -> None:
        """Tell the others while somebody watches, for ever; nothing where there are none."""
        while self._folder is not None:
            if _is_fresh(self._folder / _WATCHED):
                await asyncio.to_thread(self._tell, self._folder, msgspec.json.encode(self._mine()))
            await asyncio.sleep(EVERY_S)

    async def heard(self) -> list[Told]:
        """What the others said last; and that somebody watches."""
        return [] if self._folder is None else await asyncio.to_thread(self._heard, self._folder)

    def _tell(self, folder: Path, word: bytes) -> None:
        own = folder / _OWN.format(os.getpid())
        aside = own.with_suffix(".tmp")
        with contextlib.suppress(OSError):
            aside.write_bytes(word)
            aside.replace(own)

    def _heard(self, folder: Path) -> list[Told]:
        found = []
        with contextlib.suppress(OSError):
            (folder / _WATCHED).touch()
        own = _OWN.format(os.getpid())
        for file in folder.glob(_OWN.format("*")):
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                if not _is_fresh(file):
                    file.unlink(missing_ok=True)
                elif file.name != own:
                    found.append(msgspec.json.decode(file.read_bytes(), type=Told))
        return found


def shared_folder() -> Path | None:
    """Where workers of one gateway keep what they share (`commands/server.py` makes it)."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return None if folder is None else Path(folder)


def _is_fresh(file: Path) -> bool:
    try:
        return time.time() - file.stat().st_mtime < FRESH_S
    except OSError:
        return False
