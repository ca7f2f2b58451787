"""The money of one attempt: set aside, recorded as it runs, renewed, and settled exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable

import msgspec

from app.core.budget import Advance, Granted, Reserve, Result, Settle, Settled
from app.core.errors import BudgetContended, BudgetExceeded, LedgerDown
from app.core.landing import Approach
from app.core.meter import Meter
from app.core.money import tokens_cost
from app.core.policy import LedgerRules
from app.core.terms import tighter
from app.core.types import ChatRequest
from app.dialects.openai_chat.errors import stopped_error
from app.gateway.denials import call_denial, scope_headers
from app.gateway.ledger import BelowOthers, Ledger
from app.gateway.limits import Limits, below, is_task_scope
from app.gateway.plan import PLENTY, STEP_TOKENS, Plan, clamps, folded, landing_clamp, token_clamp
from app.stores.budgets import LedgerUnavailable

START_TOKENS = 32
"""What a metered stream needs for each choice to begin: little, so that many calls fit under one cap. A stream
that uses more than half of its window before the next one comes is given a larger one."""
STEP_AHEAD_TOKENS = 16
"""What a renewed hold must at least allow; where less is left, that is taken."""


class Purse:
    """`reserve` opens it, `settle` ends it. `allowance_nano` is how far the running cost may go without asking
    again (None: nothing to guard); it never passes what the ledger granted. `granted` and `settled` are the
    ledger's first and last word; `cut_headers` are the amounts at a cut, for a client that has no head yet.
    `tokens_left` and `ms_left` are what the task had left at the grant (None: no limit). `clamped_to_land`: the output
    limit is tighter than the cap itself would have it, for the task is to have another call (`core/landing.py`).
    `clamp_uses`: how often the provider may use its own tools, where the cap pays for less than the client allows."""

    __slots__ = (
        "_approach", "_dry", "_flush", "_flush_spent_nano", "_grant", "_guarded", "_ledger", "_read_nano",
        "_recorded_nano", "_reserve", "_rules", "_short_nano", "allowance_nano", "answered", "call_id",
        "charged_nano", "clamp_tokens", "clamp_uses", "clamped_by_tokens", "clamped_to_land", "closed",
        "counted_tokens", "cut_headers", "granted", "limits", "meter", "ms_left", "overrun", "plan", "settled",
        "tokens_left",
    )  # fmt: skip

    def __init__(
        self,
        ledger: Ledger,
        rules: LedgerRules,
        plan: Plan,
        limits: Limits,
        meter: Meter,
        call_id: str,
        approach: Approach | None = None,
    ) -> None:
        self.plan, self.limits, self.call_id = plan, limits, call_id
        self.meter, self._approach = meter, approach
        self.clamp_tokens: int | None = None
        self.clamp_uses: int | None = None
        self.allowance_nano: int | None = None
        self._short_nano: float = math.inf
        self.charged_nano = self.counted_tokens = 0
        self.granted: Granted | None = None
        self.settled: Settled | None = None
        self.closed = self.overrun = self._dry = False
        self.answered = False  # said where neither usage nor pieces tell it
        self.cut_headers: dict[str, str] = {}
        self._ledger, self._rules = ledger, rules
        self.tokens_left, self.ms_left = limits.call_tokens, limits.call_ms
        self.clamped_by_tokens = self.clamped_to_land = False
        self._reserve: Reserve | None = None
        self._grant = Granted(0, None, None)
        self._flush: asyncio.Future[Result] | None = None
        self._read_nano = meter.running_nano  # the input is none of a read
        self._flush_spent_nano = self._recorded_nano = 0
        self._guarded = meter.price is not None and bool(plan.output_rate or plan.uses is not None)

    async def reserve(self, request: ChatRequest | None, *, stopped: Callable[[], bool]) -> None:
        """Hold what the plan needs, before a byte goes upstream. A plain plan that finds no room is folded.

        Raises BudgetExceeded, BudgetContended or LedgerDown, and then holds nothing; nor does it after a defect.
        """
        limits, need_nano = self.limits, self.plan.need_nano
        if limits.call_nano is not None and need_nano > limits.call_nano:
            raise call_denial(limits.call_scope, need_nano, limits.call_cap_nano or 0, limits.call_used_nano)
        if self.tokens_left is not None and self.plan.input_tokens + self.plan.least_tokens > self.tokens_left:
            raise stopped_error("tokens")
        if self.ms_left is not None and self.ms_left <= 0:
            raise stopped_error("time")
        landing = None if self._approach is None or request is None else landing_clamp(self.plan, self._approach)
        if landing is not None and self.plan.folds:
            self.plan = folded(self.plan)  # as a stream, in which the end of a call can be told from its half
        try:
            await self._hold(wait=not self.plan.folds, stopped=stopped)
        except (BudgetExceeded, BudgetContended) as error:
            if not self.plan.folds or not (self.plan.output_rate or self.plan.uses) or error.final:
                raise
            self.plan = folded(self.plan)
            await self._hold(wait=True, stopped=stopped)
        try:
            limits = self.limits
            if self.plan.folds and self.plan.unbounded and self.capped:
                self.plan = folded(self.plan)  # by a cap that only the ledger knows, and nothing else bounds the reply
            if request is not None:
                self.clamp_tokens, self.clamp_uses = clamps(self.plan, request, limits, self._grant)
                clamped = self.clamp_tokens is not None or self.clamp_uses is not None
                if clamped and not self.plan.strict and self._grant.remaining_nano is not None:
                    # What others hold may come back: a clamp that ignored it would cut this call for good.
                    shared = await self._unheld_nano()
                    if shared is not None:
                        grant = msgspec.structs.replace(self._grant, remaining_nano=shared - self._grant.held_nano)
                        self.clamp_tokens, self.clamp_uses = clamps(self.plan, request, limits, grant)
                tokens = token_clamp(self.plan, request, self.tokens_left)
                if tokens is not None and (self.clamp_tokens is None or tokens < self.clamp_tokens):
                    self.clamp_tokens, self.clamped_by_tokens = tokens, True
                if landing is not None and (self.clamp_tokens is None or landing < self.clamp_tokens):
                    self.clamp_tokens, self.clamped_by_tokens, self.clamped_to_land = landing, False, True
        except BaseException:
            await self.settle(0)
            raise

    async def _hold(self, *, wait: bool, stopped: Callable[[], bool]) -> None:
        plan, ledger, least = self.plan, self._ledger, self.plan.need_nano
        need, want = (least, plan.want_nano) if plan.strict else map(plan.begun_nano, (START_TOKENS, STEP_TOKENS))
        op = Reserve(
            self.call_id, ledger.budgets.owner, self.limits.claims, need, want, plan.risk_nano, plan.start_share,
            time.time_ns() // 1_000_000, plan.input_tokens + plan.least_tokens, held_share=plan.held_share,
        )  # fmt: skip
        while True:
            try:
                self._grant = await ledger.reserve(op, self._rules, wait=wait, stopped=stopped)
                break
            except BelowOthers as moved:
                claims = below(op.claims, moved.scope, ledger.above(moved.scope))
                self.limits = msgspec.structs.replace(self.limits, claims=claims)
                op = msgspec.structs.replace(op, claims=claims)
            except BudgetExceeded as error:
                if op.need_nano == least or error.final:
                    raise
                # Less than a good start is left, and nobody else has it: then it is served with what there is.
                op = msgspec.structs.replace(op, need_nano=least)
        self.granted = self._grant
        self._reserve = op
        self.tokens_left = tighter(self.limits.call_tokens, self._grant.tokens_left)
        self.ms_left = tighter(self.limits.call_ms, self._grant.ms_left)
        self._allow(0, self._grant, plan.risk_nano)

    @property
    def capped(self) -> bool:
        """True where a cap in dollars binds this call, an amended one or that of a task above included."""
        grant = self._grant
        return self.limits.call_nano is not None or (grant.scope is not None and grant.remaining_nano is not None)

    @property
    def lands(self) -> bool:
        """True where the task is near its cap, and lands."""
        return self._approach is not None

    @property
    def left(self) -> tuple[int, str] | None:
        """What the tightest cap has left, and the ledger's scope that it is of, or the word for the call's own: once
        settled, beyond what all calls hold; until then when money was last set aside, this call's own hold included."""
        spent = self.charged_nano if self.closed else self.meter.running_nano
        call, settled, grant = self.limits.call_nano, self.settled, self._grant
        found = None if call is None else (max(call - spent, 0), self.limits.call_scope)
        if settled is not None and settled.remaining_nano is not None:
            shared_nano, scope = settled.remaining_nano, settled.scope
        elif grant.remaining_nano is not None:
            shared_nano, scope = grant.remaining_nano + grant.held_nano, grant.scope
        else:
            return found
        shared = (max(shared_nano, 0), scope or "")
        return shared if found is None or shared < found else found

    @property
    def remaining_nano(self) -> int | None:
        """What the tightest cap has left."""
        left = self.left
        return None if left is None else left[0]

    @property
    def binding_scope(self) -> str:
        """The ledger's scope that binds this call now, or the word for its own cap."""
        call, shared = self.limits.call_nano, self._shared_nano
        if shared is None or self._grant.scope is None:
            return self.limits.call_scope
        return self.limits.call_scope if call is not None and call <= shared else self._grant.scope

    @property
    def _shared_nano(self) -> int | None:
        """How far the running cost could go under the caps that others share, by the ledger's last word."""
        grant = self._grant
        if grant.remaining_nano is None:
            return None
        return self._recorded_nano + grant.held_nano + grant.remaining_nano

    async def payable_nano(self) -> int | None:
        """How far the caps pay for a call that is cut, whether that was set aside for it or not; None: all of it. What
        other calls hold is theirs."""
        call, left = self.limits.call_nano, self._grant.remaining_nano
        if left is not None and left > 0 and self.meter.running_nano > self._recorded_nano:
            with contextlib.suppress(LedgerUnavailable):  # others may have it by now
                while self._flush is not None:
                    await asyncio.wait({self._flush})
                await self.flush()
        return tighter(call, self._shared_nano)

    def runs_short(self, running_nano: int) -> bool:
        """True when it is time to write, before the stream has to wait."""
        return running_nano >= self._short_nano and self._flush is None and not self._dry

    @property
    def unrecorded(self) -> bool:
        """True when the ledger does not know the running cost yet, and no write is under way."""
        idle = self._guarded and self._flush is None and not self.closed
        return idle and self.meter.running_nano > self._recorded_nano

    def flush(self) -> asyncio.Future[Result]:
        """Write the running cost without waiting for the answer; one write is under way at a time."""
        self._flush_spent_nano = self.meter.running_nano
        written = self._flush = self._ledger.advance(self._advance())
        written.add_done_callback(self._flushed)
        return written

    def _advance(self) -> Advance:
        plan, running = self.plan, self.meter.running_nano
        step = plan.step_nano
        if plan.strict:
            ahead = plan.want_nano - running if plan.want_nano > running else step
        elif self._plenty(step):
            ahead = step
        else:  # twice what the last one was used for: a fast stream asks for more, and not more often
            start = tokens_cost(START_TOKENS * plan.choices, plan.output_rate)
            ahead = min(max(2 * (running - self._recorded_nano), start), step)
        if self.limits.call_nano is not None:
            ahead = min(ahead, max(self.limits.call_nano - running, 0))
        # What is held and not used yet is kept, also where there is no more.
        kept = max((self.allowance_nano or 0) - running, tokens_cost(STEP_AHEAD_TOKENS, plan.output_rate))
        need = min(kept, ahead)
        risk = ahead if plan.strict else step
        return Advance(self.call_id, running, need, ahead, risk, plan.share, plan.strict)

    def _plenty(self, step_nano: int) -> bool:
        """Whether a whole step is so little of what is left that it stands in nobody's way."""
        left = self._grant.remaining_nano
        return left is None or left >= PLENTY * step_nano

    def _flushed(self, future: asyncio.Future[Result]) -> None:
        self._flush = None
        if future.cancelled() or future.exception() is not None:
            return  # the allowance stays as it was: the call may spend what it holds, and no more
        result = future.result()
        if isinstance(result, Granted):
            self._grant = result
            plan, before = self.plan, self.allowance_nano
            risk = result.held_nano if plan.strict else plan.step_nano
            self._allow(self._flush_spent_nano, result, risk)
            # Not grown for want of room, and not because a share of the room is less than what is kept.
            used_up = result.remaining_nano is not None and result.remaining_nano <= 0
            self._dry = used_up and before is not None and (self.allowance_nano or 0) <= before
        else:
            self._may_spend(self._recorded_nano)  # the hold is gone: nothing more may be spent

    def _allow(self, recorded_nano: int, grant: Granted, risk_nano: int) -> None:
        self._recorded_nano = recorded_nano
        if self._guarded:
            self._may_spend(recorded_nano + min(grant.held_nano, risk_nano))

    def _may_spend(self, allowance_nano: int) -> None:
        """Up to there. More is asked for when half of what that allows is used, of a whole step three quarters: what
        is left of a step lasts longer than a write, and as a rule till all calls are written together."""
        call = self.limits.call_nano
        self.allowance_nano = allowance_nano if call is None else min(allowance_nano, call)
        began = max(self._recorded_nano, self.plan.input_nano)  # the input is spent at once
        window = self.allowance_nano - began
        self._short_nano = began + (-(-3 * window // 4) if window >= self.plan.step_nano else -(-window // 2))

    async def extend(self, *, ended: bool = False) -> bool:
        """Ask for more until the running cost fits; False where there is no more to have now: nothing for the next
        event, unless the stream has `ended`.

        It does not wait for what other calls hold: the provider goes on generating meanwhile, and bills that. Raises
        LedgerDown where the ledger does not answer, or knows no such hold.
        """
        running, call = self.meter.running_nano, self.limits.call_nano
        if call is not None and running + (not ended) > call:
            return False
        if self._dry and not self._grant.contended and self._flush is None and not self._fits(running, ended):
            return False  # said before: asking again would only let the provider generate more
        while self._flush is not None:  # it knows less than the present cost; its answer may do all the same
            await asyncio.wait({self._flush})
        if self._fits(running, ended):
            return True
        try:
            result = await self.flush()
        except LedgerUnavailable:
            self._borrow(running)
            return True
        if not isinstance(result, Granted):
            raise LedgerDown("The reservation of this call has expired, so nothing more may be spent.")
        return self._fits(running, ended)

    def _fits(self, running: int, ended: bool) -> bool:
        if self.allowance_nano is None:
            return True
        shared = self._shared_nano
        more = self._grant.held_nano > 0 or (ended and (shared is None or running <= shared))
        return more and running <= self.allowance_nano

    def overruns(self, running_nano: int) -> bool:
        """Called after each read: True when this call is out of tokens, or no more money is to be had and another read
        like this one would pass the allowance, where no limit keeps it within. A busy gateway reads more at a time."""
        read_nano, self._read_nano = running_nano - self._read_nano, running_nano
        if self.tokens_left is not None and self.out_of_tokens:
            return True
        if not self._dry or self.allowance_nano is None or self._grant.contended:
            return False
        if running_nano + read_nano <= self.allowance_nano:
            return False
        plan = self.plan
        worst = plan.worst_tokens if self.clamp_tokens is None else self.clamp_tokens * plan.choices
        short = worst is None or plan.input_nano + tokens_cost(worst, plan.output_rate) > self.allowance_nano
        return short or plan.uses is not None

    def _borrow(self, running: int) -> None:
        """Go on without the ledger, where the policy allows it and its allowance lasts. Raises LedgerDown."""
        advance = self._advance()
        over = max(running - (self.allowance_nano or 0), 0)
        lent = self._ledger.lend(self.call_id, over + advance.need_nano, over + advance.want_nano, self._rules)
        self._may_spend(running - over + lent)

    async def settle(self, cost_nano: int, *, killed: str | None = None) -> None:
        """Charge `cost_nano` in all and give back the rest; a second call does nothing. Never raises.

        `killed` names the ledger's scope that cut the call; a task's is closed by it, unless there is more to be had
        by now or other calls hold what is left of it.
        """
        if self.closed or self._reserve is None:
            return
        self.charged_nano = cost_nano
        scopes = () if killed is None else await self._cut_by(killed)
        self.closed = True  # only now: had that failed, the attempt's last resort must still find it open
        if cost_nano or self.answered or self.meter.pieces or self.meter.usage is not None:
            self.counted_tokens = self.used_tokens
        op = Settle(self.call_id, cost_nano, scopes, self.counted_tokens, self._reserve.need_tokens)
        self.settled = await self._ledger.settle(self._reserve, op)

    @property
    def used_tokens(self) -> int:
        """Input and output so far, estimated or exact; nothing of a call that never came to anything is counted."""
        meter = self.meter
        return (meter.usage.input if meter.usage is not None else meter.input_tokens) + meter.output_tokens

    @property
    def out_of_tokens(self) -> bool:
        """True when this call has used more than its task had left: one metering step past the cap."""
        return self.tokens_left is not None and self.used_tokens > self.tokens_left

    async def _cut_by(self, scope: str) -> tuple[str, ...]:
        """Note the amounts for the client; the scopes to close: none where more is to be had, or may come back."""
        limits, charged = self.limits, self.charged_nano
        if scope == limits.call_scope:
            self.cut_headers = scope_headers(scope, limits.call_cap_nano or 0, limits.call_used_nano + charged, 0)
            return ()
        found = (scope,) if is_task_scope(scope) else ()
        try:
            (balance,) = await self._ledger.budgets.balances([scope])
        except LedgerUnavailable:  # its last word has to do
            return () if self._grant.contended else found
        limit = balance.effective_limit_nano if balance is not None else None
        if balance is None or limit is None:
            return found
        spent = balance.spent_nano - self._recorded_nano + charged
        others_nano = max(balance.held_nano - self._grant.held_nano, 0)
        self.cut_headers = scope_headers(scope, limit, spent, others_nano)
        raised = (balance.room_nano or 0) >= tokens_cost(STEP_AHEAD_TOKENS, self.plan.output_rate) > 0
        return found if spent >= limit or not (others_nano or raised) else ()

    async def _unheld_nano(self) -> int | None:
        """What this call could have if all others gave back what they hold; None where no scope has a limit."""
        try:
            found = await self._ledger.budgets.balances([claim.scope for claim in self.limits.claims])
        except LedgerUnavailable:
            return None
        rooms = [b.room_nano + b.held_nano for b in found if b is not None and b.room_nano is not None]
        return min(rooms) if rooms else None

    def conservative_nano(self, *, goes_on: bool) -> int:
        """What a provider may still charge after a cancel: all that this call was allowed to spend; unless it
        `goes_on`, uses of its tools that were not seen are left out, but one."""
        held_nano, uses = self._recorded_nano + self._grant.held_nano, self.plan.uses
        if uses is not None and self.plan.strict and not goes_on:
            allowed_nano = uses.cost_nano(uses.wanted if self.clamp_uses is None else self.clamp_uses)
            held_nano -= max(allowed_nano - self.meter.ran_nano - uses.dearest_nano, 0)
        return max(self.meter.running_nano, held_nano)
