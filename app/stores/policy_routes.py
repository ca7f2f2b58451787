"""Routes of the policy file as the gateway uses them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from app.core.landing import Landing
from app.core.money import nano_from_usd
from app.core.policy import ANY_TASK, Baseline, Candidate, Explore, Retries, Route
from app.stores.policy_model_routes import BaselineSpec, ExploreSpec, LandingSpec, RouteSpec


def compile_route(name: str, given: RouteSpec, models: Mapping[str, Candidate]) -> Route:
    """A route, without what dropped out."""
    return Route(
        name=name,
        candidates=tuple(model for model in given.candidates if model in models),
        adequacy=given.adequacy,
        min_confidence=given.min_confidence,
        explore=_explore(given.explore),
        baseline=_baseline(given.baseline, models),
        fallback=tuple(model for model in given.fallback if model in models),
        retries=Retries(given.retries.attempts, given.retries.base_secs, given.retries.max_wait_secs),
        on_cut=given.on_cut,
        objective=given.objective,
        max_expected_nano=usd_nano(given.max_expected_cost_usd),
        success_value_nano=usd_nano(given.success_value_usd),
        pin=MappingProxyType({task: model for task, model in pins_of(given).items() if model in models}),
        router=given.router,
        split=MappingProxyType({name: share for name, share in (given.split or {}).items() if share}),
        switch_in_tool_loop=given.switch_in_tool_loop,
        landing=landing_of(given.landing),
    )


def pins_of(given: RouteSpec) -> Mapping[str, str]:
    """The models that task types are pinned to, whether they are there or not."""
    return {ANY_TASK: given.pin} if isinstance(given.pin, str) else given.pin or {}


def usd_nano(usd: float | None) -> int | None:
    """Dollars as nano-dollars, none for none."""
    return None if usd is None else nano_from_usd(usd)


def landing_of(given: LandingSpec | None) -> Landing | None:
    """How tasks land, none for none."""
    return None if given is None else Landing(**given.model_dump())


def _explore(given: ExploreSpec | None) -> Explore | None:
    if given is None:
        return None
    return Explore(given.share, nano_from_usd(given.max_usd_per_day), frozenset(given.never_for))


def _baseline(given: BaselineSpec | None, models: Mapping[str, Candidate]) -> Baseline | None:
    return Baseline(given.model, given.sure) if given is not None and given.model in models else None
