"""How far each source of labels can be believed, learned from where better ones spoke of the same calls.

A source says of a call that it was good or bad, or is silent. Its reliability is two probabilities: that it says good
of a good call, and bad of a bad one, each a Beta posterior (the two-coin model of Dawid and Skene 1979,
https://doi.org/10.2307/2346806; learned online against other sources as Raykar et al. 2010 do,
https://www.jmlr.org/papers/v11/raykar10a.html). A sign that the gateway sees by itself (`learner/signs.py`) says bad
where it shows and good where it does not: its silence is worth little, but without it only failures would be counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import log
from typing import Any, Final

from routers.abilities import logistic

HUMAN, VERIFIER, PROGRAM, USER = "human", "verifier", "program", "user"
TASK: Final = "task_"
"""Before a speaker's name: what it said of a whole task of several calls, credited to a call of it."""
REFUSAL, EMPTY, TRUNCATED = "refusal", "empty", "truncated"
WRONG_SHAPE, WRONG_ARGUMENTS = "wrong_shape", "wrong_arguments"
ASKED_AGAIN, MOVED_UP, TOOL_LOOP = "asked_again", "moved_up", "tool_loop"
SIGNS: Final = (REFUSAL, EMPTY, TRUNCATED, WRONG_SHAPE, WRONG_ARGUMENTS, ASKED_AGAIN, MOVED_UP, TOOL_LOOP)

_PRIORS: Final = {
    HUMAN: (0.96, 0.96, 200.0),
    VERIFIER: (0.95, 0.95, 100.0),
    PROGRAM: (0.90, 0.85, 40.0),
    USER: (0.90, 0.80, 30.0),
    TASK + HUMAN: (0.95, 0.95, 40.0),
    TASK + VERIFIER: (0.94, 0.94, 40.0),
    TASK + PROGRAM: (0.89, 0.84, 30.0),
    TASK + USER: (0.89, 0.79, 30.0),
    WRONG_SHAPE: (0.990, 0.30, 30.0),
    WRONG_ARGUMENTS: (0.990, 0.25, 30.0),
    REFUSAL: (0.990, 0.10, 30.0),
    EMPTY: (0.995, 0.05, 30.0),
    TRUNCATED: (0.980, 0.10, 30.0),
    MOVED_UP: (0.990, 0.10, 30.0),
    TOOL_LOOP: (0.990, 0.10, 30.0),
    ASKED_AGAIN: (0.980, 0.12, 30.0),
}
"""P(says good | good), P(says bad | bad), and how many calls' worth of belief that is, before anything is learned."""

MAX_LOG_ODDS: Final = 4.0
"""What all sources together can say of one call: odds of 55 to 1."""
KEY_COUNTS: Final = 60.0
"""Calls' worth by which one key's traffic can move a sign that all keys share."""
MAX_COUNTS: Final = 1_000.0
"""Older counts are scaled down to this: reliability may change."""
LEAST: Final = 0.002
EVEN: Final = (0.2, 0.8)
"""The router's expectation counts as a further witness of a source's truth, but within these: it may be wrong."""


@dataclass(frozen=True, slots=True)
class Told:
    """One source's word on one call. `good` in [0, 1]: 1 adequate, 0 not, between for a graded word. `strength` in
    [0, 1]: the share of its evidence that counts. `key`: who said it, or whose traffic showed it. `part` in [0, 1]: the
    share of one label that it makes; a word on a task is one label for all of its calls."""

    source: str
    good: float
    key: str
    strength: float = 1.0
    part: float = 1.0


@dataclass(slots=True)
class Counts:
    """Weighted calls: good ones of which good was said, good of which bad was, bad/good, bad/bad."""

    good_good: float = 0.0
    good_bad: float = 0.0
    bad_good: float = 0.0
    bad_bad: float = 0.0

    @property
    def total(self) -> float:
        return self.good_good + self.good_bad + self.bad_good + self.bad_bad

    def add(self, said_good: float, was_good: float, weight: float) -> None:
        """One call, of which it is believed with `was_good` that it was good."""
        self.good_good += weight * was_good * said_good
        self.good_bad += weight * was_good * (1.0 - said_good)
        self.bad_good += weight * (1.0 - was_good) * said_good
        self.bad_bad += weight * (1.0 - was_good) * (1.0 - said_good)
        if self.total > MAX_COUNTS:
            shrink = MAX_COUNTS / self.total
            self.good_good, self.good_bad = self.good_good * shrink, self.good_bad * shrink
            self.bad_good, self.bad_bad = self.bad_good * shrink, self.bad_bad * shrink


@dataclass(frozen=True, slots=True)
class Reliability:
    """`says_good`: P(says good | good); `says_bad`: P(says bad | bad)."""

    says_good: float
    says_bad: float

    def log_odds(self, good: bool) -> float:
        """What one word adds to the log odds that the call was good; 0 from a source no better than chance: one that
        lies is not believed in reverse, since a liar can change his mind."""
        a, b = self.says_good, self.says_bad
        if a + b <= 1.0:
            return 0.0
        return log(a / (1.0 - b)) if good else log((1.0 - a) / b)

    @property
    def informed(self) -> float:
        """Youden's J: 1 always right, 0 no better than chance."""
        return max(self.says_good + self.says_bad - 1.0, 0.0)


@dataclass(slots=True)
class Sources:
    """What is known of all sources. Explicit ones are learned for each key that speaks, signs for all keys together
    with a bound on each key's part."""

    _own: dict[tuple[str, str], Counts] = field(default_factory=dict)
    _shared: dict[str, Counts] = field(default_factory=dict)

    def reliability(self, source: str, key: str) -> Reliability:
        """How far this source, spoken by this key, can be believed."""
        a, b, worth = _PRIORS[source]
        counts = self._shared.get(source) if source in SIGNS else self._own.get((source, key))
        if counts is None:
            return Reliability(a, b)
        said_good = (worth * a + counts.good_good) / (worth + counts.good_good + counts.good_bad)
        said_bad = (worth * b + counts.bad_bad) / (worth + counts.bad_good + counts.bad_bad)
        return Reliability(_inside(said_good), _inside(said_bad))

    def log_odds(self, told: Told, good: bool) -> float:
        """The evidence of one word, had it said good or bad."""
        return told.strength * self.reliability(told.source, told.key).log_odds(good)

    def learn(self, told: Sequence[Told], expected: float) -> None:
        """One call of which several sources spoke: each is judged by those that are believed more than it.

        `expected`: the router's P(success) for the call. Where no better source spoke nothing is learned.
        """
        for word in told:
            better = [other for other in told if _outranks(other.source, word.source)]
            if not better:
                continue
            odds = logit(min(max(expected, EVEN[0]), EVEN[1])) + sum(self._said(other) for other in better)
            was_good = logistic(odds)
            weight = (2.0 * was_good - 1.0) ** 2 * word.strength * word.part
            self._learn_one(word, was_good, weight)

    def _said(self, word: Told) -> float:
        return word.good * self.log_odds(word, True) + (1.0 - word.good) * self.log_odds(word, False)

    def _learn_one(self, word: Told, was_good: float, weight: float) -> None:
        own = self._own.setdefault((word.source, word.key), Counts())
        if word.source in SIGNS:
            if own.total < KEY_COUNTS:
                self._shared.setdefault(word.source, Counts()).add(word.good, was_good, weight)
            own.good_good += weight
        else:
            own.add(word.good, was_good, weight)

    def state(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "own": [[*name, *_row(counts)] for name, counts in sorted(self._own.items())],
            "shared": [[name, *_row(counts)] for name, counts in sorted(self._shared.items())],
        }

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> Sources:
        """What `state` gave; sources that this version does not know are dropped."""
        own = {(row[0], row[1]): Counts(*row[2:]) for row in state["own"] if row[0] in _PRIORS}
        return cls(own, {row[0]: Counts(*row[1:]) for row in state["shared"] if row[0] in _PRIORS})


def strongest(told: Iterable[Told]) -> Told | None:
    """The word of the source that is believed most to begin with; None where nobody spoke."""
    return max(told, key=lambda word: prior_of(word.source).informed, default=None)


def prior_of(source: str) -> Reliability:
    """What is believed of a source of which nothing was learned. Raises KeyError for a name that is none."""
    a, b, _ = _PRIORS[source]
    return Reliability(a, b)


def logit(p: float) -> float:
    """The log odds of a probability strictly between 0 and 1."""
    return log(p / (1.0 - p))


def _outranks(one: str, other: str) -> bool:
    # What was said of a whole task is no judge of anybody: it was said of other calls too.
    return not one.startswith(TASK) and one not in SIGNS and prior_of(one).informed > prior_of(other).informed


def _inside(p: float) -> float:
    return min(max(p, LEAST), 1.0 - LEAST)


def _row(counts: Counts) -> list[float]:
    return [counts.good_good, counts.good_bad, counts.bad_good, counts.bad_bad]
