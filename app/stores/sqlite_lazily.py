"""A SQLite file that most gateways never need: opened, with a thread of its own, when it is first asked."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from app.stores.sqlite_file import NewerFile, opened

T = TypeVar("T")


class LazyFile:
    """The file at `path` and the one thread of this process that works on it, called `name`. `down` makes the error
    that askers get where it fails, of the name of what went wrong.

    What is kept is a guard or a convenience, not an account: a power cut may take its last moment.
    """

    def __init__(self, path: Path, schema: str, version: int, name: str, down: Callable[[str], Exception]) -> None:
        self._path = path.absolute()
        self._schema, self._version = schema, version
        self._name, self._down = name, down
        self._thread: ThreadPoolExecutor | None = None
        self._db: sqlite3.Connection | None = None

    def open(self) -> sqlite3.Connection:
        """The connection; only in the file's own thread. Raises OSError, sqlite3.Error, NewerFile."""
        if self._db is None:
            db = opened(self._path, self._schema, self._version)
            db.execute("PRAGMA synchronous = NORMAL")
            self._db = db
        return self._db

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Do some work in the file's thread, after all that was submitted before."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        return self._thread.submit(work)

    async def ask(self, work: Callable[[], T]) -> T:
        """The same, and wait for what comes of it. Raises what `down` makes."""
        try:
            return await asyncio.wrap_future(self.submit(work))
        except (sqlite3.Error, OSError, RuntimeError, NewerFile) as error:
            raise self._down(type(error).__name__) from error

    async def close(self) -> None:
        """Finish what was submitted, and close what was opened."""
        if self._thread is not None:
            if self._db is not None:
                await self.ask(self._db.close)
            self._thread.shutdown()
