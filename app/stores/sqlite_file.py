"""Opening a SQLite file that several processes share: durable, private to its owner, of a known version."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

BUSY_TIMEOUT_S = 5.0


class NewerFile(Exception):
    """The file was written by a newer version."""


def opened(path: Path, schema: str, version: int) -> sqlite3.Connection:
    """The file, with its tables, made with its folders where it is not there. Raises OSError, sqlite3.Error,
    NewerFile."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")  # a word may be all that a person will ever say: it survives a power cut
    with db:
        db.execute("BEGIN IMMEDIATE")
        (found,) = db.execute("PRAGMA user_version").fetchone()
        if found > version:
            raise NewerFile(f"{path.name} was written by a newer version")
        if found == 0:
            for statement in schema.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {version}")
    return db
