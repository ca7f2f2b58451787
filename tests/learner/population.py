"""A small synthetic population: keys that call models at random and say how it went, some of them lying.

Everything here is made up: success rates, traffic, who lies and how. It drives the real chain, from words through
labels and guard to what is believed of a model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from app.core.feedback import Feedback, Speaker, Turned
from app.learner.credit import spoken
from app.learner.guard import Guard
from app.learner.labels import Call, Label, label_of
from app.learner.sources import Sources
from routers.abilities import Ability, Vector
from tests.routers.one_model import predict, update

RATES = {
    ("cheap", "easy"): 0.91, ("middle", "easy"): 0.94, ("dear", "easy"): 0.97,
    ("cheap", "hard"): 0.45, ("middle", "hard"): 0.90, ("dear", "hard"): 0.95,
}  # fmt: skip
MODELS = ("cheap", "middle", "dear")
"""Cheapest first."""
TASKS = ("easy", "hard")
ADEQUACY = 0.8
RIGHT = {"easy": "cheap", "hard": "middle"}

START = Ability(np.array([1.0, 0.0]), np.eye(2))

Says = Callable[[np.random.Generator, str, bool], bool]
"""What a key says of a cell's call that was good or not."""


def truly(_: np.random.Generator, __: str, good: bool) -> bool:
    return good


@dataclass(frozen=True)
class Speaks:
    """One key: its share of all calls, how often it says a word, what it says, and which cell all its calls are of."""

    calls: float = 1.0
    often: float = 1.0
    says: Says = truly
    cell: tuple[str, str] | None = None


@dataclass
class Gateway:
    """A learner and what it believes."""

    guarded: bool
    sources: Sources = field(default_factory=Sources)
    guard: Guard = field(default_factory=Guard)
    abilities: dict[str, Ability] = field(default_factory=lambda: {model: START for model in MODELS})
    labels: list[Label] = field(default_factory=list)

    def learn(self, call: Call, word: Feedback | None) -> Label | None:
        self.guard.saw(call)
        p = self.believed(call.model, call.task_type)
        call = replace(call, expected=p)
        told = spoken([call], [word] if word else []).get(call.request_id, [])
        label = label_of(call, told, self.sources, call.ended_s)
        if label is None:
            return None
        if self.guarded:
            label = self.guard.admit(label)
        self.labels.append(label)
        outcome, weight = label.told(p)
        self.abilities[call.model] = update(self.abilities[call.model], coordinates(call.task_type), outcome, weight)
        return label

    def learn_anew(self) -> None:
        """All of it once more, with what is now known of who lies."""
        self.abilities = {model: START for model in MODELS}
        for label in self.labels:
            u = coordinates(label.task_type)
            taught = self.guard.again(label).told(predict(self.abilities[label.model], u)[0])
            self.abilities[label.model] = update(self.abilities[label.model], u, *taught)

    def believed(self, model: str, task: str) -> float:
        return predict(self.abilities[model], coordinates(task))[0]

    def route(self, task: str) -> str:
        adequate = (model for model in MODELS if self.believed(model, task) >= ADEQUACY)
        return next(adequate, MODELS[-1])


def coordinates(task: str) -> Vector:
    return np.array([1.0, 1.0 if task == "easy" else -1.0])


@dataclass
class Run:
    """What came of it: the share of words that were untrue, and how often a route was wrong when looked at."""

    gateway: Gateway
    untrue: float
    wrong: int
    looks: int

    @property
    def routes(self) -> dict[str, str]:
        return {task: self.gateway.route(task) for task in TASKS}


def run(keys: dict[str, Speaks], *, guarded: bool, seed: int, words: int = 2_000, settled: int = 800) -> Run:
    """Until this many words were said; routes are looked at every 50 words once `settled` were."""
    rng = np.random.default_rng(seed)
    names, shares = list(keys), np.array([key.calls for key in keys.values()])
    gateway = Gateway(guarded)
    said = untrue = wrong = looks = number = 0
    while said < words:
        number += 1
        name = names[rng.choice(len(names), p=shares / shares.sum())]
        key = keys[name]
        model, task = key.cell or (MODELS[rng.integers(3)], TASKS[rng.integers(2)])
        good = bool(rng.random() < RATES[model, task])
        call = Call(f"req_{number:027x}", name, model, True, number, number + 0.5, task_type=task)
        word = None
        if rng.random() < key.often:
            says_good = key.says(rng, f"{model}/{task}", good)
            outcome = Turned.SUCCESS if says_good else Turned.FAILURE
            word = Feedback(call.request_id, name, Speaker.VERIFIER, outcome, call.ended_s, name)
            said += 1
            untrue += says_good != good
        gateway.learn(call, word)
        if word is not None and said >= settled and said % 50 == 0:
            looks += 1
            wrong += {task: gateway.route(task) for task in TASKS} != RIGHT
    return Run(gateway, untrue / said, wrong, looks)
