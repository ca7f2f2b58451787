"""The embedded ledger: SQLite on this machine, safe for several processes, with no server to run.

One thread owns the connection. Verbs applied during one turn of the event loop, and the next ones while there
are ever more, travel to it as one batch, become one transaction, and come back with one wake-up of the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from app.core.budget import Balance, Op, Result
from app.stores import sqlite_tables as tables
from app.stores.budgets import OWNER_LEASE_S, TASK_RETENTION_S, Cut, Expired, LedgerUnavailable, new_owner
from app.stores.sqlite_book import StoredBook
from app.stores.sqlite_prune import prune, prune_lists

PRUNE_EVERY_S = 3600.0
UNSTORABLE = (ValueError, OverflowError)
"""What SQLite's binding raises for text that is not Unicode and for numbers above 2^63."""
TURNS = 4
"""Turns of the event loop for which a batch that still grows is waited for. A transaction costs as much as ten verbs
beyond its first; a lone verb, or one behind which nothing comes, waits for none."""
NOT_OPEN = "the ledger is not open"

T = TypeVar("T")
Pending = list[tuple[Op, "asyncio.Future[Result]"]]
Job = Callable[[], None]


class SqliteBudgets:
    """Budgets (see `stores/budgets.py`) in a SQLite file, made with its folders where it is not there."""

    def __init__(
        self, path: Path, *, lease_s: float = OWNER_LEASE_S, busy_timeout_s: float = tables.BUSY_TIMEOUT_S
    ) -> None:
        self.owner = new_owner()
        self.task_retention_s = TASK_RETENTION_S
        self._path = path.absolute()
        self._lease_s = lease_s
        self._busy_timeout_s = busy_timeout_s
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._pending: Pending = []
        self._busy = False
        self._open = False
        self._expired: list[Expired] = []
        self._prune_at = 0.0

    async def start(self) -> None:
        """Open or make the file, register this process as an owner, end the holds of dead ones.

        Raises LedgerUnavailable where the file cannot be used or was written by a newer version.
        """
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()
        try:
            self._book = await self._in_thread(self._open_book)
            self._expired += await self._in_thread(self._book.beat)
        except BaseException:
            self._stop()
            raise
        self._open = True

    def apply(self, op: Op) -> asyncio.Future[Result]:
        """Carry out one verb atomically over all of its scopes; must be called on the event loop.

        All verbs take effect in the order of the calls to `apply`. The future fails with
        LedgerUnavailable, or with ValueError where a name or an amount of this verb cannot be stored.
        """
        if not self._open:
            refused: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
            refused.set_exception(LedgerUnavailable(NOT_OPEN))
            return refused
        future: asyncio.Future[Result] = self._loop.create_future()
        if not self._pending:
            self._loop.call_soon(self._flush, 1, TURNS)
        self._pending.append((op, future))
        return future

    async def balances(self, scopes: Sequence[str]) -> list[Balance | None]:
        """The balances of these scopes, in order; None where a scope has never been used."""
        self._check_open()
        return await self._in_thread(lambda: self._book.balances(scopes))

    async def scopes(self, prefix: str, limit: int) -> list[tuple[str, Balance]]:
        """Up to `limit` scopes whose name begins with `prefix`, the most recently used first."""
        return await self._beside(lambda db: tables.list_scopes(db, prefix, limit))

    async def cuts(self, most: int) -> list[Cut]:
        """What was cut and is not noted yet, the earliest first."""
        return await self._beside(lambda db: tables.list_cuts(db, most))

    async def note_cuts(self, cuts: Sequence[Cut]) -> None:
        """These are in the list no more, unless they were cut again since."""
        if cuts:
            await self._beside(lambda db: tables.note_cuts(db, cuts))

    async def beat(self) -> list[Expired]:
        """Renew this process's lease, end the holds of owners whose lease has run out, write the log back.

        The first beat also reports what `start` has ended, and the next one what a failed one has.
        """
        self._check_open()
        ended = await self._in_thread(self._book.beat)
        self._expired += ended
        await self._beside(self._tend)
        expired, self._expired = self._expired, []
        return expired

    async def held(self) -> list[str]:
        """The calls that this process has a hold for."""
        self._check_open()
        return await self._in_thread(self._book.held)

    async def abandon(self, call_ids: Sequence[str]) -> list[Expired]:
        """End these holds of this process as `beat` ends those of a dead one."""
        self._check_open()
        return await self._in_thread(lambda: self._book.abandon(call_ids))

    async def close(self) -> None:
        """Finish what was applied, give up the owner's lease, close."""
        if not self._open:
            return
        self._open = False
        try:
            await self._in_thread(self._book.close)
        finally:
            self._stop()

    def _open_book(self) -> StoredBook:
        return StoredBook(self._path, self.owner, lease_s=self._lease_s, busy_timeout_s=self._busy_timeout_s)

    def _stop(self) -> None:
        self._jobs.put(None)
        self._thread.join()

    def _check_open(self) -> None:
        if not self._open:
            raise LedgerUnavailable(NOT_OPEN)

    def _tend(self, db: sqlite3.Connection) -> None:
        if time.monotonic() >= self._prune_at and prune_lists(db):
            prune(db, tables.now_ms(), self.task_retention_s)
            self._prune_at = time.monotonic() + PRUNE_EVERY_S
        tables.checkpoint(db)

    async def _beside(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do slow work on a connection of its own, so that no verb waits for it."""

        def opened() -> T:
            db = tables.connect(self._path, self._busy_timeout_s)
            try:
                return work(db)
            finally:
                db.close()

        self._check_open()
        try:
            return await asyncio.to_thread(opened)
        except sqlite3.Error as error:
            raise LedgerUnavailable(str(error)) from error

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Do short work on the ledger's thread, after everything applied before."""
        future: asyncio.Future[T] = self._loop.create_future()

        def job() -> None:
            outcome: T | Exception
            try:
                outcome = work()
            except Exception as error:
                outcome = _as_reported(error)
            self._post(_resolve, future, outcome)

        self._hand_over()
        self._jobs.put(job)
        return await future

    def _flush(self, seen: int, turns: int) -> None:
        """Hand over what waits if no more has come since there were `seen` of it, or after so many `turns`. Where a
        batch is on its way `_deliver` does, and this one has grown meanwhile."""
        if self._busy:
            return
        if turns and len(self._pending) > seen:
            self._loop.call_soon(self._flush, len(self._pending), turns - 1)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        if self._pending:
            batch, self._pending, self._busy = self._pending, [], True
            self._jobs.put(lambda: self._run_batch(batch))

    def _deliver(self, batch: Pending, outcomes: Sequence[Result | Exception]) -> None:
        self._busy = False
        self._hand_over()
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            _resolve(future, outcome)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _run_batch(self, batch: Pending) -> None:
        ops = [op for op, _ in batch]
        outcomes: Sequence[Result | Exception]
        try:
            outcomes = self._book.apply(ops)
        except UNSTORABLE:
            outcomes = [self._run_alone(op) for op in ops]
        except Exception as error:
            outcomes = [_as_reported(error) for _ in ops]
        self._post(self._deliver, batch, outcomes)

    def _run_alone(self, op: Op) -> Result | Exception:
        """One verb of a batch in which some name or amount could not be stored: the others must not suffer."""
        try:
            return self._book.apply([op])[0]
        except Exception as error:
            return _as_reported(error)

    def _post(self, callback: Callable[..., None], *args: object) -> None:
        # RuntimeError: the loop is closed, so nobody waits any more; what was committed stays.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *args)


def _as_reported(error: Exception) -> Exception:
    """The caller's mistake as ValueError, everything else as LedgerUnavailable."""
    if isinstance(error, UNSTORABLE):
        reported: Exception = ValueError(f"the ledger cannot store this: {error}")
    else:
        reported = LedgerUnavailable(str(error) or type(error).__name__)
    reported.__cause__ = error
    return reported


def _resolve(future: asyncio.Future[T], outcome: T | Exception) -> None:
    if future.done():
        return  # cancelled: nobody waits for this verb, which took effect all the same
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
