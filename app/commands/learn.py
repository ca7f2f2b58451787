"""`bursar learn`: the learner as a process, or one pass of it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator

import structlog

from app.commands.ending import Refused
from app.commands.policy import read_settings
from app.commands.terminal import complain, say
from app.commands.weights import read_weights
from app.learner.worker import Done, Rules, Worker
from app.logs import configure_logging
from app.settings import Settings
from app.stores.budgets import LedgerUnavailable
from app.stores.opening import make_outcomes, make_snapshots, make_tail
from app.stores.outcomes import OutcomesUnavailable
from app.stores.snapshots import SnapshotsUnavailable
from routers.learned import LearnedRouter

log = structlog.get_logger()

AGAIN_S = 5.0
"""After a store did not answer."""
FAILURES = (SnapshotsUnavailable, OutcomesUnavailable, LedgerUnavailable, OSError)


def learn(*, once: bool, every_s: float | None, quiet: bool) -> int:
    """Learn until told to stop, or once; the exit code."""
    try:
        settings = read_settings()
        configure_logging(settings)
        base = read_weights(settings)
        return asyncio.run(_once(settings, base, quiet) if once else _always(settings, base, every_s))
    except Refused as problem:
        complain(str(problem))
        return 2
    except FAILURES as error:
        if quiet:
            log.error("nothing was learned", error=str(error))
        else:
            complain(str(error))
        return 1
    except KeyboardInterrupt:
        return 0


@contextlib.asynccontextmanager
async def _worker(settings: Settings, base: LearnedRouter) -> AsyncIterator[Worker]:
    outcomes, snapshots = make_outcomes(settings), make_snapshots(settings)
    try:
        tail = make_tail(settings)
    except ValueError as error:
        raise Refused(f"BURSAR_REDIS_URL: {error}") from None
    await outcomes.start()
    await snapshots.start()
    rules = Rules(settings.snapshot_labels, settings.snapshot_every_s, settings.snapshots_keep)
    worker = Worker(base, snapshots, outcomes, tail, rules, time.time)
    try:
        yield worker
        await worker.leave()
    finally:
        await outcomes.close()
        await snapshots.close()


async def _once(settings: Settings, base: LearnedRouter, quiet: bool) -> int:
    """Passes until there is nothing more to read."""
    whole = Done()
    async with _worker(settings, base) as worker:
        while True:
            done = await worker.once()
            whole.leads, whole.made = done.leads, done.made or whole.made
            whole.records, whole.words = whole.records + done.records, whole.words + done.words
            whole.learned += done.learned
            whole.went_back |= done.went_back
            if not done.more:
                break
    if not quiet:
        say(_told(whole))
    return 0


async def _always(settings: Settings, base: LearnedRouter, every_s: float | None) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    while True:
        try:
            async with _worker(settings, base) as worker:
                log.info("learning", owner=worker.owner, weights=base.version)
                await worker.run(stop, every_s or settings.learn_every_s)
            return 0
        except FAILURES as error:
            log.warning("a store does not answer, so the learner waits", error=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), AGAIN_S)
            if stop.is_set():
                return 1


def _told(done: Done) -> str:
    if not done.leads:
        return "another learner is at work, so nothing was done"
    made = "" if done.made is None else f"; snapshot {done.made.number} {done.made.status}"
    if done.made is not None and done.made.why:
        made += f": {done.made.why}"
    if done.went_back:
        made = f"; the snapshot was taken back, because the one before predicts live outcomes better{made}"
    return f"{done.records} calls and {done.words} words read, {len(done.learned)} labels learned{made}"
