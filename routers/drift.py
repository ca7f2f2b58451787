"""Drift: has a model become worse at one kind of work than it was?

A cell is one model on one task type. Its labels come one by one, each with the logit expected for that request by a
reference that does not itself learn from these labels (one that learned would follow the model down and hide the
fall). What is wrong with the expectation on the whole, the cell's offset, is learned from the cell's own labels; for
each window from those older than it, so that a fall that fits into a window does not lower what it is measured against.

A window of the latest labels is compared with that base: the signed root of its likelihood ratio, as uncertain as the
base is, in standard deviations. A fall is found when any of the WINDOWS passes its own limit. For a fall that is to
be found within m labels a moving window of m is the test of least misses among those with as many false alarms
(Guepie, Fillatre, Nikiforov 2012, https://doi.org/10.1080/07474946.2012.694351); against the optimal procedure for
the least mean delay (Shiryaev's), it finds 5 of 100 points lost at a success of .9 within 600 labels in 0.71 for 0.55
of (synthetic) runs.

Requests that come again tell more (`routers/paired`): they are streams of their own beside the one of requests that are
new, and a fall is the same share of right answers lost in all of them. Where none comes again nothing is different.

Arrays may have any number of leading axes: many cells, or many runs of a simulation, are one call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from routers import paired
from routers.paired import KIND, LEARNED, NEW, Pairs, Streams

Floats = NDArray[np.float64]

BUCKET: Final = 10
"""Labels that are kept as one sum."""
WINDOWS: Final = np.array([3, 6, 15, 30, 60])
"""Lengths in buckets."""
LIMITS: Final = np.array([4.7, 4.5, 4.1, 4.0, 3.5])
"""Standard deviations, by window: together a false alarm in 1.5 of 100 runs of 4,000 labels at most, so that two in
twenty such runs are rare. Chosen on synthetic labels without a fall at successes of .6 to .98, 1,000 runs each."""
FIRST: Final = 10
"""Buckets that tell of the base alone, before anything is compared with it."""
OFFSET_PRECISION: Final = 1.0
"""Of the offset before any label: a standard deviation of one logit."""
MEMORY: Final = 5_000.0
"""Labels that the base is made of, at most."""
NOISE_LABELS: Final = 100.0
"""Labels' worth of belief that labels are as noisy as their weights say."""
NOISE_BOUNDS: Final = (0.2, 4.0)
LEAST: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Cell:
    """What is known of cells of one leading shape S, which have heard equally many labels.

    `labels`: how many. `offset`, `precision` (S): the base, in logits; `noise` (S, 2): squared residuals and what they
    should be. `open` (S, 5): the sums of the bucket that is being filled; `closed` (S, 60, 5): of those
    before it, the latest first. The sums: weight, weight x outcome, weight x expected, information, offset x
    information. `pairs`: of requests that came before, which are in none of these; None until one does.
    """

    labels: int
    offset: Floats
    precision: Floats
    noise: Floats
    open: Floats
    closed: Floats
    pairs: Pairs | None = None


def new_cell(*shape: int) -> Cell:
    """Cells without a label."""
    zeros = np.zeros
    buckets = int(WINDOWS[-1])
    noise = np.full((*shape, 2), NOISE_LABELS / 10.0)
    return Cell(
        0, zeros(shape), np.full(shape, OFFSET_PRECISION), noise, zeros((*shape, 5)), zeros((*shape, buckets, 5))
    )


def heard(cell: Cell, expected: Any, outcome: Any, weight: Any = 1.0, history: Any = NEW) -> Cell:
    """What is known after one label of each cell. `expected` (S): logits; `outcome` (S) in [0, 1]; `weight` (S): how
    many clear outcomes it stands for; `history` (S): of its request, as `routers.paired` has it."""
    y, w, kind = np.asarray(outcome, np.float64), np.asarray(weight, np.float64), KIND[history]
    pairs = cell.pairs
    if pairs is None and np.any(kind):
        pairs = paired.new_pairs(cell.offset.shape, int(WINDOWS[-1]))
    if pairs is not None:
        pairs = paired.heard(pairs, kind, y, w, at_once=cell.labels < FIRST * BUCKET)
        w = np.where(kind == 0, w, 0.0)
    q = logistic(np.asarray(expected) + cell.offset)
    information = w * q * (1.0 - q)
    residual = w * (y - q)
    noise = cell.noise + np.stack(np.broadcast_arrays(residual**2, w * information), axis=-1)
    sums = cell.open + np.stack(np.broadcast_arrays(w, w * y, w * q, information, cell.offset * information), axis=-1)
    labels = cell.labels + 1
    if labels <= FIRST * BUCKET:  # all for the base, each at once: the expectation may be far off
        precision = cell.precision + information
        return Cell(labels, cell.offset + residual / precision, precision, noise, cell.open, cell.closed, pairs)
    if labels % BUCKET:
        return Cell(labels, cell.offset, cell.precision, noise, sums, cell.closed, pairs)
    offset, precision = (of[..., 0] for of in _based(cell, cell.closed[..., -1:, :]))
    closed = np.concatenate([sums[..., None, :], cell.closed[..., :-1, :]], axis=-2)
    pairs = pairs and paired.turned(pairs, MEMORY)
    return Cell(labels, offset, precision, noise, np.zeros_like(sums), closed, pairs)


def _based(cell: Cell, sums: Floats) -> tuple[Floats, Floats]:
    """The base with more sums (S, n, 5) in it, their residuals taken at today's offset: n bases (S, n)."""
    weight, good, expected, information, then = (sums[..., at] for at in range(5))
    before = cell.offset[..., None]
    residual = good - (expected + information * before - then)
    precision = cell.precision[..., None] + information
    most = np.where(weight > LEAST, MEMORY * information / np.maximum(weight, LEAST), np.inf)
    return before + residual / precision, np.minimum(precision, np.maximum(most, OFFSET_PRECISION))


class Evidence(NamedTuple):
    """Of each window (S, W): standard deviations by which it is worse than the base, the share of answers lost, the
    success expected, and the part of the evidence that requests gave which had come before."""

    root: Floats
    drop: Floats
    level: Floats
    paired: Floats


def evidence(cell: Cell) -> Evidence:
    """Whether each window is worse than the base."""
    sums = np.cumsum(cell.closed, axis=-2)
    offset, precision = _based(cell, sums[..., -1:, :] - sums[..., WINDOWS - 1, :])
    weight, good, expected, information, then = (sums[..., WINDOWS - 1, at] for at in range(5))
    seen = np.maximum(weight, LEAST)
    level = np.clip((expected + information * offset - then) / seen, 1e-4, 1.0 - 1e-4)
    rate = np.clip(good / seen, 0.0, 1.0)
    ratio = 2.0 * weight * (_entropy(rate, rate) - _entropy(rate, level))
    # Requests that differ in what is expected vary less than their mean suggests; the base is uncertain itself; and
    # labels may be noisier than their weights say.
    known = np.maximum(information, LEAST)
    spread = known + known**2 / precision
    noise = (cell.noise[..., 0] / cell.noise[..., 1])[..., None]
    share = seen * level * (1.0 - level) / spread / np.clip(noise, *NOISE_BOUNDS)
    root = np.sign(level - rate) * np.sqrt(np.maximum(ratio, 0.0)) * np.sqrt(share)
    found = Evidence(root, level - rate, level, np.zeros_like(root))
    if cell.pairs is not None:
        found = _with_pairs(found, Streams(*(of[..., None] for of in (weight, good, level, share))), cell.pairs)
    filled = max(cell.labels // BUCKET - FIRST, 0)
    there = filled >= WINDOWS
    return Evidence(np.where(there, found.root, -np.inf), *(np.where(there, of, 0.0) for of in found[1:]))


def _with_pairs(alone: Evidence, new: Streams, pairs: Pairs) -> Evidence:
    """The evidence together with that of requests which had come before; `alone`, and nothing else, where there are
    none."""
    again = paired.streams(pairs, WINDOWS)
    both = paired.joined(new, again)
    gone, ratios = paired.lost(both)
    ratio, of_pairs = np.maximum(ratios.sum(axis=-1), 0.0), ratios[..., 1:].sum(axis=-1)
    counts = np.where(both.share > 0.0, both.weight, 0.0)
    level = (counts * both.level).sum(axis=-1) / np.maximum(counts.sum(axis=-1), LEAST)
    part = np.clip(of_pairs / np.maximum(ratio, LEAST), 0.0, 1.0)
    any_again = (again.weight * again.share).sum(axis=-1) > 0.0
    together = Evidence(np.sqrt(ratio), gone * level, level, part)
    return Evidence(*(np.where(any_again, x, y) for x, y in zip(together, alone, strict=True)))


def knows(cell: Cell, history: int) -> bool:
    """Whether it is known of one cell how requests with such a history turn out."""
    kind = int(KIND[history])
    return cell.pairs is not None and kind > 0 and bool(cell.pairs.base[kind - 1, 0] >= LEARNED)


def expectation(cell: Cell, expected: float, history: int = NEW) -> float:
    """P(success) of the next label of one cell: `expected` in logits, `history` of its request."""
    if cell.pairs is not None and knows(cell, history):
        return float(paired.rates(cell.pairs.base)[KIND[history] - 1])
    return float(logistic(expected + float(cell.offset)))


def most_found(level: float, drop: float, within: int, *, false_alarms: float, labels: int) -> float:
    """The share of falls from `level` by `drop` that can be found within so many labels, at most, by a detector that
    gives `false_alarms` in `labels` labels without a fall, spread evenly.

    It is the power of the best test (Neyman and Pearson) of one who knows the level, the drop and when it would have
    come: all that a detector has to find out.
    """
    allowed = 1.0 - (1.0 - false_alarms) ** (within / labels)
    quiet, fallen = (_binomial(within, 1.0 - p) for p in (level, level - drop))
    more, found = (np.append(np.cumsum(chances[::-1])[::-1], 0.0) for chances in (quiet, fallen))
    at = int(np.argmax(more <= allowed))
    if at == 0:
        return 1.0
    return float(found[at] + (allowed - more[at]) / quiet[at - 1] * fallen[at - 1])


def least_labels(level: float, drop: float, found: float, *, false_alarms: float, labels: int) -> int:
    """How many labels after a fall it takes at least to find this share of such falls: within fewer, no detector does
    (`most_found`)."""

    def reached(within: int) -> bool:
        return most_found(level, drop, within, false_alarms=false_alarms, labels=labels) >= found

    high = 1
    while not reached(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def _binomial(n: int, p: float) -> Floats:
    """The chances of 0 to n."""
    k = np.arange(1, n + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(n - k + 1.0) - np.log(k))])
    return np.asarray(np.exp(logs + np.arange(n + 1) * np.log(p) + np.arange(n, -1, -1) * np.log1p(-p)))


def _entropy(p: Floats, q: Floats) -> Floats:
    return np.asarray(p * np.log(np.maximum(q, LEAST)) + (1.0 - p) * np.log(np.maximum(1.0 - q, LEAST)))


def logistic(x: Any) -> Any:
    """1 / (1 + e^-x), for arrays."""
    return 1.0 / (1.0 + np.exp(-np.clip(x, -30.0, 30.0)))
