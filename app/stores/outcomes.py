"""Feedback as it was said, kept for the learner and for `GET /v1/feedback`: durable, bounded, never on the hot path.

Two stores keep it: a SQLite file of its own (`outcomes_sqlite`), and Redis (`outcomes_redis`) where it is shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from app.core.feedback import Feedback

KEEP_DAYS = 90
KEEP_REPEATS_S = 86_400
"""How long an idempotency key is remembered."""
MAX_WORDS = 200_000
"""What one key may have on record; beyond it its own oldest words go, and nobody else's."""


class OutcomesUnavailable(Exception):
    """The store does not answer; nothing is known of what was being stored."""


class OtherWord(Exception):
    """This idempotency key was used for something else."""


class Put(Enum):
    """What became of a word."""

    NEW = "new"
    REPLACED = "replaced"
    REPEATED = "repeated"
    """Its idempotency key has been seen with the same content: nothing was changed."""


class Outcomes(Protocol):
    """Where feedback goes. Every method but `start` raises OutcomesUnavailable. `keeps_comments`: the operator wants
    comments stored; they may hold anything, so by default they are dropped before they get here."""

    keeps_comments: bool

    async def start(self) -> None:
        """Open the store. Raises OSError or OutcomesUnavailable where it cannot be used."""

    async def put(self, word: Feedback, *, repeat_key: str | None = None, digest: bytes = b"") -> Put:
        """Store a word; durable when it returns. `repeat_key` with `digest` (of what was sent) makes it idempotent
        per key that says it. Raises OtherWord for a repeat key that came with another digest."""

    async def about(self, things: Sequence[str]) -> list[Feedback]:
        """The words on these things, the earliest first."""

    async def since(self, cursor: int, limit: int) -> list[tuple[int, Feedback]]:
        """Words stored or replaced after `cursor` (0: all), in the order in which they were stored, each with its own
        cursor. A word that was replaced since appears once, as it stands now. A cursor that this store has not reached
        is of one that was there before it: then all."""

    async def close(self) -> None:
        """Finish what was begun."""
