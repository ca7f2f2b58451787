"""The money of one attempt: set aside, recorded as it runs, renewed, and settled exactly once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from app.core.budget import Advance, Granted, Reserve, Result, Settle, Settled
from app.core.errors import BudgetContended, BudgetExceeded, LedgerDown
from app.core.meter import Meter
from app.core.money import tokens_cost
from app.core.policy import LedgerRules
from app.core.types import ChatRequest
from app.gateway.ledger import FIRST_WAIT_S, LAST_WAIT_S, Ledger, call_denial
from app.gateway.limits import Limits, is_task_scope
from app.gateway.plan import STEP_TOKENS, Mode, Plan, clamp_tokens, folded
from app.stores.budgets import LedgerUnavailable

STEP_AHEAD_TOKENS = 16
"""What a renewed hold must at least allow; where less is left, that is taken."""
STREAM_WAIT_S = 0.25
"""How long a stream waits for money that other calls hold: what the provider generates meanwhile is billed."""


class Purse:
    """`reserve` opens it, `settle` ends it. `allowance_nano` is how far the running cost may go without asking
    again (None: nothing to guard); it never passes what the ledger granted. `granted` and `settled` are the
    ledger's first and last word."""

    def __init__(
        self, ledger: Ledger, rules: LedgerRules, plan: Plan, limits: Limits, meter: Meter, call_id: str
    ) -> None:
        self.plan = plan
        self.limits = limits
        self.meter = meter
        self.call_id = call_id
        self.clamp_tokens: int | None = None
        self.allowance_nano: int | None = None
        self.charged_nano = 0
        self.granted: Granted | None = None
        self.settled: Settled | None = None
        self.closed = False
        self.contended = False
        self._ledger = ledger
        self._rules = rules
        self._reserve: Reserve | None = None
        self._grant = Granted(0, None, None)
        self._flush: asyncio.Future[Result] | None = None
        self._flush_spent_nano = 0
        self._recorded_nano = 0
        self._guarded = meter.price is not None and bool(plan.output_rate)

    async def reserve(self, request: ChatRequest | None, *, stopped: Callable[[], bool]) -> None:
        """Hold what the plan needs, before a byte goes upstream. A plain plan that finds no room is folded.

        Raises BudgetExceeded, BudgetContended or LedgerDown, and then holds nothing.
        """
        limits = self.limits
        if limits.call_nano is not None and self.plan.need_nano > limits.call_nano:
            raise call_denial(limits.call_scope, limits.call_nano, 0)
        try:
            await self._hold(wait=self.plan.mode is not Mode.PLAIN, stopped=stopped)
        except (BudgetExceeded, BudgetContended):
            if self.plan.mode is not Mode.PLAIN or not self.plan.output_rate:
                raise
            self.plan = folded(self.plan)
            await self._hold(wait=True, stopped=stopped)
        if request is not None:
            self.clamp_tokens = clamp_tokens(self.plan, request, limits, self._grant)

    async def _hold(self, *, wait: bool, stopped: Callable[[], bool]) -> None:
        plan, owner = self.plan, self._ledger.budgets.owner
        op = Reserve(
            self.call_id, owner, self.limits.claims, plan.need_nano, plan.want_nano, plan.risk_nano, plan.share
        )
        self._grant = self.granted = await self._ledger.reserve(op, self._rules, wait=wait, stopped=stopped)
        self._reserve = op
        self._allow(0, self._grant, plan.risk_nano)

    @property
    def remaining_nano(self) -> int | None:
        """What the tightest cap has left: once settled, beyond what all calls hold; until then when money was last
        set aside, this call's own hold included."""
        spent = self.charged_nano if self.closed else self.meter.running_nano
        left = [] if self.limits.call_nano is None else [max(self.limits.call_nano - spent, 0)]
        if self.settled is not None and self.settled.remaining_nano is not None:
            left.append(max(self.settled.remaining_nano, 0))
        elif self._grant.remaining_nano is not None:
            left.append(max(self._grant.remaining_nano + self._grant.held_nano, 0))
        return min(left) if left else None

    @property
    def binding_scope(self) -> str:
        """The ledger's scope that binds this call now, or the word for its own cap."""
        call, grant = self.limits.call_nano, self._grant
        if grant.remaining_nano is None or grant.scope is None:
            return self.limits.call_scope
        shared = self._recorded_nano + grant.held_nano + max(grant.remaining_nano, 0)
        return self.limits.call_scope if call is not None and call <= shared else grant.scope

    @property
    def running_short(self) -> bool:
        """True when half of what may be spent unrecorded is used: time to write, before the stream has to wait."""
        if self._flush is not None or not self._guarded:
            return False
        recorded = self._recorded_nano
        return 2 * (self.meter.running_nano - recorded) >= (self.allowance_nano or 0) - recorded

    @property
    def unrecorded(self) -> bool:
        """True when the ledger does not know the running cost yet, and no write is under way."""
        idle = self._guarded and self._flush is None and not self.closed
        return idle and self.meter.running_nano > self._recorded_nano

    def flush(self) -> None:
        """Write the running cost without waiting for the answer; one write is under way at a time."""
        self._flush_spent_nano = self.meter.running_nano
        self._flush = self._ledger.advance(self._advance())
        self._flush.add_done_callback(self._flushed)

    def _advance(self) -> Advance:
        plan, running = self.plan, self.meter.running_nano
        ahead = max(plan.want_nano - running, tokens_cost(STEP_TOKENS, plan.output_rate))
        if self.limits.call_nano is not None:
            ahead = min(ahead, max(self.limits.call_nano - running, 0))
        need = min(tokens_cost(STEP_AHEAD_TOKENS, plan.output_rate), ahead)
        risk = ahead if plan.strict else tokens_cost(STEP_TOKENS, plan.output_rate)
        return Advance(self.call_id, running, need, ahead, risk, plan.share)

    def _flushed(self, future: asyncio.Future[Result]) -> None:
        self._flush = None
        if future.cancelled() or future.exception() is not None:
            return  # the allowance stays as it was: the call may spend what it holds, and no more
        result = future.result()
        if isinstance(result, Granted):
            self._grant = result
            plan = self.plan
            risk = result.held_nano if plan.strict else tokens_cost(STEP_TOKENS, plan.output_rate)
            self._allow(self._flush_spent_nano, result, risk)
        else:
            self.allowance_nano = self._recorded_nano  # the hold is gone: nothing more may be spent

    def _allow(self, recorded_nano: int, grant: Granted, risk_nano: int) -> None:
        self._recorded_nano = recorded_nano
        if self._guarded:
            allowance = recorded_nano + min(grant.held_nano, risk_nano)
            call = self.limits.call_nano
            self.allowance_nano = allowance if call is None else min(allowance, call)

    async def extend(self, stopped: Callable[[], bool]) -> bool:
        """Ask for more until the running cost fits; False where there is no more to have.

        Waits a moment while other calls' holds are in the way (`contended` says so afterwards), but not for long: the
        provider goes on generating. Raises LedgerDown where the ledger does not answer, or knows no such hold.
        """
        loop = asyncio.get_running_loop()
        give_up, pause = loop.time() + min(self._rules.contention_wait_s, STREAM_WAIT_S), FIRST_WAIT_S
        call = self.limits.call_nano
        while True:
            running = self.meter.running_nano
            if call is not None and running >= call:
                return False
            stale = self._flush is not None  # a write under way knows less than the present cost
            if not stale:
                self.flush()
            assert self._flush is not None
            try:
                result = await self._flush
            except LedgerUnavailable:
                self._borrow(running)
                return True
            if not isinstance(result, Granted):
                raise LedgerDown("The reservation of this call has expired, so nothing more may be spent.")
            fits = self.allowance_nano is None or (running <= self.allowance_nano and result.held_nano > 0)
            self.contended = result.contended and not fits
            if fits:
                return True
            if stale:
                continue
            if not result.contended or stopped() or loop.time() + pause > give_up:
                return False
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  (jitter, not a secret)
            pause = min(pause * 2, LAST_WAIT_S)

    def _borrow(self, running: int) -> None:
        """Go on without the ledger, where the policy allows it and its allowance lasts. Raises LedgerDown."""
        advance, call = self._advance(), self.limits.call_nano
        over = max(running - (self.allowance_nano or 0), 0)
        lent = self._ledger.lend(self.call_id, over + advance.need_nano, over + advance.want_nano, self._rules)
        allowance = running - over + lent
        self.allowance_nano = allowance if call is None else min(allowance, call)

    async def settle(self, cost_nano: int, *, killed: str | None = None) -> None:
        """Charge `cost_nano` in all and give back the rest; a second call does nothing. Never raises.

        `killed` names the ledger's scope that cut the call; a task's is closed by it, unless other calls hold what
        is left of it.
        """
        if self.closed or self._reserve is None:
            return
        self.closed = True
        self.charged_nano = cost_nano
        closes = killed is not None and is_task_scope(killed) and not await self._still_contended()
        scopes = (killed,) if killed is not None and closes else ()
        self.settled = await self._ledger.settle(self._reserve, Settle(self.call_id, cost_nano, scopes))

    async def _still_contended(self) -> bool:
        """Whether there would be room but for other calls' holds, now that all that was generated is counted."""
        if not self.contended:
            return False
        try:
            result = await (self._flush or self._ledger.advance(self._advance()))
        except LedgerUnavailable:
            return True
        return isinstance(result, Granted) and result.contended

    def conservative_nano(self) -> int:
        """What a provider that bills after a cancel may still charge: all that this call was allowed to spend."""
        return max(self.meter.running_nano, self._recorded_nano + self._grant.held_nano)
