"""The loads, one run of each, and what a run is boiled down to."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence

import msgspec

from tests.bench.load import Load, Result
from tests.bench.machine import cpu_s, rss_mb
from tests.bench.systems import ROOT, System

WARM_S = 1.0


class Scenario(msgspec.Struct, frozen=True):
    """A shape of load; `about` is said with the figures, since CPU per chunk depends on it."""

    name: str
    about: str
    connections: int
    seconds: float
    stream: bool = False
    pace_ms: int | None = None
    prompt_bytes: int = 2000
    stagger_s: float = 0.0
    per_task: bool = False


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("n1", "1 connection, 2 kB prompts", 1, 3),
        Scenario("n32", "32 connections, 2 kB prompts", 32, 4),
        Scenario("big", "8 connections, 100 kB prompts", 8, 3, prompt_bytes=100_000),
        Scenario("paced", "64 streams, 50 chunks at 20 ms", 64, 4, stream=True, pace_ms=20, stagger_s=1.0),
        Scenario("burst", "32 streams, 50 chunks in one write of the upstream", 32, 3, stream=True),
        Scenario("flood", "100 streams, 50 chunks at 5 ms", 100, 4, stream=True, pace_ms=5, stagger_s=0.25),
        Scenario("tasks", "n32 with a task id for each connection", 32, 4, per_task=True),
    )
}
DEFAULT = ("n1", "n32", "big", "paced", "burst")


class Row(msgspec.Struct, frozen=True):
    """The medians of one scenario on one system. CPU figures are None where the process is not ours to see.

    `busy_percent` is of one core; `added_*` against `direct` in the same run; `late_*` from the stub's write
    of a chunk to its arrival at the client.
    """

    system: str
    scenario: str
    reps: int
    requests: int
    errors: int
    requests_per_s: float
    chunks_per_s: float
    cpu_us_per_request: float | None
    cpu_us_per_chunk: float | None
    busy_percent: float | None
    p50_us: float
    p99_us: float
    added_p50_us: float | None
    added_p99_us: float | None
    first_p50_us: float
    first_p99_us: float
    added_first_p50_us: float | None
    added_first_p99_us: float | None
    late_p50_us: float
    late_p99_us: float
    added_late_p50_us: float | None
    added_late_p99_us: float | None
    rss_mb: float | None
    ready_s: float | None
    first_error: str | None = None


class Sample(msgspec.Struct, frozen=True):
    """One run: what the load generator saw, and what the gateway used for it."""

    result: Result
    cpu_s: float | None
    rss_mb: float | None


def load_of(scenario: Scenario, system: System, seconds: float, *, task_prefix: str = "bench") -> Load:
    """The load generator's orders."""
    return Load(
        host=system.host,
        port=system.port,
        path=system.path,
        connections=scenario.connections,
        seconds=seconds,
        stream=scenario.stream,
        pace_ms=scenario.pace_ms,
        prompt_bytes=scenario.prompt_bytes,
        stagger_s=min(scenario.stagger_s, seconds / 2),
        tasks="connection" if scenario.per_task else "none",
        task_prefix=task_prefix,
    )


def run_once(load: Load, pid: int | None) -> Sample:
    """One run of the load generator, as a process on this process's core."""
    before_s = cpu_s(pid) if pid is not None else 0.0
    command = [sys.executable, "-m", "tests.bench.load", msgspec.json.encode(load).decode()]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if ran.returncode:
        raise SystemExit(f"the load generator failed:\n{ran.stderr.decode()[-3000:]}")
    result = msgspec.json.decode(ran.stdout, type=Result)
    if pid is None:
        return Sample(result, None, None)
    return Sample(result, cpu_s(pid) - before_s, rss_mb(pid))


def measure(
    systems: Sequence[System],
    scenarios: Iterable[Scenario],
    *,
    reps: int,
    seconds: float | None = None,
    warm_s: float = WARM_S,
    say: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Every scenario on every system, interleaved, `reps` times; `seconds` overrides their own.

    Each is warmed up for `warm_s` first; 0: not at all.
    """
    wanted = list(scenarios)
    samples: dict[tuple[str, str], list[Sample]] = {}
    for rep in range(-1 if warm_s else 0, reps):
        for scenario in wanted:
            for system in systems:
                say(f"{'warming up' if rep < 0 else f'{rep + 1} of {reps}'}: {scenario.name} {system.name}")
                lasts_s = warm_s if rep < 0 else seconds or scenario.seconds
                sample = run_once(load_of(scenario, system, lasts_s), system.pid)
                if rep >= 0:
                    samples.setdefault((scenario.name, system.name), []).append(sample)
    rows = []
    for scenario in wanted:
        direct = samples.get((scenario.name, "direct"))
        rows += [_row(scenario, system, samples[scenario.name, system.name], direct) for system in systems]
    return rows


def _row(scenario: Scenario, system: System, samples: list[Sample], direct: list[Sample] | None) -> Row:
    def middle(figure: Callable[[Sample], float | None], of: list[Sample] = samples) -> float | None:
        found = [value for value in map(figure, of) if value is not None]
        return round(statistics.median(found), 2) if found else None

    def time_us(name: str) -> tuple[float, float | None]:
        def figure(sample: Sample) -> float:
            value: float = getattr(sample.result, name)
            return value

        own = middle(figure) or 0.0
        base = middle(figure, direct) if direct is not None and system.name != "direct" else None
        return own, None if base is None else round(own - base, 1)

    def per(sample: Sample, count: int) -> float | None:
        return sample.cpu_s / count * 1e6 if sample.cpu_s is not None and count else None

    def busy(sample: Sample) -> float | None:
        return None if sample.cpu_s is None else sample.cpu_s / max(sample.result.seconds, 1e-9) * 100

    p50, added_p50 = time_us("p50_us")
    p99, added_p99 = time_us("p99_us")
    first_p50, added_first_p50 = time_us("first_p50_us")
    first_p99, added_first_p99 = time_us("first_p99_us")
    late_p50, added_late_p50 = time_us("late_p50_us")
    late_p99, added_late_p99 = time_us("late_p99_us")
    return Row(
        system=system.name,
        scenario=scenario.name,
        reps=len(samples),
        requests=sum(sample.result.requests for sample in samples),
        errors=sum(sample.result.errors for sample in samples),
        requests_per_s=middle(lambda s: s.result.requests / max(s.result.seconds, 1e-9)) or 0.0,
        chunks_per_s=middle(lambda s: s.result.chunks / max(s.result.seconds, 1e-9)) or 0.0,
        cpu_us_per_request=middle(lambda s: per(s, s.result.requests)),
        cpu_us_per_chunk=middle(lambda s: per(s, s.result.chunks)),
        busy_percent=middle(busy),
        p50_us=p50,
        p99_us=p99,
        added_p50_us=added_p50,
        added_p99_us=added_p99,
        first_p50_us=first_p50,
        first_p99_us=first_p99,
        added_first_p50_us=added_first_p50,
        added_first_p99_us=added_first_p99,
        late_p50_us=late_p50,
        late_p99_us=late_p99,
        added_late_p50_us=added_late_p50,
        added_late_p99_us=added_late_p99,
        rss_mb=max((sample.rss_mb for sample in samples if sample.rss_mb is not None), default=None),
        ready_s=system.ready_s,
        first_error=next((s.result.first_error for s in samples if s.result.first_error), None),
    )
