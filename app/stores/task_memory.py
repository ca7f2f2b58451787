"""What gateways must know in common of their tasks, besides money: how often a task has sent one request, and which
model an open tool loop began with. All of it runs out by itself.

Two stores hold it: a SQLite file beside the embedded ledger (`task_memory_sqlite`), and Redis (`task_memory_redis`).
"""

from __future__ import annotations

from typing import Protocol

MODEL_KEPT_S = 7 * 86_400.0
"""How long after its last step a tool loop may go on with the model that it began with."""


class MemoryUnavailable(Exception):
    """The store does not answer."""


class TaskMemory(Protocol):
    """One per process. Names are the caller's own, unique digests of at most 64 bytes."""

    async def count(self, name: bytes, keep_s: float) -> int:
        """How often this was counted, this time included, by whichever process; forgotten `keep_s` after the last time.
        Raises MemoryUnavailable."""

    async def model_of(self, loop: bytes) -> str | None:
        """The model last noted for this loop, by whichever process. Raises MemoryUnavailable."""

    async def note(self, loop: bytes, model: str) -> None:
        """Remember it; known to all processes when this returns. Raises MemoryUnavailable."""

    async def close(self) -> None:
        """Close it."""
