"""What one request sees of everything that can change under it: policy, prices, router, in one reference."""

from __future__ import annotations

from app.core.money import FREE, default_model_cap
from app.core.policy import Candidate, Capabilities, ModelBudget, Policy
from app.stores.prices import Catalogue
from routers.base import Arm, Router, family_of

MAX_UNLISTED = 512
"""`provider/model` names kept per view: clients choose them, so they are bounded."""


class View:
    """Immutable for its readers; swapped whole when the policy, the prices or the router change."""

    def __init__(self, policy: Policy, router: Router, catalogue: Catalogue) -> None:
        self.policy = policy
        self.router = router
        self.catalogue = catalogue
        self._arms: dict[str, Arm] = {}
        self._unlisted: dict[str, Candidate | None] = {}

    def arm(self, candidate: Candidate) -> Arm:
        """The router's view of a candidate, made once."""
        arm = self._arms.get(candidate.name)
        if arm is None:
            arm = self._arms[candidate.name] = arm_of(candidate)
        return arm

    def find(self, name: str) -> Candidate | None:
        """A listed model, or `provider/model` where that provider serves any model; None if neither."""
        listed = self.policy.models.get(name)
        if listed is not None:
            return listed
        if name not in self._unlisted:
            if len(self._unlisted) >= MAX_UNLISTED:
                self._unlisted.clear()
                self._arms.clear()
            self._unlisted[name] = self._make_unlisted(name)
        return self._unlisted[name]

    def _make_unlisted(self, name: str) -> Candidate | None:
        provider_name, slash, model = name.partition("/")
        provider = self.policy.providers.get(provider_name)
        if not slash or not model or provider is None or not provider.any_model:
            return None
        entry = self.catalogue.find(provider, model)
        price = FREE if provider.free else entry.price if entry is not None else None
        cap = default_model_cap(price) if price is not None else None
        return Candidate(
            name,
            provider,
            model,
            tier=1,
            price=price,
            budget=ModelBudget(cap),
            capabilities=entry.capabilities if entry is not None else Capabilities(),
            listed=False,
        )


def arm_of(candidate: Candidate) -> Arm:
    """The router's view of a candidate."""
    price = candidate.price
    return Arm(
        candidate.name,
        candidate.tier,
        family=family_of(candidate.upstream_model),
        input_rate=price.base.input if price else None,
        output_rate=price.base.output if price else None,
        context_tokens=candidate.capabilities.context_tokens,
        max_output_tokens=candidate.capabilities.max_output_tokens,
        reasoning=candidate.capabilities.hidden_reasoning,
    )
