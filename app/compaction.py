"""Compaction beside a gateway: a process of its own, of low priority, now and then.

A thread would share the interpreter with the event loop, and keep DuckDB's memory for good.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import DEVNULL, Process

import structlog

from app.settings import Settings
from app.stores.budgets import LedgerUnavailable
from app.stores.traces import Traces

log = structlog.get_logger()

EVERY_S = 120.0
LONGEST_S = 1800.0
COMMAND = ("-m", "app.cli", "traces", "compact", "--quiet")
_NICE = 15


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
    process = await asyncio.create_subprocess_exec(
        sys.executable, *COMMAND, env=_environment(settings), stdin=DEVNULL, stdout=DEVNULL
    )
    with contextlib.suppress(OSError, AttributeError):  # it has ended, or this system knows no priorities
        os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
    try:
        async with asyncio.timeout(LONGEST_S):
            await process.wait()
    except TimeoutError:
        log.error("traces were compacted for too long", seconds=LONGEST_S)
    finally:
        await _end(process)


async def _end(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _environment(settings: Settings) -> dict[str, str]:
    """What the command reads must be what this gateway was given."""
    named = {
        "BURSAR_DATA_DIR": str(settings.data_dir.absolute()),
        "BURSAR_REDIS_NAMESPACE": settings.redis_namespace,
        "BURSAR_TRACES_KEEP_DAYS": str(settings.traces_keep_days),
        "BURSAR_LOG_LEVEL": settings.log_level,
    }
    for name, secret in (("BURSAR_REDIS_URL", settings.redis_url), ("BURSAR_TRACES_URL", settings.traces_url)):
        if secret is not None:
            named[name] = secret.get_secret_value()
    return {**os.environ, **named}
