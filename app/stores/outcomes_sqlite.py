"""Feedback in a SQLite file of its own: safe for several processes, written by one thread per process."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.core.feedback import Correction, Feedback, Speaker, Turned
from app.stores import outcomes
from app.stores.outcomes import OtherWord, OutcomesUnavailable, Put
from app.stores.sqlite_file import SqliteFile

PRUNE_EVERY = 1_000
VERSION = 1
SCHEMA = """
CREATE TABLE words (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, thing TEXT NOT NULL, by TEXT NOT NULL, source TEXT NOT NULL,
    outcome TEXT NOT NULL, said_s REAL NOT NULL, key TEXT NOT NULL, admin INTEGER NOT NULL, score REAL,
    correction TEXT, comment TEXT, matched INTEGER NOT NULL,
    UNIQUE (thing, by, source)
);
CREATE INDEX words_by ON words (by, seq);
CREATE TABLE repeats (
    by TEXT NOT NULL, repeat_key TEXT NOT NULL, digest BLOB NOT NULL, said_s REAL NOT NULL,
    PRIMARY KEY (by, repeat_key)
) WITHOUT ROWID;
"""
COLUMNS = "thing, by, source, outcome, said_s, key, admin, score, correction, comment, matched"
MAX_THINGS = 500


class SqliteOutcomes:
    """Outcomes (see `stores/outcomes.py`) in a file, made with its folders where it is not there."""

    def __init__(self, path: Path, *, keeps_comments: bool = False) -> None:
        self.keeps_comments = keeps_comments
        # A word may be all that a person will ever say.
        self._file = SqliteFile(path, SCHEMA, VERSION, "the store of outcomes", OutcomesUnavailable, durable=True)
        self._puts = 0

    async def start(self) -> None:
        await self._file.ask(lambda: prune(self._file.open(), time.time()))

    async def put(self, word: Feedback, *, repeat_key: str | None = None, digest: bytes = b"") -> Put:
        return await self._file.ask(lambda: self._put(word, repeat_key, digest))

    async def about(self, things: Sequence[str]) -> list[Feedback]:
        asked = list(things)[:MAX_THINGS]
        marks = ", ".join("?" * len(asked))
        rows = await self._rows(f"SELECT seq, {COLUMNS} FROM words WHERE thing IN ({marks}) ORDER BY seq", asked)  # noqa: S608
        return [feedback for _, feedback in rows]

    async def since(self, cursor: int, limit: int) -> list[tuple[int, Feedback]]:
        reached = "SELECT seq FROM sqlite_sequence WHERE name = 'words'"
        after = f"seq > CASE WHEN ? > coalesce(({reached}), 0) THEN 0 ELSE ? END"
        query = f"SELECT seq, {COLUMNS} FROM words WHERE {after} ORDER BY seq LIMIT ?"  # noqa: S608
        return await self._rows(query, (cursor, cursor, limit))

    async def close(self) -> None:
        await self._file.close()

    async def _rows(self, query: str, values: Sequence[Any]) -> list[tuple[int, Feedback]]:
        rows = await self._file.ask(lambda: self._file.open().execute(query, values).fetchall())
        return [(row[0], of_row(row[1:])) for row in rows]

    def _put(self, word: Feedback, repeat_key: str | None, digest: bytes) -> Put:
        db = self._file.open()
        self._puts += 1
        if self._puts % PRUNE_EVERY == 0:
            prune(db, word.said_s)
        with db:
            db.execute("BEGIN IMMEDIATE")
            if repeat_key is not None and _seen(db, word, repeat_key, digest):
                return Put.REPEATED
            same = (word.thing, word.by, word.source)
            replaced = db.execute("DELETE FROM words WHERE thing = ? AND by = ? AND source = ?", same).rowcount
            db.execute(f"INSERT INTO words ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row_of(word))  # noqa: S608
        return Put.REPLACED if replaced else Put.NEW


def _seen(db: sqlite3.Connection, word: Feedback, repeat_key: str, digest: bytes) -> bool:
    """True where this key came before with the same content; else it is noted. Raises OtherWord."""
    found = db.execute("SELECT digest FROM repeats WHERE by = ? AND repeat_key = ?", (word.by, repeat_key)).fetchone()
    if found is None:
        db.execute("INSERT INTO repeats VALUES (?, ?, ?, ?)", (word.by, repeat_key, digest, word.said_s))
        return False
    if found[0] != digest:
        raise OtherWord
    return True


def prune(db: sqlite3.Connection, now_s: float) -> None:
    """Forget what is older than KEEP_DAYS, repeat keys past their time, and of each key what is beyond MAX_WORDS."""
    with db:
        db.execute("BEGIN IMMEDIATE")
        db.execute("DELETE FROM words WHERE said_s < ?", (now_s - outcomes.KEEP_DAYS * 86_400,))
        db.execute("DELETE FROM repeats WHERE said_s < ?", (now_s - outcomes.KEEP_REPEATS_S,))
        for by, count in db.execute("SELECT by, count(*) FROM words GROUP BY by").fetchall():
            if count > outcomes.MAX_WORDS:
                oldest = "SELECT seq FROM words WHERE by = ? ORDER BY seq LIMIT ?"
                db.execute(f"DELETE FROM words WHERE seq IN ({oldest})", (by, count - outcomes.MAX_WORDS))  # noqa: S608


def row_of(word: Feedback) -> tuple[Any, ...]:
    """A word in the order of COLUMNS."""
    said = (word.thing, word.by, word.source, word.outcome, word.said_s, word.key, word.admin, word.score)
    return (*said, word.correction, word.comment, word.matched)


def of_row(row: Sequence[Any]) -> Feedback:
    """The word of a row."""
    thing, by, source, outcome, said_s, key, admin, score, correction, comment, matched = row
    return Feedback(
        thing,
        by,
        Speaker(source),
        Turned(outcome),
        said_s,
        key,
        bool(admin),
        score,
        None if correction is None else Correction(correction),
        comment,
        bool(matched),
    )
