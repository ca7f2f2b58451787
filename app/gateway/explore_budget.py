"""The day's budget for exploring, shared by all workers and gateways of one ledger, without a wait in any request.

It is a scope of the ledger like any cap. A process draws on it by a lease: it holds 1 / SHARE of what the day has left,
explores on that, and when a call would not fit settles what was spent and asks for the next. Until the ledger has
answered nothing is explored. So all together never plan to spend more than the budget; a process that is killed loses
what it held for the day.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
from dataclasses import dataclass
from typing import Final, Protocol

from app.core.budget import Claim, Reserve, Settle
from app.gateway.ledger import Ledger

SHARE: Final = 8
AGAIN_S: Final = 30.0
"""After a refusal the ledger is asked again: others may have given something back."""


class ExploreBudget(Protocol):
    """What may be spent on exploring, by route and day (UTC), in nano-dollars."""

    def allows(self, route: str, day_nano: int, nano: int, today: dt.date) -> bool:
        """Whether so much more may be spent now; must be called on the event loop. `day_nano`: the day's budget."""

    def spend(self, route: str, nano: int) -> None:
        """Count what exploring costs; less than 0 gives back what was expected and did not come."""


@dataclass(slots=True)
class Lease:
    """What a process holds of one route's budget."""

    reserve: Reserve
    day: dt.date
    held_nano: int
    spent_nano: int = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a call would have needed."""

    day_nano: int
    nano: int
    today: dt.date


class SharedBudget:
    """One per process; `keep` runs beside its calls."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._leases: dict[str, Lease] = {}
        self._wanted: dict[str, Wanted] = {}
        self._waiting = asyncio.Event()
        self._refused_s: dict[str, float] = {}
        self._serial = itertools.count()

    def allows(self, route: str, day_nano: int, nano: int, today: dt.date) -> bool:
        lease = self._leases.get(route)
        if lease is not None and lease.day == today and lease.spent_nano + nano <= lease.held_nano:
            return True
        now_s = asyncio.get_running_loop().time()
        if nano <= day_nano and now_s >= self._refused_s.get(route, 0.0):
            self._wanted[route] = Wanted(day_nano, nano, today)
            self._waiting.set()
        return False

    def spend(self, route: str, nano: int) -> None:
        lease = self._leases.get(route)
        if lease is not None:
            lease.spent_nano = max(lease.spent_nano + nano, 0)

    async def keep(self) -> None:
        """Ask the ledger for what calls wanted, for ever."""
        while True:
            await self._waiting.wait()
            await self.renew()

    async def renew(self) -> None:
        """Ask for what is wanted now."""
        self._waiting.clear()
        while self._wanted:
            route, wanted = self._wanted.popitem()
            await self._settle(route)
            if not await self._lease(route, wanted):
                self._refused_s[route] = asyncio.get_running_loop().time() + AGAIN_S

    async def close(self) -> None:
        """Give back what is held and was not spent."""
        for route in list(self._leases):
            await self._settle(route)

    async def _lease(self, route: str, wanted: Wanted) -> bool:
        owner, day_nano = self._ledger.budgets.owner, wanted.day_nano
        claim = Claim(f"explore:{route}:day:{wanted.today.isoformat()}", day_nano)
        # Of a holder that dies all is taken for spent: what it was told to hold it may have spent.
        name = f"explore {owner} {next(self._serial)}"
        op = Reserve(name, owner, (claim,), wanted.nano, day_nano, day_nano, SHARE)
        granted = await self._ledger.hold(op)
        if granted is not None:
            self._leases[route] = Lease(op, wanted.today, granted.held_nano)
        return granted is not None

    async def _settle(self, route: str) -> None:
        lease = self._leases.pop(route, None)
        if lease is not None:
            await self._ledger.settle(lease.reserve, Settle(lease.reserve.call_id, lease.spent_nano))
