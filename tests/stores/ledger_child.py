"""A gateway process reduced to its ledger, for tests with several of them: `ledger_child.py PATH MODE SCOPE`.

Mode `hammer` makes many concurrent calls and prints what they were charged; mode `hold` leaves calls
half done, says so, and waits to be killed.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from app.core.budget import Advance, Claim, Granted, Reserve, Settle, Settled
from app.stores.budgets_sqlite import SqliteBudgets

CALLS = 120
CONCURRENT = 8
HELD = ((40, 9), (0, 5), (17, 500))
"""The calls of mode `hold`: recorded spending and risk; each holds 100 beyond its spending."""


async def hammer(store: SqliteBudgets, scope: str) -> None:
    """Many calls that reserve, advance and settle; prints the sum of their charges."""
    charged = 0

    async def calls(lane: int) -> None:
        nonlocal charged
        for number in range(CALLS // CONCURRENT):
            call_id = f"{store.owner}-{lane}-{number}"
            claims = (Claim(scope, 10**12), Claim(f"{scope}|{store.owner}", None))
            assert isinstance(await store.apply(Reserve(call_id, store.owner, claims, 10, 90, 5, 4)), Granted)
            spent = random.randint(0, 80)
            assert isinstance(await store.apply(Advance(call_id, spent, 10, 90, 5, 4)), Granted)
            settled = await store.apply(Settle(call_id, spent + random.randint(0, 10)))
            assert isinstance(settled, Settled)
            charged += settled.charged_nano

    await asyncio.gather(*(calls(lane) for lane in range(CONCURRENT)))
    print(charged)


async def hold(store: SqliteBudgets, scope: str) -> None:
    """Calls in flight, their spending recorded, and then silence."""
    for number, (spent, risk) in enumerate(HELD):
        call_id = f"{store.owner}-{number}"
        await store.apply(Reserve(call_id, store.owner, (Claim(scope, 10**6),), 100, 100, risk))
        await store.apply(Advance(call_id, spent, 100, 100, risk))
    print("held", flush=True)
    await asyncio.Event().wait()


async def main(path: Path, mode: str, scope: str) -> None:
    """Open the ledger, do the mode's work, close."""
    store = SqliteBudgets(path)
    await store.start()
    await {"hammer": hammer, "hold": hold}[mode](store, scope)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
