"""Has a model become worse on requests that it was asked before? McNemar's exact test on those that turned out
differently, for several models and kinds of work at a time. Pure.

Were nothing changed, a request that differs would be as likely to have been won as lost (McNemar 1947,
https://doi.org/10.1007/BF02295996), whatever the shares of right answers are; requests that turned out alike say
nothing. The sum over the binomial is exact, so few requests raise no more alarms than they may.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb


def p_fallen(lost: int, won: int) -> float:
    """The probability that at least `lost` of `lost + won` requests that differ were right before and are wrong now,
    had nothing changed."""
    differ = lost + won
    return float(sum(comb(differ, k) for k in range(lost, differ + 1)) / (1 << differ))


def rejected(chances: Sequence[float], alpha: float) -> list[bool]:
    """Which of several tests say no, so that the probability of any false no is at most `alpha` (Holm 1979,
    https://www.jstor.org/stable/4615733)."""
    order = sorted(range(len(chances)), key=lambda at: chances[at])
    found = [False] * len(chances)
    for place, at in enumerate(order):
        if chances[at] > alpha / (len(chances) - place):
            break
        found[at] = True
    return found
