"""What a task is besides its money: limits on calls, tokens and time, whether it is open, what it hangs below. A window
has such limits too, on calls and tokens, and a key, a team and everybody on calls at a time. Pure.

Limits of one kind come from three places. The policy's is the latest seen; an amended one (`set_*`, an operator's)
stands in its place for this task; the client's own (`own_*`) can only lower either. The tighter binds.
"""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["open", "frozen", "closed"]
Reason = Literal["budget", "calls", "tokens", "time", "frozen", "closed", "parallel"]
"""Why a task gets no more: its money, one of its other limits, or its owner's word; or not yet: so many run already."""

MAX_DEPTH = 8
"""Tasks on the way from a root to the lowest below it, both counted: each call claims on all of them."""
MAX_BELOW = 50
"""How many of the tasks directly below one are remembered by name."""


class TaskCaps(msgspec.Struct, frozen=True, omit_defaults=True):
    """A claim's word on limits that are not money: the policy's, and the client's own. None: no limit (of the client's:
    as it was). `at_entry`: they say who may begin, and bound nobody who has begun; a window's are so, a task's not.
    `parallel`: calls at a time."""

    calls: int | None = None
    tokens: int | None = None
    ms: int | None = None
    own_calls: int | None = None
    own_tokens: int | None = None
    own_ms: int | None = None
    at_entry: bool = False
    parallel: int | None = None
    own_parallel: int | None = None


class Refusal(msgspec.Struct, frozen=True):
    """Why a task takes no call, with the limit and what is used of it, in the reason's own unit (time: ms)."""

    reason: Reason
    limit: int = 0
    used: int = 0


class Terms(msgspec.Struct, frozen=True, omit_defaults=True):
    """`above`: the scopes this task hangs below, its parent first and the root last; `below`: the first of those that
    hang directly below it. `set_nano` is the amended limit in dollars."""

    state: State = "open"
    above: tuple[str, ...] = ()
    below: tuple[str, ...] = ()
    calls: int | None = None
    tokens: int | None = None
    ms: int | None = None
    own_calls: int | None = None
    own_tokens: int | None = None
    own_ms: int | None = None
    set_nano: int | None = None
    set_calls: int | None = None
    set_tokens: int | None = None
    set_ms: int | None = None
    at_entry: bool = False
    parallel: int | None = None
    own_parallel: int | None = None
    set_parallel: int | None = None

    @property
    def max_calls(self) -> int | None:
        """The limit that binds."""
        return tighter(self.calls if self.set_calls is None else self.set_calls, self.own_calls)

    @property
    def max_tokens(self) -> int | None:
        """The limit that binds."""
        return tighter(self.tokens if self.set_tokens is None else self.set_tokens, self.own_tokens)

    @property
    def max_ms(self) -> int | None:
        """The limit that binds."""
        return tighter(self.ms if self.set_ms is None else self.set_ms, self.own_ms)

    @property
    def max_parallel(self) -> int | None:
        """The limit that binds."""
        return tighter(self.parallel if self.set_parallel is None else self.set_parallel, self.own_parallel)

    def refusal(self, calls: int, tokens: int, age_ms: int, need_tokens: int) -> Refusal | None:
        """Why no further call may begin here, with so much used; None where it may."""
        if self.state != "open":
            return Refusal(self.state)
        limit = self.max_calls
        if limit is not None and calls >= limit:
            return Refusal("calls", limit, calls)
        limit = self.max_tokens
        if limit is not None and limit - tokens < (1 if self.at_entry else max(need_tokens, 1)):
            return Refusal("tokens", limit, tokens)
        limit = self.max_ms
        if limit is not None and age_ms >= limit:
            return Refusal("time", limit, age_ms)
        return None


NO_CAPS, PLAIN = TaskCaps(), Terms()


def claimed(terms: Terms | None, caps: TaskCaps | None) -> Terms | None:
    """The terms after a claim: the policy's limits as it has them now, the client's where it names any."""
    caps, old = caps or NO_CAPS, terms or PLAIN
    new = msgspec.structs.replace(
        old,
        calls=caps.calls,
        tokens=caps.tokens,
        ms=caps.ms,
        own_calls=old.own_calls if caps.own_calls is None else caps.own_calls,
        own_tokens=old.own_tokens if caps.own_tokens is None else caps.own_tokens,
        own_ms=old.own_ms if caps.own_ms is None else caps.own_ms,
        at_entry=caps.at_entry,
        parallel=caps.parallel,
        own_parallel=old.own_parallel if caps.own_parallel is None else caps.own_parallel,
    )
    return None if new == PLAIN else new


def tighter(one: int | None, other: int | None) -> int | None:
    """The lower of two limits, None being none."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
