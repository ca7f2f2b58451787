"""Holds in this process's name that none of its calls has: found, and ended at what their calls were charged.

A failover of the ledger's server may forget the last moments before it, settlements that were acknowledged included:
their holds are there again, and would stay for as long as this process lives.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec
import structlog

from app.core.budget import Lost, Settle
from app.stores.budgets import Budgets

log = structlog.get_logger()

REMEMBERED = 10_000
"""Settlements that are remembered (2 MB): those of ten seconds at a thousand calls a second, of minutes as a rule. The
hold of an older one is charged as a dead process's: what it had recorded, and what it risked."""


class Alive:
    """Which calls of this process may have a hold now, and how the last of the others were settled."""

    __slots__ = ("_settled", "calls")

    def __init__(self) -> None:
        self.calls: set[str] = set()
        self._settled: deque[Settle] = deque(maxlen=REMEMBERED)

    def ended(self, op: Settle) -> None:
        """This settlement was acknowledged."""
        self.calls.discard(op.call_id)
        self._settled.append(op if op.claims is None else msgspec.structs.replace(op, claims=None))

    async def end_others(self, budgets: Budgets, known: Callable[[], set[str]]) -> int:
        """End this process's holds of other calls than those that are `known` then: each as its call was settled, or as
        a dead process's where that is not remembered. How many there were. Raises LedgerUnavailable."""
        before = known()
        held = await budgets.held()  # a call may begin or end meanwhile
        ghosts = {call_id for call_id in held if call_id not in before}
        if not ghosts or not (ghosts := ghosts - known()):
            return 0
        settlements = {op.call_id: op for op in self._settled if op.call_id in ghosts}
        answers = await asyncio.gather(*[budgets.apply(op) for op in settlements.values()])
        # As a rule of calls that came and went since this began: a name was read, and there is no hold.
        lost = {answer.call_id for answer in answers if isinstance(answer, Lost)}
        remembered = settlements.keys() - lost
        unknown = list(ghosts - remembered)
        ended = len(remembered) + (len(await budgets.abandon(unknown)) if unknown else 0)
        if ended:
            log.warning("the ledger had forgotten settlements", holds=ended, remembered=len(remembered))
        return ended
