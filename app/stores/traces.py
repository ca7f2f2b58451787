"""Finished calls, kept for `GET /v1/decisions/{request_id}`: appended off the hot path, bounded, read by id.

Two stores keep them: a SQLite file of their own (they must never make the ledger wait), and Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog

log = structlog.get_logger()

MAX_PENDING = 20_000
"""Records waiting to be written; beyond it new ones are dropped and counted: memory stays bounded."""
FLUSH_EVERY_S = 0.01
"""Small batches: what writes them shares the interpreter with the event loop."""
SEEN_AFTER_S = 0.05
"""Another process has surely written what it had after this long."""
KEEP_ROWS = 200_000
KEEP_DAYS = 7
PRUNE_EVERY = 5_000

LOCK_WAIT_S = 5.0

Record = dict[str, Any]


class Traces(Protocol):
    """Where records go."""

    async def start(self) -> None:
        """Open the store."""

    def append(self, request_id: str, key_name: str, record: Record) -> None:
        """Keep a record; never blocks, never raises."""

    async def get(self, request_id: str) -> Record | None:
        """The record of a call, also when it has only just ended; None if unknown or expired."""

    async def close(self) -> None:
        """Write what is waiting."""


class SqliteTraces:
    """A thread that owns one connection; batches are written every FLUSH_EVERY_S while there are any."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: dict[str, Record] = {}
        self._queue: queue.SimpleQueue[list[tuple[str, str, Record]] | None] = queue.SimpleQueue()
        self._batch: list[tuple[str, str, Record]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._write_all, name="traces", daemon=True)
        self.dropped = 0

    async def start(self) -> None:
        """Open the file, making it if need be."""
        await asyncio.to_thread(self._create)
        self._thread.start()

    def append(self, request_id: str, key_name: str, record: Record) -> None:
        if len(self._pending) >= MAX_PENDING:
            if not self.dropped:
                log.error("traces are written too slowly: some are dropped", waiting=len(self._pending))
            self.dropped += 1
            return
        self._pending[request_id] = record
        self._batch.append((request_id, key_name, record))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_EVERY_S, self._hand_over)

    def _hand_over(self) -> None:
        self._timer = None
        batch, self._batch = self._batch, []
        if batch:
            self._queue.put(batch)

    async def get(self, request_id: str) -> Record | None:
        waiting = self._pending.get(request_id)
        if waiting is not None:
            return waiting
        # Another worker may hold it for one flush more.
        for wait_s in (0.0, SEEN_AFTER_S, 2 * SEEN_AFTER_S):
            await asyncio.sleep(wait_s)
            found = await asyncio.to_thread(self._read, request_id)
            if found is not None:
                return found
        return None

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._hand_over()
        self._queue.put(None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=LOCK_WAIT_S, isolation_level=None)
        connection.execute("PRAGMA synchronous=OFF")  # records may be lost in a power cut; money is elsewhere
        return connection

    def _create(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch(mode=0o600)
        with contextlib.closing(self._connect()) as connection:
            _switch_to_wal(connection)
            connection.execute(
                "CREATE TABLE IF NOT EXISTS traces"
                " (request_id TEXT PRIMARY KEY, created_ms INTEGER, key TEXT, body BLOB) WITHOUT ROWID"
            )
            connection.execute("CREATE INDEX IF NOT EXISTS traces_by_time ON traces (created_ms)")

    def _read(self, request_id: str) -> Record | None:
        with contextlib.closing(self._connect()) as connection:
            row = connection.execute("SELECT body FROM traces WHERE request_id = ?", (request_id,)).fetchone()
        return msgspec.json.decode(row[0]) if row is not None else None

    def _write_all(self) -> None:
        with contextlib.closing(self._connect()) as connection:
            written = 0
            while (batch := self._queue.get()) is not None:
                try:
                    self._write(connection, batch)
                    written += len(batch)
                    if written >= PRUNE_EVERY:
                        written = 0
                        self._prune(connection)
                except Exception as error:  # whatever it is, the thread goes on: the next batch may be better
                    log.error("traces could not be written", error=str(error), records=len(batch))
                    self.dropped += len(batch)
                for request_id, _, _ in batch:
                    self._pending.pop(request_id, None)

    def _write(self, connection: sqlite3.Connection, batch: list[tuple[str, str, Record]]) -> None:
        now_ms = int(time.time() * 1000)
        # Encoded one by one between SQLite's steps, each of which lets the event loop have the interpreter.
        rows = ((request_id, now_ms, key, msgspec.json.encode(record)) for request_id, key, record in batch)
        connection.execute("BEGIN IMMEDIATE")
        with connection:  # commits, or rolls back
            connection.executemany("INSERT OR REPLACE INTO traces VALUES (?, ?, ?, ?)", rows)

    def _prune(self, connection: sqlite3.Connection) -> None:
        oldest_ms = int((time.time() - KEEP_DAYS * 86_400) * 1000)
        connection.execute("DELETE FROM traces WHERE created_ms < ?", (oldest_ms,))
        (count,) = connection.execute("SELECT count(*) FROM traces").fetchone()
        if count > KEEP_ROWS:
            connection.execute(
                "DELETE FROM traces WHERE request_id IN (SELECT request_id FROM traces ORDER BY created_ms LIMIT ?)",
                (count - KEEP_ROWS,),
            )


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Use a write-ahead log, which the file remembers. SQLite does not wait for the lock that this takes, and several
    workers start at once: so we do."""
    give_up = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.01)
