"""The day's budget for exploring, shared by all workers and gateways of one ledger, without a wait in any request.

It is a scope of the ledger like any cap. A process draws on it by a lease: it holds 1 / SHARE of what the day has left,
explores on that, and when a call would not fit settles what was spent and asks for the next. Until the ledger has
answered nothing is explored. So all together never plan to spend more than the budget; a process that is killed loses
what it held for the day, and one that has not explored for a while gives it back. Another budget, by an edit of the
policy, is another lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import itertools
from dataclasses import dataclass, replace
from typing import Final, Protocol

from app.core.budget import Claim, Reserve, Settle
from app.gateway.ledger import Ledger

SHARE: Final = 8
AGAIN_S: Final = 30.0
"""After a refusal the ledger is asked again: others may have given something back."""
IDLE_S = 60.0
"""A process that has not explored for so long has no use for what it holds."""


class ExploreBudget(Protocol):
    """What may be spent on exploring, by route and day (UTC), in nano-dollars."""

    def allows(self, route: str, day_nano: int, nano: int, today: dt.date) -> bool:
        """Whether so much more may be spent now; must be called on the event loop. `day_nano`: the day's budget."""

    def spend(self, route: str, nano: int) -> None:
        """Count what exploring costs; less than 0 gives back what was expected and did not come."""


@dataclass(slots=True)
class Lease:
    """What a process holds of one route's budget of a day. `used_s`: when a call last looked (loop time)."""

    reserve: Reserve
    day: dt.date
    day_nano: int
    held_nano: int
    used_s: float
    spent_nano: int = 0

    def pays_for(self, wanted: Wanted) -> bool:
        """Whether this one need not be asked for: it fits."""
        same = (self.day_nano, self.day) == (wanted.day_nano, wanted.today)
        return same and self.spent_nano + wanted.nano <= self.held_nano


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a call would have needed."""

    day_nano: int
    nano: int
    today: dt.date


@dataclass(frozen=True, slots=True)
class Refused:
    """A call that got no lease: none that needs as much is asked for again, under the same budget, until then."""

    wanted: Wanted
    until_s: float

    def holds_for(self, wanted: Wanted, now_s: float) -> bool:
        """Whether this one need not be asked for."""
        mine = self.wanted
        same = (mine.day_nano, mine.today) == (wanted.day_nano, wanted.today)
        return same and wanted.nano >= mine.nano and now_s < self.until_s


class SharedBudget:
    """One per process; `keep` runs beside its calls."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._leases: dict[str, Lease] = {}
        self._wanted: dict[str, Wanted] = {}
        self._waiting = asyncio.Event()
        self._refused: dict[str, Refused] = {}
        self._late_nano: dict[str, int] = {}
        self._serial = itertools.count()

    def allows(self, route: str, day_nano: int, nano: int, today: dt.date) -> bool:
        lease, now_s = self._leases.get(route), asyncio.get_running_loop().time()
        if lease is not None and lease.day == today and lease.day_nano == day_nano:
            lease.used_s = now_s
            if lease.spent_nano + nano <= lease.held_nano:
                return True
        wanted, refused = Wanted(day_nano, nano, today), self._refused.get(route)
        if nano <= day_nano and (refused is None or not refused.holds_for(wanted, now_s)):
            self._wanted[route] = wanted
            self._waiting.set()
        return False

    def spend(self, route: str, nano: int) -> None:
        lease = self._leases.get(route)
        if lease is not None:
            lease.spent_nano = max(lease.spent_nano + nano, 0)
        elif nano > 0:  # of a call that began when there was one: it counts on the next
            self._late_nano[route] = self._late_nano.get(route, 0) + nano

    async def keep(self) -> None:
        """Ask the ledger for what calls wanted, and give back what none did, for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_S):
                    await self._waiting.wait()
            await self.renew()
            idle_s = asyncio.get_running_loop().time() - IDLE_S
            for route in [route for route, lease in self._leases.items() if lease.used_s <= idle_s]:
                await self._settle(route)

    async def renew(self) -> None:
        """Ask for what is wanted now."""
        self._waiting.clear()
        while self._wanted:
            route, wanted = self._wanted.popitem()
            lease = self._leases.get(route)
            if lease is not None and lease.pays_for(wanted):
                continue  # it was wanted while this lease was asked for
            await self._settle(route)
            until_s = asyncio.get_running_loop().time() + AGAIN_S
            if await self._lease(route, wanted, wanted.nano):
                continue
            # What is left may do for smaller calls: the process holds it, and asks for no such one for a while.
            if not await self._lease(route, wanted, 1):
                wanted = replace(wanted, nano=0)
            self._refused[route] = Refused(wanted, until_s)

    async def close(self) -> None:
        """Give back what is held and was not spent."""
        for route in list(self._leases):
            await self._settle(route)

    async def _lease(self, route: str, wanted: Wanted, need_nano: int) -> bool:
        owner, day_nano = self._ledger.budgets.owner, wanted.day_nano
        claim = Claim(f"explore:{route}:day:{wanted.today.isoformat()}", day_nano)
        # Of a holder that dies all is taken for spent: what it was told to hold it may have spent.
        name = f"explore {owner} {next(self._serial)}"
        op = Reserve(name, owner, (claim,), need_nano, day_nano, day_nano, SHARE)
        granted = await self._ledger.hold(op)
        if granted is not None:
            now_s, late_nano = asyncio.get_running_loop().time(), self._late_nano.pop(route, 0)
            self._leases[route] = Lease(op, wanted.today, day_nano, granted.held_nano, now_s, late_nano)
        return granted is not None

    async def _settle(self, route: str) -> None:
        lease = self._leases.pop(route, None)
        if lease is not None:
            await self._ledger.settle(lease.reserve, Settle(lease.reserve.call_id, lease.spent_nano))
