"""What gateways must know in common of their tasks, besides money: how often a task has sent one request, which model
an open tool loop began with, what a request had cost when its SDK sends it again. All of it runs out by itself.

Two stores hold it: a SQLite file beside the embedded ledger (`task_memory_sqlite`), and Redis (`task_memory_redis`).
"""

from __future__ import annotations

from typing import Protocol


class MemoryUnavailable(Exception):
    """The store does not answer."""


class TaskMemory(Protocol):
    """One per process. Names are the caller's own, unique digests of at most 64 bytes."""

    async def count(self, name: bytes, keep_s: float) -> int:
        """How often this was counted, this time included, by whichever process; forgotten `keep_s` after the last time.
        Raises MemoryUnavailable."""

    async def word(self, *names: bytes) -> str | None:
        """What was last noted, by whichever process, under the first of these names that is known. Raises
        MemoryUnavailable."""

    async def note(self, name: bytes, word: str, keep_s: float) -> None:
        """Remember it for so long; known to all processes when this returns. Raises MemoryUnavailable."""

    async def close(self) -> None:
        """Close it."""
