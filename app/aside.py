"""Commands beside a gateway: `bursar ...` in a process of its own, of low priority.

What reads many traces would share the interpreter with the event loop as a thread, and keep DuckDB's memory for good.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process

import structlog

from app.core.errors import TracesDown
from app.settings import Settings

log = structlog.get_logger()

BURSAR = ("-P", "-m", "app.cli")
"""`-P`: or Python would look for modules in the folder in which the gateway was started first, where others may lie."""
FRESH_S = 5.0
"""An answer serves everybody who asks the same for this long."""
ASKED_S = 60.0
MAX_KEPT = 64
MAX_WAITING = 16
"""One takes a second or two, and any key may ask."""
NICE, ATTENTIVE = 15, 5
"""Where nobody waits, and where somebody does."""


async def run_aside(
    settings: Settings, command: tuple[str, ...], *, limit_s: float, keep: bool = False, good: tuple[int, ...] = (0,)
) -> bytes:
    """Run Python with these arguments to its end; what it printed, where that is kept. Raises OSError, TimeoutError, or
    ChildProcessError where its exit code is none of `good`. A cancelled one ends its process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        env=environment(settings),
        stdin=DEVNULL,
        stdout=PIPE if keep else DEVNULL,
    )
    lower_priority(process)
    try:
        async with asyncio.timeout(limit_s):
            printed, _ = await process.communicate()
    finally:
        await end(process)
    if process.returncode not in good:
        raise ChildProcessError(f"{' '.join(command[:4])} ended with {process.returncode}")
    return printed or b""


class Aside:
    """Questions answered by commands aside, one at a time, while no more than MAX_WAITING wait; answers are kept for
    FRESH_S."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._kept: dict[tuple[str, ...], tuple[float, bytes]] = {}

    async def ask(self, *arguments: str) -> bytes:
        """What `bursar ARGUMENTS` prints. Raises TracesDown."""
        if self._waiting >= MAX_WAITING:
            raise TracesDown(
                "Too many questions on traces are waiting; try again in some seconds.", headers={"retry-after": "10"}
            )
        self._waiting += 1
        try:
            async with self._turn:
                made_s, answer = self._kept.get(arguments, (float("-inf"), b""))
                return answer if time.monotonic() - made_s <= FRESH_S else await self._answer(arguments)
        finally:
            self._waiting -= 1

    async def _answer(self, arguments: tuple[str, ...]) -> bytes:
        try:
            answer = await run_aside(self._settings, (*BURSAR, *arguments), limit_s=ASKED_S, keep=True)
        except (OSError, TimeoutError) as error:
            log.error("a command aside failed", command=" ".join(arguments[:2]), error=str(error))
            raise TracesDown("Traces cannot be read at the moment; the gateway's log says why.") from None
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        self._kept[arguments] = time.monotonic(), answer
        return answer


def lower_priority(process: Process, nice: int = NICE) -> None:
    """Serving comes first."""
    with contextlib.suppress(OSError, AttributeError):  # it has ended, or this system knows no priorities
        os.setpriority(os.PRIO_PROCESS, process.pid, nice)


async def end(process: Process) -> None:
    """Make sure that it has ended."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def environment(settings: Settings) -> dict[str, str]:
    """What the command reads must be what this gateway was given."""
    named = {
        "BURSAR_DATA_DIR": str(settings.data_dir.absolute()),
        "BURSAR_REDIS_NAMESPACE": settings.redis_namespace,
        "BURSAR_TRACES_KEEP_DAYS": str(settings.traces_keep_days),
        "BURSAR_LOG_LEVEL": settings.log_level,
        "BURSAR_ROUTER_WEIGHTS": str(settings.router_weights.absolute()),
        "BURSAR_SNAPSHOT_LABELS": str(settings.snapshot_labels),
        "BURSAR_SNAPSHOT_EVERY_S": str(settings.snapshot_every_s),
        "BURSAR_SNAPSHOTS_KEEP": str(settings.snapshots_keep),
    }
    for name, secret in (("BURSAR_REDIS_URL", settings.redis_url), ("BURSAR_TRACES_URL", settings.traces_url)):
        if secret is not None:
            named[name] = secret.get_secret_value()
    return {**os.environ, **named}
