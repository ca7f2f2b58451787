"""Percentile bootstrap over question groups: every metric is computed on all resamples at once.

Arrays of estimates have a leading axis of 1 + resamples: index 0 is the data as it is, the others are resamples.
Groups of rows that ask the same question are drawn whole (Efron & Tibshirani 1993, chapter 13, percentile interval).
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from routers.eval_table import Bools, Floats
from routers.rows import Indices

LEVEL: Final = 0.95
Weights = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval; all NaN where it is not defined."""

    value: float
    low: float
    high: float


def estimate(values: Floats) -> Estimate:
    """The estimate of one quantity: `values[0]` is the data's, the others are resamples'."""
    resamples = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]) or not len(resamples):
        return Estimate(float(values[0]), float("nan"), float("nan"))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resamples, [tail, 1 - tail])
    return Estimate(float(values[0]), float(low), float(high))


def estimate_of_size(values: Floats) -> Estimate:
    """The estimate of a mean size of deviations, such as ECE. A resample deviates by its own noise besides that of the
    data, and noise never cancels in a size: resamples are moved back by the excess of their mean (the bootstrap's
    estimate of bias, Efron & Tibshirani 1993, chapter 10), or the interval would lie above its own value."""
    resamples = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]) or not len(resamples):
        return estimate(values)
    excess = max(float(resamples.mean() - values[0]), 0.0)
    return estimate(np.concatenate([values[:1], np.maximum(resamples - excess, 0.0)]))


class Resamples:
    """How often each row is drawn: `weights` has shape (1 + resamples, rows), and row 0 is all ones."""

    def __init__(self, group: Indices, resamples: int, seed: int) -> None:
        names, place = np.unique(group, return_inverse=True)
        rng = np.random.default_rng(seed)
        count = len(names)
        drawn = np.ones((1 + resamples, count), dtype=np.float32)
        for b in range(1, 1 + resamples):
            drawn[b] = np.bincount(rng.integers(0, count, count), minlength=count)
        self.weights: Weights = drawn[:, place]

    def only(self, rows: Bools) -> Resamples:
        """The same resamples of some of the rows."""
        part = copy(self)
        part.weights = self.weights[:, rows]
        return part

    def sum(self, values: Floats) -> Floats:
        """Weighted sums over rows of (rows,) or (rows, columns) values: (1 + resamples,) or with columns."""
        return np.asarray(self.weights @ values.astype(np.float32), dtype=np.float64)

    def mean(self, values: Floats) -> Floats:
        """Weighted means over the rows where a value is known."""
        known = ~np.isnan(values)
        if known.all():
            total = self.weights.sum(axis=1, dtype=np.float64)
            return np.asarray(self.sum(values) / (total if values.ndim == 1 else total[:, None]))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.sum(np.where(known, values, 0.0)) / self.sum(known.astype(np.float64)))
