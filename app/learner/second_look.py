"""Whose words were lies, looking back at all that is remembered: what trust word by word cannot tell where a key has
said a word or two of each model at each kind of work. Pure.

Of each cell it is asked how likely a key's words are if they are drawn as the others' are, and how likely if they are
turned round (Beta-binomial, so that few words of others are no measure), where the others count as far as they are
honest themselves, by the same look (the two-coin model of Dawid and Skene 1979, https://doi.org/10.2307/2346806, with
keys that either err as others do or invert).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from math import lgamma
from typing import Final, NamedTuple, Protocol

from routers.abilities import logistic

ROUNDS: Final = 4
PRIOR: Final = 1.0
"""Log odds that a key is honest before anything is known."""
LIKE: Final = 20.0
"""Words' worth by which the others are a measure at most: keys ask for different things of the same kind."""
SURE: Final = 3.0
"""Log odds that are as good as known."""
MIN_OTHERS: Final = 2
"""Other keys that it takes to judge one."""
AGAINST: Final = -4.0
"""Nobody is cleared who stands against the others in one cell by more than this, which chance does in one of 50 at
most."""


class Words(Protocol):
    """A key's words in a cell: how many, and their mean in [0, 1]."""

    @property
    def words(self) -> float: ...

    @property
    def mean(self) -> float: ...


class Honesty(NamedTuple):
    """Log odds that a key is honest, over all cells; and in the cell that speaks against it the most, without prior."""

    odds: float = PRIOR
    worst: float = 0.0

    @property
    def cleared(self) -> bool:
        """Whether it is honest everywhere, as good as known."""
        return self.odds > SURE and self.worst > AGAINST

    @property
    def condemned(self) -> bool:
        """Whether it inverts, as good as known."""
        return self.odds < -SURE


def looked_back(
    cells: Iterable[Mapping[str, Words]], measure: Callable[[str], bool], aside: Collection[str]
) -> dict[str, Honesty]:
    """Of each key that has said something where MIN_OTHERS others have. `measure`: whether a key is one that others are
    compared with; names in `aside` are no keys."""
    spoken = [
        [(key, part.words * part.mean, part.words * (1.0 - part.mean), measure(key)) for key, part in parts.items()
         if part.words and key not in aside]
        for parts in cells
    ]  # fmt: skip
    met: dict[str, set[str]] = {}
    for cell in spoken:
        measuring = {key for key, _, _, measures in cell if measures}
        for key, *_ in cell:
            met.setdefault(key, set()).update(measuring - {key})
    found: dict[str, Honesty] = {}
    for _ in range(ROUNDS):
        trust = {key: logistic(one.odds) for key, one in found.items()}
        judged = _round(spoken, trust)
        found = {key: one for key, one in judged.items() if len(met[key]) >= MIN_OTHERS}
    return found


def _round(cells: list[list[tuple[str, float, float, bool]]], trust: Mapping[str, float]) -> dict[str, Honesty]:
    found: dict[str, Honesty] = {}
    for cell in cells:
        weights = [trust.get(key, 1.0) if measures else 0.0 for key, _, _, measures in cell]
        good = sum(w * g for w, (_, g, _, _) in zip(weights, cell, strict=True))
        bad = sum(w * b for w, (_, _, b, _) in zip(weights, cell, strict=True))
        for w, (key, g, b, _) in zip(weights, cell, strict=True):
            others_good, others_bad = max(good - w * g, 0.0), max(bad - w * b, 0.0)
            odds = _odds(g, b, others_good, others_bad)
            before = found.get(key, Honesty())
            found[key] = Honesty(before.odds + odds, min(before.worst, odds))
    return found


def _odds(good: float, bad: float, others_good: float, others_bad: float) -> float:
    """The log of how much likelier these words are as the others' than turned round."""
    count = others_good + others_bad
    like = min(1.0, LIKE / count) if count else 0.0
    a, b = 1.0 + like * others_good, 1.0 + like * others_bad
    return lgamma(a + good) + lgamma(b + bad) - lgamma(a + bad) - lgamma(b + good)
