"""What is known in common of tasks, in a SQLite file for the gateways and workers of one machine; opened when it is
first needed."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from app.stores.sqlite_file import SqliteFile
from app.stores.task_memory import MemoryUnavailable

FORGET_EVERY = 1_000
"""Writes of this process between two looks for what has run out."""
VERSION = 1
SCHEMA = """
CREATE TABLE counts (name BLOB PRIMARY KEY, times INTEGER NOT NULL, until_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE words (name BLOB PRIMARY KEY, word TEXT NOT NULL, until_s REAL NOT NULL) WITHOUT ROWID
"""
_COUNT = """
INSERT INTO counts VALUES (:name, 1, :until_s)
ON CONFLICT (name) DO UPDATE SET times = CASE WHEN until_s > :now_s THEN times + 1 ELSE 1 END, until_s = :until_s
RETURNING times
"""


class SqliteTaskMemory:
    """See `stores/task_memory.py`. One thread per process, which is there only where it is needed."""

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, SCHEMA, VERSION, "the memory of tasks", MemoryUnavailable, durable=False)
        self._writes = 0

    async def count(self, name: bytes, keep_s: float) -> int:
        return await self._file.ask(lambda: self._count(name, keep_s))

    async def word(self, *names: bytes) -> str | None:
        return await self._file.ask(lambda: self._word(names))

    async def note(self, name: bytes, word: str, keep_s: float) -> None:
        await self._file.ask(lambda: self._note(name, word, keep_s))

    async def close(self) -> None:
        await self._file.close()

    def _count(self, name: bytes, keep_s: float) -> int:
        db, now_s = self._writing(), time.time()
        # Fetched to its end, or the statement would stay open and its write uncommitted.
        ((times,),) = db.execute(_COUNT, {"name": name, "now_s": now_s, "until_s": now_s + keep_s}).fetchall()
        return int(times)

    def _word(self, names: tuple[bytes, ...]) -> str | None:
        db, now_s = self._file.open(), time.time()
        for name in names:
            row = db.execute("SELECT word FROM words WHERE name = ? AND until_s > ?", (name, now_s)).fetchone()
            if row is not None:
                return str(row[0])
        return None

    def _note(self, name: bytes, word: str, keep_s: float) -> None:
        row = (name, word, time.time() + keep_s)
        self._writing().execute("INSERT OR REPLACE INTO words VALUES (?, ?, ?)", row)

    def _writing(self) -> sqlite3.Connection:
        db, self._writes = self._file.open(), self._writes + 1
        if self._writes % FORGET_EVERY == 0:
            for table in ("counts", "words"):
                db.execute(f"DELETE FROM {table} WHERE until_s < ?", (time.time(),))  # noqa: S608  (our own words)
        return db
