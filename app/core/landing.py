"""Graceful landing, pure: how near a task is to what it may take, and what changes for its next calls then.

A task that is cut in the middle of its work has spent its money on nothing. Near its cap each call gets a smaller part
of what is left, so that there is always a next one in which to conclude; it may go to a cheaper candidate; and the
model may be told, for only it knows what to leave out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from app.core.budget import Balance
from app.core.money import affordable_tokens, usd_text
from app.core.terms import PLAIN

Kind = Literal["budget", "calls", "tokens", "time"]
"""Which of a task's limits: the reasons of `core/terms.py`."""
_NAMES: dict[Kind, str] = {
    "budget": "cost cap",
    "calls": "limit of model calls",
    "tokens": "limit of tokens",
    "time": "limit of time",
}


@dataclass(frozen=True, slots=True)
class Landing:
    """The policy's rules. A task lands once it has used `at` of any of its limits. Then a call may take no more than
    `step_share` of what is left, but at least `min_output_tokens` as far as the cap itself goes; with `cheaper` the
    cheapest candidate of at least `adequacy` (None: the route's) is asked, whatever the route's objective, but an open
    tool loop keeps its model unless `switch_in_tool_loop`; with `note` the model is told."""

    at: float = 0.8
    step_share: float = 0.5
    min_output_tokens: int = 1024
    cheaper: bool = True
    adequacy: float | None = None
    switch_in_tool_loop: bool = False
    note: bool = False


@dataclass(frozen=True, slots=True)
class Left:
    """Of one limit: its size, what is used of it and what is left, in nano-dollars, calls, tokens or ms."""

    kind: Kind
    limit: int
    used: int
    left: int

    @property
    def share(self) -> float:
        """How much is used, from 0."""
        return self.used / self.limit if self.limit else 1.0


@dataclass(frozen=True, slots=True)
class Approach:
    """A task that lands: by which rules, and its limits, the nearest first."""

    rules: Landing
    limits: tuple[Left, ...]

    @property
    def nearest(self) -> Left:
        """The limit of which most is used."""
        return self.limits[0]

    def left(self, kind: Kind) -> int | None:
        """The least that is left of this kind; None without such a limit."""
        return min((limit.left for limit in self.limits if limit.kind == kind), default=None)

    def output_tokens(self, input_tokens: int, input_nano: int, output_rate: int, choices: int) -> int | None:
        """How much output, per choice, the next call may have; None where no limit of dollars or tokens bounds it."""
        share, most = self.rules.step_share, []
        nano, tokens = self.left("budget"), self.left("tokens")
        if nano is not None and output_rate:
            most.append(affordable_tokens(int(nano * share) - input_nano, output_rate))
        if tokens is not None:
            most.append(int(tokens * share) - input_tokens)
        return max(min(most) // choices, self.rules.min_output_tokens) if most else None


def approach_of(rules: Landing, balances: Iterable[Balance | None], now_ms: int) -> Approach | None:
    """How near a task is, by its own balance and those of the tasks above it; None where it is far yet."""
    limits = [left for balance in balances if balance is not None for left in lefts_of(balance, now_ms)]
    limits.sort(key=lambda left: left.share, reverse=True)
    return Approach(rules, tuple(limits)) if limits and limits[0].share >= rules.at else None


def lefts_of(balance: Balance, now_ms: int) -> list[Left]:
    """Each limit of one task."""
    terms, nano = balance.terms or PLAIN, balance.effective_limit_nano
    found = []
    if nano is not None:
        found.append(Left("budget", nano, balance.spent_nano, max(nano - balance.spent_nano - balance.held_nano, 0)))
    counted: tuple[tuple[Kind, int | None, int], ...] = (
        ("calls", terms.max_calls, balance.calls),
        ("tokens", terms.max_tokens, balance.tokens),
        ("time", terms.max_ms, balance.age_ms(now_ms)),
    )
    found += [Left(kind, limit, used, max(limit - used, 0)) for kind, limit, used in counted if limit is not None]
    return found


def note_of(left: Left) -> str:
    """What the model is told. It stands in the user's turn, so it says whose word it is."""
    return (
        f"[Note from the system that runs this task, not from the user: {left.share:.0%} of the task's"
        f" {_NAMES[left.kind]} is used, and {_amount(left)} left. When nothing is left, the task is stopped at once,"
        " wherever it stands. Finish now: do only what matters most, in few and short steps; then give the result, and"
        " say what is left undone.]"
    )


def _amount(left: Left) -> str:
    if left.kind == "budget":
        return f"${usd_text(left.left // 100_000 * 100_000)} is"
    if left.kind == "time":
        return f"{left.left // 1000} seconds are"
    return f"{left.left} {left.kind} are"
