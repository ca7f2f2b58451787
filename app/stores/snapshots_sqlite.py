"""Snapshots in a SQLite file of their own, written by one thread per process; safe for several processes."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from app.stores.snapshots import (
    KEEP_ASIDE,
    KEEP_TOLD,
    LONGEST_LEASE_S,
    SALT_BYTES,
    Head,
    NoSnapshot,
    Overtaken,
    Snapshot,
    SnapshotsUnavailable,
    State,
    rolled_back,
    told_of,
)
from app.stores.sqlite_file import SqliteFile

VERSION = 1
SCHEMA = """
CREATE TABLE snapshots (number INTEGER PRIMARY KEY AUTOINCREMENT, told BLOB NOT NULL, body BLOB);
CREATE TABLE head (
    one INTEGER PRIMARY KEY CHECK (one = 1), current INTEGER NOT NULL, moves INTEGER NOT NULL,
    rollbacks INTEGER NOT NULL, epoch INTEGER NOT NULL, state BLOB, leader TEXT, leads_until_s REAL NOT NULL
);
INSERT INTO head VALUES (1, 0, 0, 0, 0, NULL, NULL, 0)
"""
_SAVE = "UPDATE head SET state = ?, epoch = epoch + 1"
_HEAD = "SELECT current, moves, rollbacks, epoch FROM head"
_ASIDE = "CREATE TABLE IF NOT EXISTS aside (number INTEGER PRIMARY KEY AUTOINCREMENT, state BLOB NOT NULL)"
_SALT = "CREATE TABLE IF NOT EXISTS salt (one INTEGER PRIMARY KEY CHECK (one = 1), salt BLOB NOT NULL)"
"""Made when they are needed: versions before have none."""

T = TypeVar("T")


class SqliteSnapshots:
    """Snapshots (see `stores/snapshots.py`) in a file, made with its folders where it is not there."""

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, SCHEMA, VERSION, "the store of snapshots", SnapshotsUnavailable, durable=True)

    async def start(self) -> None:
        await self._file.ask(self._file.open)

    async def head(self) -> Head:
        return await self._run(_head)

    async def told(self) -> list[Snapshot]:
        return await self._run(_all_told)

    async def body(self, number: int) -> bytes:
        def read(db: sqlite3.Connection) -> bytes:
            row = db.execute("SELECT body FROM snapshots WHERE number = ?", (number,)).fetchone()
            if row is None or row[0] is None:
                raise NoSnapshot(f"there is no snapshot {number}, or its content is no longer kept")
            return bytes(row[0])

        return await self._run(read)

    async def publish(
        self,
        snapshot: Snapshot,
        body: bytes | None,
        *,
        head: Head,
        keep: int,
        spared: int = 0,
        state: State | None = None,
    ) -> Snapshot:
        def write(db: sqlite3.Connection) -> Snapshot:
            _check(db, head)
            number = db.execute("INSERT INTO snapshots (told, body) VALUES (x'', ?)", (body,)).lastrowid
            assert number is not None
            made = msgspec.structs.replace(snapshot, number=number)
            _tell(db, [made])
            db.execute("UPDATE head SET moves = moves + 1")
            if body is not None:
                db.execute("UPDATE head SET current = ?", (number,))
            if state is not None:
                db.execute(_SAVE, (state(number),))
            oldest = "SELECT number FROM snapshots WHERE body IS NOT NULL ORDER BY number DESC LIMIT -1 OFFSET ?"
            forget = f"UPDATE snapshots SET body = NULL WHERE number != ? AND number IN ({oldest})"  # noqa: S608
            db.execute(forget, (spared, max(keep, 1)))
            db.execute("DELETE FROM snapshots WHERE body IS NULL AND number <= ?", (number - KEEP_TOLD,))
            return made

        return await self._change(write)

    async def rollback(self, number: int | None) -> Head:
        def write(db: sqlite3.Connection) -> Head:
            kept = {row[0] for row in db.execute("SELECT number FROM snapshots WHERE body IS NOT NULL")}
            target, changed = rolled_back(_all_told(db), _head(db), number, kept)
            _tell(db, changed)
            db.execute("UPDATE head SET current = ?, moves = moves + 1, rollbacks = rollbacks + 1", (target,))
            return _head(db)

        return await self._change(write)

    async def load(self) -> tuple[Head, bytes | None]:
        def read(db: sqlite3.Connection) -> tuple[Head, bytes | None]:
            *head, state = db.execute("SELECT current, moves, rollbacks, epoch, state FROM head").fetchone()
            return Head(*head), state

        return await self._run(read)

    async def save(self, state: bytes, *, head: Head) -> Head:
        def write(db: sqlite3.Connection) -> Head:
            _check(db, head)
            db.execute(_SAVE, (state,))
            return _head(db)

        return await self._change(write)

    async def set_aside(self, state: bytes) -> None:
        def write(db: sqlite3.Connection) -> None:
            db.execute(_ASIDE)
            db.execute("DELETE FROM aside WHERE state = ?", (state,))  # few rows: an index would keep each state twice
            db.execute("INSERT INTO aside (state) VALUES (?)", (state,))
            latest = "SELECT number FROM aside ORDER BY number DESC LIMIT ?"
            db.execute(f"DELETE FROM aside WHERE number NOT IN ({latest})", (KEEP_ASIDE,))  # noqa: S608

        await self._change(write)

    async def aside(self) -> list[bytes]:
        def read(db: sqlite3.Connection) -> list[bytes]:
            db.execute(_ASIDE)
            return [bytes(row[0]) for row in db.execute("SELECT state FROM aside ORDER BY number DESC")]

        return await self._change(read)

    async def salt(self) -> bytes:
        def made(db: sqlite3.Connection) -> bytes:
            db.execute(_SALT)
            db.execute("INSERT OR IGNORE INTO salt VALUES (1, ?)", (secrets.token_bytes(SALT_BYTES),))
            return bytes(db.execute("SELECT salt FROM salt").fetchone()[0])

        return await self._change(made)

    async def lead(self, owner: str, seconds: float) -> bool:
        def take(db: sqlite3.Connection) -> bool:
            now_s = time.time()
            taken = (
                "UPDATE head SET leader = ?, leads_until_s = ? WHERE leader = ? OR leads_until_s NOT BETWEEN ? AND ?"
            )
            lease = owner, now_s + min(seconds, LONGEST_LEASE_S), owner, now_s, now_s + LONGEST_LEASE_S
            return db.execute(taken, lease).rowcount == 1

        return await self._change(take)

    async def close(self) -> None:
        await self._file.close()

    async def _change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def write(db: sqlite3.Connection) -> T:
            with db:
                db.execute("BEGIN IMMEDIATE")
                return work(db)

        return await self._run(write)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._file.ask(lambda: work(self._file.open()))


def _head(db: sqlite3.Connection) -> Head:
    return Head(*db.execute(_HEAD).fetchone())


def _all_told(db: sqlite3.Connection) -> list[Snapshot]:
    return [told_of(*row) for row in db.execute("SELECT number, told FROM snapshots ORDER BY number DESC")]


def _tell(db: sqlite3.Connection, told: list[Snapshot]) -> None:
    rows = [(msgspec.msgpack.encode(one), one.number) for one in told]
    db.executemany("UPDATE snapshots SET told = ? WHERE number = ?", rows)


def _check(db: sqlite3.Connection, head: Head) -> None:
    now = _head(db)
    if (now.epoch, now.rollbacks) != (head.epoch, head.rollbacks):
        raise Overtaken("another learner has written meanwhile, or somebody rolled back")
