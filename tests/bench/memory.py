"""Memory against requests served: flat, or not."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tests.bench.load import Load
from tests.bench.machine import rss_mb
from tests.bench.scenarios import SCENARIOS, Scenario, load_of, run_once
from tests.bench.systems import System

LIMIT_S = 3600.0


class Growth(msgspec.Struct, frozen=True):
    """`points`: requests served so far, and RSS in MB then; the first before any."""

    points: list[tuple[int, float]]
    per_100k_mb: float
    errors: int
    first_error: str | None


def grow(gateway: System, requests: int, *, portions: int = 10, say: Callable[[str], None] = lambda _: None) -> Growth:
    """Send that many requests in portions, each request a task of its own, one in ten a stream."""
    assert gateway.pid is not None
    points, errors, first_error, served = [(0, rss_mb(gateway.pid))], 0, None, 0
    for portion in range(portions):
        size = max(requests // portions, 2)
        streams = max(size // 10, 1)
        say(f"memory: {served:,} of {requests:,}, {points[-1][1]} MB")
        for name, count in (("n32", size - streams), ("burst", streams)):
            sample = run_once(_load(SCENARIOS[name], gateway, count, f"{name}-{portion}"), gateway.pid)
            served += sample.result.requests
            errors += sample.result.errors
            first_error = first_error or sample.result.first_error
        points.append((served, rss_mb(gateway.pid)))
    (early, early_mb), (late, late_mb) = points[portions // 2], points[-1]
    return Growth(points, round((late_mb - early_mb) / max(late - early, 1) * 100_000, 2), errors, first_error)


def _load(scenario: Scenario, gateway: System, count: int, prefix: str) -> Load:
    load = load_of(scenario, gateway, LIMIT_S, task_prefix=prefix)
    return msgspec.structs.replace(load, requests=count, tasks="request", connections=min(load.connections, count))
