"""What calls counted since the metrics were last brought up to date: plain sums on the hot path, and the metrics' own
arithmetic once for many calls. Whoever shows metrics folds first; the watcher of calls does so all the time."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Sequence

import msgspec
from prometheus_client import Histogram

from app.core.money import usd_float
from app.core.types import Outcome
from app.gateway.metrics import Metrics


class Kind(msgspec.Struct, frozen=True):
    """What is the same of all calls that are counted together: the labels of everything that they count. `router`,
    `task_type`, `chosen`: None where nothing was decided."""

    route: str
    model: str
    provider: str
    outcome: Outcome
    router: str | None = None
    task_type: str | None = None
    chosen: str | None = None
    deferred: bool = False
    split: bool = False


class Sums:
    """Of the calls of one kind since the last fold; times in seconds."""

    __slots__ = ("calls", "cost_nano", "durations", "input_tokens", "output_tokens", "ttfts")

    def __init__(self) -> None:
        self.calls = self.cost_nano = self.input_tokens = self.output_tokens = 0
        self.durations: list[float] = []
        self.ttfts: list[float] = []


class Tally:
    """One per process, on the event loop. `attempts`: by model, provider and result; `overheads` in seconds."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._kinds: dict[Kind, Sums] = {}
        self._shown: set[tuple[str, str, str]] = set()
        self.attempts: Counts[tuple[str, str, str]] = Counts()
        self.overheads: list[float] = []

    def of(self, kind: Kind) -> Sums:
        """The sums that a call of this kind adds to."""
        found = self._kinds.get(kind)
        if found is None:
            found = self._kinds[kind] = Sums()
        return found

    def fold(self, under_way: int) -> None:
        """Bring the metrics up to date; `under_way`: how many calls are."""
        metrics = self._metrics
        metrics.inflight.set(under_way)
        if self.overheads:
            observe_all(metrics.overhead, self.overheads)
            self.overheads.clear()
        attempts, self.attempts = self.attempts, Counts()
        kinds, self._kinds = self._kinds, {}
        for (model, provider, result), times in attempts.items():
            metrics.attempts.labels(model, provider, result).inc(times)
        for kind, sums in kinds.items():
            self._count(kind, sums)

    def _count(self, kind: Kind, sums: Sums) -> None:
        metrics, cost_usd = self._metrics, usd_float(sums.cost_nano)
        route, model, provider = kind.route, kind.model, kind.provider
        if (route, model, provider) not in self._shown:  # what has not happened yet is 0: an increase shows only so
            self._shown.add((route, model, provider))
            for outcome in Outcome:
                metrics.requests.labels(route, model, provider, outcome)
        metrics.requests.labels(route, model, provider, kind.outcome).inc(sums.calls)
        observe_all(metrics.duration.labels(model, provider), sums.durations)
        observe_all(metrics.ttft.labels(model, provider), sums.ttfts)
        metrics.cost.labels(route, model, provider).inc(cost_usd)
        metrics.tokens.labels(model, provider, "input").inc(sums.input_tokens)
        metrics.tokens.labels(model, provider, "output").inc(sums.output_tokens)
        if kind.router is None:
            return
        metrics.decisions.labels(route, kind.router, kind.task_type, kind.chosen).inc(sums.calls)
        if kind.deferred:
            metrics.deferrals.labels(route, kind.router).inc(sums.calls)
        if kind.split:
            metrics.split_calls.labels(route, kind.router, kind.outcome).inc(sums.calls)
            metrics.split_cost.labels(route, kind.router).inc(cost_usd)


def observe_all(histogram: Histogram, values: Sequence[float]) -> None:
    """Observe many values at once: `Histogram.observe` takes microseconds for each."""
    if not values:
        return
    bounds = histogram._upper_bounds
    histogram._sum.inc(sum(values))
    for place, times in Counts([bisect_left(bounds, value) for value in values]).items():
        histogram._buckets[place].inc(times)
