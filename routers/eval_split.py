"""Who is trained, where operating points are chosen, and where they are tested: never the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from routers.eval_table import Table
from routers.rows import Indices, Row, folds, groups

Cv = Literal["none", "random", "family", "source"]
VALIDATION_PARTS: Final = 4
"""A quarter of a training fold is set aside to choose operating points on."""
MIN_HALF: Final = 2
"""Question groups that a half must have for anything to be chosen on it."""


@dataclass(frozen=True)
class Fold:
    """Row numbers of one table. `plan`: which training run it belongs to. Operating points are chosen on `validation`.

    Where `train` is empty, what needs training on this source is trained on the validation rows (and chosen there on
    forecasts made without the row): that favours it.
    """

    plan: int
    train: Indices
    validation: Indices
    test: Indices


@dataclass(frozen=True)
class Plan:
    """Training rows by their number among all rows (none: nothing is trained), and the folds of each table."""

    train: Indices
    folds: tuple[tuple[int, Fold], ...]


def plans(rows: Sequence[Row], tables: Sequence[Table], kind: Cv, seed: int) -> tuple[list[Plan], list[str]]:
    """The plans of an evaluation, and notes on what could not be split as asked."""
    notes: list[str] = []
    nothing = np.array([], dtype=np.int64)
    if kind == "none":
        parts = [(number, fold) for number, table in enumerate(tables) for fold in swapped(table, _all(table), 0, seed)]
        return [Plan(nothing, tuple(parts))], notes
    group = groups(rows)
    found: list[Plan] = []
    outer = folds(rows, kind, seed)
    if len(outer) < 2:
        notes.append(f"--cv {kind}: these rows do not make two folds; nothing is trained, halves are swapped instead")
        fallback, _ = plans(rows, tables, "none", seed)
        return fallback, notes
    for number, (train, test) in enumerate(outer):
        in_train, in_test = np.isin(np.arange(len(rows)), train), np.isin(np.arange(len(rows)), test)
        parts = []
        held = [nothing]
        for place, table in enumerate(tables):
            tested, trained = np.flatnonzero(in_test[table.index]), np.flatnonzero(in_train[table.index])
            if not len(tested):
                continue
            if len(np.unique(table.group[trained])) < 4 * MIN_HALF:
                if kind != "source":
                    notes.append(f"{table.source}: fold {number + 1} holds all of it, so that its halves are swapped")
                parts += [(place, fold) for fold in swapped(table, tested, number, seed)]
                continue
            fit, validation = _inner(table, trained, kind, seed)
            held.append(table.index[validation])
            parts.append((place, Fold(number, fit, validation, tested)))
        outside = np.concatenate(held)
        kept = train[~np.isin(group[train], group[outside])]
        found.append(Plan(kept, tuple(parts)))
    return found, notes


def without_source(rows: Sequence[Row], source: str) -> list[Row]:
    """The rows of other sources that ask none of this one's questions."""
    group = groups(rows)
    asked = {int(number) for number, row in zip(group, rows, strict=True) if row.source == source}
    return [r for number, r in zip(group, rows, strict=True) if r.source != source and int(number) not in asked]


def swapped(table: Table, rows: Indices, plan: int, seed: int) -> list[Fold]:
    """Two folds: choose on one half and test on the other, and the reverse; halves by question group."""
    names = np.unique(table.group[rows])
    nothing = np.array([], dtype=np.int64)
    if len(names) < 2 * MIN_HALF:
        return []
    np.random.default_rng(seed).shuffle(names)
    first = np.isin(table.group[rows], names[: len(names) // 2])
    a, b = rows[first], rows[~first]
    return [Fold(plan, nothing, a, b), Fold(plan, nothing, b, a)]


def thirds(group: Indices, seed: int, parts: int = 3) -> Indices:
    """A part for each row, whole question groups together."""
    names, place = np.unique(group, return_inverse=True)
    part = np.arange(len(names)) % parts
    np.random.default_rng(seed).shuffle(part)
    return np.asarray(part[place], dtype=np.int64)


def _inner(table: Table, trained: Indices, kind: Cv, seed: int) -> tuple[Indices, Indices]:
    """A training fold in two: to fit, and to choose on, which for `family` is families that the fit does not see."""
    inside = [table.rows[int(i)] for i in trained]
    families = len({row.family for row in inside})
    split = folds(inside, "family" if kind == "family" and families > 2 else "random", seed, parts=VALIDATION_PARTS)
    fit, validation = split[seed % len(split)]
    return trained[fit], trained[validation]


def _all(table: Table) -> Indices:
    return np.arange(len(table.rows), dtype=np.int64)
