"""A SQLite file of several processes: opened at once by many, and what is said of one that cannot be used."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from app.stores.sqlite_file import SqliteFile, opened
from app.stores.sqlite_tables import connect, create

SCHEMA = "CREATE TABLE things (name TEXT); CREATE TABLE more (name TEXT)"


class Down(Exception):
    """What askers get."""


def of(path: Path, *, durable: bool = False) -> SqliteFile:
    return SqliteFile(path, SCHEMA, 1, "the store of things", Down, durable=durable)


def test_who_opens_a_new_file_waits_for_who_is_making_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite itself does not wait there: of four workers that began at once on new data, one in 600 did not start."""
    other = sqlite3.connect(tmp_path / "new.sqlite", isolation_level=None)
    other.execute("CREATE TABLE theirs (name TEXT)")
    other.execute("BEGIN IMMEDIATE")
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        other.execute("COMMIT")

    monkeypatch.setattr("app.stores.sqlite_file.time.sleep", sleep)
    db = opened(tmp_path / "new.sqlite", SCHEMA, 1)
    assert len(waits) == 1
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("SELECT count(*) FROM things").fetchone() == (0,)
    db.close()
    other.close()


@pytest.mark.parametrize(("durable", "level"), [(False, 1), (True, 2)])
async def test_how_safe_a_write_is(tmp_path: Path, durable: bool, level: int) -> None:
    file = of(tmp_path / "folder" / "a.sqlite", durable=durable)
    assert await file.ask(lambda: file.open().execute("PRAGMA synchronous").fetchone()) == (level,)
    assert (tmp_path / "folder" / "a.sqlite").stat().st_mode & 0o777 == 0o600
    await file.close()
    with pytest.raises(Down, match="the store of things"):
        await file.ask(file.open)


async def test_a_damaged_file_and_a_newer_one_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    path.write_text("no database, but as long as the head of one. " * 4)
    file = of(path)
    with pytest.raises(Down, match=r"the store of things \(.*a\.sqlite\) did not answer: file is not a database"):
        await file.ask(file.open)
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(Down, match=r"a\.sqlite was written by a newer version"):
        await file.ask(file.open)
    await file.close()


LOOK = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); print(*db.execute(sys.argv[2]).fetchone()); db.close()"


@pytest.mark.parametrize("ledger", [False, True])
def test_who_opens_a_file_again_leaves_it_to_those_who_have_it_open(tmp_path: Path, ledger: bool) -> None:
    """Else another process that looks at it takes itself for the only one, and removes the log that is written to."""
    path = tmp_path / "a.sqlite"

    def opened_again() -> sqlite3.Connection:
        if not ledger:
            return opened(path, SCHEMA, 1)
        create(path)
        return connect(path)

    def others_see(sql: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", LOOK, path, sql], check=True, capture_output=True, text=True
        ).stdout

    db = opened_again()
    db.execute("CREATE TABLE seen (n INTEGER)")
    log = path.with_name("a.sqlite-wal").stat().st_ino
    opened_again().close()
    assert others_see("SELECT count(*) FROM seen") == "0\n"
    assert path.with_name("a.sqlite-wal").stat().st_ino == log
    db.execute("INSERT INTO seen VALUES (7)")
    assert others_see("SELECT n FROM seen") == "7\n"
    assert others_see("PRAGMA integrity_check") == "ok\n"
    db.close()
