"""The gauges of success beside a gateway: asked of a command aside, now and then."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog

from app.core.errors import TracesDown
from app.gateway.services import Services
from app.http.efficiency import Commands
from app.http.success_metrics import target_arguments
from app.stores.file_lock import try_lock
from routers.tasks import TASK_TYPES

log = structlog.get_logger()

EVERY_S = 600.0
WINDOWS = ("24h", "7d")
ALL = "all"
_NOTHING: Mapping[str, Any] = {"value": None, "target": None}


class Measuring:
    """Keeps the gauges of one process. `shown`: kinds of work that were shown before: where one has gone its gauges
    become NaN, for a gauge cannot be taken back from other workers."""

    def __init__(self, services: Services, aside: Commands) -> None:
        self._services, self._aside = services, aside
        self.shown: set[str] = set()

    async def keep(self, folder: Path, *, every_s: float = EVERY_S) -> None:
        """Bring the gauges up to date, for ever. Of several workers with one data folder one sees to it."""
        await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True, exist_ok=True)
        file = os.open(folder / "measuring.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while True:
                await asyncio.sleep(every_s)
                if try_lock(file):
                    await self._try()
        finally:
            os.close(file)

    async def _try(self) -> None:
        try:
            await self.measure()
        except TracesDown as error:
            log.warning("success could not be measured", reason=error.message)

    async def measure(self) -> None:
        """Bring the gauges up to date. Raises TracesDown."""
        targets = target_arguments(self._services.view.policy)
        for window in WINDOWS:
            said = await self._aside.ask("success-metrics", "--json", "--by", "task_type", "--since", window, *targets)
            self.show(window, msgspec.json.decode(said))

    def show(self, window: str, found: Mapping[str, Any]) -> None:
        """Set the gauges of a window."""
        metrics = self._services.metrics
        groups = {group["task_type"]: group["measures"] for group in found["data"] if group["task_type"] in TASK_TYPES}
        self.shown.update(groups)
        for name, of_all in found["all"]["measures"].items():
            if of_all["target"] is not None:
                metrics.success_target.labels(name).set(of_all["target"])
            self._set((name, ALL, window), of_all)
            for task_type in self.shown:
                self._set((name, task_type, window), groups.get(task_type, {}).get(name, _NOTHING))

    def _set(self, labels: tuple[str, str, str], measure: Mapping[str, Any]) -> None:
        value, metrics = measure["value"], self._services.metrics
        metrics.success.labels(*labels).set(float("nan") if value is None else value)
        if measure["target"] is not None:
            metrics.success_missed.labels(*labels).set(measure["status"] == "missed")
