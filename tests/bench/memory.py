"""Memory against requests served: flat, or not."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tests.bench.load import Load
from tests.bench.machine import own_rss_mb, rss_mb
from tests.bench.scenarios import SCENARIOS, Scenario, load_of, run_once
from tests.bench.systems import System

LIMIT_S = 3600.0


class Growth(msgspec.Struct, frozen=True):
    """`points`: requests served so far, and RSS in MB then, of the worker and of what runs beside it now and then (the
    learner, compaction); the first before any. What may not grow is the worker's."""

    points: list[tuple[int, float, float]]
    per_100k_mb: float
    errors: int
    first_error: str | None


def grow(gateway: System, requests: int, *, portions: int = 10, say: Callable[[str], None] = lambda _: None) -> Growth:
    """Send that many requests in portions, each request a task of its own, one in ten a stream."""
    assert gateway.pid is not None
    points, errors, first_error, served = [_point(0, gateway.pid)], 0, None, 0
    for portion in range(portions):
        size = max(requests // portions, 2)
        streams = max(size // 10, 1)
        say(f"memory: {served:,} of {requests:,}, {points[-1][1]} MB")
        for name, count in (("n32", size - streams), ("burst", streams)):
            sample = run_once(_load(SCENARIOS[name], gateway, count, f"{name}-{portion}"), gateway.pid)
            served += sample.result.requests
            errors += sample.result.errors
            first_error = first_error or sample.result.first_error
        points.append(_point(served, gateway.pid))
    (early, early_mb, _), (late, late_mb, _) = points[portions // 2], points[-1]
    return Growth(points, round((late_mb - early_mb) / max(late - early, 1) * 100_000, 2), errors, first_error)


def _point(served: int, pid: int) -> tuple[int, float, float]:
    worker_mb = own_rss_mb(pid)
    return served, worker_mb, round(max(rss_mb(pid) - worker_mb, 0.0), 1)


def _load(scenario: Scenario, gateway: System, count: int, prefix: str) -> Load:
    load = load_of(scenario, gateway, LIMIT_S, task_prefix=prefix)
    return msgspec.structs.replace(load, requests=count, tasks="request", connections=min(load.connections, count))
