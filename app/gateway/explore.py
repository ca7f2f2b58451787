"""Exploration: a share of calls goes where Thompson sampling draws, within a daily budget, and never where it is risky.

What is explored is a task's (or, without one, a call's) by its name, so that a task stays with its model while beliefs
last, and the same calls are explored after a restart. Not explored are: what the policy pins or the client named;
routes that split their traffic (a test compares routers, not draws); kinds of work that the policy names; answers to
open tool loops; what an SDK sends again because it failed; calls for which only fallbacks are left; calls near a cap,
of their own or of a scope that they share; and nothing once the day's budget, which all workers and gateways share
(`gateway/explore_budget.py`), is spent.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b, shake_128
from math import cos, inf, log, pi, sqrt
from struct import iter_unpack
from typing import TYPE_CHECKING

import msgspec

from app.core.policy import LEARNED, Candidate, Route
from app.gateway.choose import IN_QUARANTINE, PASSED_OVER, Considered, choose, cost_key
from app.gateway.decide import Decision
from app.gateway.explore_budget import ExploreBudget
from app.gateway.limits import Limits
from app.gateway.odds import chance_of
from app.gateway.view import View
from routers.base import Arm, Score
from routers.thompson import drawn

if TYPE_CHECKING:  # numpy costs 100 ms to import, and only the learned router needs it
    from routers.live import LiveRouter

NEAR = 8
"""Near a cap is where less is left than this many times what the call is expected to cost."""
MAX_SCOPES = 20_000


@dataclass(slots=True)
class Explorer:
    """What one process knows of its exploring: the budget, and what scopes had left when last heard of."""

    budget: ExploreBudget
    _left: dict[str, int] = field(default_factory=dict)

    def note_left(self, scope: str | None, remaining_nano: int | None) -> None:
        """What the ledger said of the tightest scope of a call."""
        if scope is None or remaining_nano is None:
            return
        self._left.pop(scope, None)
        self._left[scope] = remaining_nano
        if len(self._left) > MAX_SCOPES:
            del self._left[next(iter(self._left))]

    def room_nano(self, limits: Limits) -> int | None:
        """The least that is known to be left for a call; None where no cap is known to bind."""
        known = [self._left[claim.scope] for claim in limits.claims if claim.scope in self._left]
        own = [limits.call_nano] if limits.call_nano is not None else []
        tops = [claim.limit_nano for claim in limits.claims if claim.limit_nano is not None]
        asked = [claim.own_limit_nano for claim in limits.claims if claim.own_limit_nano is not None]
        return min([*known, *own, *tops, *asked], default=None)


def explored(
    decision: Decision,
    arms: tuple[Arm, ...],
    view: View,
    explorer: Explorer,
    *,
    unit: str,
    in_tool_loop: bool,
    limits: Limits,
    today: dt.date,
) -> Decision:
    """The decision, or the one that sampling makes of it; with the probability of its choice over both. `arms` are the
    routers' view of what was considered, candidates first."""
    rules = decision.rules
    if rules is None or rules.explore is None or in_tool_loop or rules.split:
        return decision
    if decision.task_type in rules.explore.never_for:
        return decision
    if decision.propensity < 1.0:  # a model is in quarantine: its probes are exploration enough
        return decision
    router = view.routers.get(LEARNED)
    options = _options(decision, rules, explorer.room_nano(limits))
    if len(options) < 2 or not hasattr(router, "drawn"):
        return decision
    dearest = options[-1][1].expected_nano or 0
    if not explorer.budget.allows(rules.name, rules.explore.day_nano, dearest, today):
        return decision
    live: LiveRouter = router  # type: ignore[assignment]
    mean, variance = live.drawn(decision.asked.features, arms)
    every, squares = mean.tolist(), variance.tolist()
    means, spreads = [every[place] for place, _ in options], [sqrt(squares[place]) for place, _ in options]
    seen = [option for _, option in options]
    share, greedy = rules.explore.share, decision.chosen
    digest = _digest(rules.name, unit)
    is_drawn = int.from_bytes(digest[:7], "big") / 2**56 < share
    at = _draw(rules, seen, means, spreads, digest) if is_drawn else _place(seen, greedy)
    chosen = seen[at]
    propensity = share * chance_of(rules, seen, means, spreads, at)
    if chosen.candidate is greedy:
        propensity += 1.0 - share
        return msgspec.structs.replace(decision, propensity=propensity, explored=is_drawn)
    explorer.budget.spend(rules.name, chosen.expected_nano or 0)
    return _instead(decision, chosen, propensity)


def _options(decision: Decision, rules: Route, room_nano: int | None) -> list[tuple[int, Considered]]:
    """The candidates among which may be drawn, cheapest first, with their places among all that were considered; none
    where the choice itself is not among them."""
    usable, greedy, there = {id(option) for option in decision.usable}, decision.chosen, False
    most = inf if room_nano is None else room_nano // NEAR
    found = []
    for place, option in enumerate(decision.considered[: len(rules.candidates)]):
        cost = option.expected_nano
        if id(option) in usable and cost is not None and cost <= most and option.verdict != IN_QUARANTINE:
            candidate = option.candidate
            if cost * NEAR <= (candidate.budget.max_cost_nano or inf):
                found.append((place, option))
                there = there or candidate is greedy
    if not there:
        return []
    found.sort(key=_by_cost)
    return found


def _by_cost(one: tuple[int, Considered]) -> tuple[bool, int, int]:
    return cost_key(one[1])


def _place(options: Sequence[Considered], candidate: Candidate) -> int:
    place = 0
    while options[place].candidate is not candidate:
        place += 1
    return place


def _digest(route: str, unit: str) -> bytes:
    """What decides for a unit of a route, always the same: whether it is drawn, and how."""
    return blake2b(f"explore\0{route}\0{unit}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _normals(digest: bytes, count: int) -> list[float]:
    """Independent standard normal numbers, the same for the same digest (Box and Muller 1958,
    https://doi.org/10.1214/aoms/1177706645)."""
    uniform = iter_unpack("<QQ", shake_128(digest).digest(16 * count))
    return [sqrt(-2.0 * log((one + 1) / 2**64)) * cos(2.0 * pi * (other / 2**64)) for one, other in uniform]


def _draw(
    rules: Route, options: Sequence[Considered], means: Sequence[float], spreads: Sequence[float], digest: bytes
) -> int:
    said = drawn(means, spreads, _normals(digest, len(options)))
    seen = [
        Considered(
            option.candidate, Score(p, option.score.confidence, option.score.output_tokens), option.expected_nano, ""
        )
        for option, p in zip(options, said, strict=True)
    ]
    chosen, _ = choose(rules, seen)
    return _place(seen, chosen.candidate)


def _instead(decision: Decision, chosen: Considered, propensity: float) -> Decision:
    """Where sampling chose another: that one first, then the fallbacks as before."""
    greedy = decision.chosen
    for option in decision.usable:
        if option.candidate is greedy:
            option.verdict = PASSED_OVER
    chosen.verdict = "chosen"
    backups = [candidate for candidate in decision.order[1:] if candidate is not chosen.candidate]
    return msgspec.structs.replace(
        decision,
        order=(chosen.candidate, *backups),
        reason=f"explored: drawn from what is believed, instead of {greedy.name}",
        propensity=propensity,
        explored=True,
        instead_of=greedy.name,
    )
