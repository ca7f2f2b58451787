"""The ledger as calls use it: waits out contention, turns denials into errors, and never loses a settlement.

When the store does not answer, the policy decides: closed (no call), or open within an allowance of
this process. What could not be written is owed, and written when the store is back.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from app.core.budget import Advance, Denied, Granted, Lost, Reserve, Result, Settle, Settled
from app.core.errors import BudgetContended, BursarError, LedgerDown
from app.core.money import usd_text
from app.core.policy import LedgerRules
from app.dialects.openai_chat.errors import budget_error
from app.gateway.limits import resets_at, scope_kind, scope_window
from app.gateway.metrics import Metrics
from app.stores.budgets import Budgets, LedgerUnavailable

log = structlog.get_logger()

WAIT_HELPS_S = 30.0
"""A window that refills within this time is worth a Retry-After; a longer wait is a hard cap to a client."""
MAX_OWED = 100_000
FIRST_WAIT_S, LAST_WAIT_S = 0.02, 0.25


@dataclass(frozen=True, slots=True)
class Owed:
    """A settlement that the store did not take. `unheld`: the call ran on the open allowance, so the store
    has no hold of it and its cost is charged from nothing."""

    reserve: Reserve
    settle: Settle
    unheld: bool


class Ledger:
    """One per process, over one store."""

    def __init__(self, budgets: Budgets, metrics: Metrics) -> None:
        self.budgets = budgets
        self._metrics = metrics
        self._owed: deque[Owed] = deque()
        self._open_spent_nano = 0
        self._open_calls: set[str] = set()
        self.up = True

    async def reserve(self, op: Reserve, rules: LedgerRules, *, wait: bool, stopped: Callable[[], bool]) -> Granted:
        """Set money aside before anything is spent.

        Waits while other calls' holds are in the way, up to the policy's patience, unless `stopped` says that nobody
        wants the answer. Raises BudgetExceeded, BudgetContended or LedgerDown; then nothing is held.
        """
        give_up = asyncio.get_running_loop().time() + rules.contention_wait_s
        pause = FIRST_WAIT_S
        while True:
            try:
                result = await self.budgets.apply(op)
            except LedgerUnavailable as error:
                return self._without_store(op, rules, error)
            self._is_up()
            if isinstance(result, Granted):
                return result
            assert isinstance(result, Denied)
            waiting = result.contended and wait and not stopped()
            if not waiting or asyncio.get_running_loop().time() + pause > give_up:
                raise denial(result, dt.datetime.now(dt.UTC))
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  (jitter, not a secret)
            pause = min(pause * 2, LAST_WAIT_S)

    def advance(self, op: Advance) -> asyncio.Future[Result]:
        """Record the running cost and renew the hold; the future raises LedgerUnavailable."""
        if op.call_id in self._open_calls:
            granted: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
            granted.set_result(Granted(op.want_nano, None, None))
            return granted
        return self.budgets.apply(op)

    async def settle(self, reserve: Reserve, op: Settle) -> Settled | None:
        """End the hold, exactly once. None where the store could not take it: it is owed, and written later."""
        if op.call_id in self._open_calls:
            self._open_calls.discard(op.call_id)
            self._open_spent_nano += op.cost_nano
            self._owe(Owed(reserve, op, unheld=True))
            return None
        try:
            result = await self.budgets.apply(op)
        except LedgerUnavailable as error:
            self.is_down(error)
            self._owe(Owed(reserve, op, unheld=False))
            return None
        if isinstance(result, Lost):
            # The lease ran out while this process was asleep: the hold was charged for what it risked.
            self._metrics.reservations_lost.inc()
            log.warning("a reservation had expired before it was settled", call_id=op.call_id)
            return None
        assert isinstance(result, Settled)
        return result

    async def pay_owed(self) -> None:
        """Write what is owed, oldest first, until the store fails again."""
        while self._owed:
            owed = self._owed[0]
            try:
                if owed.unheld:
                    await self._charge_from_nothing(owed)
                else:
                    await self.budgets.apply(owed.settle)
            except LedgerUnavailable as error:
                self.is_down(error)
                return
            self._owed.popleft()
            self._metrics.ledger_owed.set(len(self._owed))
        self._is_up()

    async def _charge_from_nothing(self, owed: Owed) -> None:
        """A call that ran on the open allowance never had a hold: make one of nothing, then settle it."""
        unlimited = tuple(type(c)(c.scope, None, None) for c in owed.reserve.claims)
        reserve = owed.reserve
        await self.budgets.apply(Reserve(reserve.call_id, self.budgets.owner, unlimited, 0, 0, 0))
        await self.budgets.apply(owed.settle)
        self._open_spent_nano = max(self._open_spent_nano - owed.settle.cost_nano, 0)

    def _without_store(self, op: Reserve, rules: LedgerRules, error: LedgerUnavailable) -> Granted:
        self.is_down(error)
        left = rules.open_allowance_nano - self._open_spent_nano
        if rules.on_failure == "closed" or left < op.need_nano:
            raise LedgerDown("The ledger does not answer, so nothing may be spent.") from error
        held = min(op.want_nano, left)
        self._open_calls.add(op.call_id)
        self._metrics.ledger_open_calls.inc()
        return Granted(held, left - held, None)

    def _owe(self, owed: Owed) -> None:
        if len(self._owed) >= MAX_OWED:
            log.error("too many settlements are owed: the oldest is dropped", call_id=self._owed[0].settle.call_id)
            self._owed.popleft()
        self._owed.append(owed)
        self._metrics.ledger_owed.set(len(self._owed))

    def is_down(self, error: LedgerUnavailable) -> None:
        """Note that the store did not answer; said once, shown until it does."""
        self._metrics.ledger_errors.inc()
        if self.up:
            log.error("the ledger does not answer", error=str(error))
            self.up = False
            self._metrics.ledger_up.set(0)

    def _is_up(self) -> None:
        if not self.up:
            log.warning("the ledger answers again", owed=len(self._owed))
            self.up = True
            self._metrics.ledger_up.set(1)


def denial(denied: Denied, now: dt.datetime) -> BursarError:
    """A store's denial as an error: 402 for a hard cap, 429 only where a short wait helps."""
    kind = scope_kind(denied.scope)
    reset = resets_at(denied.scope, now)
    headers = denial_headers(
        kind, scope_window(denied.scope), denied.limit_nano, denied.spent_nano, denied.held_nano, reset
    )
    if denied.contended and not denied.killed:
        return BudgetContended(
            "Other calls hold what is left of this budget at the moment.", headers={**headers, "retry-after": "1"}
        )
    wait_s = (reset - now).total_seconds() if reset else None
    if wait_s is not None and wait_s <= WAIT_HELPS_S:
        return BudgetContended(
            "This budget's window is used up and refills shortly.",
            headers={**headers, "retry-after": str(int(wait_s) + 1)},
        )
    error = budget_error(kind, headers)
    error.final = denied.killed and kind == "task"
    return error


def denial_headers(
    kind: str, window: str | None, limit_nano: int, spent_nano: int, held_nano: int, reset: dt.datetime | None
) -> dict[str, str]:
    """The amounts, in headers, because numbers in a message make agents retry."""
    headers = {
        "x-bursar-scope": f"{kind}_{window}" if window else kind,
        "x-bursar-limit-usd": usd_text(limit_nano),
        "x-bursar-spent-usd": usd_text(spent_nano),
        "x-bursar-reserved-usd": usd_text(held_nano),
        "x-bursar-remaining-usd": usd_text(max(limit_nano - spent_nano - held_nano, 0)),
    }
    if reset is not None:
        headers["x-bursar-reset"] = reset.isoformat().replace("+00:00", "Z")
    return headers


def call_denial(kind: str, limit_nano: int, spent_nano: int) -> BursarError:
    """The denial or cut by a cap that is the call's own."""
    return budget_error(kind, denial_headers(kind, None, limit_nano, spent_nano, 0, None))
