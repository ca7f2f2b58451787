"""A SQLite file that several processes share: private to its owner, of a known version, with a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

BUSY_TIMEOUT_S = 5.0
"""How long one process waits for the others."""

T = TypeVar("T")


class NewerFile(Exception):
    """The file was written by a newer version."""


class SqliteFile:
    """The file at `path`, opened when it is first asked, and the one thread of this process that works on it.

    `down` makes the error that askers get, of words that say what `what` is failing. `durable`: a power cut takes
    nothing that was written; without it, perhaps the last moment.
    """

    def __init__(
        self, path: Path, schema: str, version: int, what: str, down: Callable[[str], Exception], *, durable: bool
    ) -> None:
        self._path = path.absolute()
        self._schema, self._version = schema, version
        self._what, self._down = what, down
        self._synchronous = "FULL" if durable else "NORMAL"
        self._thread: ThreadPoolExecutor | None = None
        self._db: sqlite3.Connection | None = None

    def open(self) -> sqlite3.Connection:
        """The connection; only in the file's own thread. Raises OSError, sqlite3.Error, NewerFile."""
        if self._db is None:
            self._db = opened(self._path, self._schema, self._version)
            self._db.execute(f"PRAGMA synchronous = {self._synchronous}")
        return self._db

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Do some work in the file's thread, after all that was submitted before."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix=self._path.stem)
        return self._thread.submit(work)

    async def ask(self, work: Callable[[], T]) -> T:
        """The same, and wait for what comes of it. Raises what `down` makes."""
        try:
            return await asyncio.wrap_future(self.submit(work))
        except NewerFile as error:
            raise self._down(str(error)) from None
        except (sqlite3.Error, OSError, RuntimeError) as error:
            raise self._down(f"{self._what} ({self._path}) did not answer: {error}") from error

    async def close(self) -> None:
        """Finish what was submitted, and close what was opened."""
        if self._thread is not None:
            if self._db is not None:
                await self.ask(self._db.close)
            self._thread.shutdown()


def opened(path: Path, schema: str, version: int) -> sqlite3.Connection:
    """The file, with its tables, made with its folders where it is not there. Raises OSError, sqlite3.Error,
    NewerFile."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    make_private(path)
    db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        patiently(lambda: db.execute("PRAGMA journal_mode = WAL"), BUSY_TIMEOUT_S)
        with db:
            db.execute("BEGIN IMMEDIATE")
            (found,) = db.execute("PRAGMA user_version").fetchone()
            if found > version:
                raise NewerFile(f"{path.name} was written by a newer version")
            if found == 0:
                for statement in schema.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {version}")
    except BaseException:
        db.close()
        raise
    return db


def bytes_in(db: sqlite3.Connection) -> int:
    """What is in the file, without the room that was made in it."""
    said = [db.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "freelist_count", "page_size")]
    return int((said[0] - said[1]) * said[2])


def make_private(path: Path) -> None:
    """Make an empty file that its owner only may read, where there is none. One that is there is not touched: to close
    it would end all locks that this process has on it, and others would take the file for theirs alone
    (https://www.sqlite.org/howtocorrupt.html, 2.2). Raises OSError."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def patiently(action: Callable[[], T], timeout_s: float) -> T:
    """Try again while the file is locked: SQLite does not wait where processes switch a new file to WAL at once."""
    until = time.monotonic() + timeout_s
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)
