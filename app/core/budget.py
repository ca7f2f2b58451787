"""What a ledger is told and what it answers: the verbs, their results, and the state of a scope and of a call. Pure.

A *scope* is anything with a limit (a task, a task's spending on one model, a key's day, the global
month). A *hold* is the money one call has set aside in all of its scopes at once. The rules are in `core/book.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from app.core.amend import Amend, Amended
from app.core.terms import Reason, TaskCaps, Terms


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """One scope a call draws on. `limit_nano` is the policy's (None: count only); `own_limit_nano` is a
    lower one set by the client, remembered by the scope until the client sets another; `caps` its other limits."""

    scope: str
    limit_nano: int | None = None
    own_limit_nano: int | None = None
    caps: TaskCaps | None = None


class Reserve(msgspec.Struct, frozen=True, omit_defaults=True, tag="reserve"):
    """Set money aside: at least `need_nano`, at most `want_nano`, in the scopes of `claims`, each named once.

    With `share` > 1 no more than 1/share of the room is taken beyond the need, so that many
    concurrent calls fit under one cap; 1 takes all it wants. `risk_nano` bounds what the call can
    spend before its next verb: it is what an expired hold is charged beyond its recorded spending.
    `now_ms` is the wall clock (0: unknown, no time passes); `need_tokens` what the call uses at the least.
    With `held_share` > 0 it is granted only where the need and all holds together are at most 1/held_share of what a
    scope has not spent.
    """

    call_id: str
    owner: str
    claims: tuple[Claim, ...]
    need_nano: int
    want_nano: int
    risk_nano: int
    share: int = 1
    now_ms: int = 0
    need_tokens: int = 0
    held_share: int = 0


class Advance(msgspec.Struct, frozen=True, omit_defaults=True, tag="advance"):
    """Record the running cost so far (a total, never falling) and renew the hold for what comes next. `strict`: what is
    held may be spent by now, unseen, so nothing of it is taken back, whatever the limits have become."""

    call_id: str
    spent_nano: int
    need_nano: int
    want_nano: int
    risk_nano: int
    share: int = 1
    strict: bool = False


class Settle(msgspec.Struct, frozen=True, omit_defaults=True, tag="settle"):
    """End the hold: charge `cost_nano` in all, refund the rest, count `tokens` (input and output), of which
    `begun_tokens` were counted at the grant where limits are such of the entry. `killed_scopes` are marked as
    cost-killed. A hold that has expired by now is charged this in place of what it was then.

    With `claims` the Reserve of this call, of `now_ms`, was not answered: where there is no hold, nor was one, these
    are charged, whatever their limits. The store remembers it, so that such a call is charged once, however often this
    is sent, and holds nothing if its Reserve is carried out afterwards. No claims: the call was refused."""

    call_id: str
    cost_nano: int
    killed_scopes: tuple[str, ...] = ()
    tokens: int = 0
    begun_tokens: int = 0
    claims: tuple[Claim, ...] | None = None
    now_ms: int = 0


Op = Reserve | Advance | Settle | Amend


class Granted(msgspec.Struct, frozen=True, tag="granted"):
    """The hold now is `held_nano` beyond what is spent. `remaining_nano` is what the tightest scope has
    left beyond all holds (None: no limit applies); `scope` names it. `contended` says that more room would be there
    if other holds were given back. `tokens_left` and `ms_left` are the least that a task of the call had left when
    it was granted. `step`: how many calls the first scope (of a task's call: the task) has seen, this one included."""

    held_nano: int
    remaining_nano: int | None
    scope: str | None
    contended: bool = False
    tokens_left: int | None = None
    ms_left: int | None = None
    step: int = 0


class Denied(msgspec.Struct, frozen=True, tag="denied"):
    """Nothing was set aside. `scope` is the tightest; `contended`: other calls' holds are in the way, waiting
    helps; `killed`: the scope was cut before and its limit has not been raised since. For a `reason` other than
    budget, `limit` and `used` are in its own unit (time: ms)."""

    scope: str
    limit_nano: int
    spent_nano: int
    held_nano: int
    contended: bool
    killed: bool
    reason: Reason = "budget"
    limit: int = 0
    used: int = 0


class Moved(msgspec.Struct, frozen=True, tag="moved"):
    """Nothing was set aside or charged: the task `scope` hangs below others, and the call must claim on all of them."""

    scope: str
    above: tuple[str, ...]


class Settled(msgspec.Struct, frozen=True, tag="settled"):
    """The hold has ended. `remaining_nano`/`scope` as in Granted, after the refund. `lapsed`: it had expired before."""

    charged_nano: int
    refunded_nano: int
    remaining_nano: int | None
    scope: str | None
    lapsed: bool = False


class Lost(msgspec.Struct, frozen=True, tag="lost"):
    """No such hold: it was settled before, or expired and charged its risk, which a Settle makes good."""

    call_id: str


Result = Granted | Denied | Moved | Settled | Amended | Lost


@dataclass(slots=True)
class Balance:
    """The state of one scope, in nano-dollars. `killed_at_nano` is written once; counting goes on. `limit_nano` is the
    policy's, or the amended one in its place; `began_ms` the time of the first call (0: not yet, or unknown);
    `running` counts its holds: the calls under way."""

    spent_nano: int = 0
    held_nano: int = 0
    calls: int = 0
    limit_nano: int | None = None
    own_limit_nano: int | None = None
    killed_at_nano: int | None = None
    killed_limit_nano: int | None = None
    tokens: int = 0
    began_ms: int = 0
    running: int = 0
    terms: Terms | None = None

    @property
    def effective_limit_nano(self) -> int | None:
        """The tighter of the policy's limit (as last seen) and the client's own."""
        if self.limit_nano is None or self.own_limit_nano is None:
            return self.limit_nano if self.own_limit_nano is None else self.own_limit_nano
        return min(self.limit_nano, self.own_limit_nano)

    @property
    def room_nano(self) -> int | None:
        """Limit minus spent minus held; None without a limit."""
        limit = self.effective_limit_nano
        return None if limit is None else limit - self.spent_nano - self.held_nano

    @property
    def exhausted(self) -> bool:
        """True when the scope was cut and its limit has not been raised since."""
        limit = self.effective_limit_nano
        return self.killed_at_nano is not None and limit is not None and limit <= (self.killed_limit_nano or 0)

    def age_ms(self, now_ms: int) -> int:
        """How long ago the first call was."""
        return max(now_ms - self.began_ms, 0) if self.began_ms else 0


@dataclass(slots=True)
class Hold:
    """What one call has set aside (`held_nano`, beyond `spent_nano` already counted) in each of `scopes`."""

    call_id: str
    owner: str
    scopes: tuple[str, ...]
    spent_nano: int
    held_nano: int
    risk_nano: int


@dataclass(slots=True)
class Ended:
    """A call that a store remembers for a while after its end: what it was `charged_nano` in each of `scopes`, and
    whether it was `settled`, or only expired."""

    call_id: str
    scopes: tuple[str, ...]
    charged_nano: int
    settled: bool
