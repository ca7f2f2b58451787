"""Compaction beside a gateway: now and then, in a process of its own."""

from __future__ import annotations

import asyncio

import structlog

from app.aside import BURSAR, run_aside
from app.settings import Settings
from app.stores.budgets import LedgerUnavailable
from app.stores.traces import Traces

log = structlog.get_logger()

EVERY_S = 120.0
LONGEST_S = 1800.0
COMMAND = (*BURSAR, "traces", "compact", "--quiet")


async def keep_compacting(settings: Settings, traces: Traces, *, every_s: float = EVERY_S) -> None:
    """Compact whenever there is something to, for ever. Several gateways may do so: the store says who is to."""
    while True:
        await asyncio.sleep(every_s)
        try:
            if await traces.due():
                await compact_aside(settings)
        except (OSError, LedgerUnavailable) as error:
            log.warning("traces could not be compacted yet", error=str(error))


async def compact_aside(settings: Settings) -> None:
    """One pass; it logs what goes wrong, and the next repeats it. A cancelled one ends its process."""
    try:
        await run_aside(settings, COMMAND, limit_s=LONGEST_S)
    except TimeoutError:
        log.error("traces were compacted for too long", seconds=LONGEST_S)
    except ChildProcessError:
        log.warning("traces were not compacted; the command has said why")
