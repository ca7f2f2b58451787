"""Exploration: a share of calls goes where Thompson sampling draws, within a daily budget, and never where it is risky.

What is explored is a task's (or, without one, a call's) by its name, so that a task stays with its model while beliefs
last, and the same calls are explored after a restart. Not explored are: what the policy pins or the client named;
routes that split their traffic (a test compares routers, not draws); answers to open tool loops; calls for which only
fallbacks are left; calls near a cap, of their own or of a scope that they share; and nothing once the day's budget is
spent.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from math import inf
from typing import TYPE_CHECKING

import msgspec

from app.core.policy import LEARNED, Explore, Route
from app.gateway.choose import Considered, choose, cost_key
from app.gateway.decide import Decision
from app.gateway.limits import Limits
from app.gateway.view import View
from routers.base import Score

if TYPE_CHECKING:  # numpy costs 100 ms to import, and only the learned router needs it
    from routers.abilities import Vector
    from routers.live import LiveRouter

NEAR = 8
"""Near a cap is where less is left than this many times what the call is expected to cost."""
MAX_SCOPES = 20_000


@dataclass(slots=True)
class Explorer:
    """What one process knows of its exploring: dollars of the day (UTC), and what scopes had left when last heard
    of."""

    day: dt.date = dt.date.min
    spent_nano: dict[str, int] = field(default_factory=dict)
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

    def may_spend(self, route: str, explore: Explore, nano: int, today: dt.date) -> bool:
        """Whether the day's budget of a route allows so much more."""
        if today != self.day:
            self.day = today
            self.spent_nano.clear()
        return self.spent_nano.get(route, 0) + nano <= explore.day_nano

    def spend(self, route: str, nano: int) -> None:
        """Count what exploring costs; less than 0 gives back what was expected and did not come."""
        self.spent_nano[route] = max(self.spent_nano.get(route, 0) + nano, 0)


def explored(
    decision: Decision, view: View, explorer: Explorer, *, unit: str, in_tool_loop: bool, limits: Limits, today: dt.date
) -> Decision:
    """The decision, or the one that sampling makes of it; with the probability of its choice over both."""
    rules = decision.rules
    if rules is None or rules.explore is None or in_tool_loop or rules.split or decision.features is None:
        return decision
    router = view.routers.get(LEARNED)
    options = _options(decision, rules, explorer.room_nano(limits))
    if len(options) < 2 or not hasattr(router, "drawn"):
        return decision
    dearest = max(option.expected_nano or 0 for option in options)
    if not explorer.may_spend(rules.name, rules.explore, dearest, today):
        return decision
    live: LiveRouter = router  # type: ignore[assignment]
    mean, variance = live.drawn(decision.features, tuple(view.arm(option.candidate) for option in options))
    share, greedy = rules.explore.share, decision.chosen
    coin, normals = _chance(rules.name, unit, len(options))
    at = next(place for place, option in enumerate(options) if option.candidate is greedy)
    if coin < share:
        at = _draw(rules, options, mean, variance, normals)
    chosen = options[at]
    propensity = share * _probability(rules, options, mean, variance, at)
    if chosen.candidate is greedy:
        propensity += 1.0 - share
        return msgspec.structs.replace(decision, propensity=propensity, explored=coin < share)
    explorer.spend(rules.name, chosen.expected_nano or 0)
    return _instead(decision, chosen, propensity)


def _options(decision: Decision, rules: Route, room_nano: int | None) -> list[Considered]:
    """The candidates among which may be drawn, cheapest first; none where the choice itself is not among them."""
    names = set(rules.candidates)
    most = None if room_nano is None else room_nano // NEAR
    found = [
        option
        for option in decision.usable
        if option.candidate.name in names
        and option.expected_nano is not None
        and (most is None or option.expected_nano <= most)
        and option.expected_nano * NEAR <= (option.candidate.budget.max_cost_nano or inf)
    ]
    if all(option.candidate is not decision.chosen for option in found):
        return []
    return sorted(found, key=cost_key)


def _chance(route: str, unit: str, count: int) -> tuple[float, list[float]]:
    """A number in [0, 1) and standard normal ones, always the same for a unit of a route."""
    digest = blake2b(f"explore\0{route}\0{unit}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
    coin = int.from_bytes(digest[:7], "big") / 2**56
    dice = random.Random(digest)  # noqa: S311  (which calls are explored is no secret)
    return coin, [dice.gauss(0.0, 1.0) for _ in range(count)]


def _draw(rules: Route, options: Sequence[Considered], mean: Vector, variance: Vector, normals: list[float]) -> int:
    from routers.thompson import drawn  # noqa: PLC0415  (see above)

    said = drawn(mean, variance, normals)
    seen = [
        Considered(
            option.candidate, Score(p, option.score.confidence, option.score.output_tokens), option.expected_nano, ""
        )
        for option, p in zip(options, said, strict=True)
    ]
    chosen, _ = choose(rules, seen)
    return seen.index(chosen)


def _probability(rules: Route, options: Sequence[Considered], mean: Vector, variance: Vector, at: int) -> float:
    """The probability that `_draw` gives this one."""
    from routers.thompson import first_adequate, likeliest, most_useful  # noqa: PLC0415

    costs = [option.expected_nano or 0 for option in options]
    if rules.objective == "quality":
        fitting = [place for place, cost in enumerate(costs) if cost <= (rules.max_expected_nano or 0)]
        if not fitting:
            return float(at == 0)
        return likeliest(mean[fitting], variance[fitting], fitting.index(at)) if at in fitting else 0.0
    if rules.objective == "utility":
        return most_useful(mean, variance, at, costs, rules.success_value_nano or 0)
    return first_adequate(mean, variance, at, rules.adequacy)


def _instead(decision: Decision, chosen: Considered, propensity: float) -> Decision:
    """Where sampling chose another: that one first, then the fallbacks as before."""
    greedy = decision.chosen
    for option in decision.usable:
        if option.candidate is greedy:
            option.verdict = "passed over to explore"
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
