"""The embedded ledger's file: its schema, and rows to and from the values of `core/budget.py`.

Every statement takes many rows at once. Python gives up the interpreter lock at each step of a
statement and has to win it back from the event loop, so a batch of verbs should cost a handful of
steps and not one or two for each verb.
"""

# ruff: noqa: S608 (what is formatted into statements are placeholders and the column lists below)
from __future__ import annotations

import sqlite3
import time
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from app.core.budget import Balance, Ended, Hold
from app.core.terms import Terms
from app.stores.budgets import Cut, LedgerUnavailable
from app.stores.sqlite_file import make_private, patiently

SCHEMA_VERSION = 4
BUSY_TIMEOUT_S = 2.0
"""How long a verb waits for other processes' transactions, each well under a millisecond in health."""
PAGE_BYTES = 1024
"""A commit logs whole pages, and rows are small: 1 kB pages log a quarter of what 4 kB ones do, at the same CPU."""
AUTOCHECKPOINT_PAGES = 65_536
"""A net under `checkpoint`: 64 MB of log before a verb's own commit has to write it back (and fsync)."""
RESTART_PAGES = 16_384
"""From 16 MB on, `checkpoint` makes the writers wait a moment, so that the log begins anew."""
PASSES = 2
"""Passes of `checkpoint` beside the writers: the second has only what was logged during the first."""
LIST_ID_BYTES = 12
"""Among a thousand million lists two are the same by chance once in 10^11."""

SETTINGS = (
    f"page_size = {PAGE_BYTES}",
    "journal_mode = WAL",
    "synchronous = NORMAL",
    "secure_delete = OFF",  # some builds overwrite deleted rows, which doubles what a settle writes
    f"wal_autocheckpoint = {AUTOCHECKPOINT_PAGES}",
    f"journal_size_limit = {AUTOCHECKPOINT_PAGES * PAGE_BYTES}",
)
SCHEMA = """
CREATE TABLE scopes (
    name TEXT PRIMARY KEY, spent_nano INTEGER NOT NULL, held_nano INTEGER NOT NULL, calls INTEGER NOT NULL,
    limit_nano INTEGER, own_limit_nano INTEGER, killed_at_nano INTEGER, killed_limit_nano INTEGER,
    tokens INTEGER NOT NULL DEFAULT 0, began_ms INTEGER NOT NULL DEFAULT 0, running INTEGER NOT NULL DEFAULT 0,
    terms BLOB, updated_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE scope_lists (id TEXT PRIMARY KEY, names TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE holds (
    call_id TEXT PRIMARY KEY, owner TEXT NOT NULL, scopes TEXT NOT NULL,
    spent_nano INTEGER NOT NULL, held_nano INTEGER NOT NULL, risk_nano INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE owners (
    owner TEXT PRIMARY KEY, machine TEXT NOT NULL, pid INTEGER NOT NULL, lease_until_ms INTEGER NOT NULL
) WITHOUT ROWID;
"""
TO_VERSION_2 = """
ALTER TABLE scopes ADD COLUMN tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE scopes ADD COLUMN began_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE scopes ADD COLUMN terms BLOB;
"""
TO_VERSION_3 = """
ALTER TABLE scopes ADD COLUMN running INTEGER NOT NULL DEFAULT 0;
UPDATE scopes SET running =
    (SELECT count(*) FROM holds, json_each(CAST(holds.scopes AS TEXT)) AS one WHERE one.value = scopes.name)
"""
TO_VERSION_4 = """
CREATE TABLE scope_lists (id TEXT PRIMARY KEY, names TEXT NOT NULL) WITHOUT ROWID;
UPDATE holds SET scopes = CAST(scopes AS TEXT);
INSERT INTO scope_lists SELECT DISTINCT scopes, scopes FROM holds
"""
CUTS = "CREATE TABLE IF NOT EXISTS cuts (name TEXT PRIMARY KEY, at_ns INTEGER NOT NULL) WITHOUT ROWID"
"""Tasks that were cut and nobody has taken note of. Made when the first is: versions before have none."""
BALANCE = "spent_nano, held_nano, calls, limit_nano, own_limit_nano, killed_at_nano, killed_limit_nano,\
 tokens, began_ms, running, terms"
HOLD = "call_id, owner, scopes, spent_nano, held_nano, risk_nano"
"""`scopes` names a row of `scope_lists`: they are longer than the rest of a hold, which is written twice and more, and
calls of one task and model have the same. Naming them takes half off what a call logs."""
SETTLED, EXPIRED = "settled", "expired"
"""In place of the owner (whose name has colons) where a hold has ended and is remembered: its row is found by the
look-up that every verb makes. What was charged is its spent, and when it ended (ms) in place of the risk."""
NONE = -(2**63)
"""Bound in place of None, and made NULL by the statement: no amount is that. Python's binding takes integers and text
as they are; for None and bytes it looks for an adapter, and makes an error each time that it finds none: a seventh of
a transaction's instructions."""
BALANCE_ROW = f"(?, ?, ?, ?, {', '.join([f'NULLIF(?, {NONE})'] * 4)}, ?, ?, ?, NULLIF(?, {NONE}), ?)"
HOLD_ROW, LIST_ROW, NAME_ROW = "(?, ?, ?, ?, ?, ?)", "(?, ?)", "?"
LISTED = (
    "NOT ((name GLOB '*:minute:[0-9]*' OR name GLOB '*:hour:[0-9]*') AND name NOT GLOB 'task:*')"
    " AND name NOT GLOB 'user:*'"
)

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Rows a statement is prepared for. Lists are filled up to one of these by repeating their last row,
which no statement here minds, so that SQLite's cache of prepared statements stays small."""

T = TypeVar("T")
_terms_of = msgspec.json.Decoder(Terms).decode
_scopes_of = msgspec.json.Decoder(tuple[str, ...]).decode
_encode = msgspec.json.Encoder().encode


def now_ms() -> int:
    """The wall clock, which processes share and which outlives them, in milliseconds."""
    return time.time_ns() // 1_000_000


def connect(path: Path, timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """A connection, with explicit transactions, to a ledger that is there.

    A commit reaches the operating system and not yet the disk. In WAL mode with synchronous=NORMAL a
    killed process loses nothing and a power cut the last moments, but never consistency
    (https://www.sqlite.org/pragma.html#pragma_synchronous).
    Raises LedgerUnavailable for a file written by a newer version, which is left as it is.
    """
    address = f"{path.as_uri()}?mode=rw"  # a file that went away is not made anew by accident
    db = sqlite3.connect(address, uri=True, timeout=timeout_s, isolation_level=None)
    try:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise LedgerUnavailable(f"the ledger's schema {version} is newer than this program's {SCHEMA_VERSION}")
        for setting in SETTINGS:
            db.execute(f"PRAGMA {setting}")
    except BaseException:
        db.close()
        raise
    return db


def create(path: Path, timeout_s: float = BUSY_TIMEOUT_S) -> None:
    """Make the file (readable by its owner only) and its tables, unless they are there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    make_private(path)
    db = patiently(lambda: connect(path, timeout_s), timeout_s)
    try:
        db.execute("BEGIN IMMEDIATE")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        steps = (SCHEMA,) if version == 0 else (TO_VERSION_2, TO_VERSION_3, TO_VERSION_4)[version - 1 :]
        for statement in ";".join(steps).split(";"):
            db.execute(statement)
        if version < SCHEMA_VERSION:
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
    finally:
        db.close()


@cache
def _upsert_scopes(rows: int) -> str:
    return (
        f"INSERT INTO scopes (name, {BALANCE}, updated_ms) VALUES {times(rows, BALANCE_ROW)}"
        " ON CONFLICT (name) DO UPDATE SET spent_nano = excluded.spent_nano, held_nano = excluded.held_nano,"
        " calls = excluded.calls, limit_nano = excluded.limit_nano, own_limit_nano = excluded.own_limit_nano,"
        " killed_at_nano = excluded.killed_at_nano, killed_limit_nano = excluded.killed_limit_nano,"
        " tokens = excluded.tokens, began_ms = excluded.began_ms, running = excluded.running, terms = excluded.terms,"
        " updated_ms = excluded.updated_ms"
    )


@cache
def _upsert_holds(rows: int) -> str:
    return (
        f"INSERT INTO holds ({HOLD}) VALUES {times(rows, HOLD_ROW)}"
        " ON CONFLICT (call_id) DO UPDATE SET spent_nano = excluded.spent_nano,"
        " held_nano = excluded.held_nano, risk_nano = excluded.risk_nano"
    )


@cache
def _delete_holds(rows: int) -> str:
    return f"DELETE FROM holds WHERE call_id IN ({times(rows, NAME_ROW)})"


@cache
def _select_scopes(rows: int) -> str:
    return f"SELECT name, {BALANCE} FROM scopes WHERE name IN ({times(rows, NAME_ROW)})"


@cache
def _select_holds(rows: int) -> str:
    # A gateway of the third version that has the file open goes on writing the list itself.
    columns = "call_id, owner, COALESCE(names, scopes), spent_nano, held_nano, risk_nano"
    joined = "holds LEFT JOIN scope_lists ON scope_lists.id = holds.scopes"
    return f"SELECT {columns} FROM {joined} WHERE call_id IN ({times(rows, NAME_ROW)})"


@cache
def _insert_lists(rows: int) -> str:
    return f"INSERT INTO scope_lists VALUES {times(rows, LIST_ROW)} ON CONFLICT (id) DO NOTHING"


def times(rows: int, row: str) -> str:
    return ", ".join([row] * rows)


def _padded(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """The rows in pieces whose lengths are all in SIZES."""
    for start in range(0, len(rows), SIZES[-1]):
        piece = list(rows[start : start + SIZES[-1]])
        piece += piece[-1:] * (SIZES[bisect_left(SIZES, len(piece))] - len(piece))
        yield piece


def load_balances(db: sqlite3.Connection, names: Sequence[str]) -> dict[str, Balance]:
    """The balances of those scopes that have any."""
    return {
        row[0]: _balance(row)
        for piece in _padded(names)
        for row in db.execute(_select_scopes(len(piece)), piece).fetchall()
    }


def _balance(row: tuple[Any, ...]) -> Balance:
    """The balance in a row of name and BALANCE."""
    balance = Balance(*row[1:-1])
    if row[-1] is not None:
        balance.terms = _terms_of(row[-1])
    return balance


def load_holds(db: sqlite3.Connection, call_ids: Sequence[str]) -> dict[str, Hold | Ended]:
    """The holds of those calls that have one, and of others what is remembered of their end."""
    return {
        row[0]: _hold(row)
        for piece in _padded(call_ids)
        for row in db.execute(_select_holds(len(piece)), piece).fetchall()
    }


def _hold(row: tuple[Any, ...]) -> Hold | Ended:
    call_id, owner, scopes, spent_nano, held_nano, risk_nano = row
    if owner in (SETTLED, EXPIRED):
        return Ended(call_id, _scopes_of(scopes), spent_nano, owner == SETTLED)
    return Hold(call_id, owner, _scopes_of(scopes), spent_nano, held_nano, risk_nano)


def _bound(amount: int | None) -> int:
    return NONE if amount is None else amount


def save_balances(db: sqlite3.Connection, balances: Iterable[tuple[str, Balance]], updated_ms: int) -> None:
    """Write these balances over whatever was there."""
    rows = [
        (name, b.spent_nano, b.held_nano, b.calls, _bound(b.limit_nano), _bound(b.own_limit_nano),
         _bound(b.killed_at_nano), _bound(b.killed_limit_nano), b.tokens, b.began_ms, b.running,
         NONE if b.terms is None else _encode(b.terms).decode(), updated_ms)
        for name, b in balances
    ]  # fmt: skip
    for piece in _padded(rows):
        db.execute(_upsert_scopes(len(piece)), list(chain.from_iterable(piece)))


@lru_cache(maxsize=10_000)
def _listed(scopes: tuple[str, ...]) -> tuple[str, str]:
    """The row of a list of scopes. It is named by what it is, so that processes need not agree on numbers."""
    names = _encode(scopes)
    return blake2b(names, digest_size=LIST_ID_BYTES).hexdigest(), names.decode()


def save_lists(db: sqlite3.Connection, lists: Iterable[tuple[str, ...]], known: set[tuple[str, ...]]) -> None:
    """Write those lists of scopes that are not `known` to be there, which they are from now on."""
    missing = set(lists) - known
    if missing:
        for piece in _padded([_listed(scopes) for scopes in missing]):
            db.execute(_insert_lists(len(piece)), list(chain.from_iterable(piece)))
        known |= missing


def save_holds(db: sqlite3.Connection, holds: Sequence[Hold], known: set[tuple[str, ...]]) -> None:
    """Write these holds over whatever was there; a hold's owner and scopes never change. `known` as in save_lists."""
    save_lists(db, [h.scopes for h in holds], known)
    rows = [(h.call_id, h.owner, _listed(h.scopes)[0], h.spent_nano, h.held_nano, h.risk_nano) for h in holds]
    for piece in _padded(rows):
        db.execute(_upsert_holds(len(piece)), list(chain.from_iterable(piece)))


def save_ended(db: sqlite3.Connection, ended: Collection[Ended], ended_ms: int, known: set[tuple[str, ...]]) -> None:
    """Remember these calls for a while in place of their holds."""
    save_lists(db, [e.scopes for e in ended], known)
    rows = [
        (e.call_id, SETTLED if e.settled else EXPIRED, _listed(e.scopes)[0], e.charged_nano, 0, ended_ms) for e in ended
    ]
    db.executemany(f"REPLACE INTO holds ({HOLD}) VALUES {HOLD_ROW}", rows)


def delete_holds(db: sqlite3.Connection, call_ids: Sequence[str]) -> None:
    """Forget these holds; ids without one are no harm."""
    for piece in _padded(call_ids):
        db.execute(_delete_holds(len(piece)), piece)


def list_scopes(db: sqlite3.Connection, prefix: str, limit: int) -> list[tuple[str, Balance]]:
    """Up to `limit` scopes beginning with `prefix`, the latest used first, no minutes, hours or users among them."""
    rows = db.execute(
        f"SELECT name, {BALANCE} FROM scopes WHERE name >= ? AND name < ? AND {LISTED}"
        " ORDER BY updated_ms DESC, name LIMIT ?",
        (prefix, prefix + "\U0010ffff", limit),  # the range, unlike LIKE, has no special characters
    )
    return [(row[0], _balance(row)) for row in rows]


def add_cuts(db: sqlite3.Connection, names: Iterable[str]) -> None:
    """Put these among what was cut, until somebody takes note of it."""
    db.execute(CUTS)
    db.executemany("REPLACE INTO cuts VALUES (?, ?)", ((name, time.time_ns()) for name in names))


def list_cuts(db: sqlite3.Connection, most: int) -> list[Cut]:
    """What was cut and is not noted yet, the earliest first."""
    if not has_cuts(db):
        return []
    found = db.execute("SELECT name, at_ns FROM cuts ORDER BY at_ns, name LIMIT ?", (most,)).fetchall()
    balances = load_balances(db, [name for name, _ in found])
    return [Cut(name, at_ns, balances.get(name)) for name, at_ns in found]


def note_cuts(db: sqlite3.Connection, cuts: Sequence[Cut]) -> None:
    """Take these out, but for those that were cut again since."""
    db.execute("BEGIN IMMEDIATE")
    db.executemany("DELETE FROM cuts WHERE name = ? AND at_ns = ?", [(cut.scope, cut.at) for cut in cuts])
    db.execute("COMMIT")


def has_cuts(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'cuts'").fetchone() is not None


def checkpoint(db: sqlite3.Connection) -> None:
    """Write the log back into the file, and sync it, while verbs go on beside it."""
    for _ in range(PASSES):
        _, pages, _ = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if pages >= RESTART_PAGES:
        # Under constant load the last pages always escape. Taking them with the writers shut out (two small
        # syncs long) lets the log begin anew; otherwise it would grow for as long as the load lasts.
        db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
