"""What is known in common of tasks, in a SQLite file for the gateways and workers of one machine; opened when it is
first needed."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import structlog

from app.stores.sqlite_file import NewerFile, opened
from app.stores.task_memory import MODEL_KEPT_S, MemoryUnavailable

log = structlog.get_logger()

FORGET_EVERY = 1_000
"""Writes of this process between two looks for what has run out."""
VERSION = 1
SCHEMA = """
CREATE TABLE counts (name BLOB PRIMARY KEY, times INTEGER NOT NULL, until_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE models (loop BLOB PRIMARY KEY, model TEXT NOT NULL, until_s REAL NOT NULL) WITHOUT ROWID
"""
_COUNT = """
INSERT INTO counts VALUES (:name, 1, :until_s)
ON CONFLICT (name) DO UPDATE SET times = CASE WHEN until_s > :now_s THEN times + 1 ELSE 1 END, until_s = :until_s
RETURNING times
"""
T = TypeVar("T")


class SqliteTaskMemory:
    """See `stores/task_memory.py`. One thread per process, which is there only where it is needed."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._thread: ThreadPoolExecutor | None = None
        self._db: sqlite3.Connection | None = None
        self._writes = 0

    async def count(self, name: bytes, keep_s: float) -> int:
        return await self._ask(lambda: self._count(name, keep_s))

    async def model_of(self, loop: bytes) -> str | None:
        return await self._ask(lambda: self._model_of(loop))

    def note(self, loop: bytes, model: str) -> None:
        self._submit(lambda: self._note(loop, model)).add_done_callback(_told)

    async def close(self) -> None:
        if self._thread is not None:
            if self._db is not None:
                await self._ask(self._db.close)
            self._thread.shutdown()

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="task-memory")
        return self._thread.submit(work)

    async def _ask(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.wrap_future(self._submit(work))
        except (sqlite3.Error, OSError, RuntimeError, NewerFile) as error:
            raise MemoryUnavailable(f"the memory of tasks did not answer ({type(error).__name__})") from error

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            db = opened(self._path, SCHEMA, VERSION)
            db.execute("PRAGMA synchronous = NORMAL")  # a guard, not an account: a power cut may take the last moment
            self._db = db
        return self._db

    def _count(self, name: bytes, keep_s: float) -> int:
        db, now_s = self._writing(), time.time()
        # Fetched to its end, or the statement would stay open and its write uncommitted.
        ((times,),) = db.execute(_COUNT, {"name": name, "now_s": now_s, "until_s": now_s + keep_s}).fetchall()
        return int(times)

    def _model_of(self, loop: bytes) -> str | None:
        query = "SELECT model FROM models WHERE loop = ? AND until_s > ?"
        row = self._open().execute(query, (loop, time.time())).fetchone()
        return None if row is None else row[0]

    def _note(self, loop: bytes, model: str) -> None:
        row = (loop, model, time.time() + MODEL_KEPT_S)
        self._writing().execute("INSERT OR REPLACE INTO models VALUES (?, ?, ?)", row)

    def _writing(self) -> sqlite3.Connection:
        db, self._writes = self._open(), self._writes + 1
        if self._writes % FORGET_EVERY == 0:
            for table in ("counts", "models"):
                db.execute(f"DELETE FROM {table} WHERE until_s < ?", (time.time(),))  # noqa: S608  (our own words)
        return db


def _told(done: Future[None]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        log.warning("the model of a tool loop is not known to other gateways", error=type(error).__name__)
