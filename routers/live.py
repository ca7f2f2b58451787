"""The learned router as live traffic has taught it: the weights' items and lengths, abilities from a `Belief`.

Before the first outcome it says what the weights alone say. Belief over the offsets of live traffic is wider than what
a decision is made with (a level common to all models is no reason to doubt a choice among them; of kinds of work that
training knows nothing of, all is in doubt), so the variance that outcomes leave is taken as a share of the one that
they began with, and that share of the weights' own doubt remains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import erf, erfc, exp, pi, sqrt
from typing import Final, NamedTuple

import numpy as np

from routers.abilities import Ability, AbilityStack, Matrix, Vector
from routers.base import Arm, Score
from routers.belief import Belief, Prior, same_model
from routers.features import Features
from routers.kinds import Demand, folding
from routers.learned import CONFIDENT_LOGITS, UNTRIED, LearnedRouter
from routers.tasks import TaskGuess
from routers.thompson import logit

MAX_KINDS: Final = 512
"""Sets of arms times kinds of work whose abilities are kept side by side."""
MAX_ARMS: Final = 2_048
_ERF_AT: Final = np.linspace(0.0, 4.0, 801)
_ERF: Final = np.array([erf(x) for x in _ERF_AT])


class Drawn(NamedTuple):
    """What is believed of each arm's logit on one request: means and variances, the request's own chance left out."""

    mean: Vector
    variance: Vector


@dataclass(slots=True)
class _Kind:
    """The arms on one kind of work, over u and the place: S = K + P. `means` (arms, S). `covs` (3 arms, S * S):
    covariances of what is believed of them, of what live traffic began with, of what the weights expect. `square`
    (arms, K): what a request's own variance is multiplied by. `doubt` (arms,): the variance at the constant by which
    confidence begins where the text is not read. `unread`: what was found for requests whose text is not."""

    means: Matrix
    covs: Matrix
    square: Matrix
    doubt: Vector
    unread: tuple[list[tuple[float, float]], Drawn] | None = None


class _Known(NamedTuple):
    """An arm over extended coordinates, as believed and as it began; and over u, as the weights expect it. `heard`:
    whether an outcome of this model was learned, be it under another name."""

    now: Ability
    began: Ability
    expected: Ability
    heard: bool


class LiveRouter:
    """Scores as `LearnedRouter` does, by what a belief says of each arm; one that it does not know joins it as a new
    model does. Immutable: a new snapshot is a new router. `snapshot` names it in `version`; `down`: the models in
    quarantine by task type, with their success before they fell and since."""

    name: Final = "learned"

    def __init__(
        self,
        base: LearnedRouter,
        belief: Belief,
        snapshot: str,
        prior: Prior | None = None,
        down: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
    ) -> None:
        self.down = down or {}
        self.version, self.weights = f"{base.version}+{snapshot}", base.weights
        self.base, self.snapshot, self.belief = base, snapshot, belief
        self._prior = prior or prior_of(base)
        self._known: dict[Arm, _Known] = {}
        self._kinds: dict[tuple[int, str, bool], tuple[Sequence[Arm], _Kind]] = {}
        self._surest: dict[tuple[str, bool], float] = {}
        self._latest: tuple[Features, Demand] | None = None
        self._scored: tuple[Demand, _Kind, Drawn] | None = None

    def task(self, features: Features) -> TaskGuess:
        """The task type of a request."""
        return self.base.task(features)

    def demand(self, features: Features) -> Demand:
        """What a request demands; whoever asks next about the same request gets the same."""
        latest = self._latest
        if latest is None or latest[0] is not features:
            latest = self._latest = features, self.base.demand(features)
        return latest[1]

    def recall(self, features: Features, demand: Demand) -> None:
        """See `LearnedRouter.recall`."""
        self._latest = features, demand

    def score(self, features: Features, arms: Sequence[Arm]) -> list[Score]:
        """One score per arm, in order."""
        if not arms:
            return []
        demand, every = self.demand(features), arms if isinstance(arms, tuple) else tuple(arms)
        kind, base = self._kind(every, demand), self.base
        found = None if demand.read else kind.unread  # what is not read is the same for all requests of a kind
        if found is None:
            found = _seen(kind, demand)
            if not demand.read:
                kind.unread = found
        seen, drawn = found
        self._scored = demand, kind, drawn
        return [Score(p, sure, n) for (p, sure), n in zip(seen, base.plan(features, every), strict=True)]

    def surest(self, features: Features) -> float:
        """Where the text is not read, what the model that is known best there is known by; else 1."""
        demand = self.demand(features)
        if demand.read:
            return 1.0
        key = demand.task_type, demand.plain
        found = self._surest.get(key)
        if found is None:
            arms = tuple(own.arm for own in self.belief.own.values())
            scores = self.score(features, arms)
            found = self._surest[key] = max([UNTRIED, *(score.confidence for score in scores)])
        return found

    def typical(self, name: str, task_type: str) -> tuple[float, float]:
        """P(success) of a model that the belief knows on a plain request of a type whose text was not read, and the
        standard deviation of its logit."""
        demand, ability = self._unread(name, task_type)
        p, _ = AbilityStack([ability]).predict(demand.u, demand.var)
        return float(p[0]), sqrt(float(demand.u @ ability.cov @ demand.u))

    def surely(self, name: str, task_type: str, adequacy: float) -> float:
        """The probability that a draw from what is believed of such a request puts P(success) at `adequacy` or above:
        what a route's baseline is left by."""
        demand, ability = self._unread(name, task_type)
        spread = sqrt(float(demand.u @ ability.cov @ demand.u))
        return 0.5 * erfc((logit(adequacy) - float(demand.u @ ability.mean)) / spread / sqrt(2.0))

    def _unread(self, name: str, task_type: str) -> tuple[Demand, Ability]:
        demand = self.base.demand_of((), (), 1.0, task_type, plain=True, read=False)
        ability, k = self._folded(self.belief.own[name].arm, demand), len(demand.u)
        return demand, Ability(ability.mean[:k], ability.cov[:k, :k])  # of a text that was not read the place is 0

    def drawn(self, features: Features, arms: tuple[Arm, ...]) -> Drawn:
        """What a sampler draws from; a request that was scored just now is not looked at again."""
        demand = self.demand(features)
        kind, latest = self._kind(arms, demand), self._scored
        if latest is not None and latest[0] is demand and latest[1] is kind:
            return latest[2]
        at = _at(demand)
        return Drawn(kind.means @ at, kind.covs[: len(arms)] @ np.outer(at, at).ravel())

    def heard(self, arms: Sequence[Arm]) -> list[bool]:
        """Of which arms an outcome was learned, under this name or another, at whatever kind of work."""
        return [self._about(arm).heard for arm in arms]

    def warm(self, arms: Sequence[Arm]) -> None:
        """Work out beforehand what is believed of these, in a thread that no request waits for."""
        for arm in arms:
            self._about(arm)

    def _kind(self, arms: tuple[Arm, ...], demand: Demand) -> _Kind:
        """Found by identity, since a route's arms are the same tuple for all of its requests; kept with them, lest
        another should come to be at the same place."""
        key = id(arms), demand.task_type, demand.plain
        found = self._kinds.get(key)
        if found is None:
            if len(self._kinds) >= MAX_KINDS:
                self._kinds.clear()
            found = self._kinds[key] = arms, self._made(arms, demand)
        return found[1]

    def _made(self, arms: Sequence[Arm], demand: Demand) -> _Kind:
        k = len(demand.u)
        size = k + len(demand.place)
        fold = folding(size, demand.task_type, demand.plain)
        known = [self._about(arm) for arm in arms]
        means = np.array([fold @ one.now.mean for one in known])
        groups = (
            [fold @ one.now.cov @ fold.T for one in known],
            [fold @ one.began.cov @ fold.T for one in known],
            [np.pad(one.expected.cov, (0, size - k)) for one in known],
        )
        covs = np.array([cov.ravel() for group in groups for cov in group])
        square = means[:, :k] ** 2 + np.array([np.diag(one.expected.cov) for one in known])
        doubt = [_untried(float(one.expected.cov[0, 0]), self._blur(one.expected, demand)) for one in known]
        return _Kind(means, covs, square, np.array(doubt))

    def _folded(self, arm: Arm, demand: Demand) -> Ability:
        size = len(demand.u) + len(demand.place)
        fold, now = folding(size, demand.task_type, demand.plain), self._about(arm).now
        return Ability(fold @ now.mean, fold @ now.cov @ fold.T)

    def _about(self, arm: Arm) -> _Known:
        found = self._known.get(arm)
        if found is None:
            if len(self._known) >= MAX_ARMS:
                self._known.clear()
            expected = self.base.ability(arm)
            now, began = (
                self._prior.joined(belief, arm, expected).ability(arm.name)
                for belief in (self.belief, self._prior.start())
            )
            heard = any(own.labels > 0.0 and same_model(own.arm, arm) for own in self.belief.own.values())
            found = self._known[arm] = _Known(now, began, expected, heard)
        return found

    def _blur(self, expected: Ability, demand: Demand) -> float:
        return float(demand.var @ (expected.mean**2 + np.diag(expected.cov)))


def prior_of(base: LearnedRouter) -> Prior:
    """Where belief begins with these weights."""
    first = None if base.house is None else base.house.belief
    return Prior(base.ability_weights, base.places, [kind.value for kind in base.tried], first=first)


def _seen(kind: _Kind, demand: Demand) -> tuple[list[tuple[float, float]], Drawn]:
    """P(success) and confidence of each arm, and what is believed of its logit."""
    at = _at(demand)
    mean, noise = kind.means @ at, kind.square @ demand.var
    now, began, expected = (kind.covs @ np.outer(at, at).ravel()).reshape(3, -1)
    each = zip(*(values.tolist() for values in (mean, now / began, expected, noise, kind.doubt)), strict=True)
    found = []
    for m, left, own, blur, untold in each:
        variance = left * own + blur
        # Where the text is not read, requests of a kind differ by chance, and what is common to them is learned.
        doubt = variance if demand.read else left * (untold + blur)
        p = 1.0 / (1.0 + exp(-m / sqrt(1.0 + pi / 8.0 * variance)))
        found.append((p, erf(CONFIDENT_LOGITS / sqrt(2.0 * doubt))))
    return found, Drawn(mean, now)


def _at(demand: Demand) -> Vector:
    """Where a request is in what `_Kind` is over."""
    return np.concatenate((demand.u, demand.place))


def _untried(variance: float, blur: float) -> float:
    """The variance that with a request's own makes confidence what `learned.UNTRIED` leaves of it."""
    wanted = UNTRIED * erf(CONFIDENT_LOGITS / sqrt(2.0 * (variance + blur)))
    return float(0.5 * (CONFIDENT_LOGITS / np.interp(wanted, _ERF, _ERF_AT)) ** 2) - blur
