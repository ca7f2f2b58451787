"""Claims and replies in a SQLite file, for the gateways and workers of one machine; opened when it is first needed."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import Future
from pathlib import Path

import structlog

from app.stores.replays import IN_ALL_BYTES, KEPT_S, LEASE_S, Claim, Kept, ReplaysUnavailable, decode, encode
from app.stores.sqlite_file import SqliteFile, bytes_in

log = structlog.get_logger()

VERSION = 1
SCHEMA = """
CREATE TABLE replays (
    name TEXT PRIMARY KEY, fingerprint BLOB NOT NULL, owner TEXT NOT NULL, until_s REAL NOT NULL, reply BLOB
);
CREATE INDEX replays_until ON replays (until_s)
"""
LET_GO = "DELETE FROM replays WHERE until_s < ?"
MAKE_ROOM = """
DELETE FROM replays WHERE name = (SELECT name FROM replays WHERE reply IS NOT NULL ORDER BY until_s LIMIT 1)
"""


class SqliteReplays:
    """See `stores/replays.py`. One thread per process, which is there only where it is needed."""

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, SCHEMA, VERSION, "the store of replies", ReplaysUnavailable, durable=False)
        self._owner = secrets.token_hex(8)
        self._claimed: set[str] = set()

    async def claim(self, name: str, fingerprint: bytes) -> Claim | Kept:
        found = await self._file.ask(lambda: self._claim(name, fingerprint))
        if found is Claim.MINE:
            self._claimed.add(name)
        return found

    def keep(self, name: str, kept: Kept | None, keep_s: float = KEPT_S) -> None:
        self._claimed.discard(name)
        self._file.submit(lambda: self._keep(name, kept, keep_s)).add_done_callback(_told)

    async def renew(self) -> None:
        if self._claimed:
            await self._file.ask(self._renew)

    async def close(self) -> None:
        await self._file.close()

    def _claim(self, name: str, fingerprint: bytes) -> Claim | Kept:
        db, now_s = self._file.open(), time.time()
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

    def _keep(self, name: str, kept: Kept | None, keep_s: float) -> None:
        db, now_s = self._file.open(), time.time()
        mine = (name, self._owner)
        with db:
            db.execute("BEGIN IMMEDIATE")
            if kept is None:
                db.execute("DELETE FROM replays WHERE name = ? AND owner = ? AND reply IS NULL", mine)
            else:
                reply = (encode(kept), now_s + keep_s)
                db.execute("UPDATE replays SET reply = ?, until_s = ? WHERE name = ? AND owner = ?", (*reply, *mine))
            db.execute(LET_GO, (now_s,))
            while bytes_in(db) > IN_ALL_BYTES and db.execute(MAKE_ROOM).rowcount:
                pass

    def _renew(self) -> None:
        until = (time.time() + LEASE_S, self._owner)
        self._file.open().execute("UPDATE replays SET until_s = ? WHERE owner = ? AND reply IS NULL", until)


def _told(done: Future[None]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        log.warning("a reply could not be kept for those who ask again", error=type(error).__name__)
