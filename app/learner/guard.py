"""The guard against poisoned feedback: what one key can move, and which keys are believed at all.

Two bounds, both for one model on one task type (a cell), where routes would be flipped:

* A share. A key's labels weigh at most TRIM times its share of the cell's calls, of all the weight there is, plus a few
  free ones, and never more than all others together. Who speaks ten times as often as others gains nothing by it. A
  key that makes nearly all of the calls (the only one of a small house, say) is not bound.
* Trust. Each word is compared with what the other keys say of the same cell: the median of their means, each weighing
  as much as its key has called on the whole, so that no minority of the traffic can move it far, in however many keys
  it comes and whatever single cell it aims at. A key that says the opposite of it, word after word, is less and less
  believed, and after a dozen hardly at all; it is believed again when its words fit again. The means forget within
  WINDOW words, so that where a model really gets worse and all keys say so, the median follows them.
* Looking back. Trust goes word by word, and where cells are many and words few it takes an honest key for a liar, and a
  liar for honest for long. So `sort_out` looks at all that is remembered at once (`learner/second_look.py`). When a key
  is found out, nothing that it said before stays in force; what a key said that is cleared counts whole, within its
  share.
* The crowd. Keys that have called less than YOUNG times are too many to be found out one by one. They are bound and
  judged as one key as well, word by word and looking back: together they weigh no more in a cell than their share of
  all calls in all cells.

An admin's words are the operator's own: they are neither bound nor judged, and where there are enough of them in a
cell, they are what others are compared with.

What no guard can tell is a lie among the words of keys that mostly tell the truth: the estimate moves by it. With a
share e of all words inverted at random it moves by e * |2 p - 1|, and a route whose model is adequate by less can flip.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import log
from typing import Any, Final

from app.learner.labels import CORRECTION, Call, Label
from app.learner.second_look import MIN_OTHERS, Honesty, looked_back
from app.learner.sources import SIGNS, logit
from routers.abilities import logistic

TRIM: Final = 2.0
ALONE: Final = 0.8
"""From this share of a cell's calls on a key is the house."""
FREE: Final = 5.0
WINDOW: Final = 20.0
"""Words of a key in a cell that its mean remembers."""
STEADY: Final = 2.0
"""Words' worth of 0.5 in a key's mean, so that few words say little."""
YOUNG: Final = 5.0
"""Calls, of all kinds, from which on a key stands for itself."""
CROWD, ADMIN = "", "\0admin"
"""Young keys together, and the operator, among a cell's parts; no key of a policy has such a name."""
ENOUGH: Final = 5.0
"""Words of the operator in a cell from which on they are the measure."""
SURE: Final = 0.1
"""What the others say counts within this of 0 and 1: nobody is judged by one word."""
START: Final = logit(0.7)
MOST: Final = 4.0
"""Log odds that a key is honest stay within this: whoever was good for long can still be found out, and whoever was
bad can come back."""
FOUND_OUT, FORGIVEN = 0.2, 0.6
"""Trust below which what a key has said is taken back, and from which on it counts again."""
HALF_LIFE_S: Final = 14 * 86_400.0
"""Shares count calls and weights of about this long."""

UNJUDGED: Final = frozenset({*SIGNS, CORRECTION})
"""What nobody said of the model that answered."""

Cell = tuple[str, str]


@dataclass(slots=True)
class Part:
    """One key in one cell: calls and admitted weight (both fading with time), and the mean of its words with how many
    it remembers."""

    calls: float = 0.0
    weight: float = 0.0
    mean: float = 0.5
    words: float = 0.0
    at_s: float = 0.0

    @property
    def steady_mean(self) -> float:
        """The mean, drawn towards 0.5 where there are few words."""
        return (self.mean * self.words + 0.5 * STEADY) / (self.words + STEADY)

    def fade(self, now_s: float) -> None:
        """Bring the fading counts up to now."""
        if now_s > self.at_s:
            left = 0.5 ** ((now_s - self.at_s) / HALF_LIFE_S)
            self.calls, self.weight, self.at_s = self.calls * left, self.weight * left, now_s

    def hear(self, outcome: float) -> None:
        """Remember one word."""
        self.words = min(self.words + 1.0, WINDOW)
        self.mean += (outcome - self.mean) / self.words


@dataclass(slots=True)
class Guard:
    """What is remembered of all keys. Keys and cells are names of the policy and of task types: bounded. `out`,
    `cleared`: the keys that are found out, and those of which it is as good as known that they are honest. `turned`:
    those that were, and are no longer believed word by word."""

    _cells: dict[Cell, dict[str, Part]] = field(default_factory=dict)
    _trust: dict[str, float] = field(default_factory=dict)
    _tenure: dict[str, Part] = field(default_factory=dict)
    out: set[str] = field(default_factory=set)
    cleared: set[str] = field(default_factory=set)
    turned: set[str] = field(default_factory=set)

    def trust(self, key: str) -> float:
        """How far a key is believed, in [0, 1]: 1 before anything is known of it; a young one at most as the crowd."""
        odds = self._trust.get(key, START)
        if self._is_young(key):
            odds = min(odds, self._trust.get(CROWD, START))
        return min(logistic(odds) / logistic(START), 1.0)

    def sort_out(self) -> set[str]:
        """Look back at who is found out and who is cleared; the keys of which that has changed."""
        look = looked_back(self._cells.values(), lambda key: key != CROWD and not self._is_young(key), (ADMIN,))
        out, cleared = set(), set()
        for key in self._tenure:
            found, trust = look.get(key, Honesty()), self.trust(key)
            if not found.cleared or self._is_young(key):
                self.turned.discard(key)
                if found.condemned or trust < (FORGIVEN if key in self.out else FOUND_OUT):
                    out.add(key)
            elif trust < FOUND_OUT and (key in self.cleared or key in self.turned):
                self.turned.add(key)  # what it said was true, what it says now is not
            elif key not in self.turned or trust >= FORGIVEN:
                self.turned.discard(key)
                cleared.add(key)
                if key not in self.cleared:
                    self._trust[key] = max(self._trust.get(key, START), START)
        changed = (self.out ^ out) | (self.cleared ^ cleared)
        self.out, self.cleared = out, cleared
        return changed

    def saw(self, call: Call) -> None:
        """Count a call towards its key's share."""
        parts = [self._part((call.model, call.task_type), call.key), self._tenure.setdefault(call.key, Part())]
        if self._is_young(call.key):
            parts += [self._part((call.model, call.task_type), CROWD), self._tenure.setdefault(CROWD, Part())]
        for part in parts:
            part.fade(call.ended_s)
            part.calls += 1.0

    def admit(self, label: Label, *, admin: bool = False) -> Label:
        """The label with what is left of its weight. `admin`: the operator said it."""
        cell = label.model, label.task_type
        said = logistic(label.high) * label.share + logistic(label.low) * (1.0 - label.share)
        judges = label.source not in UNJUDGED
        if admin:
            if judges:
                self._part(cell, ADMIN).hear(said)
            return label
        names = [label.key, CROWD] if self._is_young(label.key) else [label.key]
        parts = [self._part(cell, name) for name in names]
        weight = label.weight
        room = min(weight, *(self._room(cell, name, label.said_s) for name in names))
        admitted = min(weight * self.trust(label.key), room)
        for part in parts:
            part.weight += admitted
        if judges:
            # Afterwards: if a word's own weight fell with what it says, all estimates would be too good.
            for name in names:
                self._judge(cell, name, said)
            for part in parts:
                part.hear(said)
        return replace(label, scale=label.scale * admitted / weight, room=room / weight) if weight else label

    def again(self, label: Label) -> Label:
        """A label that was admitted before, with no more weight than its key's trust now leaves it. Learning anew from
        a stretch of labels (after a rollback, say) so forgets what a liar said before it was found out."""
        return replace(label, scale=min(label.scale, self.trust(label.key)))

    def _room(self, cell: Cell, name: str, now_s: float) -> float:
        """What this key, or the crowd, may still add to its weight in the cell."""
        parts = self._cells[cell]
        for part in parts.values():
            part.fade(now_s)
        own = parts[name]
        others = sum(part.weight for key, part in parts.items() if key != CROWD) - own.weight
        if name == CROWD:
            share, trim = self._crowd_share(now_s), 1.0
            others = sum(part.weight for key, part in parts.items() if key != CROWD and not self._is_young(key))
        else:
            calls, trim = sum(part.calls for key, part in parts.items() if key != CROWD), TRIM
            share = own.calls / calls if calls else 0.0
        if share >= ALONE:
            return float("inf")
        bound = min(trim * share, 0.5)
        most = FREE + bound / (1.0 - bound) * (others + FREE)
        return max(most - own.weight, 0.0)

    def _crowd_share(self, now_s: float) -> float:
        """The share of all calls that young keys make."""
        for part in self._tenure.values():
            part.fade(now_s)
        calls = sum(part.calls for key, part in self._tenure.items() if key != CROWD)
        return min(self._tenure[CROWD].calls / calls, 1.0) if calls and CROWD in self._tenure else 0.0

    def _judge(self, cell: Cell, name: str, said: float) -> None:
        """Move a key's trust by how its word fits those of others: log odds of an honest key against one that says the
        opposite."""
        p = self._measure(cell, name)
        if p is None:
            return
        p = min(max(p, SURE), 1.0 - SURE)
        change = (2.0 * said - 1.0) * log(p / (1.0 - p))
        most = START if name == CROWD else MOST  # newcomers have not earned what those before them have
        self._trust[name] = min(max(self._trust.get(name, START) + change, -MOST), most)

    def _measure(self, cell: Cell, name: str) -> float | None:
        """What a key's word is compared with; None where there is nothing to."""
        parts = self._cells[cell]
        operator = parts.get(ADMIN)
        if operator is not None and operator.words >= ENOUGH:
            return operator.steady_mean
        others = [
            (part.steady_mean, self._tenure[key].calls)
            for key, part in parts.items()
            if part.words and key in self._tenure and key not in (name, CROWD)
            if name != CROWD or not self._is_young(key)
        ]
        return _median(others) if len(others) >= MIN_OTHERS else None

    def _is_young(self, key: str) -> bool:
        tenure = self._tenure.get(key)
        return key != CROWD and (tenure is None or tenure.calls < YOUNG)

    def _part(self, cell: Cell, key: str) -> Part:
        return self._cells.setdefault(cell, {}).setdefault(key, Part())

    def state(self) -> dict[str, Any]:
        """JSON-ready."""
        cells = [
            [*cell, key, part.calls, part.weight, part.mean, part.words, part.at_s]
            for cell, parts in sorted(self._cells.items())
            for key, part in sorted(parts.items())
        ]
        tenure = [[key, part.calls, part.at_s] for key, part in sorted(self._tenure.items())]
        trust = dict(sorted(self._trust.items()))
        return {
            "cells": cells,
            "trust": trust,
            "tenure": tenure,
            "out": sorted(self.out),
            "cleared": sorted(self.cleared),
            "turned": sorted(self.turned),
        }

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> Guard:
        """What `state` gave."""
        guard = cls(_trust=dict(state["trust"]))
        guard.out, guard.cleared, guard.turned = (set(state[name]) for name in ("out", "cleared", "turned"))
        guard._tenure = {key: Part(calls=calls, at_s=at_s) for key, calls, at_s in state["tenure"]}
        for model, task_type, key, *numbers in state["cells"]:
            guard._cells.setdefault((model, task_type), {})[key] = Part(*numbers)
        return guard


def _median(weighted: list[tuple[float, float]]) -> float:
    """The weighted median: half of the weight lies on either side."""
    ordered = sorted(weighted)
    half, passed = sum(weight for _, weight in ordered) / 2.0, 0.0
    for value, weight in ordered:
        passed += weight
        if passed >= half:
            return value
    return ordered[-1][0]
