"""Since when feedback waits that no learner has taken in. Where there is Redis a learner is a process of its own, and
one that was never started, or that died, is missed by nobody: gateways serve as before."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import Gauge


class Unlearned:
    """One per process. A learner that is at work saves its state within a minute of any feedback."""

    def __init__(self, gauge: Gauge, clock: Callable[[], float] = time.monotonic) -> None:
        self._gauge, self._clock = gauge, clock
        self._since_s: float | None = None

    def heard(self) -> None:
        """Feedback was stored here."""
        if self._since_s is None:
            self._since_s = self._clock()

    def saved(self) -> None:
        """A learner has saved its state."""
        self._since_s = None

    def show(self) -> None:
        """Bring the gauge up to now."""
        self._gauge.set(0.0 if self._since_s is None else self._clock() - self._since_s)
