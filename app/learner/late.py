"""Words on calls that the learner does not have: which of them are to be looked up, and which words are too late.

A learner keeps a window of calls. Their signs speak ten minutes after them, so that of a busy house, of which more come
in that time, it keeps one stretch after the other, and passes over what comes meanwhile and nobody has spoken of. A
word may come after its call has left, or on one that was passed over. Such a call is read again from its trace. Only of
one that left with what had been said of it nothing more is heard: that stays learned, and cannot be taken back. Pure.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Final

from app.core.feedback import Feedback
from app.learner.lesson import Lesson, Malformed, lesson_of
from routers.learned import LearnedRouter

LOOK_AFTER_S: Final = 60.0
"""A call's trace has surely been read so long after a word on it, if it comes by itself."""
MOST: Final = 250
"""Calls looked up in one go: some milliseconds each, where traces are files."""
MAX_GONE: Final = 20_000


@dataclass
class Late:
    """`gone`: calls that left with what was said of them, by the number in their names. `wanted`: calls to look up,
    with when the word on them was said. `ignored`: how many words were too late. `read_until_s`: when the latest call
    ended of which a trace was read."""

    gone: dict[int, None] = field(default_factory=dict)
    wanted: dict[str, float] = field(default_factory=dict)
    ignored: int = 0
    read_until_s: float = -inf

    def left(self, request_id: str) -> None:
        """A call leaves with what was said of it."""
        if (number := _number(request_id)) is not None:
            self.gone[number] = None
        if len(self.gone) > MAX_GONE:
            del self.gone[next(iter(self.gone))]

    def missed(self, word: Feedback) -> bool:
        """Whether a word on what the learner does not have may still count."""
        if word.thing.startswith("task:"):
            return True
        if _number(word.thing) in self.gone:
            self.ignored += 1
            return False
        if word.matched:
            self.wanted[word.thing] = word.said_s
        return True

    def due(self, now_s: float, *, all_read: bool) -> list[str]:
        """The calls to look up now: their traces would have been read by themselves. `all_read`: there are no more."""
        long_ago_s = min(now_s - LOOK_AFTER_S, inf if all_read else self.read_until_s)
        found = [name for name, said_s in self.wanted.items() if said_s <= long_ago_s or said_s > now_s + LOOK_AFTER_S]
        return found[:MOST]

    def looked_up(
        self, asked: Iterable[str], records: Iterable[Mapping[str, Any]], kept: Container[str]
    ) -> Iterator[str]:
        """They are wanted no more; those that are not `kept`. Words on calls of which there is no record are too
        late."""
        found = {record["request_id"] for record in records}
        for name in asked:
            self.wanted.pop(name, None)
            self.ignored += name not in found
            if name not in kept:
                yield name


def lessons_late(records: Iterable[Mapping[str, Any]], base: LearnedRouter) -> Iterator[Lesson]:
    """The lessons of calls that were looked up. What they have shown they have taught, or never will."""
    for record in records:
        with contextlib.suppress(Malformed):
            lesson = lesson_of(record, base)
            if lesson is not None:
                lesson.call, lesson.settled = replace(lesson.call, seen=None), True
                yield lesson


def _number(request_id: str) -> int | None:
    """What tells a call from others: the last digits of its name are random. None for what is no call's name."""
    try:
        return int(request_id[-16:], 16)
    except ValueError:
        return None
