"""One source's outcomes as matrices, with what each call cost: what every metric and baseline is computed on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from routers.base import reasons_by_default
from routers.facts import is_agent
from routers.rows import CHARS_PER_TOKEN, Indices, Row, groups, view_of

Floats = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]
Prices = Callable[[str], tuple[float, float] | None]
"""Dollars per million input and output tokens of a model by its name in the data; None where unknown."""

FEW_SHOT_TOKENS: Final[Mapping[str, int]] = {"mmlu_pro": 1200, "routellm_mmlu": 1200}
"""Input that stood before the prompt in every call and is not in the rows (README of the data)."""
ASSUMED_OUTPUT_TOKENS: Final = 250.0
"""Of every answer in a source that records no length: the order of a short chain of thought. It is the same
for every model, so that relative cost is the price list's."""


@dataclass(frozen=True)
class Table:
    """Rows x models of one source. `score`, `cost` (dollars) and `out_tokens` are NaN where not known.

    `dollars`: models whose calls have a cost. `in_tokens` are recorded or estimated, by row. `rates`: dollars per
    million input and output tokens by model, NaN where unknown. `index`: the rows'
    numbers among all rows. `notes` say what was assumed and left out.
    """

    source: str
    rows: tuple[Row, ...]
    models: tuple[str, ...]
    score: Floats
    cost: Floats
    out_tokens: Floats
    in_tokens: Floats
    rates: Floats
    dollars: Bools
    families: tuple[str, ...]
    family: Indices
    group: Indices
    index: Indices
    notes: tuple[str, ...]

    @property
    def usable(self) -> Bools:
        """Which model can be chosen on which row: its outcome and its cost are known."""
        return ~np.isnan(self.score) & ~np.isnan(self.cost)

    def take(self, rows: Indices) -> list[Row]:
        """The rows with these numbers."""
        return [self.rows[int(number)] for number in rows]


def tables(rows: Sequence[Row], prices: Prices, *, models: Sequence[str] = ()) -> list[Table]:
    """A table for each source that has outcomes, in order of appearance; of `models` only, where any are given.

    Groups are numbered over all rows, so that a question has the same group in every table.
    """
    group = groups(rows)
    members: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        if any(model in row.outcomes for model in models) if models else row.outcomes:
            members.setdefault(row.source, []).append(number)
    wanted = set(models)
    return [
        _table(source, [rows[i] for i in numbers], group[numbers], np.array(numbers, dtype=np.int64), prices, wanted)
        for source, numbers in members.items()
    ]


def _table(source: str, rows: list[Row], group: Indices, index: Indices, prices: Prices, wanted: set[str]) -> Table:
    names = sorted({model for row in rows for model in row.outcomes if not wanted or model in wanted})
    place = {name: j for j, name in enumerate(names)}
    shape = (len(rows), len(names))
    score, recorded, out, asked = (np.full(shape, np.nan) for _ in range(4))
    for i, row in enumerate(rows):
        for model, outcome in row.outcomes.items():
            j = place.get(model)
            if j is None:
                continue
            score[i, j] = outcome.score
            if outcome.cost_usd is not None:
                recorded[i, j] = outcome.cost_usd
            if outcome.in_tokens is not None:
                asked[i, j] = outcome.in_tokens
            tokens = outcome.out_tokens if reasons_by_default(model) else outcome.length_tokens
            if tokens is not None:
                out[i, j] = tokens
    rates = np.array([_price(name, prices) for name in names], dtype=np.float64).reshape(-1, 2)
    notes: list[str] = []
    estimated = np.array([_input_tokens(row) for row in rows])
    cost = _costs(names, score, recorded, out, np.where(np.isnan(asked), estimated[:, None], asked), rates, notes)
    dollars: Bools = np.logical_or.reduce(np.isfinite(cost), axis=0)
    families = sorted({row.family for row in rows})
    number_of = {family: number for number, family in enumerate(families)}
    return Table(
        source, tuple(rows), tuple(names), score, cost, out, _mean_or(asked, estimated), rates, dollars,
        tuple(families), np.array([number_of[row.family] for row in rows], dtype=np.int64), group, index, tuple(notes),
    )  # fmt: skip


def _price(name: str, prices: Prices) -> tuple[float, float]:
    found = None if is_agent(name) else prices(name)  # an agent's calls have no list price
    return found or (np.nan, np.nan)


def _input_tokens(row: Row) -> float:
    view = view_of(row)
    return (len(row.prompt) + view.tool_schema_chars) / CHARS_PER_TOKEN + FEW_SHOT_TOKENS.get(row.source, 0)


def _mean_or(known: Floats, other: Floats) -> Floats:
    """The mean of each row's known values, `other` where it has none."""
    count = (~np.isnan(known)).sum(axis=1)
    mean = np.nansum(known, axis=1) / np.maximum(count, 1)
    return np.where(count > 0, mean, other)


def _costs(
    names: list[str], score: Floats, recorded: Floats, out: Floats, asked: Floats, rates: Floats, notes: list[str]
) -> Floats:
    """Dollars of every call that was made: recorded, else tokens times price, lengths filled in where unknown."""
    guessed: list[str] = []
    lengths = _filled(names, score, out, guessed)
    by_tokens = (asked * rates[:, 0] + lengths * rates[:, 1]) / 1e6
    hidden = [j for j, name in enumerate(names) if reasons_by_default(name) and np.isnan(out[:, j]).all()]
    by_tokens[:, hidden] = np.nan
    # One way of counting per model: recorded dollars and recalled prices are not mixed.
    has_record = ~np.isnan(recorded).all(axis=0)
    if not has_record.all():
        notes += guessed
    cost = np.where(has_record, recorded, by_tokens)
    cost[np.isnan(score)] = np.nan
    left_out = [j for j in range(len(names)) if np.isnan(cost[:, j]).all()]
    for why, among in (("reasoning tokens are not recorded", True), ("no price (--prices) and no cost", False)):
        named = [names[j] for j in left_out if (j in hidden) is among]
        if named:
            notes.append(f"left out of dollars, {why}: {_listed(named)}")
    if len(left_out) == len(names) - 1 > 0:
        (paid,) = set(range(len(names))) - set(left_out)
        notes.append(f"only {names[paid]} has dollars: all figures of money compare it with itself")
    return cost


def _filled(names: list[str], score: Floats, out: Floats, notes: list[str]) -> Floats:
    """Output tokens with gaps filled by the model's mean, or the row's mean over models, or an assumption."""
    if np.isnan(out).all():
        notes.append(f"no output lengths recorded: {ASSUMED_OUTPUT_TOKENS:.0f} tokens an answer assumed")
        return np.full(out.shape, ASSUMED_OUTPUT_TOKENS)
    count = (~np.isnan(out)).sum(axis=0)
    of_model = np.nansum(out, axis=0) / np.maximum(count, 1)
    of_row = _mean_or(out, np.full(len(out), float(np.nanmean(out))))
    unknown = [names[j] for j in np.flatnonzero((count == 0) & ~np.isnan(score).all(axis=0))]
    if unknown:
        notes.append(f"no output lengths recorded for {_listed(unknown)}: the other models' mean assumed")
    fill = np.where(count > 0, of_model, of_row[:, None])
    return np.where(np.isnan(out), fill, out)


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
