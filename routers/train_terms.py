"""Fits what the words of a request tell beside its surface: the family it belongs to, and so that family's effect.

Ridge regression of the families' effects on the terms of the text, weighted by rarity (TF-IDF). Words that training
never saw count in the norm and nowhere else, so an unfamiliar text has no effect at all: it is judged by its surface.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from routers.abilities import Matrix, Vector

MAX_TERMS: Final = 40_000
MIN_COUNT: Final = 3
RIDGE: Final = 1.0
CG_STEPS: Final = 60
CG_TOLERANCE: Final = 1e-4


@dataclass(frozen=True)
class Bag:
    """Which text holds which term: `there` (texts, terms) of ones; `single` (terms,) True for a word; `words` and
    `singles`: distinct words of each text, all of them and those among the terms."""

    terms: list[bytes]
    there: sp.csr_matrix
    single: NDArray[np.bool_]
    words: Vector


def bag_of(texts: Sequence[set[bytes]]) -> Bag:
    """The terms worth keeping, the commonest first, and where they are."""
    count: Counter[bytes] = Counter()
    for text in texts:
        count.update(text)
    chosen = sorted((term for term, times in count.items() if times >= MIN_COUNT), key=lambda t: (-count[t], t))
    chosen = chosen[:MAX_TERMS]
    places = {term: place for place, term in enumerate(chosen)}
    found = [sorted(places[term] for term in text if term in places) for text in texts]
    ends = np.cumsum([0, *map(len, found)])
    columns = np.array([place for one in found for place in one], dtype=np.int64)
    there = sp.csr_matrix((np.ones(len(columns)), columns, ends), shape=(len(texts), len(chosen)))
    single = np.array([b" " not in term for term in chosen], dtype=bool)
    return Bag(chosen, there, single, np.array([sum(b" " not in term for term in text) for text in texts], float))


def weighted(bag: Bag, fit: NDArray[np.int64], ask: NDArray[np.int64]) -> tuple[sp.csr_matrix, Vector, Vector]:
    """Rows `ask` with terms weighted as `fit` knows them, in rows of length 1 at most; the share of each row's
    weight that words have which `fit` does not hold; and the terms' inverse document frequencies."""
    times = np.asarray(bag.there[fit].sum(axis=0)).ravel()
    idf = np.where(times > 0, np.log((1.0 + len(fit)) / (1.0 + times)) + 1.0, 0.0)
    rows = bag.there[ask]
    known = rows @ (idf**2)
    unknown = (bag.words[ask] - rows @ (bag.single & (times > 0)).astype(np.float64)) * unknown_square(len(fit))
    total = np.maximum(known + unknown, 1e-9)
    # As if one more word were known: a single strange word does not make a short text strange.
    share = unknown / (total + unknown_square(len(fit)))
    return (sp.diags(1.0 / np.sqrt(total)) @ rows @ sp.diags(idf)).tocsr(), share, idf


def unknown_square(texts: int) -> float:
    """The squared weight of a word that no training text holds."""
    return float((np.log(1.0 + texts) + 1.0) ** 2)


def fit_terms(x: sp.csr_matrix, target: Matrix) -> Matrix:
    """Ridge coefficients (terms, targets), by conjugate gradients: deterministic."""
    out = np.zeros((x.shape[1], target.shape[1]))
    transposed = x.T.tocsr()
    for column in range(target.shape[1]):
        out[:, column] = _solve(x, transposed, target[:, column])
    return out


def _solve(x: Any, transposed: Any, y: Vector) -> Vector:
    b = np.zeros(x.shape[1])
    left = transposed @ y
    direction = left.copy()
    before = first = float(left @ left)
    for _ in range(CG_STEPS):
        if before <= CG_TOLERANCE**2 * first or first == 0.0:
            break
        image = transposed @ (x @ direction) + RIDGE * direction
        step = before / float(direction @ image)
        b += step * direction
        left -= step * image
        now = float(left @ left)
        direction = left + (now / before) * direction
        before = now
    return b
