"""The metrics, each on all resamples at once: the leading axis of an estimate is 1 + resamples.

A *curve* is a pair of arrays (resamples, settings): mean quality and mean cost of a router at each of its settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2
from typing import Final

import numpy as np

from routers.eval_bootstrap import Resamples
from routers.eval_table import Floats
from routers.rows import Indices

DECILES: Final = 10
ECE_BINS: Final = 15
"""Bins of equal width over [0, 1] (Guo et al. 2017, https://arxiv.org/abs/1706.04599, use 15)."""
BUDGETS: Final = 9
LOG2_BINS: Final = 1000
MAX_LOG2: Final = 10.0
ROWS_AT_ONCE: Final = 4096
"""Rows whose histograms are held at a time: 16 MB."""
ARENA_DEAREST: Final = 200.0
ARENA_CHEAPEST: Final = 0.0044
ARENA_BETA: Final = 0.1
"""Dollars per 1,000 requests between which RouterArena rates cost, and the weight it gives that rating."""


@dataclass(frozen=True, slots=True)
class Pair:
    """RouteLLM's numbers for a strong and a weak model, (resamples,) each. CPT is a share of calls in [0, 1]."""

    apgr: Floats
    cpt50: Floats
    cpt80: Floats


MOST_AT_ONCE: Final = 2_000_000
"""Resamples times rows that are routed at once: each takes some 30 bytes."""


def pair_metrics(needed: Floats, strong: Floats, weak: Floats, resamples: Resamples) -> Pair:
    """APGR, CPT(50 %), CPT(80 %) of a score of how much the strong model is needed, by row.

    RouteLLM's protocol (https://github.com/lm-sys/RouteLLM, evals): thresholds at the deciles of the score, ties
    routed alike, strong where score >= threshold, for the last threshold where it is greater; the area under accuracy
    over the share of strong calls by trapezoids. CPT reads the first crossing where accuracy is not monotone.
    """
    order = np.argsort(needed, kind="stable")
    total = resamples.weights.sum(axis=1, dtype=np.float64)
    worth = resamples.sum(np.stack([strong, weak], axis=1)) / total[:, None]
    # A tie is on one side of any threshold: cuts lie only where a new value begins.
    values = needed[order]
    begins = np.concatenate([[0], np.flatnonzero(np.diff(values) > 0) + 1])
    start = np.append(begins, len(values))
    block = np.searchsorted(begins, np.arange(len(values)), side="right") - 1
    gain = (strong - weak)[order]
    step = max(MOST_AT_ONCE // len(values), 1)
    routed = [
        _routed(resamples.weights[first : first + step][:, order].astype(np.float64), gain, start, block)
        for first in range(0, len(total), step)
    ]
    share, accuracy = (np.concatenate(part) for part in zip(*routed, strict=True))
    return _pair(share[:, ::-1], worth[:, 1:] + accuracy[:, ::-1], worth[:, 0], worth[:, 1])


def _routed(weights: Floats, gain: Floats, start: Indices, block: Indices) -> tuple[Floats, Floats]:
    """Of some resamples (resamples, rows), rows in order of need: the share of strong calls and what they gain, at each
    decile. `start`: where each value of need begins, and the end; `block`: the value of each row."""
    rank, gained = np.cumsum(weights, axis=1), np.cumsum(weights * gain, axis=1)
    total, end = rank[:, -1], weights.shape[1]
    share, won = np.empty((len(total), DECILES + 1)), np.empty((len(total), DECILES + 1))
    for decile in range(DECILES + 1):
        # The quantile's interpolation between two values cuts below the upper one.
        target = np.ceil(np.round((total - 1) * decile / DECILES, 9))
        first = np.array([int(np.searchsorted(rank[b], target[b], side="right")) for b in range(len(total))])
        cut = start[block[np.minimum(first, end - 1)]] if decile < DECILES else np.full(len(total), end)
        below, lost = (np.where(cut > 0, _at(part, cut - 1), 0.0) for part in (rank, gained))
        share[:, decile] = 1.0 - below / total
        won[:, decile] = (gained[:, -1] - lost) / total
    return share, won


def _pair(share: Floats, accuracy: Floats, strong: Floats, weak: Floats) -> Pair:
    with np.errstate(invalid="ignore", divide="ignore"):
        recovered = (accuracy - weak[:, None]) / (strong - weak)[:, None]
        width = share[:, -1] - share[:, 0]
        apgr = _area(recovered, share) / width
    recovered[~np.isfinite(recovered).all(axis=1)] = np.nan
    return Pair(apgr, _first_crossing(share, recovered, 0.5), _first_crossing(share, recovered, 0.8))


def _area(y: Floats, x: Floats) -> Floats:
    """The area under y over x along the last axis, by trapezoids."""
    return np.asarray(((y[..., 1:] + y[..., :-1]) * np.diff(x)).sum(axis=-1) / 2)


def _at(values: Floats, column: Floats) -> Floats:
    picked: Floats = np.take_along_axis(values, np.maximum(column, 0)[:, None].astype(np.int64), axis=1)[:, 0]
    return picked


def _first_crossing(x: Floats, y: Floats, level: float) -> Floats:
    """Where y first reaches a level, by linear interpolation; NaN where it never does. Rows are curves."""
    reached = y >= level - 1e-12
    first = reached.argmax(axis=1)
    rows = np.arange(len(x))
    before = np.maximum(first - 1, 0)
    x0, x1, y0, y1 = x[rows, before], x[rows, first], y[rows, before], y[rows, first]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where((first == 0) | (y1 <= y0), x1, x0 + (x1 - x0) * np.clip((level - y0) / (y1 - y0), 0, 1))
    return np.where(reached.any(axis=1), found, np.nan)


def at_spend(spend: Floats, quality: Floats, cost: Floats) -> Floats:
    """Quality of a curve at given spends (resamples, any), between neighbouring settings as a random mix of both.

    Outside of the curve's costs the quality of its end is taken.
    """
    order = np.argsort(cost, axis=1, kind="stable")
    x, y = np.take_along_axis(cost, order, axis=1), np.take_along_axis(quality, order, axis=1)
    upper = np.clip((x[:, None, :] <= spend[:, :, None]).sum(axis=2), 1, max(x.shape[1] - 1, 1))
    upper = np.minimum(upper, x.shape[1] - 1)
    lower = np.maximum(upper - 1, 0)
    x0, x1 = np.take_along_axis(x, lower, axis=1), np.take_along_axis(x, upper, axis=1)
    y0, y1 = np.take_along_axis(y, lower, axis=1), np.take_along_axis(y, upper, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.where(x1 > x0, np.clip((spend - x0) / (x1 - x0), 0.0, 1.0), (spend >= x1).astype(np.float64))
    return np.asarray(y0 + (y1 - y0) * part)


def saved(quality: Floats, cost: Floats, best_quality: Floats, best_cost: Floats, share: float) -> Floats:
    """Share of the best single model's dollars saved at `share` of its quality, read off the curve afterwards.

    0 where the curve never gets there below its cost: the best model itself can always be called.
    """
    order = np.argsort(cost, axis=1, kind="stable")
    x, y = np.take_along_axis(cost, order, axis=1), np.take_along_axis(quality, order, axis=1)
    needed = np.array([_cost_of(x[b], y[b], share * best_quality[b]) for b in range(len(x))])
    return np.asarray(np.where(needed < best_cost, 1.0 - needed / np.maximum(best_cost, 1e-300), 0.0))


def _cost_of(x: Floats, y: Floats, level: float) -> float:
    """The least cost at which quality reaches a level, infinity where it never does; x is sorted."""
    reached = y >= level - 1e-9
    if not reached.any():
        return float("inf")
    first = int(reached.argmax())
    if first == 0 or y[first] <= y[first - 1]:
        return float(x[first])
    part = (level - y[first - 1]) / (y[first] - y[first - 1])
    return float(x[first - 1] + (x[first] - x[first - 1]) * min(max(part, 0.0), 1.0))


def hull(cost: Floats, quality: Floats) -> tuple[list[float], list[float]]:
    """The non-decreasing concave hull of points: its corners' costs and qualities, cheapest first."""
    xs: list[float] = []
    ys: list[float] = []
    for x, y in sorted(zip(cost.tolist(), quality.tolist(), strict=True), key=lambda point: (point[0], -point[1])):
        if ys and y <= ys[-1]:
            continue
        while len(xs) > 1 and (ys[-1] - ys[-2]) * (x - xs[-1]) <= (y - ys[-1]) * (xs[-1] - xs[-2]):
            xs.pop()
            ys.pop()
        xs.append(x)
        ys.append(y)
    return xs, ys


def aiq(quality: Floats, cost: Floats, cheapest: Floats, dearest: Floats) -> Floats:
    """RouterBench's AIQ (https://arxiv.org/abs/2403.12031): mean height of the hull between two costs.

    Below the hull's first corner quality falls to 0 at no cost (a mix with not answering), above the last it stays.
    """
    areas = np.full(len(quality), np.nan)
    for b in range(len(quality)):
        low, high = float(cheapest[b]), float(dearest[b])
        if not high > low or not (np.isfinite(quality[b]) & np.isfinite(cost[b])).all():
            continue
        xs, ys = hull(cost[b], quality[b])
        if xs[0] > 0.0:
            xs, ys = [0.0, *xs], [0.0, *ys]
        inner = [x for x in xs if low < x < high]
        grid = np.array([low, *inner, high])
        areas[b] = _area(np.interp(grid, xs, ys), grid) / (high - low)
    return areas


def budgets(cheapest: Floats, best: Floats) -> Floats:
    """Spends from the cheapest to the best single model's cost, evenly in the logarithm: (resamples, BUDGETS)."""
    low, high = np.maximum(np.minimum(cheapest, best), 1e-12), np.maximum(np.maximum(cheapest, best), 1e-12)
    steps = np.linspace(0.0, 1.0, BUDGETS)
    return np.asarray(np.exp(np.log(low)[:, None] + np.log(high / low)[:, None] * steps))


def arena(quality: Floats, cost: Floats) -> Floats:
    """RouterArena's score of an operating point from mean quality and mean dollars a request (README of the data)."""
    thousand = np.clip(cost * 1000, ARENA_CHEAPEST, ARENA_DEAREST)
    rating = (log2(ARENA_DEAREST) - np.log2(thousand)) / (log2(ARENA_DEAREST) - log2(ARENA_CHEAPEST))
    return np.asarray((1 + ARENA_BETA) * quality * rating / (ARENA_BETA * quality + rating))


@dataclass(frozen=True, slots=True)
class Calibration:
    """`ece` by resample; for the diagram, mean probability, mean score and number of forecasts by bin."""

    ece: Floats
    predicted: Floats
    observed: Floats
    count: Floats


def calibration(p: Floats, score: Floats, resamples: Resamples) -> Calibration:
    """Expected calibration error over all known (row, model) pairs, in bins of equal width."""
    known = ~np.isnan(score) & ~np.isnan(p)
    place = np.clip((np.where(known, p, 0.0) * ECE_BINS).astype(np.int64), 0, ECE_BINS - 1)
    sums = np.zeros((3, len(p), ECE_BINS))
    row = np.broadcast_to(np.arange(len(p))[:, None], p.shape)[known]
    for into, values in zip(sums, (np.ones_like(p), p, score), strict=True):
        np.add.at(into, (row, place[known]), values[known])
    count, predicted, observed = (resamples.sum(each) for each in sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        ece = np.abs(predicted - observed).sum(axis=1) / count.sum(axis=1)
        return Calibration(np.asarray(ece), predicted[0] / count[0], observed[0] / count[0], count[0])


def median_log2_error(expected: Floats, actual: Floats, resamples: Resamples) -> Floats:
    """Median over (row, model) of |log2(expected / actual)|, NaN where no length is known. Of resamples it is read off
    a histogram with bins of a hundredth, in which errors are taken to lie evenly."""
    known = ~np.isnan(actual) & ~np.isnan(expected) & (actual > 0) & (expected > 0)
    size = len(resamples.weights)
    if not known.any():
        return np.full(size, np.nan)
    error = np.abs(np.log2(np.where(known, expected, 1.0) / np.where(known, actual, 1.0)))
    place = np.minimum((error * (LOG2_BINS / MAX_LOG2)).astype(np.int64), LOG2_BINS - 1)
    count = np.zeros((size, LOG2_BINS))
    for first in range(0, len(error), ROWS_AT_ONCE):
        of = slice(first, first + ROWS_AT_ONCE)
        row, _ = np.nonzero(known[of])
        inside = np.bincount(row * LOG2_BINS + place[of][known[of]], minlength=len(known[of]) * LOG2_BINS)
        count += resamples.weights[:, of] @ inside.reshape(-1, LOG2_BINS).astype(np.float32)
    total = np.cumsum(count, axis=1)
    half = total[:, -1] / 2
    middle = np.argmax(total >= half[:, None], axis=1)
    line = np.arange(size)
    inside_of = count[line, middle]
    with np.errstate(invalid="ignore", divide="ignore"):
        part = 1.0 - (total[line, middle] - half) / inside_of
    medians: Floats = (middle + part) * (MAX_LOG2 / LOG2_BINS)
    medians[0] = np.median(error[known])
    return medians
