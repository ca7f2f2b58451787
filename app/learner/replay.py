"""What another policy would have cost and scored on recorded decisions: rows, estimates, and where it would send them.
Pure. How it is estimated, and what the intervals cover, is in `replay_estimates`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from app.core.money import Price
from app.learner.rehearsal import Rehearsal, Would
from app.learner.replay_calls import Recorded, repriced_usd
from app.learner.replay_estimates import Logged, Replayed, estimate

MOST_MISSING: Final = 20
"""Rows of what is missing for lack of support."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A recorded decision, what the other policy would do with it, and its cost at that policy's prices."""

    row: Recorded
    would: Would
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Group:
    """Some decisions: dollars per decision and success rate, by what was drawn; and what the router itself expects,
    which no outcome vouches for: (of what was chosen, of what would be)."""

    decisions: int
    cost: Replayed
    success: Replayed
    expected_cost_usd: tuple[float, float]
    expected_success: tuple[float, float]
    models: Mapping[str, tuple[float, float]]

    def as_json(self) -> dict[str, Any]:
        """JSON-ready. `models`: the share of decisions that each model had, and would have."""
        return {
            "decisions": self.decisions,
            "cost_usd": self.cost.as_json(),
            "success": self.success.as_json(),
            "expected": {
                "cost_usd": _pair(self.expected_cost_usd),
                "success": _pair(self.expected_success),
            },
            "models": {model: _pair(shares) for model, shares in self.models.items()},
        }


@dataclass(frozen=True, slots=True)
class Replay:
    """All of it. `left_out`: decisions that could not be decided again, by why. `missing`: where the other policy would
    send decisions though that could not have been drawn: task type, model, share of all decisions."""

    all: Group
    by_task_type: Mapping[str, Group]
    left_out: Mapping[str, int]
    unread: int
    missing: Sequence[tuple[str, str, float]]

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "all": self.all.as_json(),
            "by_task_type": {name: group.as_json() for name, group in self.by_task_type.items()},
            "left_out": dict(self.left_out),
            "unread": self.unread,
            "missing": [{"task_type": kind, "model": model, "share": share} for kind, model, share in self.missing],
        }


def replay(rows: Iterable[Recorded], rehearsal: Rehearsal, prices: Mapping[str, Price | None]) -> Replay:
    """Decide all of them again and estimate what would have come of it. `prices`: by model, of the other policy."""
    decided: list[Decided] = []
    left_out: dict[str, int] = {}
    for row in rows:
        would = rehearsal.again(row)
        if would is None or not would.shares:
            why = "recorded by another version" if would is None else f"not served: {would.refused}"
            left_out[why] = left_out.get(why, 0) + 1
        else:
            decided.append(Decided(row, would, repriced_usd(row, prices)))
    kinds: dict[str, list[Decided]] = {}
    for one in decided:
        kinds.setdefault(one.row.task_type, []).append(one)
    ordered = sorted(kinds.items(), key=lambda kind: (-len(kind[1]), kind[0]))
    by_task_type = {name: _group(members) for name, members in ordered}
    return Replay(_group(decided), by_task_type, left_out, rehearsal.unread, _missing(decided))


def _group(decided: Sequence[Decided]) -> Group:
    cost = _logged(decided, lambda one: one.cost_usd, lambda one: one.would.cost_usd)
    success = _logged(decided, lambda one: one.row.good, lambda one: one.would.p_success)
    return Group(
        len(decided),
        estimate(cost, least=0.0),
        estimate(success, least=0.0, most=1.0),
        _expected(cost),
        _expected(success),
        _models(decided),
    )


def _logged(
    decided: Sequence[Decided],
    outcome: Callable[[Decided], float | None],
    expected: Callable[[Decided], Mapping[str, float]],
) -> Logged:
    """The columns of one quantity."""
    numbers: dict[str, int] = {}
    rows = [
        (
            numbers.setdefault(one.row.unit, len(numbers)),
            one.row.propensity,
            one.would.shares.get(one.row.chosen, 0.0),
            sum(share for model, share in one.would.shares.items() if model not in one.row.possible),
            np.nan if (known := outcome(one)) is None else known,
            expected(one).get(one.row.chosen, 0.0),
            sum(share * expected(one).get(model, 0.0) for model, share in one.would.shares.items()),
        )
        for one in decided
    ]
    columns = np.array(rows, dtype=np.float64).reshape(len(rows), 7).T
    return Logged(columns[0].astype(np.intp), *columns[1:])


def _expected(logged: Logged) -> tuple[float, float]:
    if not len(logged.unit):
        return float("nan"), float("nan")
    return float(logged.expected.mean()), float(logged.expected_target.mean())


def _models(decided: Sequence[Decided]) -> dict[str, tuple[float, float]]:
    had: dict[str, float] = {}
    would: dict[str, float] = {}
    for one in decided:
        had[one.row.chosen] = had.get(one.row.chosen, 0.0) + 1.0 / len(decided)
        for model, share in one.would.shares.items():
            would[model] = would.get(model, 0.0) + share / len(decided)
    names = sorted({*had, *would}, key=lambda name: (-had.get(name, 0.0), -would.get(name, 0.0), name))
    return {name: (had.get(name, 0.0), would.get(name, 0.0)) for name in names}


def _missing(decided: Sequence[Decided]) -> list[tuple[str, str, float]]:
    found: dict[tuple[str, str], float] = {}
    for one in decided:
        for model, share in one.would.shares.items():
            if model not in one.row.possible:
                cell = one.row.task_type, model
                found[cell] = found.get(cell, 0.0) + share / len(decided)
    most = sorted(found.items(), key=lambda cell: -cell[1])[:MOST_MISSING]
    return [(*cell, share) for cell, share in most]


def _pair(values: tuple[float, float]) -> dict[str, float | None]:
    recorded, other = (value if np.isfinite(value) else None for value in values)
    return {"recorded": recorded, "would": other}
