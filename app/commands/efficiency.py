"""`bursar efficiency`: how fast and how cheap runs succeed, from traces and feedback."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence
from typing import Any

from app.commands.ending import Refused
from app.commands.outcomes import feedback_of
from app.commands.terminal import say_json, table
from app.commands.traces_open import asking, begin_of, open_traces, settings_for_asking
from app.core.efficiency import GROUPS, Group, group_of, grouped
from app.core.runs import Run
from app.settings import Settings
from app.stores.traces_runs import runs_since

MAX_GROUPS = 500
_COLUMNS = (
    "runs",
    "success",
    "to success",
    "first attempt",
    "turns",
    "tokens/s",
    "p90 cost",
    "score",
    "cost-killed",
)


@asking
def efficiency(*, by: str, since: str, key: str | None, judged: bool, as_json: bool) -> int:
    """Print the efficiency of runs; the exit code."""
    names, begin_s = [name.strip() for name in by.split(",")], begin_of(since)
    if unknown := [name for name in names if name not in GROUPS]:
        raise Refused(f"--by: {unknown[0]!r} is not known; must be one or more of {', '.join(GROUPS)}")
    runs = asyncio.run(read_runs(settings_for_asking(), begin_s, key))
    if judged:
        runs = [run for run in runs if run.judged]
    if as_json:
        say_json(answer(runs, names, begin_s, judged=judged))
    else:
        _print(grouped(runs, names), names)
    return 0


def answer(runs: Sequence[Run], by: Sequence[str], begin_s: float, *, judged: bool) -> dict[str, Any]:
    """What `GET /v1/efficiency` answers."""
    groups = grouped(runs, by)
    return {
        "object": "efficiency",
        "by": ",".join(by),
        "since": dt.datetime.fromtimestamp(begin_s, dt.UTC).isoformat(),
        "judged_only": judged,
        "data": [group.as_json() for group in groups[:MAX_GROUPS]],
        "left_out": max(len(groups) - MAX_GROUPS, 0),
        "all": group_of(runs, {}).as_json(),
    }


async def read_runs(settings: Settings, begin_s: float, key: str | None) -> list[Run]:
    """The runs since then. Raises TracesError, OutcomesUnavailable or LedgerUnavailable."""
    words = await feedback_of(settings)
    async with open_traces(settings) as db:
        return list(runs_since(db, begin_s, words, key=key))


def _print(groups: Sequence[Group], by: Sequence[str]) -> None:
    rows = []
    for group in groups[:MAX_GROUPS]:
        block = group.efficiency
        of_passed = (
            f"{block.median_time_to_success_ms / 1000:.2f} s",
            f"{block.median_time_to_first_attempt_ms / 1000:.2f} s",
            f"{block.median_turns_to_success:g}",
            f"{block.median_tokens_per_sec:.1f}",
            f"${block.p90_cost_per_success:.6f}",
            f"{block.speed_efficiency_score:.3f}",
        )
        rate = f"{group.success_rate:.0%}" if group.counted else "-"
        shown = of_passed if group.passed else ["-"] * len(of_passed)  # no figure of nothing
        rows.append([*(group.of[n] for n in by), str(group.runs), rate, *shown, str(block.cost_killed_count)])
    table([*by, *_COLUMNS], rows, right=set(_COLUMNS))
