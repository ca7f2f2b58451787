"""A `Book` that lives in SQLite: batches of verbs as transactions, shared safely between processes.

Synchronous, for one thread. What was read or written stays in memory between transactions for as
long as `PRAGMA data_version` shows that no other connection has changed the file
(https://www.sqlite.org/pragma.html#pragma_data_version).
"""

from __future__ import annotations

import os
import random
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeVar

from app.core.amend import Amend
from app.core.book import Book
from app.core.budget import Balance, Ended, Op, Reserve, Result, Settle, Settled
from app.stores import sqlite_tables as tables
from app.stores.budgets import Expired

CACHED_SCOPES = 20_000
"""Above this many the cache is dropped: about 8 MB, and one SELECT brings back what is in use."""
BUSY_PAUSE_S = 0.0005
"""Other processes hold the write lock for 0.1 to 1 ms; SQLite's own waiting soon sleeps for 25 ms and more."""
RESIGNED_MS = 0
"""The end of a lease that was given up."""

T = TypeVar("T")


class StoredBook:
    """The ledger's file as seen by one owner. Methods raise sqlite3.Error, after which nothing they began
    has taken effect (unless the commit itself failed), and ValueError for names and amounts that cannot be stored."""

    def __init__(self, path: Path, owner: str, *, lease_s: float, busy_timeout_s: float) -> None:
        tables.create(path, busy_timeout_s)
        self._db = tables.connect(path, busy_timeout_s)
        self._db.execute("PRAGMA busy_timeout = 0")  # _begin does the waiting
        self._path = path
        self._inode = inode(path)
        self._owner = owner
        self._lease_s = lease_s
        self._busy_timeout_s = busy_timeout_s
        self._book = Book()
        self._lists: set[tuple[str, ...]] = set()
        self._data_version = -1
        self._gone = False
        self._lease_until_ms: int | None = None
        self._patient_until_ms = 0

    def apply(self, ops: Sequence[Op]) -> list[Result]:
        """Carry out the verbs in order, all in one transaction."""
        return self._transact(lambda: self._apply(ops))

    def balances(self, scopes: Sequence[str]) -> list[Balance | None]:
        """The balances as last committed by anyone, in the order asked."""
        found = tables.load_balances(self._db, scopes)
        return [found.get(scope) for scope in scopes]

    def beat(self) -> list[Expired]:
        """Renew this owner's lease and end the holds of owners that are dead.

        Where the file was removed or replaced, this and all that follows fails until the next start: what
        is written to the old one would be lost in silence.
        """
        self._gone = self._gone or inode(self._path) != self._inode
        return self._transact(self._beat)

    def held(self) -> list[str]:
        """The calls that this owner has a hold for."""
        return self._held_by(self._owner)

    def abandon(self, call_ids: Sequence[str]) -> list[Expired]:
        """End these holds of this owner, each charged as a dead one's."""
        wanted = set(call_ids)
        return self._transact(lambda: self._end([call_id for call_id in self.held() if call_id in wanted]))

    def close(self) -> None:
        """Give up the lease and close; holds that are still there are anyone's to expire."""
        try:
            self._transact(self._resign)
        finally:
            self._db.close()

    def _transact(self, work: Callable[[], T]) -> T:
        try:
            self._begin()
            self._trust_or_drop_cache()
            result = work()
            self._db.execute("COMMIT")
        except BaseException:
            self._drop_cache()
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        if len(self._book.balances) > CACHED_SCOPES:
            self._book, self._lists = Book(), set()
        return result

    def _begin(self) -> None:
        if self._gone:
            raise sqlite3.OperationalError("the ledger's file was removed or replaced")
        until = 0.0
        while True:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                now = time.monotonic()
                until = until or now + self._busy_timeout_s
                if now > until:
                    raise
                time.sleep(random.uniform(0, 2 * BUSY_PAUSE_S))  # noqa: S311 (spreads competitors, guards nothing)

    def _trust_or_drop_cache(self) -> None:
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        if version == self._data_version:
            return
        self._drop_cache()
        self._data_version = version
        # The change may have been our own expiry. No hold may ever be without an owner's lease.
        if not self._db.execute("SELECT 1 FROM owners WHERE owner = ?", (self._owner,)).fetchone():
            self._renew()

    def _drop_cache(self) -> None:
        self._book = Book()
        self._lists = set()
        self._data_version = -1

    def _apply(self, ops: Sequence[Op]) -> list[Result]:
        book = self._book
        claimed = [_claimed_by(op) for op in ops]
        self._load([op.call_id for op in ops], chain.from_iterable(claimed))
        results: list[Result] = []
        calls: dict[str, None] = {}
        scopes: dict[str, None] = {}
        cut: list[str] = []
        for op, names in zip(ops, claimed, strict=True):
            hold, past = book.holds.get(op.call_id), book.ended.get(op.call_id)
            result = book.apply(op)
            results.append(result)
            touched = hold.scopes if hold is not None else names if past is None else past.scopes
            ends = type(result) is Settled and (past is None or not past.settled)
            if ends and type(op) is Settle and op.killed_scopes:
                cut += [scope for scope in touched if scope in op.killed_scopes]
            calls[op.call_id] = None
            scopes.update(dict.fromkeys(touched))
        self._save(calls, scopes)
        if cut:
            tables.add_cuts(self._db, cut)
        return results

    def _load(self, call_ids: Iterable[str], scopes: Iterable[str]) -> None:
        """Bring these holds, their scopes and these scopes into memory."""
        book = self._book
        unknown = [call_id for call_id in dict.fromkeys(call_ids) if call_id not in book.holds]
        found = tables.load_holds(self._db, unknown)
        for call_id, hold in found.items():
            if isinstance(hold, Ended):
                book.ended[call_id] = hold
            else:
                book.holds[call_id] = hold
        wanted = dict.fromkeys(scopes)
        for hold in found.values():
            wanted.update(dict.fromkeys(hold.scopes))
        missing = [scope for scope in wanted if scope not in book.balances]
        book.balances.update(tables.load_balances(self._db, missing))
        for hold in found.values():
            for scope in hold.scopes:
                book.balances.setdefault(scope, Balance())  # a row deleted by hand must not stop every beat

    def _save(self, calls: Iterable[str], scopes: Iterable[str]) -> None:
        """Write what these verbs may have changed."""
        book = self._book
        tables.save_balances(self._db, ((name, book.balances[name]) for name in scopes), tables.now_ms())
        tables.save_holds(self._db, [book.holds[call_id] for call_id in calls if call_id in book.holds], self._lists)
        tables.delete_holds(self._db, [call_id for call_id in calls if call_id not in book.holds])
        if book.ended:  # those of these verbs: they are kept in memory for no longer
            tables.save_ended(self._db, book.ended.values(), tables.now_ms(), self._lists)
            book.ended = {}

    def _beat(self) -> list[Expired]:
        self._renew()
        here, now_ms = machine(), tables.now_ms()
        lapsed_ms = now_ms if now_ms >= self._patient_until_ms else RESIGNED_MS + 1
        dead = [
            owner
            for owner, where, pid, lease_until_ms in self._db.execute("SELECT * FROM owners").fetchall()
            if owner != self._owner and (lease_until_ms < lapsed_ms or (where == here and not alive(pid)))
        ]
        expired = self._end([call_id for owner in dead for call_id in self._held_by(owner)])
        self._db.executemany("DELETE FROM owners WHERE owner = ?", [(owner,) for owner in dead])
        return expired

    def _held_by(self, owner: str) -> list[str]:
        return [name for (name,) in self._db.execute("SELECT call_id FROM holds WHERE owner = ?", (owner,)).fetchall()]

    def _end(self, abandoned: Sequence[str]) -> list[Expired]:
        self._load(abandoned, ())
        holds = [self._book.holds[call_id] for call_id in abandoned]
        expired = [
            Expired(hold.call_id, hold.owner, hold.scopes, self._book.expire(hold.call_id) or 0) for hold in holds
        ]
        self._save(abandoned, dict.fromkeys(scope for hold in holds for scope in hold.scopes))
        return expired

    def _renew(self) -> None:
        now_ms, lease_ms = tables.now_ms(), int(self._lease_s * 1000)
        until_ms = now_ms + lease_ms
        if self._lease_until_ms is not None and now_ms > self._lease_until_ms:
            # This process lives and could not renew in time: most likely the machine slept or its disk hung, and the
            # other owners are no more dead than this one. They get as long as a lease to renew theirs.
            self._patient_until_ms = until_ms
        self._lease_until_ms = until_ms
        self._db.execute("REPLACE INTO owners VALUES (?, ?, ?, ?)", (self._owner, machine(), os.getpid(), until_ms))

    def _resign(self) -> None:
        if self._db.execute("SELECT 1 FROM holds WHERE owner = ?", (self._owner,)).fetchone():
            self._db.execute("UPDATE owners SET lease_until_ms = ? WHERE owner = ?", (RESIGNED_MS, self._owner))
        else:
            self._db.execute("DELETE FROM owners WHERE owner = ?", (self._owner,))


def _claimed_by(op: Op) -> Sequence[str]:
    """The scopes that a verb names."""
    if type(op) is Reserve:
        return [claim.scope for claim in op.claims]
    if type(op) is Amend:
        return [op.scope] if op.parent is None else [op.scope, op.parent]
    if type(op) is Settle and op.claims:
        return [claim.scope for claim in op.claims]
    return ()


def inode(path: Path) -> int | None:
    """Which file this path leads to; None where there is none."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def machine() -> str:
    """Where a pid means one process: this boot of this kernel and this pid namespace (containers may
    share a host's name and a ledger's folder); elsewhere than Linux the host's name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return socket.gethostname()


def alive(pid: int) -> bool:
    """False when no process has this pid; True where that cannot be known."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
