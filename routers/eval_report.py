"""An evaluation as tables of text and as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, Final

from routers.eval_bootstrap import Estimate
from routers.eval_measure import Measured
from routers.eval_newcomer import Newcomer
from routers.eval_policies import SHARES
from routers.eval_runs import HIGHEST
from routers.evaluate import Report, SourceReport

NOTHING: Final = "-"
NOT_WORSE: Final = {"worse": "NO", "unknown": NOTHING}
Column = tuple[str, str, float]
"""A column's heading, the key of its figure, and its scale."""
FORECASTS: Final[tuple[Column, ...]] = (
    ("APGR", "APGR", 1.0),
    ("CPT50 %", "CPT50", 100.0),
    ("CPT80 %", "CPT80", 100.0),
    ("ECE", "ECE", 1.0),
    ("length, log2", "length error, log2", 1.0),
)
MONEY: Final[tuple[Column, ...]] = (
    ("AIQ", "AIQ", 1.0),
    ("gap closed %", "gap to the oracle closed", 100.0),
    ("of AIQ %", "gap of AIQ closed", 100.0),
)
FEW_POINTS: Final = ("97% of best", "adequacy 0.8", "adequacy 0.9")
"""Operating points that fit beside a family's average; JSON has them all."""


@dataclass(frozen=True)
class Sheet:
    """A table to print: `right` names the columns of numbers."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    right: tuple[str, ...]


def shown(estimate: Estimate | None, scale: float = 1.0) -> str:
    """A value with its interval; percentages without decimals where they are large."""
    if estimate is None or not math.isfinite(estimate.value):
        return NOTHING
    digits = 1 if scale >= 100 else 3
    parts = [f"{part * scale:z.{digits}f}" for part in (estimate.value, estimate.low, estimate.high)]
    if not math.isfinite(estimate.low):
        return parts[0]
    return f"{parts[0]} [{parts[1]}, {parts[2]}]"


def sheets(report: Report) -> list[Sheet]:
    """The tables of a report, source by source; the verdicts against the static mix of all sources stand last."""
    found = [sheet for source in report.sources for sheet in _source_sheets(source)]
    lines = [
        (source.source, measured.name, NOT_WORSE.get(measured.against_static[0].verdict, "yes"),
         shown(measured.against_static[0].average, 100), _families(measured), measured.note or NOTHING)
        for source in report.sources for measured in source.routers if measured.against_static
    ]  # fmt: skip
    if lines:
        columns = ("source", "router", "not worse", "difference, points", "families better / level / worse", "note")
        found.append(Sheet("Against the static mix at equal spend", columns, lines, columns[3:5]))
    return found


def _families(measured: Measured) -> str:
    verdicts = [against.verdict for against in measured.against_static[1:]]
    return " / ".join(str(verdicts.count(word)) for word in ("better", "level", "worse")) if verdicts else NOTHING


def _source_sheets(source: SourceReport) -> list[Sheet]:
    everyone = [*source.routers, *source.baselines]
    name = source.source
    pair = f"; pair {source.pair[0]} / {source.pair[1]}" if source.pair else ""
    title = f"{name}: {source.rows} rows, {len(source.models)} models, best {source.best or 'unknown'}{pair}"
    names = [f"{share:.0%} of best" for share in SHARES]
    found = [_sheet(title, everyone, lambda m: {c: shown(m.values.get(key), scale) for c, key, scale in FORECASTS})]
    if source.best is not None:
        found += [
            _sheet(f"{name}: quality for money", everyone, _money),
            _sheet(f"{name}: dollars saved %, settings chosen on validation rows", everyone, _at(names, "saved")),
            _sheet(f"{name}: quality reached by these settings, % of best", everyone, _at(names, "of best")),
            _sheet(f"{name}: dollars saved %, read off the test curve in hindsight", everyone, _hindsight),
            _adequacy_sheet(f"{name}: cheapest model with P(success) >= adequacy", everyone),
        ]
    found += [_family_sheet(name, measured) for measured in source.routers if measured.against_static]
    found.append(_model_sheet(source))
    return [sheet for sheet in found if sheet.rows]


def _sheet(title: str, everyone: Sequence[Measured], cells: Callable[[Measured], dict[str, str]]) -> Sheet:
    """A line a router with anything to say, and only columns that hold something."""
    made = [(m.name, cells(m)) for m in everyone]
    made = [(name, line) for name, line in made if any(text != NOTHING for text in line.values())]
    columns = [c for c in (made[0][1] if made else {}) if any(line[c] != NOTHING for _, line in made)]
    rows = [(name, *(line[c] for c in columns)) for name, line in made]
    return Sheet(title, ("router", *columns), rows, tuple(columns))


def _money(measured: Measured) -> dict[str, str]:
    top = measured.points.get(HIGHEST, {})
    return {
        **{column: shown(measured.values.get(key), scale) for column, key, scale in MONEY},
        "highest quality, % of best": shown(top.get("of best"), 100),
        "saved % there": shown(top.get("saved"), 100),
        "arena at 99%": shown(measured.points.get("99% of best", {}).get("arena")),
    }


def _at(names: Sequence[str], key: str) -> Callable[[Measured], dict[str, str]]:
    return lambda measured: {name: shown(measured.points.get(name, {}).get(key), 100) for name in names}


def _hindsight(measured: Measured) -> dict[str, str]:
    return {f"{s:.0%}": shown(measured.values.get(f"saved at {s:.0%}, in hindsight"), 100) for s in SHARES}


def _adequacy_sheet(title: str, everyone: Sequence[Measured]) -> Sheet:
    columns = ("router", "adequacy", "quality", "saved %", "unsafe cheap misses %", "missed escalations %")
    rows = []
    for m in everyone:
        for name, point in m.points.items():
            if name.startswith("adequacy"):
                misses = [shown(point.get(key), 100) for key in ("saved", "unsafe cheap misses", "missed escalations")]
                rows.append((m.name, name.removeprefix("adequacy "), shown(point.get("quality")), *misses))
    return Sheet(title, columns, rows, columns[1:])


def _family_sheet(source: str, measured: Measured) -> Sheet:
    names = [name for name in FEW_POINTS if name in measured.against_static[0].points]
    columns = ("family", "rows", "over all spends", "verdict", *names)
    rows = [
        (a.family, str(a.rows), shown(a.average, 100), a.verdict, *(shown(a.points.get(name), 100) for name in names))
        for a in measured.against_static
    ]
    title = f"{source}, {measured.name}: points of quality above the static mix at equal spend"
    return Sheet(title, columns, rows, ("rows", "over all spends", *names))


def _model_sheet(source: SourceReport) -> Sheet:
    columns = ("model", "quality", "dollars a call")
    order = sorted(source.models, key=lambda model: -model[1].value)
    rows = [
        (name, shown(quality), f"{cost.value:.6f}" if math.isfinite(cost.value) else NOTHING)
        for name, quality, cost in order
    ]
    return Sheet(f"{source.source}: each model alone", columns, rows, columns[1:])


def newcomer_sheets(found: Newcomer) -> list[Sheet]:
    """A new model's lines: the error of its rate and the regret; then the error by family."""
    costs = list(dict.fromkeys(key for line in found.lines for key in line.regret))
    columns = ("method", "labels", "error of its rate, points", *(f"regret at {float(c):.0%}, points" for c in costs))
    rows = [
        (line.method, str(line.labels), shown(line.error, 100), *(shown(line.regret.get(c), 100) for c in costs))
        for line in found.lines
    ]
    title = f"{found.source}: {found.model} as a new model, {found.rows} rows, succeeds on {found.rate:.1%}"
    families = list(dict.fromkeys(key for line in found.lines for key in line.by_family))
    sheets = [Sheet(title, columns, rows, columns[1:])]
    if len(families) > 1:
        named = ("method", "labels", *families)
        by = [(x.method, str(x.labels), *(shown(x.by_family.get(f), 100) for f in families)) for x in found.lines]
        sheets.append(Sheet(f"{found.source}: error of its rate by family, points", named, by, named[1:]))
    return sheets


def newcomers_sheets(found: Sequence[Newcomer]) -> list[Sheet]:
    """Of several new models: the mean error of their rates by source, and over sources; nothing of a single one."""
    if len(found) < 2:
        return []
    sources = list(dict.fromkeys(one.source for one in found))
    errors: dict[tuple[str, int], dict[str, list[float]]] = {}
    for one in found:
        for line in one.lines:
            errors.setdefault((line.method, line.labels), {}).setdefault(one.source, []).append(line.error.value)
    rows = []
    for (method, labels), of in errors.items():
        means = {source: sum(values) / len(values) for source, values in of.items()}
        whole = f"{100 * sum(means.values()) / len(means):.1f}" if len(means) == len(sources) else NOTHING
        cells = (f"{100 * means[source]:.1f}" if source in means else NOTHING for source in sources)
        rows.append((method, str(labels), whole, *cells))
    columns = ("method", "labels", "all sources", *sources)
    return [
        Sheet(f"{len(found)} models, each as new: mean error of its rate by family, points", columns, rows, columns[1:])
    ]


def as_json(value: Any) -> Any:
    """A report as JSON values: dataclasses as objects, what is not a finite number as null."""
    if is_dataclass(value) and not isinstance(value, type):
        named = {name: as_json(part) for name, part in ((f, getattr(value, f)) for f in value.__dataclass_fields__)}
        return {**named, "verdict": value.verdict} if hasattr(value, "verdict") else named
    if isinstance(value, dict):
        return {str(key): as_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
