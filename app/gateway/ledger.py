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
from app.core.errors import BudgetContended, BursarError, LedgerDown, RateLimited, TooManyAtOnce
from app.core.money import usd_text
from app.core.policy import LedgerRules
from app.core.windows import ends_at, window_of
from app.dialects.openai_chat.errors import budget_error, stopped_error
from app.gateway.ghosts import Alive
from app.gateway.limits import below, is_task_scope, scope_kind, scope_word
from app.gateway.metrics import Metrics
from app.stores.budgets import Budgets, LedgerUnavailable

log = structlog.get_logger()

WAIT_HELPS_S = 30.0
"""A window that refills within this time is worth a Retry-After; a longer wait is a hard cap to a client."""
MAX_OWED = 100_000
MAX_FAMILIES = 10_000
"""Tasks whose place below others is remembered by this process."""
FIRST_WAIT_S, LAST_WAIT_S = 0.02, 0.25


@dataclass(slots=True)
class Owed:
    """A settlement that the store did not take. `unheld`: the call ran without a hold in the store, which has to be
    made first. `lent_nano`: how much of the open allowance it has used up until it is written."""

    reserve: Reserve
    settle: Settle
    unheld: bool
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
        except BaseException:
            self._alive.calls.discard(op.call_id)
            raise

    async def hold(self, op: Reserve) -> Granted | None:
        """Set money aside for no call, at once or not at all: None where it is refused or the store does not answer."""
        self._alive.calls.add(op.call_id)
        result: Result | None = None
        try:
            result = await self.budgets.apply(op)
            self._is_up()
        except LedgerUnavailable as error:
            self.is_down(error)
            self._unsure.append(op.call_id)
        if isinstance(result, Granted):
            return result
        self._alive.calls.discard(op.call_id)
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
        lent = min(self._lent.pop(op.call_id, 0), op.cost_nano)
        if self._unheld.pop(op.call_id, None) is not None:
            self._owe(Owed(reserve, op, unheld=True, lent_nano=op.cost_nano))
            self._alive.calls.discard(op.call_id)
            return None
        try:
            result = await self.budgets.apply(op)
        except LedgerUnavailable as error:
            self.is_down(error)
            self._owe(Owed(reserve, op, unheld=False, lent_nano=lent))
            self._alive.calls.discard(op.call_id)
            return None
        self._is_up()
        self._alive.ended(op)
        if isinstance(result, Lost):
            # The lease ran out while this process was asleep: the hold was charged for what it risked.
            self._metrics.reservations_lost.inc()
            log.warning("a reservation had expired before it was settled", call_id=op.call_id)
            return None
        assert isinstance(result, Settled)
        return result

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
                if owed.unheld:
                    await self._hold_for(owed.reserve)
                    owed.unheld = False  # the hold is there: nothing but its end may be asked for twice
                await self.budgets.apply(owed.settle)
                self._alive.ended(owed.settle)
                self._owed.popleft()
                self._owed_lent_nano -= owed.lent_nano
                self._metrics.ledger_owed.set(len(self._owed))
            while self._unsure:
                # A refused call, whose reservation may have been made before the store fell silent.
                refused = Settle(self._unsure[0], 0)
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

    async def _hold_for(self, reserve: Reserve) -> None:
        """A call without a hold gets one of nothing: no limit may refuse what is spent already."""
        claims = reserve.claims
        tasks = [claim.scope for claim in claims if is_task_scope(claim.scope)]
        for scope, balance in zip(tasks, await self.budgets.balances(tasks), strict=True):
            if balance is not None and balance.terms is not None:
                claims = below(claims, scope, balance.terms.above)
        forced = msgspec.structs.replace(
            reserve,
            owner=self.budgets.owner,
            claims=claims,
            need_nano=0,
            want_nano=0,
            risk_nano=0,
            share=1,
            forced=True,
        )
        await self.budgets.apply(forced)

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


def denial(denied: Denied, need_nano: int, now: dt.datetime) -> BursarError:
    """A store's denial of this need as an error: 402 for a hard cap, 429 only where a short wait helps."""
    kind, reset = scope_kind(denied.scope), ends_at(denied.scope)
    if denied.reason == "parallel":
        headers = {"retry-after": "1", **_rate_headers(denied), "x-bursar-scope": kind}
        return TooManyAtOnce("Too many requests run at a time; one of them has to end first.", headers=headers)
    if denied.reason != "budget":
        if reset is not None:
            return rate_error(denied, reset, now)
        return stopped_error(denied.reason, stopped_headers(denied))
    headers = scope_headers(denied.scope, denied.limit_nano, denied.spent_nano, denied.held_nano)
    if denied.contended and not denied.killed:
        return BudgetContended(
            "Other calls hold what is left of this budget at the moment.", headers={**headers, "retry-after": "1"}
        )
    wait_s = (reset - now).total_seconds() if reset else None
    if wait_s is not None and wait_s <= WAIT_HELPS_S:
        return BudgetContended(
            "This budget's window is used up; it begins anew shortly.",
            headers={**headers, "retry-after": _wait(wait_s)},
        )
    error = budget_error(kind, headers)
    error.final = denied.killed and kind == "task"
    error.lacking_nano = need_nano + denied.spent_nano - denied.limit_nano
    return error


def rate_error(denied: Denied, reset: dt.datetime, now: dt.datetime) -> RateLimited:
    """The denial by a limit of rate: the window's calls or tokens are used up until it begins anew."""
    headers = {
        "retry-after": _wait((reset - now).total_seconds()),
        **_rate_headers(denied),
        "x-bursar-reset": _iso(reset),
    }
    return RateLimited("The rate limit set for this client is reached; it lifts within a minute.", headers=headers)


def _rate_headers(denied: Denied) -> dict[str, str]:
    return {
        "x-bursar-reason": denied.reason,
        "x-bursar-scope": scope_word(denied.scope),
        "x-bursar-limit": str(denied.limit),
        "x-bursar-used": str(denied.used),
    }


def _wait(wait_s: float) -> str:
    """At least a second: the window may be over, for a call is counted in the one in which it began."""
    return str(max(math.ceil(wait_s), 1))


def _iso(time: dt.datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def stopped_headers(denied: Denied) -> dict[str, str]:
    """The limit of a task that is no money, and what is used of it: calls, tokens or seconds."""
    if denied.reason in ("frozen", "closed"):
        return {}
    unit = 1000 if denied.reason == "time" else 1
    return {"x-bursar-limit": _number(denied.limit / unit), "x-bursar-used": _number(denied.used / unit)}


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.3f}"


def scope_headers(scope: str, limit_nano: int, spent_nano: int, held_nano: int) -> dict[str, str]:
    """The amounts of one of the ledger's scopes."""
    return denial_headers(scope_kind(scope), window_of(scope), limit_nano, spent_nano, held_nano, ends_at(scope))


def denial_headers(
    kind: str, window: str | None, limit_nano: int, spent_nano: int, held_nano: int, reset: dt.datetime | None
) -> dict[str, str]:
    """The amounts, in headers, because numbers in a message make agents retry."""
    headers = {
        "x-bursar-reason": "budget",
        "x-bursar-scope": f"{kind}_{window}" if window else kind,
        "x-bursar-limit-usd": usd_text(limit_nano),
        "x-bursar-spent-usd": usd_text(spent_nano),
        "x-bursar-reserved-usd": usd_text(held_nano),
        "x-bursar-remaining-usd": usd_text(max(limit_nano - spent_nano - held_nano, 0)),
    }
    if reset is not None:
        headers["x-bursar-reset"] = _iso(reset)
    return headers


def call_denial(kind: str, need_nano: int, limit_nano: int, spent_nano: int) -> BursarError:
    """The denial of this need by a cap that is the call's own."""
    error = budget_error(kind, denial_headers(kind, None, limit_nano, spent_nano, 0, None))
    error.lacking_nano = need_nano + spent_nano - limit_nano
    return error
