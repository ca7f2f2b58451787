"""What the client's `model` stands for: the candidates, and by which rules one of them is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec

from app.core.errors import BadRequest, Forbidden, ModelNotFound
from app.core.policy import ANY_TASK, Candidate, Key, Retries, Route
from app.gateway.view import View
from routers.base import Arm

HELD = "the model of the tool loop that is open"
"""Why a call goes where the one before it went: nothing was decided."""
PROBED = "a probe of this model"


class Target(msgspec.Struct, frozen=True):
    """`every` is each candidate and fallback once, `arms` the routers' view of them in that order.

    `rules` say how to choose; where there is nothing to choose they are None, the candidates stand in the order
    to ask, and `fixed` says why. `pinned` holds what a task type (or ANY_TASK) is pinned to.
    """

    route: str | None
    candidates: tuple[Candidate, ...]
    fallback: tuple[Candidate, ...]
    every: tuple[Candidate, ...]
    arms: tuple[Arm, ...]
    rules: Route | None = None
    fixed: str = ""
    retries: Retries = Retries()
    pinned: Mapping[str, Target] = {}

    def held_to(self, name: str) -> Target:
        """The target of a conversation whose tool loop is open with this candidate: asked first, and changed only
        where it fails. The same target where it is not, or no longer, a candidate."""
        place = next((index for index, c in enumerate(self.every) if c.name == name), None)
        if self.rules is None or self.rules.switch_in_tool_loop or place is None:
            return self
        kept = self.every[place]
        order = (kept, *(f for f in self.fallback if f is not kept))
        arms = {c.name: arm for c, arm in zip(self.every, self.arms, strict=True)}
        return msgspec.structs.replace(
            self,
            candidates=(kept,),
            every=order,
            arms=tuple(arms[c.name] for c in order),
            rules=None,
            fixed=HELD,
            pinned={},
        )

    def probed(self, name: str, *, in_tool_loop: bool) -> Target:
        """The target of a probe: this candidate and no other, sorted into kinds of work as other requests to this
        target are. Raises BadRequest where it is no candidate."""
        place = next((index for index, c in enumerate(self.every) if c.name == name), None)
        if place is None:
            raise BadRequest("What X-Bursar-Probe names is no candidate of this route.", param="X-Bursar-Probe")
        # Within a tool loop others are held to a model, and nothing is decided.
        held = in_tool_loop and len(self.every) > 1 and not (self.rules is not None and self.rules.switch_in_tool_loop)
        rules = None if held or self.rules is None else replace(self.rules, explore=None, baseline=None, split={})
        return msgspec.structs.replace(
            self,
            candidates=(self.every[place],),
            fallback=(),
            every=(self.every[place],),
            arms=(self.arms[place],),
            rules=rules,
            fixed=PROBED,
            pinned={},
        )

    def landing(self, adequacy: float | None) -> Target:
        """The target for a task near its cap: the cheapest that is adequate, whatever the route's objective, and
        whatever model it keeps to."""
        if self.rules is None:
            return self
        least = self.rules.adequacy if adequacy is None else adequacy
        rules = replace(self.rules, objective="cheapest_adequate", adequacy=least, baseline=None)
        return msgspec.structs.replace(self, rules=rules)

    def of_task(self, task_type: str | None) -> Target:
        """The target for a task type (None: no chat), which may be pinned."""
        if not self.pinned:
            return self
        return self.pinned.get(task_type or ANY_TASK) or self.pinned.get(ANY_TASK) or self


def resolve(view: View, name: str, key: Key | None = None) -> Target:
    """A route, `tier:N`, a listed model, `provider/model`, or the policy's home for unknown names.

    Raises ModelNotFound, or Forbidden where the key is limited to other routes.
    """
    policy = view.policy
    allowed = key.routes if key is not None else None
    name = policy.meant_by(name) if policy.aliases else name
    if policy.unknown_model is not None and not _known(view, name):
        name = policy.unknown_model
    if allowed is not None and name not in allowed:
        raise Forbidden("This key may not use that model.", param="model")
    if name in policy.routes:
        return view.once(("target", name), lambda: _of_route(view, policy.routes[name]))
    if name.startswith("tier:"):
        return _of_tier(view, name)
    candidate = view.find(name)
    if candidate is None:
        raise ModelNotFound(
            "The policy has no route or model of that name; GET /v1/models lists what it has.", param="model"
        )
    return _target(view, None, (candidate,), fixed="the client named this model")


def followed_by(target: Target, view: View, names: tuple[str, ...], key: Key | None) -> Target:
    """The target with whom else the client names (`models`), in that order, before the route's own fallback. A route or
    a tier stands for its models; a name that is known to the provider of the asked model alone is one of that
    provider's models. Raises ModelNotFound or Forbidden."""
    named: list[Candidate] = []
    for name in names:
        try:
            named += resolve(view, _beside(target, view, name), key).every
        except (ModelNotFound, Forbidden) as error:
            raise type(error)(error.message, param="models") from None
    return _followed(target, view, tuple(named))


def _beside(target: Target, view: View, name: str) -> str:
    if target.route is not None or _known(view, view.policy.meant_by(name)):
        return name
    at_its_provider = f"{target.every[0].provider.name}/{name}"
    return name if view.find(at_its_provider) is None else at_its_provider


def _followed(target: Target, view: View, named: tuple[Candidate, ...]) -> Target:
    more = _target(view, target.route, target.candidates, (*named, *target.fallback))
    return msgspec.structs.replace(
        target,
        fallback=tuple({c.name: c for c in more.fallback}.values()),
        every=more.every,
        arms=more.arms,
        fixed="the client named these models, in this order" if target.route is None else target.fixed,
        pinned={task: _followed(pinned, view, named) for task, pinned in target.pinned.items()},
    )


def _known(view: View, name: str) -> bool:
    return name in view.policy.routes or name.startswith("tier:") or view.find(name) is not None


def _of_route(view: View, route: Route) -> Target:
    models = view.policy.models
    fallback = tuple(models[n] for n in route.fallback)
    pinned = {
        task: _target(
            view,
            route.name,
            (models[model],),
            fallback,
            fixed=f"the policy pins {'this route' if task == ANY_TASK else task} to {model}",
            retries=route.retries,
        )
        for task, model in route.pin.items()
    }
    candidates = tuple(models[n] for n in route.candidates)
    return _target(view, route.name, candidates, fallback, rules=route, retries=route.retries, pinned=pinned)


def of_tier(view: View, name: str) -> tuple[Candidate, ...]:
    """The models that `tier:N` stands for. Raises ModelNotFound."""
    tier = name.removeprefix("tier:")
    found = tuple(m for m in view.policy.models.values() if str(m.tier) == tier and not m.capabilities.embeddings)
    if not found:
        raise ModelNotFound("The policy has no model of that tier.", param="model")
    return found


def _of_tier(view: View, name: str) -> Target:
    found = of_tier(view, name)
    # Who asks for a tier has said what is good enough: the cheapest of it.
    rules = Route(name, tuple(m.name for m in found), adequacy=0.0, min_confidence=0.0)
    return _target(view, name, found, found, rules=rules)


def _target(
    view: View,
    route: str | None,
    candidates: tuple[Candidate, ...],
    fallback: tuple[Candidate, ...] = (),
    *,
    rules: Route | None = None,
    fixed: str = "",
    retries: Retries = Retries(),  # noqa: B008  (frozen)
    pinned: Mapping[str, Target] | None = None,
) -> Target:
    every = tuple({c.name: c for c in (*candidates, *fallback)}.values())
    arms = tuple(view.arm(c) for c in every)
    return Target(route, candidates, fallback, every, arms, rules, fixed, retries, pinned or {})
