"""How fast and how cheap runs succeed: the efficiency block, pure.

The figures and their rules are those that agent benchmarks use (shared PARTS.md): medians over passed runs; time to
success is its moment where that was measured, else the run's duration; p90 = sorted[min(n - 1, int(0.9 n))]; score =
success rate / (1 + median time to success in s / 60); runs that their budget ended are counted among all.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from statistics import median
from typing import Any, Final

import msgspec

from app.core.runs import Run

GROUPS: Final[Mapping[str, Callable[[Run], str]]] = {
    "model": lambda run: run.model,
    "harness": lambda run: run.harness,
    "task_type": lambda run: run.task_type,
    "key": lambda run: run.key,
    "day": lambda run: dt.datetime.fromtimestamp(run.began_s, dt.UTC).date().isoformat(),
}
"""What runs can be told apart by."""
P90: Final = 0.9


class Efficiency(msgspec.Struct, frozen=True):
    """The block. Every field is always there; 0 where no run tells it."""

    median_time_to_first_attempt_ms: float = 0.0
    median_time_to_success_ms: float = 0.0
    median_turns_to_success: float = 0.0
    median_tokens_per_sec: float = 0.0
    p90_cost_per_success: float = 0.0
    speed_efficiency_score: float = 0.0
    cost_killed_count: int = 0


class Group(msgspec.Struct, frozen=True):
    """Runs that have the same `of`, a value for each name in `by`. `counted` of them count towards the success rate,
    `judged` were spoken of. `cost_usd`: of the runs whose cost is known, all together; `cost_per_success_usd` is that
    over the passed ones, None where none passed."""

    of: dict[str, str]
    runs: int
    counted: int
    passed: int
    judged: int
    success_rate: float
    cost_usd: float
    cost_per_success_usd: float | None
    efficiency: Efficiency

    def as_json(self) -> dict[str, Any]:
        """Its names and values first."""
        rest: dict[str, Any] = msgspec.to_builtins(self)
        return {**rest.pop("of"), **rest}


def efficiency_of(runs: Collection[Run]) -> Efficiency:
    """The block of these runs."""
    passed = [run for run in runs if run.passed]
    to_success = _median(run.time_to_success_ms for run in passed)
    return Efficiency(
        median_time_to_first_attempt_ms=_median(run.first_attempt_ms for run in passed if run.first_attempt_ms > 0),
        median_time_to_success_ms=to_success,
        median_turns_to_success=_median(run.turns for run in passed),
        median_tokens_per_sec=_median(run.tokens_per_sec for run in passed if run.tokens_per_sec > 0),
        p90_cost_per_success=p90([run.cost_usd for run in passed if run.cost_usd is not None]),
        speed_efficiency_score=success_rate(runs) / (1 + to_success / 1000 / 60),
        cost_killed_count=sum(run.killed_usd is not None for run in runs),
    )


def success_rate(runs: Iterable[Run]) -> float:
    """The share of passed runs among those that count; 0 where none does."""
    counted = [run.passed for run in runs if run.passed is not None]
    return sum(counted) / len(counted) if counted else 0.0


def p90(values: Sequence[float]) -> float:
    """The value below which nine in ten lie, by the index of shared PARTS.md; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(P90 * len(ordered)))] if ordered else 0.0


def grouped(runs: Iterable[Run], by: Sequence[str]) -> list[Group]:
    """The groups by these names (of GROUPS), the one with most runs first."""
    found: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        found.setdefault(tuple(GROUPS[name](run) for name in by), []).append(run)
    groups = [group_of(members, dict(zip(by, values, strict=True))) for values, members in found.items()]
    return sorted(groups, key=lambda group: (-group.runs, list(group.of.values())))


def group_of(runs: Sequence[Run], of: dict[str, str]) -> Group:
    """These runs as one group."""
    passed = sum(run.passed is True for run in runs)
    cost = sum(run.cost_usd for run in runs if run.cost_usd is not None)
    return Group(
        of=of,
        runs=len(runs),
        counted=sum(run.passed is not None for run in runs),
        passed=passed,
        judged=sum(run.judged for run in runs),
        success_rate=success_rate(runs),
        cost_usd=cost,
        cost_per_success_usd=cost / passed if passed else None,
        efficiency=efficiency_of(runs),
    )


def _median(values: Iterable[float]) -> float:
    found = list(values)
    return float(median(found)) if found else 0.0
