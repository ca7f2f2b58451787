"""The contract of a ledger: whoever keeps the balances answers the verbs of `core/budget.py`.

Two stores keep it: SQLite (embedded, several processes on one machine) and Redis (shared). Verbs of
one event-loop tick travel together, so a busy gateway pays for one round trip a tick, not a call.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from app.core.budget import Balance, Op, Result

OWNER_LEASE_S = 10.0
"""How long a process may be silent before its holds are taken for abandoned."""
HEARTBEAT_S = 2.0
TASK_RETENTION_S = 30 * 86_400.0
"""A task untouched for 30 days is over, unless the policy says otherwise; naming it again begins a new one."""


class LedgerUnavailable(Exception):
    """The ledger did not answer, or refused; the verb's effect is unknown."""


@dataclass(frozen=True, slots=True)
class Expired:
    """A hold whose owner died: what was charged for it (nano-dollars), and in which scopes."""

    call_id: str
    owner: str
    scopes: tuple[str, ...]
    charged_nano: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A task, or its spending on one model, that was cut: when (by the store's own count), and how it stands; None: it
    is forgotten."""

    scope: str
    at: int
    balance: Balance | None


def new_owner() -> str:
    """A name for this process that no other process, now or later, will have: host:pid:random."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


class Budgets(Protocol):
    """Where money is kept. Every method raises LedgerUnavailable when the store cannot answer."""

    owner: str
    task_retention_s: float
    """How long an untouched task is kept; may be changed at any time."""

    async def start(self) -> None:
        """Open the store, register this process as an owner, end the holds of dead ones."""

    def apply(self, op: Op) -> asyncio.Future[Result]:
        """Carry out one verb atomically over all of its scopes; must be called on the event loop.

        Verbs of one call take effect in the order of the calls to `apply`.
        """

    async def balances(self, scopes: Sequence[str]) -> list[Balance | None]:
        """The balances of these scopes, in order; None where a scope has never been used."""

    async def scopes(self, prefix: str, limit: int) -> list[tuple[str, Balance]]:
        """Up to `limit` scopes whose name begins with `prefix`, the most recently used first. Minutes, hours and end
        users (`user:`) are in no list."""

    async def cuts(self, most: int) -> list[Cut]:
        """What was cut (`Settle.killed_scopes`) and is not noted yet, the earliest first."""

    async def note_cuts(self, cuts: Sequence[Cut]) -> None:
        """These are noted: they are in the list no more, unless they were cut again since."""

    async def beat(self) -> list[Expired]:
        """Renew this process's lease and end the holds of owners whose lease has run out."""

    async def held(self) -> list[str]:
        """The calls that this process has a hold for, verbs that were applied before included."""

    async def abandon(self, call_ids: Sequence[str]) -> list[Expired]:
        """End these holds of this process as `beat` ends those of a dead one: no call will settle them any more."""

    async def close(self) -> None:
        """Finish what was applied, give up the owner's lease, close."""
