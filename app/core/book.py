"""The rules of the purse, pure: what the verbs of `core/budget.py` do to balances per scope and holds per call.

`Book` is the reference for every store: the SQLite store persists one, the Redis store's Lua script mirrors
one, and a single contract suite runs over both.

Invariants (property-tested): for each scope with a limit, a grant never makes spent + held pass the
limit; `held` of a scope is the sum of its holds and `running` how many there are; a hold ends exactly once; a call
whose hold has expired, or whose Reserve was not answered, is charged what it is settled for, once; every amount is
>= 0.

A task has limits besides money (`core/terms.py`). Calls are counted when they are granted. Tokens are counted when a
call settles, and bounded before that by what was left at its grant: one call passes a task's limit by no more than a
metering step, and N calls at a time by no more than N times what was left when they began. A call whose process died
is charged, but its tokens are not known. A window's limits of this kind only say who may begin (`TaskCaps.at_entry`):
there `need_tokens` are counted at the grant, for a call may end when its window is over, and made good when it settles.
Calls at a time are a limit of any scope: where so many run, a grant waits for one of them to end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from app.core.amend import Amend, Amended, carry_out, why_not
from app.core.budget import (
    Advance,
    Balance,
    Claim,
    Denied,
    Ended,
    Granted,
    Hold,
    Lost,
    Moved,
    Op,
    Reserve,
    Result,
    Settle,
    Settled,
)
from app.core.terms import Refusal, Terms, claimed, tighter

OUT_OF_MONEY = Refusal("budget")


@dataclass(slots=True)
class Book:
    """Balances and holds in memory, with the verbs. Not thread-safe; a store serialises access."""

    balances: dict[str, Balance] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    ended: dict[str, Ended] = field(default_factory=dict)

    def apply(self, op: Op) -> Result:
        """Carry out one verb; never raises for a money reason."""
        if type(op) is Advance:
            return self._advance(op)
        if type(op) is Settle:
            return self._settle(op)
        if type(op) is Amend:
            return self._amend(op)
        assert type(op) is Reserve
        return self._reserve(op)

    def expire(self, call_id: str) -> int | None:
        """End an abandoned hold, charging its recorded spending plus its risk; the charge, or None."""
        hold = self.holds.get(call_id)
        if hold is None:
            return None
        charge = hold.spent_nano + min(hold.held_nano, hold.risk_nano)
        self._settle(Settle(call_id, charge))
        self.ended[call_id] = Ended(call_id, hold.scopes, charge, settled=False)
        return charge

    def _reserve(self, op: Reserve) -> Result:
        if op.call_id in self.holds:
            return self._granted(self.holds[op.call_id], now_ms=op.now_ms)
        if op.call_id in self.ended:
            return Lost(op.call_id)
        scopes = [self._claimed(claim) for claim in op.claims]
        names = tuple([claim.scope for claim in op.claims])
        tightest, room, crowded, has_terms = "", None, None, False
        for scope, balance in zip(names, scopes, strict=True):
            if balance.killed_at_nano is not None and balance.exhausted:
                return self._denied(scope, balance, contended=False, killed=True)
            if balance.terms is not None:
                has_terms = True
                refused = self._refused(op, names, scope, balance, balance.terms)
                if refused is not None:
                    return refused
            limit = balance.limit_nano if balance.own_limit_nano is None else balance.effective_limit_nano
            if limit is not None:
                unspent_nano, held_nano = limit - balance.spent_nano, balance.held_nano
                if room is None or unspent_nano - held_nano < room:
                    tightest, room = scope, unspent_nano - held_nano
                if (
                    op.held_share
                    and crowded is None
                    and held_nano + op.need_nano > max(unspent_nano, 0) // op.held_share
                ):
                    crowded = scope
        if room is not None and room < op.need_nano:
            balance = self.balances[tightest]
            contended = all(_would_fit(op.need_nano, b) for b in scopes)
            return self._denied(tightest, balance, contended=contended, killed=False)
        if crowded is not None:
            balance = self.balances[crowded]  # all holds, with this one, would be more than their share of it
            return self._denied(crowded, balance, contended=balance.held_nano > 0, killed=False)
        if has_terms:
            full = self._full(names)
            if full is not None:
                return full
        held = op.want_nano if room is None else max(op.need_nano, min(op.want_nano, room // op.share))
        now_ms = op.now_ms
        for balance in scopes:
            balance.held_nano += held
            balance.calls += 1
            balance.running += 1
            if not balance.began_ms:
                balance.began_ms = now_ms
        hold = self.holds[op.call_id] = Hold(op.call_id, op.owner, names, 0, held, op.risk_nano)
        if has_terms:
            for balance in scopes:
                if balance.terms is not None and balance.terms.at_entry:
                    balance.tokens += op.need_tokens
            return self._granted(hold, now_ms=op.now_ms)
        # Every scope holds the same more, so the tightest is the tightest still.
        step, left = scopes[0].calls if scopes else 0, None if room is None else room - held
        return Granted(held, left, tightest if room is not None else None, step=step)

    def _refused(
        self, op: Reserve, names: tuple[str, ...], scope: str, balance: Balance, terms: Terms
    ) -> Result | None:
        if not set(terms.above).issubset(names):
            return Moved(scope, terms.above)
        refusal = terms.refusal(balance.calls, balance.tokens, balance.age_ms(op.now_ms), op.need_tokens)
        return None if refusal is None else self._denied(scope, balance, contended=False, killed=False, why=refusal)

    def _full(self, names: tuple[str, ...]) -> Denied | None:
        """The denial by a scope in which as many calls run as may, asked last: it is the one that waiting helps."""
        for scope in names:
            balance = self.balances[scope]
            most = None if balance.terms is None else balance.terms.max_parallel
            if most is not None and balance.running >= most:
                why = Refusal("parallel", most, balance.running)
                return self._denied(scope, balance, contended=True, killed=False, why=why)
        return None

    def _advance(self, op: Advance) -> Result:
        hold = self.holds.get(op.call_id)
        if hold is None:
            return Lost(op.call_id)
        delta, before = max(op.spent_nano - hold.spent_nano, 0), hold.held_nano
        scopes = [self.balances[scope] for scope in hold.scopes]
        room, exhausted = None, False
        for balance in scopes:
            balance.spent_nano += delta
            balance.held_nano -= before
            if balance.limit_nano is None and balance.own_limit_nano is None:
                continue  # the common case, seen without a call
            left = balance.room_nano
            if left is not None and (room is None or left < room):
                room = left
            exhausted = exhausted or (balance.killed_at_nano is not None and balance.exhausted)
        hold.spent_nano += delta
        if exhausted:
            held = 0
        elif room is not None:
            room = max(room, 0)
            held = max(min(op.want_nano, room // op.share), min(op.need_nano, room))
        else:
            held = op.want_nano
        if op.strict:
            held = max(held, before - delta)
        hold.held_nano, hold.risk_nano = held, op.risk_nano
        for balance in scopes:
            balance.held_nano += held
        contended = held < op.need_nano and not exhausted and all(_would_fit(op.need_nano, b) for b in scopes)
        return self._granted(hold, contended=contended)

    def _settle(self, op: Settle) -> Result:
        hold = self.holds.pop(op.call_id, None)
        if hold is None:
            return self._settle_late(op)
        if op.claims is not None:
            self.ended[op.call_id] = Ended(op.call_id, hold.scopes, op.cost_nano, settled=True)
        charge_nano, held_nano, tightest, room = op.cost_nano - hold.spent_nano, hold.held_nano, None, None
        for scope in hold.scopes:
            balance = self.balances[scope]
            balance.spent_nano = spent_nano = balance.spent_nano + charge_nano
            balance.held_nano = others_nano = balance.held_nano - held_nano
            balance.tokens += op.tokens
            if balance.terms is not None and balance.terms.at_entry:
                balance.tokens = max(balance.tokens - op.begun_tokens, 0)
            if balance.running:  # else its hold was made by a version that did not count
                balance.running -= 1
            limit = balance.limit_nano if balance.own_limit_nano is None else balance.effective_limit_nano
            if limit is not None and (room is None or limit - spent_nano - others_nano < room):
                tightest, room = scope, limit - spent_nano - others_nano
        if op.killed_scopes:
            self._kill(op.killed_scopes, hold.scopes)
        return Settled(op.cost_nano, max(held_nano - charge_nano, 0), room, tightest)

    def _settle_late(self, op: Settle) -> Result:
        """Of a call without a hold: one that expired is charged right, one that never had any is charged."""
        ended = self.ended.get(op.call_id)
        before, lapsed = 0, ended is not None and not ended.settled
        if ended is None:
            if op.claims is None:
                return Lost(op.call_id)
            names, balances = tuple([claim.scope for claim in op.claims]), [self._claimed(claim) for claim in op.claims]
            for scope, balance in zip(names, balances, strict=True):
                if balance.terms is not None and not set(balance.terms.above).issubset(names):
                    return Moved(scope, balance.terms.above)
            for balance in balances:
                balance.calls += 1
                balance.began_ms = balance.began_ms or op.now_ms
            ended = Ended(op.call_id, names, 0, settled=False)
        if not ended.settled:
            before, ended = ended.charged_nano, Ended(op.call_id, ended.scopes, op.cost_nano, settled=True)
            self.ended[op.call_id] = ended
            for scope in ended.scopes:
                balance = self.balances[scope]
                balance.spent_nano += op.cost_nano - before
                balance.tokens += op.tokens
                if lapsed and balance.terms is not None and balance.terms.at_entry:
                    balance.tokens = max(balance.tokens - op.begun_tokens, 0)
            self._kill(op.killed_scopes, ended.scopes)
        scope, room = self._tightest(ended.scopes)
        return Settled(ended.charged_nano, max(before - ended.charged_nano, 0), room, scope or None, lapsed)

    def _kill(self, killed: tuple[str, ...], scopes: tuple[str, ...]) -> None:
        for scope in killed:
            if scope in scopes:
                balance = self.balances[scope]
                if balance.killed_at_nano is None:
                    balance.killed_at_nano = balance.spent_nano
                balance.killed_limit_nano = balance.effective_limit_nano

    def _amend(self, op: Amend) -> Amended:
        if op.caps is not None:
            self._claimed(Claim(op.scope, op.policy_nano, None, op.caps))
        balance = self.balances.setdefault(op.scope, Balance())
        parent = None if op.parent is None else self.balances.setdefault(op.parent, Balance())
        refused = why_not(op, balance, parent)
        if refused is None:
            carry_out(op, balance, parent)
        return Amended(op.scope, refused, () if balance.terms is None else balance.terms.above)

    def _claimed(self, claim: Claim) -> Balance:
        balance = self.balances.get(claim.scope)
        if balance is None:
            balance = self.balances[claim.scope] = Balance()
        balance.limit_nano = claim.limit_nano
        if claim.own_limit_nano is not None:
            balance.own_limit_nano = claim.own_limit_nano
        if claim.caps is not None or balance.terms is not None:
            balance.terms = terms = claimed(balance.terms, claim.caps)
            if terms is not None and terms.set_nano is not None:
                balance.limit_nano = terms.set_nano
        return balance

    def _tightest(self, scopes: tuple[str, ...]) -> tuple[str, int | None]:
        tightest, least = "", None
        for scope in scopes:
            balance = self.balances[scope]
            limit = balance.limit_nano if balance.own_limit_nano is None else balance.effective_limit_nano
            if limit is None:
                continue
            room = limit - balance.spent_nano - balance.held_nano  # `room_nano`: every scope of every verb is asked
            if least is None or room < least:
                tightest, least = scope, room
        return tightest, least

    def _granted(self, hold: Hold, *, contended: bool = False, now_ms: int = 0) -> Granted:
        tightest, room = self._tightest(hold.scopes)
        tokens, ms = None, None
        for scope in hold.scopes:
            balance = self.balances[scope]
            if balance.terms is not None and not balance.terms.at_entry:
                max_tokens, max_ms = balance.terms.max_tokens, balance.terms.max_ms
                tokens = tokens if max_tokens is None else tighter(tokens, max(max_tokens - balance.tokens, 0))
                ms = ms if max_ms is None else tighter(ms, max(max_ms - balance.age_ms(now_ms), 0))
        step = self.balances[hold.scopes[0]].calls if hold.scopes else 0
        return Granted(hold.held_nano, room, tightest if room is not None else None, contended, tokens, ms, step)

    def _denied(
        self, scope: str, balance: Balance, *, contended: bool, killed: bool, why: Refusal = OUT_OF_MONEY
    ) -> Denied:
        limit, spent, held = balance.effective_limit_nano, balance.spent_nano, balance.held_nano
        return Denied(scope, limit or 0, spent, held, contended, killed, why.reason, why.limit, why.used)


def _would_fit(need_nano: int, balance: Balance) -> bool:
    """Once all holds are given back; else waiting helps nobody."""
    room = balance.room_nano
    return room is None or room + balance.held_nano >= need_nano
