"""The verb that changes a task by somebody's word: its limits, whether it is open, what it hangs below. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from app.core.terms import MAX_BELOW, MAX_DEPTH, PLAIN, State, TaskCaps, Terms

if TYPE_CHECKING:
    from app.core.budget import Balance

OPENNESS: dict[State, int] = {"closed": 0, "frozen": 1, "open": 2}


class Amend(msgspec.Struct, frozen=True, omit_defaults=True, tag="amend"):
    """Change a task, begun or not; None leaves a thing as it is. All of it takes effect, or nothing.

    A limit stands in the policy's place from now on, and the client's own of that kind is forgotten. With `by_client`
    it becomes the client's own, and may only tighten: nothing above what binds now, no way back to open. `parent` is
    the scope to hang below: the first one named stays; one that has tasks below it stays a root. Calls count for
    those above from then on. `policy_nano` and `caps` are the policy's limits, where the caller knows them (`caps` is
    not None); `call_id` is any name that no call has.
    """

    call_id: str
    scope: str
    max_nano: int | None = None
    max_calls: int | None = None
    max_tokens: int | None = None
    max_ms: int | None = None
    state: State | None = None
    parent: str | None = None
    by_client: bool = False
    policy_nano: int | None = None
    caps: TaskCaps | None = None
    max_parallel: int | None = None


class Amended(msgspec.Struct, frozen=True, tag="amended"):
    """The task hangs below `above` now. `refused` says why nothing was changed: raises, reopens, has_parent,
    has_children, cycle or depth."""

    scope: str
    refused: str | None
    above: tuple[str, ...]


def why_not(op: Amend, balance: Balance, parent: Balance | None) -> str | None:
    """Why this amendment of a task is refused (as in Amended); None where it is not."""
    terms = balance.terms or PLAIN
    if op.by_client:
        limits = (
            (op.max_nano, balance.effective_limit_nano),
            (op.max_calls, terms.max_calls),
            (op.max_tokens, terms.max_tokens),
            (op.max_ms, terms.max_ms),
            (op.max_parallel, terms.max_parallel),
        )
        if any(new is not None and now is not None and new > now for new, now in limits):
            return "raises"
        if op.state is not None and OPENNESS[op.state] > OPENNESS[terms.state]:
            return "reopens"
    if parent is None or terms.above[:1] == (op.parent,):
        return None
    above = () if parent.terms is None else parent.terms.above
    if op.scope == op.parent or op.scope in above:
        return "cycle"
    if terms.above:
        return "has_parent"
    if terms.below:
        return "has_children"
    return "depth" if len(above) + 2 > MAX_DEPTH else None


def carry_out(op: Amend, balance: Balance, parent: Balance | None) -> None:
    """The amendment, which nothing speaks against."""
    terms = balance.terms or PLAIN
    terms = _own_limits(op, balance, terms) if op.by_client else _set_limits(op, balance, terms)
    if op.state is not None:
        terms = msgspec.structs.replace(terms, state=op.state)
    if parent is not None and op.parent is not None and not terms.above:
        above = parent.terms or PLAIN
        terms = msgspec.structs.replace(terms, above=(op.parent, *above.above))
        if op.scope not in above.below and len(above.below) < MAX_BELOW:
            parent.terms = msgspec.structs.replace(above, below=(*above.below, op.scope))
    balance.terms = None if terms == PLAIN else terms


def _set_limits(op: Amend, balance: Balance, terms: Terms) -> Terms:
    """An operator's limits, in the place of the policy's and of the client's own."""
    if op.max_nano is not None:
        balance.limit_nano, balance.own_limit_nano = op.max_nano, None
        terms = msgspec.structs.replace(terms, set_nano=op.max_nano)
    if op.max_calls is not None:
        terms = msgspec.structs.replace(terms, set_calls=op.max_calls, own_calls=None)
    if op.max_tokens is not None:
        terms = msgspec.structs.replace(terms, set_tokens=op.max_tokens, own_tokens=None)
    if op.max_ms is not None:
        terms = msgspec.structs.replace(terms, set_ms=op.max_ms, own_ms=None)
    if op.max_parallel is not None:
        terms = msgspec.structs.replace(terms, set_parallel=op.max_parallel, own_parallel=None)
    return terms


def _own_limits(op: Amend, balance: Balance, terms: Terms) -> Terms:
    """Limits that the task's own client lays upon it."""
    if op.max_nano is not None:
        balance.own_limit_nano = op.max_nano
    return msgspec.structs.replace(
        terms,
        own_calls=terms.own_calls if op.max_calls is None else op.max_calls,
        own_tokens=terms.own_tokens if op.max_tokens is None else op.max_tokens,
        own_ms=terms.own_ms if op.max_ms is None else op.max_ms,
        own_parallel=terms.own_parallel if op.max_parallel is None else op.max_parallel,
    )
