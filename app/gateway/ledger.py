"""The ledger as calls use it: waits out contention, turns denials into errors, and never loses a settlement.

When the store does not answer, the policy decides: closed (no call), or open within an allowance of
this process. What could not be written is owed, and written when the store is back.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import structlog

from app.core.amend import Amend, Amended
from app.core.budget import Advance, Denied, Granted, Lost, Moved, Reserve, Result, Settle, Settled
from app.core.errors import LedgerDown
from app.core.money import MAX_NANO
from app.core.policy import LedgerRules
from app.gateway.denials import denial
from app.gateway.ghosts import Alive
from app.gateway.limits import below
from app.gateway.metrics import Metrics
from app.stores.budgets import Budgets, LedgerUnavailable

log = structlog.get_logger()

MAX_OWED = 100_000
MAX_FAMILIES = 10_000
"""Tasks whose place below others is remembered by this process."""
FIRST_WAIT_S, LAST_WAIT_S = 0.02, 0.25


@dataclass(slots=True)
class Owed:
    """A settlement that the store did not take. `lent_nano`: how much of the open allowance it has used up until it is
    written."""

    settle: Settle
    lent_nano: int = 0


class BelowOthers(Exception):
    """The task hangs below others: `Ledger.above` knows them now, and the call has to claim on all of them."""

    def __init__(self, scope: str) -> None:
        super().__init__(scope)
        self.scope = scope


class Ledger:
    """One per process, over one store."""

    def __init__(self, budgets: Budgets, metrics: Metrics) -> None:
        self.budgets = budgets
        self._metrics = metrics
        self._owed: deque[Owed] = deque()
        self._lent: dict[str, int] = {}
        self._owed_lent_nano = 0
        self._unheld: dict[str, LedgerRules] = {}
        self._unsure: deque[str] = deque(maxlen=MAX_OWED)
        self._above: dict[str, tuple[str, ...]] = {}
        self._serial = itertools.count()
        self._alive = Alive()
        self.up = True

    def above(self, scope: str) -> tuple[str, ...]:
        """The tasks that this one hangs below, its parent first, as far as is known here."""
        return self._above.get(scope, ())

    async def hang(self, scope: str, parent: str) -> str | None:
        """Hang a task below another, once: asked for the first time, the store decides. Why it was refused, or None
        (as in Amended; also where the store does not answer, for then the reservation will tell)."""
        if scope in self._above:
            return None
        try:
            result = await self.budgets.apply(Amend(f"hang {next(self._serial)} {scope}", scope, parent=parent))
        except LedgerUnavailable as error:
            self.is_down(error)
            return None
        assert isinstance(result, Amended)
        self._remember(scope, result.above)
        return result.refused

    def _remember(self, scope: str, above: tuple[str, ...]) -> None:
        if len(self._above) >= MAX_FAMILIES:
            self._above.clear()
        self._above[scope] = above

    async def reserve(self, op: Reserve, rules: LedgerRules, *, wait: bool, stopped: Callable[[], bool]) -> Granted:
        """Set money aside before anything is spent.

        Waits while other calls' holds are in the way, up to the policy's patience, unless `stopped` says that nobody
        wants the answer; without `wait` only where it is their number that is, and not their money. Raises
        BudgetExceeded, BudgetContended, LedgerDown or BelowOthers; then nothing is held.
        """
        give_up, pause = math.inf, FIRST_WAIT_S
        self._alive.calls.add(op.call_id)
        try:
            while True:
                try:
                    result = await self.budgets.apply(op)
                except LedgerUnavailable as error:
                    return self._without_store(op, rules, error)
                self._is_up()
                if isinstance(result, Granted):
                    return result
                if isinstance(result, Moved):
                    self._remember(result.scope, result.above)
                    raise BelowOthers(result.scope)
                assert isinstance(result, Denied)
                waiting = result.contended and (wait or result.reason == "parallel") and not stopped()
                now_s = asyncio.get_running_loop().time()
                give_up = min(give_up, now_s + rules.contention_wait_s)  # from the first denial on
                if not waiting or now_s + pause > give_up:
                    raise denial(result, op.need_nano, dt.datetime.now(dt.UTC))
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  (jitter, not a secret)
                pause = min(pause * 2, LAST_WAIT_S)
        except BaseException as error:
            self._forgo(op.call_id, unsure=isinstance(error, asyncio.CancelledError))
            raise

    def _forgo(self, call_id: str, *, unsure: bool) -> None:
        """There is no such call after all; `unsure`: its reservation may have been made, or be made later."""
        self._alive.calls.discard(call_id)
        if unsure:
            self._unsure.append(call_id)

    async def hold(self, op: Reserve) -> Granted | None:
        """Set money aside for no call, at once or not at all: None where it is refused or the store does not answer."""
        self._alive.calls.add(op.call_id)
        try:
            result = await self.budgets.apply(op)
        except LedgerUnavailable as error:
            self.is_down(error)
            self._forgo(op.call_id, unsure=True)
            return None
        except asyncio.CancelledError:
            self._forgo(op.call_id, unsure=True)
            raise
        self._is_up()
        if isinstance(result, Granted):
            return result
        self._forgo(op.call_id, unsure=False)
        return None

    def advance(self, op: Advance) -> asyncio.Future[Result]:
        """Record the running cost and renew the hold; the future raises LedgerUnavailable."""
        rules = self._unheld.get(op.call_id)
        if rules is None:
            written = self.budgets.apply(op)
            written.add_done_callback(self._note_failure)
            return written
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Result] = loop.create_future()
        free = self._allowance_left(rules) + self._lent[op.call_id] - op.spent_nano
        held = max(min(op.want_nano, free), 0)
        self._lent[op.call_id] = op.spent_nano + held
        # As a store's, the answer comes later: callers count on their callbacks having run by then.
        if held:
            loop.call_soon(answer.set_result, Granted(held, free - held, None))
        else:
            loop.call_soon(answer.set_exception, LedgerUnavailable("the open allowance is used up"))
        return answer

    def _note_failure(self, written: asyncio.Future[Result]) -> None:
        if not written.cancelled() and (error := written.exception()) is not None:
            self.is_down(error)

    def lend(self, call_id: str, need_nano: int, want_nano: int, rules: LedgerRules) -> int:
        """Money for a call that the store cannot give it: from the open allowance. Raises LedgerDown."""
        left = self._allowance_left(rules)
        if rules.on_failure == "closed" or left < need_nano or not left:
            raise LedgerDown("The ledger does not answer, so nothing may be spent.")
        lent = min(want_nano, left)
        self._lent[call_id] = self._lent.get(call_id, 0) + lent
        return lent

    def _allowance_left(self, rules: LedgerRules) -> int:
        return rules.open_allowance_nano - self._owed_lent_nano - sum(self._lent.values())

    async def settle(self, reserve: Reserve, op: Settle) -> Settled | None:
        """End the hold, exactly once. None where the store could not take it: it is owed, and written later."""
        if op.cost_nano > MAX_NANO:
            log.error("a charge is beyond what the ledger can hold: it is charged the most", call_id=op.call_id)
            op = msgspec.structs.replace(op, cost_nano=MAX_NANO)
        lent = min(self._lent.pop(op.call_id, 0), op.cost_nano)
        if self._unheld.pop(op.call_id, None) is not None:
            self._owe(Owed(msgspec.structs.replace(op, claims=reserve.claims, now_ms=reserve.now_ms), op.cost_nano))
            self._alive.calls.discard(op.call_id)
            return None
        try:
            result = await self.budgets.apply(op)
        except LedgerUnavailable as error:
            self.is_down(error)
            self._owe(Owed(op, lent))
            self._alive.calls.discard(op.call_id)
            return None
        self._is_up()
        self._alive.ended(op)
        self._note_gone(result, op.call_id)
        return result if isinstance(result, Settled) else None

    def _note_gone(self, result: Result, call_id: str) -> None:
        if isinstance(result, Settled) and result.lapsed:
            # This process was silent for longer than its lease: what its hold was charged then is made good.
            self._metrics.reservations_lost.inc()
            log.warning("a reservation had expired before it was settled", call_id=call_id)
        elif isinstance(result, Lost):
            self._metrics.reservations_lost.inc()
            log.warning("the ledger had forgotten a reservation before it was settled", call_id=call_id)

    async def catch_up(self) -> None:
        """Make again what the store has forgotten, then write what is owed: the settlements of an outage would take
        the places of those before it in what is remembered. Raises LedgerUnavailable."""
        try:
            await self.end_ghosts()
        finally:
            await self.pay_owed()

    async def pay_owed(self) -> None:
        """Write what is owed, oldest first, until the store fails again."""
        try:
            while self._owed:
                owed = self._owed[0]
                result = await self.budgets.apply(owed.settle)
                if isinstance(result, Moved):
                    self._remember(result.scope, result.above)
                    claims = below(owed.settle.claims or (), result.scope, result.above)
                    owed.settle = msgspec.structs.replace(owed.settle, claims=claims)
                    continue
                self._alive.ended(owed.settle)
                self._owed.popleft()
                self._owed_lent_nano -= owed.lent_nano
                self._metrics.ledger_owed.set(len(self._owed))
            while self._unsure:
                # A refused call, whose reservation may have been made before the store fell silent.
                refused = Settle(self._unsure[0], 0, claims=())
                await self.budgets.apply(refused)
                self._alive.ended(refused)
                self._unsure.popleft()
        except LedgerUnavailable as error:
            self.is_down(error)
            return
        self._is_up()

    async def end_ghosts(self) -> int:
        """End the holds in this process's name that none of its calls has, and tell how many (`ghosts.py`). Raises
        LedgerUnavailable."""
        ended = await self._alive.end_others(self.budgets, self._known)
        self._metrics.settlements_forgotten.inc(ended)
        return ended

    def _known(self) -> set[str]:
        """The calls whose holds will be settled: under way, owed, or unsure."""
        return {*self._alive.calls, *(owed.settle.call_id for owed in self._owed), *self._unsure}

    def _without_store(self, op: Reserve, rules: LedgerRules, error: LedgerUnavailable) -> Granted:
        self.is_down(error)
        try:
            held = self.lend(op.call_id, op.need_nano, op.want_nano, rules)
        except LedgerDown:
            self._unsure.append(op.call_id)
            raise
        self._unheld[op.call_id] = rules
        self._metrics.ledger_open_calls.inc()
        return Granted(held, self._allowance_left(rules), None)

    def _owe(self, owed: Owed) -> None:
        if len(self._owed) >= MAX_OWED:
            log.error("too many settlements are owed: the oldest is dropped", call_id=self._owed[0].settle.call_id)
            self._owed_lent_nano -= self._owed.popleft().lent_nano
        self._owed.append(owed)
        self._owed_lent_nano += owed.lent_nano
        self._metrics.ledger_owed.set(len(self._owed))

    def is_down(self, error: BaseException) -> None:
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
