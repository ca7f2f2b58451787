"""What the Speed view shows of runs: radar, frontier, trend, regressions. Pure; the rules are shared PARTS.md's."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from app.core.efficiency import Group, group_of, grouped
from app.core.runs import Run

LEAST_RUNS = 10
"""A model with fewer is not on the radar."""
CLIP_TIMES, CLIP_LEAST_MS = 5, 30_000.0
SLOWER = 0.2
"""By so much a model must have become slower to be flagged."""
RECENT = 0.25
"""The last part of the time, which is compared with all before it."""
LEAST_COMPARED = 5
"""Passed runs that both parts must have: fewer would flag chance."""
POINTS = 14
_STEPS_S = (3_600, 2 * 3_600, 4 * 3_600, 12 * 3_600, 86_400, 2 * 86_400, 7 * 86_400, 28 * 86_400)


def speed(runs: Sequence[Run], since_s: float, until_s: float) -> dict[str, Any]:
    """Everything of the view but error codes, which are of calls."""
    by_model = grouped(runs, ["model"])
    return {
        "runs": len(runs),
        "judged": sum(run.judged for run in runs),
        "models": [group.as_json() for group in by_model],
        "harnesses": [group.as_json() for group in grouped(runs, ["harness"])],
        "radar": radar(by_model),
        "frontier": frontier(grouped(runs, ["model", "harness"])),
        "trend": trend(runs, since_s, until_s),
        "regressions": regressions(runs, since_s, until_s),
    }


def radar(groups: Sequence[Group]) -> dict[str, Any]:
    """The median time to success of each model; the longest are clipped, and told as they are beside it."""
    enough = [group for group in groups if group.runs >= LEAST_RUNS and group.passed]
    times = [group.efficiency.median_time_to_success_ms for group in enough]
    clip_ms = max(CLIP_TIMES * median(times), CLIP_LEAST_MS) if times else CLIP_LEAST_MS
    rows = [
        {
            "model": group.of["model"],
            "runs": group.runs,
            "passed": group.passed,
            "ms": ms,
            "shown_ms": min(ms, clip_ms),
            "outlier": ms > clip_ms,
        }
        for group, ms in zip(enough, times, strict=True)
    ]
    few = [{"model": g.of["model"], "runs": g.runs, "passed": g.passed} for g in groups if g not in enough]
    return {
        "least_runs": LEAST_RUNS,
        "clip_ms": clip_ms,
        "rows": sorted(rows, key=lambda row: (row["ms"], row["model"])),
        "few": few,
    }


def frontier(groups: Sequence[Group]) -> dict[str, Any]:
    """Cost and time of a success, for each model in each program. On the frontier are those that are faster than all
    that are cheaper; every other point names one that is neither dearer nor slower."""
    points, off = [], []
    for group in groups:
        usd, ms = group.cost_per_success_usd, group.efficiency.median_time_to_success_ms
        named = {
            **group.of,
            "runs": group.runs,
            "counted": group.counted,
            "passed": group.passed,
            "success_rate": group.success_rate,
        }
        if usd is not None and usd > 0 and ms > 0:
            points.append({**named, "usd": usd, "s": ms / 1000, "dominated_by": None})
        else:
            why = "no run has passed" if not group.passed else "free" if usd == 0 else "cost or time not known"
            off.append({**named, "why": why})
    points.sort(key=lambda point: (point["usd"], point["s"]))
    best: dict[str, Any] | None = None
    for point in points:
        if best is None or point["s"] < best["s"]:
            best = point
        else:
            point["dominated_by"] = f"{best['model']} in {best['harness']}"
    return {"points": points, "off": off}


def trend(runs: Sequence[Run], since_s: float, until_s: float) -> dict[str, Any]:
    """For each model how it did in each part of the time, those with most runs first."""
    step = next((step for step in _STEPS_S if (until_s - since_s) / step <= POINTS), _STEPS_S[-1])
    models: dict[str, dict[int, list[Run]]] = {}
    for run in runs:
        models.setdefault(run.model, {}).setdefault(int(run.began_s // step) * step, []).append(run)
    found = [
        {
            "model": name,
            "runs": sum(map(len, parts.values())),
            "points": [_point(at, parts[at]) for at in sorted(parts)],
        }
        for name, parts in models.items()
    ]
    return {"step_s": step, "models": sorted(found, key=lambda one: (-one["runs"], one["model"]))}


def _point(at_s: int, runs: Sequence[Run]) -> dict[str, Any]:
    group = group_of(runs, {})
    ms = group.efficiency.median_time_to_success_ms
    return {
        "at_s": at_s,
        "runs": group.runs,
        "passed": group.passed,
        "success_rate": group.success_rate if group.counted else None,
        "ms": ms or None,
        "usd": group.cost_per_success_usd,
    }


def regressions(runs: Sequence[Run], since_s: float, until_s: float) -> list[dict[str, Any]]:
    """Models whose median time to success in the last part of the time is longer by SLOWER or more, the worst first."""
    split_s = until_s - RECENT * (until_s - since_s)
    times: dict[str, tuple[list[float], list[float]]] = {}
    for run in runs:
        if run.passed:
            times.setdefault(run.model, ([], []))[run.began_s >= split_s].append(run.time_to_success_ms)
    found: list[dict[str, Any]] = []
    for model, (before, after) in times.items():
        if min(len(before), len(after)) >= LEAST_COMPARED:
            was, now = median(before), median(after)
            if was > 0 and now >= was * (1 + SLOWER):
                found.append(
                    {
                        "model": model,
                        "before_ms": was,
                        "now_ms": now,
                        "slower": now / was - 1,
                        "before_runs": len(before),
                        "now_runs": len(after),
                        "since_s": split_s,
                    }
                )
    return sorted(found, key=lambda one: -one["slower"])
