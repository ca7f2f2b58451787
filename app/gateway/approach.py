"""What the ledger knows of a task before its next call is decided: how near it is to its cap, where the policy has it
land."""

from __future__ import annotations

import time

from app.core.landing import Approach, Landing, approach_of
from app.gateway.ledger import Ledger
from app.stores.budgets import LedgerUnavailable


async def approach_in(ledger: Ledger, scope: str, rules: Landing) -> Approach | None:
    """How near the task of this scope is to its limits, and to those of the tasks above it; None where it is far yet,
    and where the ledger does not answer: the reservation will tell."""
    try:
        balances = await ledger.budgets.balances([scope, *ledger.above(scope)])
    except LedgerUnavailable:
        return None
    return approach_of(rules, balances, time.time_ns() // 1_000_000)


def landing_headers(approach: Approach) -> list[tuple[bytes, bytes]]:
    """That a task lands: how much of which limit was used when the call began."""
    near = approach.nearest
    return [(b"x-bursar-landing", b"%b; used=%.3f" % (near.kind.encode(), near.share))]
