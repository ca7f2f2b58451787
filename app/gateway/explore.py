"""Exploration: a share of calls goes where Thompson sampling draws, within a daily budget, and never where it is risky.

What is explored is a task's (or, without one, a call's) by its name, so that a task stays with its model while beliefs
last, and the same calls are explored after a restart. Not explored are: what the policy pins or the client named;
routes that split their traffic (a test compares routers, not draws); answers to open tool loops; calls for which only
fallbacks are left; calls near a cap, of their own or of a scope that they share; and nothing once the day's budget,
which all workers and gateways share (`gateway/explore_budget.py`), is spent.
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

from app.core.policy import LEARNED, Route
from app.gateway.choose import IN_QUARANTINE, PASSED_OVER, Considered, choose, cost_key
from app.gateway.decide import Decision
from app.gateway.explore_budget import ExploreBudget
from app.gateway.limits import Limits
from app.gateway.view import View
from routers.base import Arm, Score

if TYPE_CHECKING:  # numpy costs 100 ms to import, and only the learned router needs it
    from routers.abilities import Vector
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
    if rules is None or rules.explore is None or in_tool_loop or rules.split or decision.features is None:
        return decision
    if decision.propensity < 1.0:  # a model is in quarantine: its probes are exploration enough
        return decision
    router = view.routers.get(LEARNED)
    options = _options(decision, rules, explorer.room_nano(limits))
    if len(options) < 2 or not hasattr(router, "drawn"):
        return decision
    dearest = max(option.expected_nano or 0 for _, option in options)
    if not explorer.budget.allows(rules.name, rules.explore.day_nano, dearest, today):
        return decision
    live: LiveRouter = router  # type: ignore[assignment]
    places = [place for place, _ in options]
    seen = [option for _, option in options]
    mean, variance = live.drawn(decision.features, arms)
    mean, variance = mean[places], variance[places]
    share, greedy = rules.explore.share, decision.chosen
    digest = _digest(rules.name, unit)
    at = next(place for place, option in enumerate(seen) if option.candidate is greedy)
    is_drawn = int.from_bytes(digest[:7], "big") / 2**56 < share
    if is_drawn:
        at = _draw(rules, seen, mean, variance, digest)
    chosen = seen[at]
    propensity = share * _probability(rules, seen, mean, variance, at)
    if chosen.candidate is greedy:
        propensity += 1.0 - share
        return msgspec.structs.replace(decision, propensity=propensity, explored=is_drawn)
    explorer.budget.spend(rules.name, chosen.expected_nano or 0)
    return _instead(decision, chosen, propensity)


def _options(decision: Decision, rules: Route, room_nano: int | None) -> list[tuple[int, Considered]]:
    """The candidates among which may be drawn, cheapest first, with their places among all that were considered; none
    where the choice itself is not among them."""
    usable = {id(option) for option in decision.usable}
    most = None if room_nano is None else room_nano // NEAR
    found = [
        (place, option)
        for place, option in enumerate(decision.considered[: len(rules.candidates)])
        if id(option) in usable
        and option.verdict != IN_QUARANTINE
        and option.expected_nano is not None
        and (most is None or option.expected_nano <= most)
        and option.expected_nano * NEAR <= (option.candidate.budget.max_cost_nano or inf)
    ]
    if all(option.candidate is not decision.chosen for _, option in found):
        return []
    return sorted(found, key=lambda one: cost_key(one[1]))


def _digest(route: str, unit: str) -> bytes:
    """What decides for a unit of a route, always the same: whether it is drawn, and how."""
    return blake2b(f"explore\0{route}\0{unit}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _draw(rules: Route, options: Sequence[Considered], mean: Vector, variance: Vector, digest: bytes) -> int:
    from routers.thompson import drawn  # noqa: PLC0415  (see above)

    dice = random.Random(digest)  # noqa: S311  (what is explored is no secret)
    said = drawn(mean, variance, [dice.gauss(0.0, 1.0) for _ in options])
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
