"""Holds in this process's name that none of its calls has: found, and ended at what their calls were charged.

A failover of the ledger's server may forget the last moments before it, settlements that were acknowledged included:
their holds are there again, and would stay for as long as this process lives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from app.core.budget import Settle

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
        self._settled.append(op)

    def settlements(self, call_ids: Iterable[str]) -> dict[str, Settle]:
        """How these calls were settled, of those that are remembered."""
        wanted = set(call_ids)
        return {op.call_id: op for op in self._settled if op.call_id in wanted}
