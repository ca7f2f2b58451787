"""What one request sees of everything that can change under it: policy, prices, routers, in one reference."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, TypeVar

from app.core.policy import HEURISTIC, LEARNED, Candidate, Policy
from app.core.quarantined import Fell
from app.core.windows import CHARS
from app.stores.policy_compile import unlisted_candidate
from app.stores.prices import Catalogue
from routers.base import Arm, Router, family_of
from routers.features import Features
from routers.tasks import TaskGuess, classify

if TYPE_CHECKING:  # numpy costs 100 ms to import, and only the learned router needs it
    from routers.kinds import Demand

T = TypeVar("T")
MAX_MADE = 4096
MAX_UNLISTED = 512
"""`provider/model` names kept per view: clients choose them, so they are bounded."""


class View:
    """Immutable for its readers; swapped whole when the policy, the prices or a router change."""

    def __init__(self, policy: Policy, routers: Mapping[str, Router], catalogue: Catalogue) -> None:
        """`routers` by the names that policies give them; the heuristic must be among them."""
        self.policy = policy
        self.moment_chars = CHARS[policy.finest_window()]
        """How much of a moment (core/windows) tells this policy's windows apart."""
        self.counts_users = policy.counts_users()
        self.circuits = policy.circuits()
        self.routers = routers
        self.catalogue = catalogue
        self._arms: dict[str, Arm] = {}
        self._made: dict[tuple[Hashable, ...], object] = {}
        self._unlisted: dict[str, Candidate | None] = {}
        self.task: Callable[[Features], TaskGuess] = getattr(routers.get(LEARNED), "task", classify)
        """What kind of work a request is, as the learned router tells it where it is there."""
        self.weights: str = getattr(routers.get(LEARNED), "weights", "")
        self.down: Mapping[str, Mapping[str, Fell]] = getattr(routers.get(LEARNED), "down", {})
        """The models in quarantine by task type."""
        self.demand: Callable[[Features], Demand] | None = getattr(routers.get(LEARNED), "demand", None)

    def serving(self, name: str | None) -> str:
        """The router that serves under a name that a policy gives (None: the best there is): itself where it is
        loaded, else the heuristic."""
        name = name or LEARNED
        return name if name in self.routers else HEURISTIC

    def arm(self, candidate: Candidate) -> Arm:
        """The router's view of a candidate, made once."""
        arm = self._arms.get(candidate.name)
        if arm is None:
            arm = self._arms[candidate.name] = arm_of(candidate)
        return arm

    def once(self, what: tuple[Hashable, ...], make: Callable[[], T]) -> T:
        """A value that is the same for every request on this view, made on first use."""
        found = self._made.get(what)
        if found is None:
            if len(self._made) >= MAX_MADE:
                self._made.clear()
            found = self._made[what] = make()
        return found  # type: ignore[return-value]

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
        return unlisted_candidate(provider, model, self.catalogue)


def arm_of(candidate: Candidate) -> Arm:
    """The router's view of a candidate."""
    price, model = candidate.price, candidate.like or candidate.upstream_model
    return Arm(
        candidate.name,
        candidate.tier,
        family=family_of(model),
        input_rate=price.base.input if price else None,
        output_rate=price.base.output if price else None,
        context_tokens=candidate.capabilities.context_tokens,
        max_output_tokens=candidate.capabilities.max_output_tokens,
        reasoning=candidate.capabilities.hidden_reasoning,
        model=model,
    )
