"""What somebody says of a call or a task: how it turned out. Values only; who may say it is `http/feedback.py`'s."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Turned(StrEnum):
    """How a call or task turned out. `false_done`: it was called done and was not. `blocked`: it could not go on.
    `escalated_human`: a person had to take over."""

    SUCCESS = "success"
    PARTIAL_SUCCESS = "partial_success"
    FAILURE = "failure"
    FALSE_DONE = "false_done"
    BLOCKED = "blocked"
    ESCALATED_HUMAN = "escalated_human"


class Speaker(StrEnum):
    """Who says so: a person using the product, the program that asked, a check that was run, a person who judged."""

    USER = "user"
    PROGRAM = "program"
    VERIFIER = "verifier"
    HUMAN = "human"


class Correction(StrEnum):
    """What should have been done otherwise."""

    SHOULD_HAVE_USED_STRONGER = "should_have_used_stronger"
    STRONGER_NOT_NEEDED = "stronger_not_needed"
    TOOL_NOT_NEEDED = "tool_not_needed"
    STOPPED_TOO_EARLY = "stopped_too_early"


@dataclass(frozen=True, slots=True)
class Feedback:
    """One word about one thing. A later one of the same `by`, `source` and `thing` replaces it.

    `thing` is a request id, or a task as `task_thing` names it. `by`: the key that said it; `key`: the key whose call
    or task it is, `by` itself where that is not known. `admin`: `by` may speak of any key's calls. `score` in [0, 1].
    `matched`: there was a record of the call, or an account of the task, when it was said. `said_s`: Unix time.
    """

    thing: str
    by: str
    source: Speaker
    outcome: Turned
    said_s: float
    key: str
    admin: bool = False
    score: float | None = None
    correction: Correction | None = None
    comment: str | None = None
    matched: bool = True

    def __repr__(self) -> str:
        # A comment may hold anything, and a repr may end up in a log.
        return f"Feedback({self.thing!r}, by={self.by!r}, source={self.source}, outcome={self.outcome})"


def task_thing(key_name: str, task_id: str) -> str:
    """A task as feedback names it. Tasks of different keys are different things."""
    return f"task:{key_name}:{task_id}"
