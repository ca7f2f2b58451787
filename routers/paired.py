"""Requests that come again: how a model did then tells what is to be expected now, far more surely than its rate does.

What a model's latest outcomes on one very request were is that request's history: a small number. Histories that are
worth the same are one kind, and how often each kind is answered well is learned per cell from its own repeats, so that
nothing is assumed about how repeatable a model is: a request that was right three times may be right again in 99 or in
85 of 100. A fall then shows as requests that were right and are wrong, of which there are few else.

Each label is expected by what is known of its request at that time, its last outcome among it. So a request that is
repeated in a loop speaks once: the second failure in a row is what is expected after the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Kinds = NDArray[np.int64]

NEW: Final = 1
"""The history of a request of which nothing is known."""
REMEMBERED: Final = 3
"""Outcomes that a history holds."""
GOOD: Final = 0.5
"""From this outcome on an answer counts as right in a history."""
KINDS: Final = 6
"""Of requests that came before: right once; right each time; of mixed fortune, rather right, and rather wrong; wrong
once; wrong each time."""
LEARNED: Final = 10.0
"""Labels of a kind, from which on it is compared with what it was."""
SUREST: Final = 0.995
"""However often requests were right again: one that is wrong is never taken for more than this allows."""
LEAST_SPREAD: Final = 0.2
HALVINGS: Final = 16


def _kinds() -> Kinds:
    found = [0, 0]
    for history in range(2, 2 << REMEMBERED):
        bits = f"{history:b}"[1:]
        right = bits.count("1")
        if right in (0, len(bits)):
            found.append((1 if right else 5) + (len(bits) > 1))
        else:
            found.append(3 if 2 * right > len(bits) or (2 * right == len(bits) and bits[-1] == "1") else 4)
    return np.array(found)


KIND: Final = _kinds()
"""The kind of a history, from 1; 0 of a request that is new."""


def _afterwards() -> Kinds:
    full = 1 << REMEMBERED
    longer = [[2 * history + right for right in (0, 1)] for history in range(2 * full)]
    return np.array([[one if one < 2 * full else full + one % full for one in row] for row in longer])


AFTERWARDS: Final = _afterwards()
"""The history after one more outcome that was wrong, and that was right: a leading 1, then outcomes as bits."""


def then(history: Any, outcome: Any) -> Any:
    """The history after one more outcome in [0, 1]; arrays or numbers."""
    return AFTERWARDS[history, (np.asarray(outcome) >= GOOD).astype(np.int64)]


@dataclass(frozen=True, slots=True)
class Pairs:
    """What is known of each kind in cells of shape S. The last axis: weight, weight x outcome, weight x its square.
    `base` (S, KINDS, 3): of all labels before those in `closed`; `open` (S, KINDS, 3), `closed` (S, buckets, KINDS, 3):
    as in a cell."""

    base: Floats
    open: Floats
    closed: Floats


def new_pairs(shape: tuple[int, ...], buckets: int) -> Pairs:
    """Nothing came again yet."""
    of_kind = np.zeros((*shape, KINDS, 3))
    return Pairs(of_kind, of_kind, np.zeros((*shape, buckets, KINDS, 3)))


def heard(pairs: Pairs, kind: Kinds, outcome: Any, weight: Any, *, at_once: bool) -> Pairs:
    """What is known after a label of each cell whose request is of this kind (0: new, untold here). `at_once`:
    it is one of those that tell of the base alone."""
    is_it = np.asarray(kind)[..., None] == np.arange(1, KINDS + 1)
    w = is_it * np.asarray(weight, np.float64)[..., None]
    y = np.asarray(outcome, np.float64)[..., None]
    more = np.stack([w, w * y, w * y * y], axis=-1)
    if at_once:
        return replace(pairs, base=pairs.base + more)
    return replace(pairs, open=pairs.open + more)


def turned(pairs: Pairs, memory: float) -> Pairs:
    """After a bucket is full: it is closed, and the oldest tells of the base, which is made of `memory` labels a kind
    at most."""
    base = _bounded(pairs.base + pairs.closed[..., -1, :, :], memory)
    closed = np.concatenate([pairs.open[..., None, :, :], pairs.closed[..., :-1, :, :]], axis=-3)
    return replace(pairs, base=base, open=np.zeros_like(pairs.open), closed=closed)


def settled(pairs: Pairs, window: int) -> Pairs:
    """All but the latest `window` buckets taken into the base, and these forgotten."""
    base = pairs.base + pairs.closed[..., window:, :, :].sum(axis=-3)
    return Pairs(base, np.zeros_like(pairs.open), np.zeros_like(pairs.closed))


def _bounded(base: Floats, memory: float) -> Floats:
    return base * np.minimum(1.0, memory / np.maximum(base[..., :1], memory))


def rates(base: Floats) -> Floats:
    """How often each kind is answered well: the mean with half a success and half a failure more (Jeffreys)."""
    return np.clip((base[..., 1] + 0.5) / (base[..., 0] + 1.0), 1.0 - SUREST, SUREST)


def spread(base: Floats) -> Floats:
    """How much the outcomes of each kind vary, as a share of what yes or no would vary at their mean."""
    weight, good, squares = (base[..., at] for at in range(3))
    mean_square = good**2 / np.maximum(weight, LEARNED)
    return np.clip((squares - mean_square + 0.5) / (good - mean_square + 0.5), LEAST_SPREAD, 1.0)


@dataclass(frozen=True, slots=True)
class Streams:
    """Labels of windows in streams that are expected alike, all (S, W, streams): their `weight`, how much of it was
    `good`, the `level` that is expected, and the `share` of their evidence that counts."""

    weight: Floats
    good: Floats
    level: Floats
    share: Floats


def joined(one: Streams, other: Streams) -> Streams:
    """Both side by side."""
    return Streams(*(np.concatenate([getattr(of, name) for of in (one, other)], axis=-1) for name in Streams.__slots__))


def streams(pairs: Pairs, windows: NDArray[np.int64]) -> Streams:
    """Each kind in the latest `windows` (W,) buckets, against the base and what is older than the window."""
    sums = np.cumsum(pairs.closed, axis=-3)
    inside = sums[..., windows - 1, :, :]
    base = pairs.base[..., None, :, :] + sums[..., -1:, :, :] - inside
    told, weight = base[..., 0], inside[..., 0]
    # The base is uncertain itself, by as much as its labels are few; and graded outcomes vary less than yes or no.
    share = np.where(told >= LEARNED, told / np.maximum(told + weight, LEARNED), 0.0) / spread(base)
    return Streams(weight, inside[..., 1], rates(base), share)


def lost(of: Streams) -> tuple[Floats, Floats]:
    """The likeliest share of right answers that are lost (S, W), the same in all streams and 0 where nothing is, and
    twice each stream's log likelihood ratio for it (S, W, streams)."""
    good, bad = of.good * of.share, (of.weight - of.good) * of.share
    low, high = np.zeros(good.shape[:-1]), np.ones(good.shape[:-1])
    for _ in range(HALVINGS):  # the likelihood is concave in what is left
        left = (low + high) / 2.0
        odds = of.level / (1.0 - left[..., None] * of.level)
        rises = (good / np.maximum(left[..., None], 1e-12) - bad * odds).sum(axis=-1) > 0.0
        low, high = np.where(rises, left, low), np.where(rises, high, left)
    left = high[..., None]
    ratio = good * np.log(np.maximum(left, 1e-12)) + bad * np.log((1.0 - left * of.level) / (1.0 - of.level))
    return 1.0 - high, 2.0 * ratio


def state_of(pairs: Pairs) -> dict[str, Any]:
    """Of one cell, JSON-ready; buckets without a repeat are left out, and so are kinds."""
    held = np.concatenate([pairs.open[None], pairs.closed])
    rows = [[int(b), int(k), *(round(float(x), 6) for x in held[b, k])] for b, k in np.argwhere(held[..., 0] > 0.0)]
    return {"base": pairs.base.tolist(), "held": rows}


def pairs_of(state: Mapping[str, Any], buckets: int) -> Pairs:
    """What `state_of` gave."""
    held = np.zeros((buckets + 1, KINDS, 3))
    for bucket, kind, *sums in state["held"]:
        held[bucket, kind] = sums
    return Pairs(np.array(state["base"]), held[0], held[1:])
