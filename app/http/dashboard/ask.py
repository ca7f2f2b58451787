"""What the dashboard asks of traces: values that cross to the process that has DuckDB, and back as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from app.stores.policy_yaml import Source

LONGEST_S = 366 * 86_400.0
MAX_CALLS = 200


class Overview(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="overview"):
    """All figures of the views since then (Unix time)."""

    since_s: float


class Speed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="speed"):
    """How fast and how cheap runs since then were."""

    since_s: float


class Learning(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="learning"):
    """How well predictions held since then, what was explored, what was learned."""

    since_s: float


class Find(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="find", omit_defaults=True):
    """The latest calls, or a task's; `outcome` "trouble": all that were not completed. `text`: in an id."""

    since_s: float = 0.0
    limit: int = 50
    text: str | None = None
    key: str | None = None
    task: str | None = None
    model: str | None = None
    outcome: str | None = None


class Burn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="burn", omit_defaults=True):
    """Spending since then, added up: everybody's, a key's, a team's, or a task's."""

    since_s: float
    key: str | None = None
    team: str | None = None
    task: str | None = None


class Pace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="pace"):
    """What each key and each team has spent since then, and when it first did."""

    since_s: float


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="record"):
    """One call's whole record, null where there is none."""

    request_id: str


Question = Overview | Speed | Learning | Find | Burn | Pace | Record


class FiguresUnavailable(Exception):
    """There is no answer now; the message says why, and is for the operator."""


class Ask(Protocol):
    """Whoever can answer."""

    async def __call__(self, question: Question) -> bytes:
        """The answer as JSON. Raises FiguresUnavailable."""


class Replay(Protocol):
    """Whoever can say what a policy would have come to."""

    async def __call__(self, sources: Sequence[Source], since: str) -> bytes:
        """The replay of recorded decisions as JSON. Raises FiguresUnavailable."""
