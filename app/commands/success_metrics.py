"""`bursar success-metrics`: the ten measures of success, from traces and feedback."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.commands.ending import Refused
from app.commands.outcomes import feedback_of
from app.commands.terminal import say, say_json, table
from app.commands.traces_open import asking, begin_of, open_traces, settings_for_asking
from app.core.efficiency import GROUPS
from app.learner.measured_runs import judged_since
from app.learner.measures import LEAST, MEASURES, Judged, Measure, measured
from app.settings import Settings

MAX_GROUPS = 200
_COLUMNS = ("measure", "value", "95 %", "of", "target", "status")


@asking
def success_metrics(*, by: str, since: str, key: str | None, target: Sequence[str], as_json: bool) -> int:
    """Print the measures; the exit code."""
    if by not in GROUPS:
        raise Refused(f"--by: {by!r} is not known; must be one of {', '.join(GROUPS)}")
    targets, begin_s = read_targets(target), begin_of(since)
    runs = asyncio.run(_read(settings_for_asking(), begin_s, key))
    told = answer(runs, by, begin_s, targets)
    if as_json:
        say_json(told)
    else:
        _print(runs, by, targets)
    return 0


def read_targets(given: Iterable[str]) -> dict[str, float]:
    """Targets written NAME=VALUE. Raises Refused."""
    found: dict[str, float] = {}
    for text in given:
        name, _, value = text.partition("=")
        if name not in MEASURES:
            raise Refused(f"--target: {name!r} is no measure; must be one of {', '.join(MEASURES)}")
        try:
            found[name] = float(value)
        except ValueError:
            raise Refused(f"--target: {name} needs a number, as in {name}=0.05") from None
    return found


def answer(runs: Sequence[Judged], by: str, begin_s: float, targets: Mapping[str, float]) -> dict[str, Any]:
    """What `GET /v1/success-metrics` answers."""
    groups = _grouped(runs, by)
    return {
        "object": "success_metrics",
        "by": by,
        "since": dt.datetime.fromtimestamp(begin_s, dt.UTC).isoformat(),
        "least": LEAST,
        "data": [{by: name, **_group_json(members, targets)} for name, members in groups[:MAX_GROUPS]],
        "left_out": max(len(groups) - MAX_GROUPS, 0),
        "all": _group_json(runs, targets),
    }


async def _read(settings: Settings, begin_s: float, key: str | None) -> list[Judged]:
    words = await feedback_of(settings)
    async with open_traces(settings) as db:
        return list(judged_since(db, begin_s, words, key=key))


def _grouped(runs: Iterable[Judged], by: str) -> list[tuple[str, list[Judged]]]:
    found: dict[str, list[Judged]] = {}
    for one in runs:
        found.setdefault(GROUPS[by](one.run), []).append(one)
    return sorted(found.items(), key=lambda group: (-len(group[1]), group[0]))


def _group_json(runs: Sequence[Judged], targets: Mapping[str, float]) -> dict[str, Any]:
    return {
        "runs": len(runs),
        "told": sum(one.told for one in runs),
        "measures": {name: measure.as_json() for name, measure in measured(runs, targets).items()},
    }


def _print(runs: Sequence[Judged], by: str, targets: Mapping[str, float]) -> None:
    groups = [("all", list(runs)), *_grouped(runs, by)[:MAX_GROUPS]]
    for name, members in groups:
        say(f"{name}: {len(members)} runs, {sum(one.told for one in members)} of them with feedback")
        rows = [_row(measure_name, measure) for measure_name, measure in measured(members, targets).items()]
        table(_COLUMNS, rows, right={"value", "95 %", "of", "target"})


def _row(name: str, measure: Measure) -> tuple[str, ...]:
    def shown(value: float | None) -> str:
        if value is None:
            return "-"
        forms = {"share": f"{value:.1%}", "usd": f"${value:.6f}", "s": f"{value:.2f} s"}
        return forms[measure.unit]

    most = "or more" if measure.high is None else f"- {shown(measure.high)}"
    span = "-" if measure.low is None else f"{shown(measure.low)} {most}"
    sign = ">" if MEASURES[name].more_is_better else "<"
    goal = "-" if measure.target is None else f"{sign} {shown(measure.target)}"
    return name, shown(measure.value), span, f"{measure.denominator:.0f}", goal, measure.status
