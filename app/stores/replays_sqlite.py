"""Claims and replies in a SQLite file, for the gateways and workers of one machine; opened when it is first needed."""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import structlog

from app.stores.replays import KEPT_S, LEASE_S, Claim, Kept, ReplaysUnavailable, decode, encode

log = structlog.get_logger()

BUSY_TIMEOUT_S = 5.0
MAX_REPLIES = 2_000
SCHEMA = """
CREATE TABLE IF NOT EXISTS replays (
    name TEXT PRIMARY KEY, fingerprint BLOB NOT NULL, owner TEXT NOT NULL, until_s REAL NOT NULL, reply BLOB
)
"""
T = TypeVar("T")


class SqliteReplays:
    """See `stores/replays.py`. One thread per process, which is there only where it is needed."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._owner = secrets.token_hex(8)
        self._thread: ThreadPoolExecutor | None = None
        self._db: sqlite3.Connection | None = None
        self._claimed: set[str] = set()

    async def claim(self, name: str, fingerprint: bytes) -> Claim | Kept:
        found = await self._ask(lambda: self._claim(name, fingerprint))
        if found is Claim.MINE:
            self._claimed.add(name)
        return found

    def keep(self, name: str, kept: Kept | None) -> None:
        self._claimed.discard(name)
        self._submit(lambda: self._keep(name, kept)).add_done_callback(_told)

    async def renew(self) -> None:
        if self._claimed:
            await self._ask(self._renew)

    async def close(self) -> None:
        if self._thread is not None:
            if self._db is not None:
                await self._ask(self._db.close)
            self._thread.shutdown()

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="replays")
        return self._thread.submit(work)

    async def _ask(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.wrap_future(self._submit(work))
        except (sqlite3.Error, OSError, RuntimeError) as error:
            raise ReplaysUnavailable(f"the store of replies did not answer ({type(error).__name__})") from error

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            db = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(SCHEMA)
            self._db = db
        return self._db

    def _claim(self, name: str, fingerprint: bytes) -> Claim | Kept:
        db, now_s = self._open(), time.time()
        with db:
            db.execute("BEGIN IMMEDIATE")
            query = "SELECT fingerprint, reply FROM replays WHERE name = ? AND until_s > ?"
            row = db.execute(query, (name, now_s)).fetchone()
            if row is None:
                claim = (name, fingerprint, self._owner, now_s + LEASE_S)
                db.execute("INSERT OR REPLACE INTO replays VALUES (?, ?, ?, ?, NULL)", claim)
                return Claim.MINE
        if row[0] != fingerprint:
            return Claim.OTHER
        return Claim.BUSY if row[1] is None else decode(row[1])

    def _keep(self, name: str, kept: Kept | None) -> None:
        db, now_s = self._open(), time.time()
        mine = (name, self._owner)
        with db:
            db.execute("BEGIN IMMEDIATE")
            if kept is None:
                db.execute("DELETE FROM replays WHERE name = ? AND owner = ? AND reply IS NULL", mine)
            else:
                reply = (encode(kept), now_s + KEPT_S)
                db.execute("UPDATE replays SET reply = ?, until_s = ? WHERE name = ? AND owner = ?", (*reply, *mine))
            db.execute("DELETE FROM replays WHERE until_s < ?", (now_s,))
            oldest = "SELECT name FROM replays WHERE reply IS NOT NULL ORDER BY until_s DESC LIMIT -1 OFFSET ?"
            db.execute(f"DELETE FROM replays WHERE name IN ({oldest})", (MAX_REPLIES,))  # noqa: S608  (our own words)

    def _renew(self) -> None:
        until = (time.time() + LEASE_S, self._owner)
        self._open().execute("UPDATE replays SET until_s = ? WHERE owner = ? AND reply IS NULL", until)


def _told(done: Future[None]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        log.warning("a reply could not be kept for those who ask again", error=type(error).__name__)
