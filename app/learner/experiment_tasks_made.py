"""Streams of tasks for `learner/experiment_tasks.py`: real outcomes of calls, made into synthetic tasks, served by the
gateway's own learner that chooses and hears what is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final, NamedTuple

import numpy as np

from app.core.feedback import Feedback, Speaker, Turned, task_thing
from app.gateway.target import HELD
from app.learner.experiment_poisoned import KEYS, LIARS, record_of
from app.learner.lesson import Learned
from app.learner.sources import TASK, VERIFIER, prior_of
from app.learner.step import Learner
from app.learner.watching import Watching
from routers.belief import Belief
from routers.eval_loop_world import World
from routers.eval_table import Floats
from routers.kinds import extended
from routers.rows import Indices

CALLS: Final = 5_000
LENGTHS: Final = (1, 4, 8, 16)
"""Calls of a task."""
EVERY: Final = 48
"""Calls between two passes of the learner: a number of whole tasks."""
EXPLORED: Final = 0.1
MIN_TYPE: Final = 50
MIN_CALLS: Final = 100
"""Of a model at a kind of work, for its belief to be looked at."""
QUIET: Final = 2_000
FALLEN: Final = 4_000
"""Calls of one model at one kind of work before it falls, and after."""
DROP: Final = 0.15
RULES: Final[Mapping[str, float]] = {"all": 1.0, "noisy": 0.3}
"""The chance with which one wrong call spoils its task."""
BY_CALL, BY_ONE, BY_TASK, NAIVE, NOTHING = "each call", "one call a task", "the task", "naive", "nothing"
WAYS: Final = (BY_CALL, BY_ONE, BY_TASK, NAIVE)


@dataclass(frozen=True)
class Setup:
    """How a stream goes. `calls` of a task; `way`: what is said; `rule`: when tasks succeed; `held`: one model serves a
    whole task, as in a tool loop, else one is chosen for each call; `lies`: LIARS turn every word round."""

    calls: int
    way: str
    rule: str = "noisy"
    held: bool = True
    lies: bool = False


class Found(NamedTuple):
    """What came of a stream. `regret`: right answers lost against the best model of each kind of work. Of what is
    believed of a model at a kind of work against the truth, weighted by its calls: `error`, the mean distance; `bias`,
    positive where too much is believed; `covered`, the share where the truth, as far as whoever speaks is believed,
    lies within 95 % of the belief. `caught`: calls until all liars were found out for good, NaN where they were not."""

    regret: float
    error: float
    bias: float
    covered: float
    caught: float


class Task(NamedTuple):
    kind: int
    rows: list[int]
    key: str
    luck: float


class Work:
    """What of a world tasks are made of: rows on which all arms have outcomes, of kinds of work that have many."""

    def __init__(self, world: World) -> None:
        self.world = world
        usable = np.flatnonzero(world.usable.all(axis=1))
        self.rows = {kind: usable[world.task[usable] == kind] for kind in range(len(world.tasks))}
        self.rows = {kind: rows for kind, rows in self.rows.items() if len(rows) >= MIN_TYPE}
        self.right = world.score >= 0.5
        self.rate = {kind: self.right[rows].mean(axis=0) for kind, rows in self.rows.items()}
        self._z = np.array([extended(demand) for demand in world.demands])
        self._var = np.zeros_like(self._z)
        self._var[:, : len(world.demands[0].u)] = [demand.var for demand in world.demands]

    def tasks(self, calls: int, seed: int) -> Iterator[Task]:
        """Tasks of so many calls each, CALLS in all; the same rows and luck whatever is chosen."""
        rng, kinds = np.random.default_rng([seed, 51]), list(self.rows)
        sizes = np.array([len(self.rows[kind]) for kind in kinds])
        for _ in range(CALLS // calls):
            kind = kinds[int(rng.choice(len(kinds), p=sizes / sizes.sum()))]
            rows = rng.choice(self.rows[kind], calls).tolist()
            yield Task(kind, rows, f"key-{int(rng.integers(KEYS))}", float(rng.random()))

    def logits(self, learner: Learner, belief: Belief, arm: int, rows: Indices) -> tuple[Floats, Floats, Floats]:
        """Means and variances of an arm's logits, and what the requests themselves are uncertain by."""
        ability = belief.ability(self.world.arms[arm].name)
        z, k = self._z[rows], len(self.world.demands[0].u)
        noise = self._var[rows][:, :k] @ (ability.mean[:k] ** 2 + np.diag(ability.cov)[:k])
        return z @ ability.mean, np.einsum("ik,kl,il->i", z, ability.cov, z), noise

    def typical(self, learner: Learner, belief: Belief, arm: int, kind: int) -> tuple[float, float]:
        """P(success) of an arm at a kind of work, and the standard deviation of that."""
        rows = self.rows[kind]
        mean, variance, noise = self.logits(learner, belief, arm, rows)
        p = _p(mean, variance + noise)
        along = (p * (1.0 - p)) @ self._z[rows] / len(rows)
        return float(p.mean()), sqrt(float(along @ belief.ability(self.world.arms[arm].name).cov @ along))


def _p(mean: Floats, variance: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-mean / np.sqrt(1.0 + np.pi / 8.0 * variance))))


class House:
    """One learner, with the records that it hears of."""

    def __init__(self, work: Work, setup: Setup) -> None:
        self.work, self.setup, self.learner = work, setup, Learner(work.world.base)
        self._number = 0

    def served(self, task: Task, arms: Sequence[int], right: Sequence[bool]) -> None:
        """Take in a task's calls, and the words on it."""
        setup, name = self.setup, f"task-{self._number}"
        spoiled = RULES[setup.rule] if len(right) > 1 else 1.0
        succeeded = task.luck < (1.0 - spoiled) ** (len(right) - sum(right))
        words = []
        for place, (row, arm, good) in enumerate(zip(task.rows, arms, right, strict=True)):
            number = self._number + place
            record = record_of(
                self.work.world, number, row, arm, task.key, request_id=f"req_{number:020x}{number:07x}"
            )  # fmt: skip
            record["task_id"] = name
            if setup.held and place:
                record["decision"]["reason"] = HELD
            self.learner.saw([record])
            if setup.way in (NAIVE, BY_CALL) or (setup.way == BY_ONE and place == len(arms) - 1):
                words.append(self._word(record["request_id"], task.key, succeeded if setup.way == NAIVE else good))
        self._number += len(right)
        if setup.way == BY_TASK:
            words.append(self._word(task_thing(task.key, name), task.key, succeeded))
        self.learner.said(words)

    def step(self) -> list[Learned]:
        return self.learner.step(float(self._number))

    def belief(self) -> Belief:
        """What is believed, of arms that were never called too."""
        learner, belief = self.learner, self.learner.belief
        for arm in self.work.world.arms:
            belief = learner.prior.joined(belief, arm, learner.base.ability(arm))
        return belief

    def _word(self, thing: str, key: str, good: bool) -> Feedback:
        said = good != (self.setup.lies and key in LIARS)
        turned = Turned.SUCCESS if said else Turned.FAILURE
        return Feedback(thing, key, Speaker.VERIFIER, turned, float(self._number), key)


def found(work: Work, setup: Setup, seed: int) -> Found:
    """One stream of CALLS that the learner chooses for."""
    house, rng = House(work, setup), np.random.default_rng([seed, 52])
    belief, regret, since, caught = house.belief(), 0.0, 0, float("nan")
    chosen = np.zeros((len(work.world.tasks), len(work.world.arms)))
    for number, task in enumerate(work.tasks(setup.calls, seed), 1):
        choices = _chosen(work, house, belief, task.rows[:1] if setup.held else task.rows, rng)
        arms = choices * setup.calls if setup.held else choices
        house.served(task, arms, [bool(work.right[row, arm]) for row, arm in zip(task.rows, arms, strict=True)])
        rate = work.rate[task.kind]
        regret += float(sum(rate.max() - rate[arm] for arm in arms))
        np.add.at(chosen[task.kind], arms, 1)
        since += setup.calls
        if since >= EVERY and setup.way != NOTHING:
            since = 0
            house.step()
            belief = house.belief()
            if not house.learner.guard.out >= LIARS:
                caught = float("nan")
            elif np.isnan(caught):
                caught = float(number * setup.calls)
    return Found(regret, *_calibration(work, house, belief, chosen), caught)


def _chosen(work: Work, house: House, belief: Belief, rows: Sequence[int], rng: np.random.Generator) -> list[int]:
    """An arm for each row: who is believed the best, or, for a share, who is by a draw."""
    every = np.array(rows)
    looked = [work.logits(house.learner, belief, arm, every) for arm in range(len(work.world.arms))]
    mean, variance, noise = (np.stack(of, axis=1) for of in zip(*looked, strict=True))
    best = _p(mean, variance + noise).argmax(axis=1)
    drawn = (mean + np.sqrt(variance) * rng.standard_normal(mean.shape)).argmax(axis=1)
    return [int(arm) for arm in np.where(rng.random(len(rows)) < EXPLORED, drawn, best)]


def _calibration(work: Work, house: House, belief: Belief, chosen: Floats) -> tuple[float, float, float]:
    setup, spoiled = house.setup, RULES[house.setup.rule]
    whole, of_tasks = [], setup.way in (BY_TASK, NAIVE) and setup.calls > 1
    source = ("" if setup.way != BY_TASK or setup.calls == 1 else TASK) + VERIFIER
    trust = prior_of(source)
    for kind, rate in work.rate.items():
        kept = 1.0 - spoiled * (1.0 - rate)
        others = float(kept @ chosen[kind]) / max(float(chosen[kind].sum()), 1.0)
        for arm in range(len(rate)):
            if chosen[kind, arm] >= MIN_CALLS:
                p, spread = work.typical(house.learner, belief, arm, kind)
                mates = (kept[arm] if setup.held else others) ** (setup.calls - 1)
                truth = float(kept[arm] * mates if of_tasks else rate[arm])
                believed = min(max((truth - 1.0 + trust.says_bad) / trust.informed, 0.0), 1.0)
                whole.append((chosen[kind, arm], abs(p - truth), p - truth, abs(p - believed) <= 1.96 * spread))
    if not whole:
        return float("nan"), float("nan"), float("nan")
    weight, error, bias, covered = np.array(whole, dtype=np.float64).T
    weight /= weight.sum()
    return float(error @ weight), float(bias @ weight), float(covered @ weight)


class Fell(NamedTuple):
    """A fall of DROP of one model at one kind of work: whether there was a false alarm in QUIET calls before it, and
    after how many calls it was found, NaN where it was not within FALLEN."""

    false_alarm: bool
    after: float


def fell(work: Work, arm: int, kind: int, setup: Setup, seed: int) -> Fell:
    """One stream of calls of one model at one kind of work, which loses DROP of its right answers by chance."""
    rng, house, watching = np.random.default_rng([seed, 53]), House(work, setup), Watching()
    lost = DROP / float(work.rate[kind][arm])
    alarm, since, name = False, 0, (work.world.arms[arm].name, work.world.tasks[kind])
    for number in range(0, QUIET + FALLEN, setup.calls):
        rows = rng.choice(work.rows[kind], setup.calls)
        luck = rng.random(setup.calls)
        right = work.right[rows, arm] & ((luck >= lost) | (number < QUIET))
        task = Task(kind, rows.tolist(), f"key-{int(rng.integers(KEYS))}", float(rng.random()))
        house.served(task, [arm] * setup.calls, right.tolist())
        since += setup.calls
        if since >= EVERY:
            since = 0
            events = watching.hear(house.learner, house.step())
            down = name in watching.watches and watching.watches[name].fallen is not None
            if number < QUIET:
                alarm |= any(event.fell for event in events)
            elif down:
                return Fell(alarm, float(number + setup.calls - QUIET))
    return Fell(alarm, float("nan"))
