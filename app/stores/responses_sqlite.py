"""Stored responses in a SQLite file, for the gateways and workers of one machine; opened when it is first needed."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from app.core.stored import StoreRules
from app.stores.responses import ResponsesUnavailable, StoredResponse, TooMuch, packed, unpacked
from app.stores.sqlite_file import SqliteFile, bytes_in

WAIT_S = 5.0
"""How long an asker waits in all, however many are in line before him: replies wait for this store."""
VERSION = 1
SCHEMA = """
CREATE TABLE responses (
    owner TEXT NOT NULL, id TEXT NOT NULL, previous TEXT, until_s REAL NOT NULL, size INTEGER NOT NULL,
    body BLOB NOT NULL, PRIMARY KEY (owner, id)
);
CREATE INDEX responses_until ON responses (until_s);
CREATE TABLE items (
    owner TEXT NOT NULL, item TEXT NOT NULL, response TEXT NOT NULL, PRIMARY KEY (owner, item),
    FOREIGN KEY (owner, response) REFERENCES responses (owner, id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX items_response ON items (owner, response)
"""
FIND = "SELECT previous, size, body FROM responses WHERE owner = ? AND id = ? AND until_s > ?"
HOLDER = "SELECT response FROM items WHERE owner = ? AND item = ?"
LET_GO = "DELETE FROM responses WHERE until_s < ?"
NOT_LONGER = "UPDATE responses SET until_s = ? WHERE until_s > ?"
MAKE_ROOM = "DELETE FROM responses WHERE rowid = (SELECT rowid FROM responses ORDER BY until_s, rowid LIMIT 1)"
_Row = tuple[str | None, int, bytes]
T = TypeVar("T")


class SqliteResponses:
    """See `stores/responses.py`. One thread per process, which is there only where it is needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = SqliteFile(path, SCHEMA, VERSION, "the store of responses", ResponsesUnavailable, durable=False)
        self._db: sqlite3.Connection | None = None

    async def put(
        self, owner: str, response: StoredResponse, items: Sequence[str], of: Sequence[str], rules: StoreRules
    ) -> bool:
        return await self._ask(lambda: self._put(owner, response, items, of, rules))

    async def chain(self, owner: str, last: str, most_bytes: int) -> list[StoredResponse]:
        return await self._ask(lambda: self._chain(owner, last, most_bytes))

    async def holding(self, owner: str, items: Sequence[str], most_bytes: int) -> list[StoredResponse]:
        return await self._ask(lambda: self._holding(owner, items, most_bytes))

    async def get(self, owner: str, id_: str) -> StoredResponse | None:
        return await self._ask(lambda: self._get(owner, id_))

    async def delete(self, owner: str, id_: str) -> bool:
        return await self._ask(lambda: self._delete(owner, id_))

    async def forget(self) -> None:
        if self._db is not None or self._path.exists():
            await self._file.ask(self._forget)

    async def close(self) -> None:
        await self._file.close()

    async def _ask(self, work: Callable[[], T]) -> T:
        """What has not begun by then is never done; what has may be done all the same."""
        try:
            async with asyncio.timeout(WAIT_S):
                return await self._file.ask(work)
        except TimeoutError:
            raise ResponsesUnavailable(f"the store of responses ({self._path}) is too busy") from None

    def _open(self) -> sqlite3.Connection:
        db = self._file.open()
        if db is not self._db:
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("PRAGMA secure_delete = ON")  # what is deleted is to be gone
            self._db = db
        return db

    def _put(
        self, owner: str, response: StoredResponse, items: Sequence[str], of: Sequence[str], rules: StoreRules
    ) -> bool:
        body = packed(response)
        if len(body) > rules.max_bytes:
            return False
        db, now_s = self._open(), time.time()
        until_s = now_s + rules.ttl_s
        with db:
            db.execute("BEGIN IMMEDIATE")
            db.execute(LET_GO, (now_s,))
            # The policy may have kept them longer, or the clock was set back; room is made by this order.
            db.execute(NOT_LONGER, (until_s, until_s))
            row = (owner, response.id, response.previous, until_s, response.size, body)
            db.execute("INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?, ?, ?)", row)
            held = [(owner, item, response.id) for item in items]
            db.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?)", held)
            longer = "UPDATE responses SET until_s = ? WHERE owner = ? AND id = ?"
            db.executemany(longer, [(until_s, owner, id_) for id_ in of])
            while bytes_in(db) > rules.max_bytes and db.execute(MAKE_ROOM).rowcount:
                pass
        return True

    def _chain(self, owner: str, last: str, most_bytes: int) -> list[StoredResponse]:
        found: list[StoredResponse] = []
        next_: str | None = last
        size = 0
        while next_ is not None:
            row = self._find(owner, next_)
            if row is None:
                return []
            next_, more, body = row
            size += more
            if size > most_bytes:
                raise TooMuch
            found.append(unpacked(body))
        return found[::-1]

    def _holding(self, owner: str, items: Sequence[str], most_bytes: int) -> list[StoredResponse]:
        db, found, size = self._open(), list[StoredResponse](), 0
        for id_ in dict.fromkeys(id_ for item in items for (id_,) in db.execute(HOLDER, (owner, item))):
            row = self._find(owner, id_)
            if row is None:
                continue
            size += row[1]
            if size > most_bytes:
                raise TooMuch
            found.append(unpacked(row[2]))
        return found

    def _find(self, owner: str, id_: str) -> _Row | None:
        row: _Row | None = self._open().execute(FIND, (owner, id_, time.time())).fetchone()
        return row

    def _get(self, owner: str, id_: str) -> StoredResponse | None:
        row = self._find(owner, id_)
        return None if row is None else unpacked(row[2])

    def _delete(self, owner: str, id_: str) -> bool:
        gone = "DELETE FROM responses WHERE owner = ? AND id = ? AND until_s > ?"
        return bool(self._open().execute(gone, (owner, id_, time.time())).rowcount)

    def _forget(self) -> None:
        db = self._open()
        db.execute(LET_GO, (time.time(),))
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log beside the file holds what was deleted from it
