"""Learning beside a gateway: a pass of `bursar learn` now and then, and what it publishes is taken into force."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from app.aside import BURSAR, run_aside
from app.core.quarantined import Quarantined, kept_from
from app.gateway.metrics import Metrics
from app.learner.signs import SETTLED_S
from app.settings import Settings
from app.stores.file_lock import try_lock
from app.stores.opening import segments_folder
from app.stores.snapshots import Head, NoSnapshot, Snapshots, SnapshotsUnavailable
from routers.base import Arm, Router

if TYPE_CHECKING:  # numpy costs 100 ms to import, and only the learned router needs it
    from routers.learned import LearnedRouter
    from routers.live import LiveRouter

log = structlog.get_logger()

COMMAND = (*BURSAR, "learn", "--once", "--quiet")
LONGEST_S = 600.0
IDLE_EVERY_S = 120.0
"""Where nothing is new, signs may still have come of age."""
FOLLOW_EVERY_S = 1.0


async def keep_learning(settings: Settings) -> None:
    """A pass whenever there is something new, for ever. Of several workers of one machine one sees to it."""
    await asyncio.to_thread(settings.data_dir.mkdir, mode=0o700, parents=True, exist_ok=True)
    file = os.open(settings.data_dir / "learning.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while not try_lock(file):  # noqa: ASYNC110  (nobody tells when another process ends)
            await asyncio.sleep(settings.learn_every_s)
        await _pass_by_pass(settings)
    finally:
        os.close(file)


async def _pass_by_pass(settings: Settings) -> None:
    seen, changed_s, passed_s = 0.0, float("-inf"), float("-inf")
    while True:
        now_s, latest = time.monotonic(), await asyncio.to_thread(_latest_change, settings)
        if latest != seen:
            seen, changed_s = latest, now_s
        idle = now_s - passed_s >= IDLE_EVERY_S and now_s - changed_s < SETTLED_S + 2 * IDLE_EVERY_S
        if changed_s > passed_s or idle:
            passed_s = now_s
            try:
                await run_aside(settings, COMMAND, limit_s=LONGEST_S)
            except (OSError, TimeoutError) as error:
                log.warning("nothing was learned yet", error=str(error))
        await asyncio.sleep(settings.learn_every_s)


def _latest_change(settings: Settings) -> float:
    """When a trace or a word was written last, by the clock of the file system; 0.0: never."""
    latest = 0.0
    for folder, pattern in ((segments_folder(settings), "*.jsonl"), (settings.data_dir, "outcomes.sqlite*")):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):  # removed meanwhile
                latest = max(latest, path.stat().st_mtime)
    return latest


class Follower:
    """Takes snapshots into force as they are published, or rolled back. `swap` is given the learned router that is to
    serve from now on; `arms` are those that it will be asked about."""

    def __init__(
        self,
        snapshots: Snapshots,
        base: LearnedRouter,
        metrics: Metrics,
        swap: Callable[[Router], None],
        arms: Callable[[], list[Arm]],
    ) -> None:
        self._snapshots, self._base, self._metrics, self._swap = snapshots, base, metrics, swap
        self._arms = arms
        self._moves = -1
        self._epoch = -1
        self._number = -1
        self._failing = False
        self._down: dict[tuple[str, str, str], float] = {}

    async def follow(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(FOLLOW_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Take what is in force, if it is not already; what serves stays where it cannot be read."""
        try:
            head = await self._snapshots.head()
            if head.epoch != self._epoch:
                self._epoch = head.epoch
                self._metrics.unlearned.saved()
            if head.moves != self._moves:
                await self._take(head)
            self._failing = False
        except SnapshotsUnavailable as error:
            if not self._failing:
                log.warning("snapshots cannot be read: the one that serves stays", error=str(error))
            self._failing = True
        self._metrics.unlearned.show()

    async def _take(self, head: Head) -> None:
        if head.current != self._number:
            router = await self._router(head)
            if router is None:
                if self._number < 0:  # what the weights were taught serves until there is a snapshot of theirs
                    await self._serve(self._begun(), 0)
                self._moves = head.moves
                return
            log.info("a snapshot is in force", snapshot=head.current, router=f"{router.name}@{router.version}")
            await self._serve(router, head.current)
        self._moves = head.moves
        self._metrics.snapshot.set(head.current)
        told = await self._snapshots.told()
        refused = [one for one in told if one.status == "refused" and one.number > head.current]
        self._metrics.snapshots_refused.set(len(refused))
        self._metrics.unheard.set(told[0].unheard if told else 0)
        self._metrics.held_out.set(told[0].trial.labels if told else 0)

    async def _serve(self, router: LiveRouter, number: int) -> None:
        await asyncio.to_thread(router.warm, self._arms())
        self._swap(router)
        self._number = number
        self._metrics.snapshot_swaps.inc()

    def _begun(self) -> LiveRouter:
        """The learned router before any snapshot."""
        from routers.live import LiveRouter, prior_of  # noqa: PLC0415  (see _router)

        return LiveRouter(self._base, prior_of(self._base).begin(), "0")

    async def _router(self, head: Head) -> LiveRouter | None:
        """The learned router of a snapshot; None where its content cannot be used."""
        from app.learner.pack import (  # noqa: PLC0415  (numpy costs 100 ms to import)
            Unreadable,
            unpack_belief,
            unpack_down,
        )
        from routers.live import LiveRouter  # noqa: PLC0415

        if not head.current:
            self._told(())
            return self._begun()
        try:
            body = await self._snapshots.body(head.current)
            belief, down = unpack_belief(body, self._base), unpack_down(body)
        except (NoSnapshot, Unreadable) as error:
            log.warning("a snapshot cannot be used: what serves stays", snapshot=head.current, reason=str(error))
            return None
        self._told(down)
        return LiveRouter(self._base, belief, str(head.current), down=kept_from(down))

    def _told(self, down: Sequence[Quarantined]) -> None:
        """Show who is in quarantine; a series that was there once stays, at 0."""
        gone = dict.fromkeys(self._down, 0.0)
        self._down = {(one.model, one.task_type, one.cause): one.drop for one in down}
        for labels, drop in {**gone, **self._down}.items():
            self._metrics.quarantined.labels(*labels).set(drop)
