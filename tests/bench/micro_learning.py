"""CPU microseconds of what learning adds to a request, and of what the learner does, each alone."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from app.core.policy import HEURISTIC, LEARNED, Explore, Policy
from app.core.types import ChatRequest
from app.dialects.openai_chat.parse import parse_chat
from app.gateway.decide import Decision, decide, view_of
from app.gateway.explore import Explorer, explored
from app.gateway.limits import Limits
from app.gateway.record import decision_json, demand_json
from app.gateway.target import Target, resolve
from app.gateway.view import View
from app.settings import SHIPPED_WEIGHTS
from app.stores.prices import Catalogue
from routers.base import Arm, Router
from routers.belief import Belief
from routers.features import extract
from routers.heuristic import HeuristicRouter
from routers.learned import load
from routers.live import LiveRouter, prior_of
from tests.bench.canned import ROUTE
from tests.bench.micro import INPUT_TOKENS, Part, cpu_us, policy_with

CODE = "Write a Python function that merges two sorted lists. Include type hints and unit tests. " * 20
PROGRAM = "def merged(a: list[int], b: list[int]) -> list[int]:\n    return sorted([*a, *b], key=abs)\n\n\n"
BASE = load(SHIPPED_WEIGHTS)
SCORED = "features and scores"


class Plenty:
    """A budget without an end."""

    def allows(self, route: str, day_nano: int, nano: int, today: dt.date) -> bool:
        return True

    def spend(self, route: str, nano: int) -> None:
        pass


FREE = Limits((), None, "request")
TODAY = dt.date(2026, 11, 29)


@dataclass(frozen=True)
class Exploring:
    """A request of a kind that the learned router reads (2 kB of code), decided by a snapshot on a route that
    explores; `sampled`: the decision that sampling makes of it for a unit (a task, or a call without one), with the
    probability of its choice."""

    request: ChatRequest
    belief: Belief
    view: View
    live: LiveRouter
    decision: Decision
    arms: tuple[Arm, ...]
    sampled: Callable[[str], Decision]


def exploring(count: int, text: str = CODE) -> Exploring:
    """With so many candidates, and that text."""
    request = parse_chat(msgspec.json.encode({"model": ROUTE, "messages": [{"role": "user", "content": text}]}))
    of = policy_with(count)
    prior, belief = prior_of(BASE), prior_of(BASE).start()
    plain = _view(of, BASE)
    for candidate in of.models.values():
        arm = plain.arm(candidate)
        belief = prior.joined(belief, arm, BASE.ability(arm))
    live = LiveRouter(BASE, belief, "1")
    view = _view(of, live)
    target = resolve(view, ROUTE)
    decision, explorer = _decided(request, target, view), Explorer(Plenty())

    def sampled(unit: str) -> Decision:
        return explored(
            decision, target.arms, view, explorer, unit=unit, in_tool_loop=False, limits=FREE, today=TODAY
        )  # fmt: skip

    return Exploring(request, belief, view, live, decision, target.arms, sampled)


def learning_parts(batch_s: float) -> Iterator[Part]:
    """What is done once for such a request, for 3 and 10 candidates; and what the learner does for a label.

    First what P(success) costs as a whole, features included, for 2 and 100 kB of a program that is read.
    """
    for size, times in (("2 kB", 22), ("100 kB", 1090)):
        of = exploring(10, PROGRAM * times)
        assert of.decision.demand is not None
        assert of.decision.demand.read
        for who, router in (("the weights alone", BASE), ("a snapshot", of.live)):
            scored = partial(_scored, of.request, router, of.arms)
            yield Part(f"{SCORED} by {who}, 10 candidates, {size}", "request", cpu_us(scored, batch_s=batch_s))
    for count in (3, 10):
        for name, per, work in _works(exploring(count)):
            yield Part(f"{name}, {count} candidates", per, cpu_us(work, batch_s=batch_s))


def _works(of: Exploring) -> Iterator[tuple[str, str, Callable[[], object]]]:
    features, demand, belief = of.decision.asked.features, of.decision.demand, of.belief
    assert demand is not None
    yield "scores by the weights alone, the text read", "request", lambda: BASE.score(features, of.arms)
    yield "scores by a snapshot, the text read", "request", lambda: of.live.score(features, of.arms)
    yield "what it demands, in its record", "request", lambda: demand_json(demand, of.view)
    yield "the decision's record", "request", lambda: decision_json(of.decision, of.view)
    units = map(str, itertools.count())
    yield "sampling and propensity", "request", lambda: of.sampled(next(units))
    name = of.arms[0].name
    site = belief.site(name, demand, 1.0, 1.0)
    yield (
        "learner: one label learned and one taken back",
        "label",
        lambda: belief.told(belief.site(name, demand, 1.0, 1.0)).told(site, back=True),
    )


def _scored(request: ChatRequest, router: Router, arms: tuple[Arm, ...]) -> object:
    return router.score(extract(view_of(request)), arms)


def _view(of: Policy, learned: object) -> View:
    return View(of, {HEURISTIC: HeuristicRouter(), LEARNED: learned}, Catalogue(b"{}"))  # type: ignore[dict-item]


def _decided(request: ChatRequest, target: Target, view: View) -> Decision:
    decision = decide(
        request, target, view, unit="task", input_tokens=lambda _: INPUT_TOKENS, available=lambda _: True,
        capped=lambda _: True,
    )  # fmt: skip
    assert decision.rules is not None
    return msgspec.structs.replace(decision, rules=replace(decision.rules, explore=Explore(0.05, 10**12)))
