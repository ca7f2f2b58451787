"""Moments that nothing in a script leads to: deadlines that pass, shutdowns, a ledger that answers late."""

from __future__ import annotations

import asyncio
import random

from app.core.budget import Op, Result
from app.gateway.calls import Stop
from tests.gateway.live import Live

STOPS = (Stop.LATE, Stop.LATE, Stop.SHUTDOWN)
LONGEST_S = 0.1


def odd_times(live: Live, seed: int) -> None:
    """From now on the ledger's answers come late, half of them, and now and then some call under way is stopped."""
    rng, loop = random.Random(seed), asyncio.get_running_loop()
    budgets, apply = live.services.ledger.budgets, live.services.ledger.budgets.apply

    def later(op: Op) -> asyncio.Future[Result]:
        calls = live.services.calls.under_way()
        if calls and rng.random() < 0.1:
            loop.call_soon(rng.choice(calls).waits.stop, rng.choice(STOPS))  # never from within a call's own task
        answer = apply(op)
        return answer if rng.random() < 0.5 else asyncio.ensure_future(_late(answer, rng.random() * LONGEST_S))

    budgets.apply = later  # type: ignore[method-assign]


async def _late(answer: asyncio.Future[Result], wait_s: float) -> Result:
    result = await answer
    await asyncio.sleep(wait_s)
    return result
