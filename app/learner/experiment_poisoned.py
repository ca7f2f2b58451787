"""Lies and lateness: what they cost the learner that the gateway runs, on real outcomes.

The whole chain is the gateway's: records and words go through `learner/step.py` with its labels, sources and guard. The
control hears the same calls of the same keys, with three words in ten late and out of order, from honest keys. Beside
it: a tenth of the keys turns every word round (injected); the same keys say nothing, which is what a guard that knew
them at once would leave; a tenth of all keys' words is turned round (injected), which no guard can tell; all words come
in order; and another draw of calls, all honest, which is what chance does to routes after so few calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final

import numpy as np

from app.core.feedback import Feedback, Speaker, Turned
from app.learner.step import Learner
from routers.eval_bootstrap import Estimate
from routers.eval_loop import Experiment, Mark
from routers.eval_loop_world import Setting, World, over_seeds
from routers.eval_report import Sheet, shown
from routers.eval_table import Floats
from routers.eval_told import predicted
from routers.kinds import extended

CALLS: Final = 800
KEYS: Final = 10
LIARS: Final = 1
LATE_SHARE, LATEST = 0.3, 300
"""Of the words, and calls that come in between at most."""
RATE: Final = 0.2
MIN_TYPE: Final = 50
SMALL: Final = 0.01
"""A route is flipped where another model is taken than in the control, and more than this is lost by it, in
successes."""
EVERY: Final = 20
"""Calls between two passes of the learner."""
SOURCES: Final = ("mmlu_pro", "llmrouter9", "routellm_mmlu")
"""Where they are among the data; else all."""


@dataclass(frozen=True)
class Words:
    """How one learner's words differ from the control's. `draw` is added to the seed of the calls."""

    lies: bool = False
    silent: bool = False
    scattered: float = 0.0
    late: bool = True
    draw: int = 0


LIARS_IN: Final = "a tenth of the keys lies"
SILENT: Final = "these keys are silent"
ARMS: Final = {
    LIARS_IN: Words(lies=True),
    SILENT: Words(silent=True),
    "a tenth of all words is turned round": Words(scattered=0.1),
    "honest, in order": Words(late=False),
    "honest, other calls": Words(draw=1_000),
}


@dataclass(frozen=True)
class Compared:
    """Routes (kinds of work in all seeds) against the control's. `changed`: another model is taken; `better`,
    `flipped`: by more than SMALL in its favour, or against it; `sure`: of the flipped, those where the two models are
    apart beyond what the rows of that kind can show by chance (95 %, paired). `loss`: successes per call, over
    seeds."""

    routes: int
    changed: int
    better: int
    flipped: int
    sure: int
    loss: Estimate


@dataclass(frozen=True)
class Poisoned:
    """One source. `trust`: the guard's in the liar at the end; `found_out`: in how many of the seeds."""

    source: str
    compared: dict[str, Compared]
    trust: Estimate
    found_out: int


def poisoned(world: World, seeds: Sequence[int]) -> Poisoned:
    """All learners in each seed."""
    worth = _worth(world)
    found: dict[str, list[list[tuple[float, float, bool]]]] = {name: [] for name in ARMS}
    trusts, found_out = [], 0
    for seed in seeds:
        control = _chosen(world, _learned(world, seed, Words()))
        for name, how in ARMS.items():
            learner = _learned(world, seed, how)
            after = _chosen(world, learner)
            found[name].append(
                [(*_lost(worth[task], control[task], after[task]), control[task] != after[task]) for task in worth]
            )
            if how.lies:
                liars = [f"key-{n}" for n in range(LIARS)]
                trusts.append(float(np.mean([learner.guard.trust(key) for key in liars])))
                found_out += learner.guard.out.issuperset(liars)
    return Poisoned(world.source, {name: _compared(of) for name, of in found.items()}, over_seeds(trusts), found_out)


def _compared(seeds: list[list[tuple[float, float, bool]]]) -> Compared:
    every = [route for routes in seeds for route in routes]
    flipped = [route for route in every if route[0] > SMALL]
    return Compared(
        len(every), sum(changed for _, _, changed in every), sum(lost < -SMALL for lost, _, _ in every), len(flipped),
        sum(low > 0.0 for _, low, _ in flipped),
        over_seeds([float(np.mean([lost for lost, _, _ in routes])) for routes in seeds]),
    )  # fmt: skip


def _lost(worth: Floats, before: int, after: int) -> tuple[float, float]:
    """What is lost per call by taking one model for another, and the low end of its 95 % interval over rows."""
    apart = worth[:, before] - worth[:, after]
    apart = apart[np.isfinite(apart)]
    mean = float(np.nanmean(worth[:, before]) - np.nanmean(worth[:, after]))
    return mean, mean - 1.96 * float(apart.std()) / sqrt(max(len(apart), 1))


def _learned(world: World, seed: int, how: Words) -> Learner:
    """A learner after CALLS calls of arms drawn at random."""
    rng = np.random.default_rng([seed + how.draw, 41])
    rows = rng.integers(0, len(world.table.rows), CALLS)
    learner, waiting = Learner(world.base), list[tuple[int, Feedback]]()
    for number, row in enumerate(rows.tolist()):
        arm = int(rng.choice(np.flatnonzero(world.usable[row])))
        key, late = int(rng.integers(KEYS)), bool(rng.random() < LATE_SHARE)
        delay, turned = int(rng.integers(1, LATEST)), bool(rng.random() < how.scattered)
        delay = delay if late and how.late else 0
        record = _record(world, number, row, arm, f"key-{key}")
        learner.saw([record])
        said = float(world.score[row, arm]) >= 0.5
        outcome = Turned.SUCCESS if said != (turned or (how.lies and key < LIARS)) else Turned.FAILURE
        word = Feedback(
            record["request_id"], record["key"], Speaker.VERIFIER, outcome, float(number + delay), record["key"]
        )
        if not (how.silent and key < LIARS):
            waiting.append((number + delay, word))
        if (number + 1) % EVERY == 0 or number == CALLS - 1:
            due = [one for one in waiting if one[0] <= number or number == CALLS - 1]
            waiting = [one for one in waiting if one not in due]
            learner.said([word for _, word in sorted(due, key=lambda one: one[0])])
            learner.step(float(number))
    return learner


def _record(world: World, number: int, row: int, arm: int, key: str) -> dict[str, Any]:
    demand = world.demands[row]
    candidates = [
        {"model": a.name, "provider": a.family, "tier": a.tier, "stands_for": a.model or a.name,
         "p_success": 0.5, "expected_cost_usd": float(price)}
        for a, price in zip(world.arms, world.price, strict=True)
    ]  # fmt: skip
    item = {
        "plain": True,
        "weights": world.base.weights,
        "ood": demand.ood,
        "u": demand.u.tolist(),
        "place": demand.place.tolist(),
    }
    return {
        "request_id": f"req_{number:020x}0000001", "created_s": float(number), "key": key, "task_id": None,
        "requested_model": "auto", "outcome": "completed", "model": world.arms[arm].name, "seen": None,
        "decision": {"route": "auto", "task_type": demand.task_type, "item": item, "candidates": candidates},
        "timings": {"duration_ms": 0.0},
    }  # fmt: skip


def _types(world: World) -> list[int]:
    return [task for task in range(len(world.tasks)) if (world.task == task).sum() >= MIN_TYPE]


def _worth(world: World) -> dict[int, Floats]:
    """What each arm was truly worth on each row of each task type."""
    worth = np.where(world.usable, world.score - world.rate(RATE) * world.cost, np.nan)
    return {task: worth[world.task == task] for task in _types(world)}


def _chosen(world: World, learner: Learner) -> dict[int, int]:
    """The arm that is believed to be worth the most on each task type."""
    found = {}
    for task in _types(world):
        rows = np.flatnonzero(world.task == task)[:200]
        z = np.array([extended(world.demands[row]) for row in rows])
        var = np.zeros_like(z)
        var[:, : len(world.demands[0].u)] = [world.demands[row].var for row in rows]
        p = [predicted(learner.belief.ability(arm.name), z, var).mean() if arm.name in learner.belief.own else 0.0
             for arm in world.arms]  # fmt: skip
        found[task] = int(np.argmax(np.array(p) - world.rate(RATE) * world.price))
    return found


def experiment(setting: Setting) -> Experiment:
    """10 % of feedback is adversarial, 30 % late."""
    able = setting.worlds()
    there = [world for world in able if world.source in SOURCES] or able
    found = []
    for world in there:
        if _types(world):
            setting.say(f"poisoned: {world.source}")
            found.append(poisoned(world, range(setting.seeds)))
    columns = ("source", "against the same calls, all honest", "routes", "changed", "better", "flipped", "for sure",
               "lost per call, points")  # fmt: skip
    table = [
        (p.source, name, str(c.routes), str(c.changed), str(c.better), str(c.flipped), str(c.sure), shown(c.loss, 100))
        for p in found for name, c in p.compared.items()
    ]  # fmt: skip

    def flips(name: str) -> str:
        compared = [p.compared[name] for p in found]
        return f"{sum(c.flipped for c in compared)} ({sum(c.sure for c in compared)} for sure)"

    routes = sum(p.compared[LIARS_IN].routes for p in found)
    text = f"{flips(LIARS_IN)} of {routes}; were they silent: {flips(SILENT)}"
    flipped = sum(p.compared[LIARS_IN].flipped for p in found)
    loss = {p.source: p.compared[LIARS_IN].loss for p in found}
    marks = [
        Mark("no flipped route", text, bool(found) and flipped == 0),
        Mark("bounded loss", ", ".join(f"{name} {shown(lost, 100)} points" for name, lost in loss.items()),
             bool(loss) and all(lost.high <= SMALL for lost in loss.values())),
    ]  # fmt: skip
    caught = ", ".join(f"{p.source} {p.found_out} of {setting.seeds} (trust {shown(p.trust)})" for p in found)
    notes = [
        f"{CALLS} calls of {KEYS} keys on real outcomes; {LIARS} key turns each word round, {LATE_SHARE:.0%} of words "
        f"come up to {LATEST} calls late (both injected); found out at the end: {caught}"
    ]
    return Experiment("poisoned", [Sheet("Lies and lateness", columns, table, columns[2:])], marks, notes, found)
