"""Which requests came before, and how the model then did: what paired evidence of drift rests on. Pure.

A request is told by the salted hashes that a trace holds of what was asked, with who spoke of it and as what: the same
request judged by another, or in another way, is another. Nothing can be read from its name.

Memory is bounded. Requests that came again stay before those that came once, so that a fixed set of probe requests is
remembered however much else is asked between two rounds of it, once it was met twice within MOST labels.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from app.learner.labels import Call, Label
from app.learner.sources import HUMAN, PROGRAM, USER, VERIFIER
from routers.drift import BUCKET, WINDOWS
from routers.paired import NEW, then
from routers.quarantine import UNKNOWN, Past

MOST: Final = 2_000
"""Requests of one cell that are remembered, half of them for having come again."""
LATEST: Final = int(WINDOWS[-1]) * BUCKET
"""Labels of one cell that can be taken back."""
IN_ALL: Final = 100_000
"""Requests of all cells: where there are many cells each remembers fewer."""
SPEAKERS: Final = frozenset({HUMAN, VERIFIER, PROGRAM, USER})
"""Who speaks of one answer, clearly enough to be held against what he says of the next: signs are silent of most, and
what is said of a whole task is said of other calls too."""


def name_of(call: Call, label: Label) -> str:
    """The name of a labelled call's request, the same whenever it comes again; "" where it cannot be known, and where
    what was said is no evidence, for its speaker is no better than chance."""
    if call.seen is None or label.source not in SPEAKERS or label.high == label.low == 0.0:
        return ""
    said = "\0".join((label.key, label.source, call.seen.began, call.seen.asked))
    return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()


@dataclass
class Requests:
    """The requests of one cell by name, each dict from the one longest unheard of: histories of those that came `once`
    and `again`; and, while the cell is in quarantine, how many were right of how many outcomes `since` it fell.
    `latest`: of the latest outcomes, their places among the cell's labels, and what was known of their requests."""

    once: dict[str, int] = field(default_factory=dict)
    again: dict[str, int] = field(default_factory=dict)
    since: dict[str, tuple[int, int]] = field(default_factory=dict)
    latest: deque[tuple[int, str, int]] = field(default_factory=deque)

    def past(self, name: str) -> Past:
        """What is known of a request."""
        if not name:
            return UNKNOWN
        history = self.again.get(name) or self.once.get(name, NEW)
        return Past(history, *self.since.get(name, (0, 0)))

    def heard(self, name: str, outcome: float, most: int, at: int) -> None:
        """Remember one more outcome of a request, and no more than `most` requests. `at`: the labels of the cell, with
        this one."""
        if not name:
            return
        known = self.again.pop(name, None) or self.once.pop(name, None)
        self.latest.append((at, name, known or NEW))
        history = int(then(known or NEW, outcome))
        if known is None:
            self.once[name] = history
        else:
            self.again[name] = history
        self.bound(most)

    def take_back(self, after: int) -> None:
        """Forget the outcomes of the cell's labels after so many: those in which it fell. What a request was before is
        what its outcomes since are held against; else one that fails since would be expected to."""
        while self.latest and self.latest[-1][0] > after:
            _, name, known = self.latest.pop()
            among = self.again if name in self.again else self.once
            if among.pop(name, None) is not None and known != NEW:
                (self.once if len(f"{known:b}") == len("10") else self.again)[name] = known
        self.latest.clear()

    def bound(self, most: int) -> None:
        """Forget all but `most` requests, and as many of those since the fall."""
        while len(self.latest) > min(most, LATEST):
            self.latest.popleft()
        while len(self.again) > most // 2:
            oldest = next(iter(self.again))
            self.once[oldest] = self.again.pop(oldest)
        while len(self.once) + len(self.again) > most:
            del self.once[next(iter(self.once))]
        while len(self.since) > most:
            del self.since[next(iter(self.since))]

    def probed(self, name: str, outcome: float, most: int) -> None:
        """Remember an outcome while the cell is in quarantine: what was known before stays as it was."""
        if not name:
            return
        right, since = self.since.pop(name, (0, 0))
        self.since[name] = right + (outcome >= 0.5), since + 1
        self.bound(most)

    def state(self) -> list[Any]:
        """JSON-ready."""
        return [self.once, self.again, self.since, list(self.latest)]

    @classmethod
    def of_state(cls, state: list[Any]) -> Requests:
        """What `state` gave."""
        once, again, since, latest = state
        told = {name: (right, all_) for name, (right, all_) in since.items()}
        return cls(dict(once), dict(again), told, deque((at, name, known) for at, name, known in latest))
