"""The learned router: P(success) of any arm on any request, from outcomes of many models on many questions.

A request becomes coordinates u: what its surface tells (learned within families, so that it carries over to new
ones) and what its words tell (the kind of question, as far as its words are known). An arm has abilities, a known
model's measured ones or a prior from its facts. Both are uncertain, and P(success) integrates over both; where
nothing is known of a kind of request, its own part fades and what remains is how good each arm is on the whole, which
is the best static choice. Fitted by `routers.train`; numpy is all it needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import erf, sqrt
from pathlib import Path
from typing import Final

import numpy as np

from routers.abilities import Ability, AbilityStack, AbilityWeights, Vector, prior
from routers.artifact import Weights, read
from routers.base import Arm, Score
from routers.features import Features
from routers.house import PART, House
from routers.kinds import N_TYPES, Demand
from routers.lengths import ArmLengths, LengthWeights, arm_lengths, expected_tokens, request_length
from routers.tasks import TaskGuess, TaskType, classify
from routers.trust import TRUST, trusted, typical_slopes
from routers.vector import SURFACE, excerpt_words, surface, terms, vocabulary

MAX_STACKS: Final = 64
"""Sets of arms whose abilities are kept side by side; a policy has a few."""
CLIP: Final = 3.0
CONFIDENT_LOGITS: Final = 1.5
"""`Score.confidence` is the probability that an arm's true logit on this kind of request is within this much of the
expected one: at P = 0.8, between 0.47 and 0.95."""
UNTRIED: Final = 0.5
"""What is left of the confidence for kinds of work that no outcomes are of (chat, writing, translation, ...), and for
circumstances none was recorded in (long instructions or histories, pictures, open tool loops)."""
PLAIN_CHARS: Final = 2_000

TOPIC_SHARPNESS: Final = 1.0
"""Evidence for a topic is in standard deviations of membership; a task guess weighs exp of it."""


@dataclass(frozen=True, slots=True)
class Item:
    """What a request demands. `u` (K,): its coordinates, the constant first; `var` (K,): their variance over kinds of
    request that look like this; `ood` in [0, 1]: how little of its words training knows. `place` (P,): what it looks
    like among all requests, of squared length about 1 (`routers.train_places`); of no meaning to P(success) until live
    traffic has given it one (`routers.kinds`)."""

    u: Vector
    var: Vector
    place: Vector
    ood: float


class LearnedRouter:
    """Scores arms by learned abilities. `abilities` (by arm name) go before what the weights know of an arm, and
    `trust` tells how far that is believed here: 1 for weights trained on the traffic that they serve, which the weights
    say of themselves (`serve/trust`) where it is None.

    `version` names the artifact, `weights` the part of it that reads requests: what it says of a request stays true
    when `house` is trained anew.

    An arm's `confidence` is the probability that its logit on this kind of request is within CONFIDENT_LOGITS of what
    is expected: it falls with the arm's own uncertainty and with `Item.ood`, and not with a question's own chance.
    """

    name: Final = "learned"

    def __init__(
        self, weights: Weights, abilities: Mapping[str, Ability] | None = None, *, trust: float | None = None
    ) -> None:
        self.version = self.weights = weights.version
        if weights.part(PART):
            self.weights = weights.without(PART).version
        self.ability_weights = AbilityWeights.of(weights.part("ability"))
        self.length_weights = LengthWeights.of(weights.part("length"))
        self._items = ItemModel(weights)
        self.house = House.of(weights.part(PART), self.ability_weights.coef.shape[1] + self.places + N_TYPES + 1)
        self._abilities = dict(abilities or {})
        said = weights.part("serve").get("trust", TRUST)
        self._trust, self._typical = float(said if trust is None else trust), typical_slopes(self.ability_weights)
        self._tasks = tuple(TaskType(str(name)) for name in weights.part("tried")["tasks"])
        self._stacks: dict[tuple[Arm, ...], tuple[AbilityStack, ArmLengths, bool]] = {}
        self._arms: tuple[Arm, ...] | None = None
        self._latest: tuple[AbilityStack, ArmLengths, bool]

    def item(self, features: Features) -> Item:
        """What a request demands."""
        return self._items.item(features)

    def task(self, features: Features) -> TaskGuess:
        """The task type of a request: rules for what its instruction names, learned for what it is about."""
        guess = classify(features)
        return self._items.topic(features) if guess.type in self._items.topics else guess

    def ability(self, arm: Arm) -> Ability:
        """What is believed of an arm."""
        given = self._abilities.get(arm.name)
        if given is not None:
            return given
        return trusted(prior(arm, self.ability_weights), self._typical, self._trust)

    def score(self, features: Features, arms: Sequence[Arm]) -> list[Score]:
        """One score per arm, in order."""
        if not arms:
            return []
        tried = self.has_tried(features)
        stack, lengths, reasons = self._stack(tuple(arms))
        # Of other kinds of work nothing is known but how good each arm is on the whole, so the text is not read.
        item = self._items.item(features) if tried else self._items.unread
        p, doubt = stack.predict(item.u, item.var)
        request = request_length(features, self.length_weights, reasoning=reasons)
        tokens = expected_tokens(request, lengths, features.max_output_tokens)
        share = 1.0 if tried else UNTRIED
        return [
            Score(chance, share * erf(CONFIDENT_LOGITS / sqrt(2.0 * variance)), length)
            for chance, variance, length in zip(p.tolist(), doubt.tolist(), tokens, strict=True)
        ]

    def surest(self, features: Features) -> float:
        """A half for kinds of work and circumstances that no outcomes are of."""
        return 1.0 if self.has_tried(features) else UNTRIED

    @property
    def tried(self) -> tuple[TaskType, ...]:
        """The task types that outcomes were learned from."""
        return self._tasks

    def has_tried(self, features: Features) -> bool:
        """Outcomes of this kind of work were learned from, in circumstances like these."""
        return is_plain(features) and classify(features).type in self._tasks  # topics are told apart later

    def demand(self, features: Features) -> Demand:
        """What a request demands, as far as it is read: of work that no outcomes are of the text says nothing."""
        plain, read = is_plain(features), self.has_tried(features)
        item = self._items.item(features) if read else self._items.unread
        return Demand(item.u, item.var, item.place, item.ood, self.task(features).type, plain, read)

    @property
    def places(self) -> int:
        """The length of a request's place."""
        return len(self._items.unread.place)

    def demand_of(
        self, u: Sequence[float] | Vector, place: Sequence[float] | Vector, ood: float, task_type: str, *, plain: bool,
        read: bool,
    ) -> Demand:  # fmt: skip
        """A demand as it was recorded; `u` and `place` may be of other weights, and are then as if nothing had been
        read."""
        unread = self._items.unread
        if not read or len(u) != len(unread.u) or len(place) != len(unread.place):
            return Demand(unread.u, unread.var, unread.place, unread.ood, task_type, plain, False)
        at, where = np.asarray(u, dtype=np.float64), np.asarray(place, dtype=np.float64)
        return Demand(at, self._items.variance(ood), where, ood, task_type, plain, True)

    def recall(self, features: Features, demand: Demand) -> None:
        """Have the next questions about these very features answered from what was recorded of their text, which is no
        longer there: for replaying."""
        self._items.recall(features, Item(demand.u, demand.var, demand.place, demand.ood))

    def plan(self, features: Features, arms: tuple[Arm, ...]) -> list[float]:
        """The output tokens to expect of each arm."""
        _, lengths, reasons = self._stack(arms)
        request = request_length(features, self.length_weights, reasoning=reasons)
        return expected_tokens(request, lengths, features.max_output_tokens)

    def _stack(self, arms: tuple[Arm, ...]) -> tuple[AbilityStack, ArmLengths, bool]:
        if arms is self._arms:  # a route's arms are the same tuple for all of its requests
            return self._latest
        found = self._stacks.get(arms)
        if found is None:
            if len(self._stacks) >= MAX_STACKS:
                self._stacks.clear()
            stack = AbilityStack([self.ability(arm) for arm in arms])
            found = stack, arm_lengths(arms, self.length_weights), any(arm.reasoning for arm in arms)
            self._stacks[arms] = found
        self._arms, self._latest = arms, found
        return found


def is_plain(features: Features) -> bool:
    """One question: no long instructions or history, no pictures, no results of tools."""
    return (
        features.system_chars + features.history_chars <= PLAIN_CHARS
        and not features.n_images
        and not features.in_tool_loop
    )


class ItemModel:
    """From features to coordinates."""

    __slots__ = (
        "_centre", "_distrust", "_familiar", "_known", "_latest", "_rare", "_scale", "_skills", "_slope", "_strange",
        "_terms", "_unknown", "_worded", "_words", "topics", "unread",
    )  # fmt: skip

    def __init__(self, weights: Weights) -> None:
        part, term = weights.part("item"), weights.part("term")
        if tuple(str(name) for name in part["surface"]) != SURFACE:
            raise ValueError("the weights were trained for other features than this version reads; train again")
        self._centre = part["centre"].astype(np.float64)
        self._scale = 1.0 / part["scale"].astype(np.float64)
        task = weights.part("task")
        self.topics = tuple(TaskType(str(name)) for name in task["names"])
        # Coordinates first, then the topical task types: one product and one sum tell both. The place has no words.
        self._slope = np.hstack([part["slope"], task["surface"], part["place"]]).astype(np.float64)
        self._skills = part["slope"].shape[1]
        self._worded = self._skills + len(self.topics)
        # Variance of the coordinates where the words of a request are known, and where they are not.
        self._known = part["variance_known"].astype(np.float64)
        self._unknown = part["variance_unknown"].astype(np.float64)
        self._words = vocabulary(term["words"].tobytes())
        idf = term["idf"].astype(np.float32)
        single = np.array([b" " not in word for word in self._words], dtype=np.float32)
        table = np.hstack([term["table"], task["table"]]).astype(np.float32)
        self._terms = np.column_stack([table * idf[:, None], idf**2, single])
        self._rare = float(term["rare"])
        self._familiar, self._strange = (float(share) for share in term["shares"])
        self._distrust = 1.0 - term["trust"].astype(np.float64)
        self._latest: tuple[Features, Item, Vector] | None = None
        self.unread = Item(np.eye(1, 1 + self._skills)[0], self._unknown, np.zeros(part["place"].shape[1]), 1.0)
        """What is said of a request whose text was not read."""

    def item(self, features: Features) -> Item:
        """What a request demands."""
        return self._read(features)[1]

    def recall(self, features: Features, item: Item) -> None:
        """Take this for what these features demand, and nothing for what they are about."""
        self._latest = features, item, np.zeros(len(self.topics))

    def topic(self, features: Features) -> TaskGuess:
        """The likeliest of `topics`, which must not be empty."""
        evidence = np.exp(TOPIC_SHARPNESS * self._read(features)[2])
        best = int(evidence.argmax())
        first = float(evidence[best])
        evidence[best] = 0.0
        return TaskGuess(self.topics[best], first / (first + float(evidence.max())))

    def _read(self, features: Features) -> tuple[Features, Item, Vector]:
        """A request's item and its evidence for each topic; whoever asks next about the same request gets the same."""
        latest = self._latest
        if latest is not None and latest[0] is features:
            return latest
        words = excerpt_words(features)
        x = (np.array(surface(features, words), dtype=np.float64) - self._centre) * self._scale
        x.clip(-CLIP, CLIP, out=x)
        on_surface, (in_words, ood) = x @ self._slope, self._local(words)
        trust = 1.0 - ood * self._distrust
        u = np.empty(1 + self._skills)
        u[0] = 1.0
        u[1:] = on_surface[: self._skills]
        u[2:] *= trust[1:]
        u[1:] += in_words[: self._skills] * trust
        item = Item(u, self.variance(ood), on_surface[self._worded :], ood)
        self._latest = latest = features, item, on_surface[self._skills : self._worded] + in_words[self._skills :]
        return latest

    def variance(self, ood: float) -> Vector:
        """Variance of the coordinates of a request of which training knows this much less."""
        return self._known + ood * (self._unknown - self._known)

    def _local(self, words: list[bytes]) -> tuple[Vector, float]:
        """What the words tell, and the share of their weight that training does not know."""
        places = [place for place in map(self._words.get, terms(words)) if place is not None]
        if not places:
            return np.zeros(self._worded), 1.0
        places.sort()  # a set's order differs between processes, and so would the last digit of a sum
        rows = np.add.reduce(self._terms.take(places, axis=0), axis=0)
        unknown = (len(set(words)) - float(rows[-1])) * self._rare
        total = float(rows[-2]) + unknown
        ood = (unknown / (total + self._rare) - self._familiar) / (self._strange - self._familiar)
        return rows[:-2] / sqrt(total), min(max(ood, 0.0), 1.0)


def load(path: Path | str) -> LearnedRouter:
    """The router of an artifact, a file or the folder that holds it; raises OSError or ValueError."""
    return LearnedRouter(read(Path(path)))
