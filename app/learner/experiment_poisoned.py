"""Lies and lateness: what they cost the learner that the gateway runs, on real outcomes.

The whole chain is the gateway's: records and words go through `learner/step.py` with its labels, sources and guard. Two
learners see the same calls of the same keys; in the one's world a tenth of the keys turns every word round (injected),
and three words in ten come late, out of order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from app.core.feedback import Feedback, Speaker, Turned
from app.learner.step import Learner
from routers.eval_bootstrap import Estimate
from routers.eval_learned import predicted
from routers.eval_loop import Experiment, Mark
from routers.eval_loop_world import Setting, World, over_seeds
from routers.eval_report import Sheet, shown
from routers.eval_table import Floats
from routers.kinds import extended

CALLS: Final = 800
KEYS: Final = 10
LIARS: Final = 1
LATE_SHARE, LATEST = 0.3, 300
"""Of the words, and calls that come in between at most."""
RATE: Final = 0.2
MIN_TYPE: Final = 50
SMALL: Final = 0.01
"""A route is flipped where another is taken than without lies, and more than this is lost by it, in successes."""
SOURCES: Final = ("mmlu_pro", "llmrouter9", "routellm_mmlu")
"""Where they are among the data; else all."""


@dataclass(frozen=True)
class Poisoned:
    """One source. `flipped`: routes (of a task type) in all seeds that lies turned to a worse model, of `routes`;
    `loss`: utility lost to the learner without lies, in successes per call; `trust`: the guard's in the liar."""

    source: str
    routes: int
    flipped: int
    loss: Estimate
    trust: Estimate


def poisoned(world: World, seeds: Sequence[int]) -> Poisoned:
    """Both learners in each seed."""
    flipped = routes = 0
    losses, trusts = [], []
    for seed in seeds:
        clean, liars = (_learned(world, seed, lies=lies) for lies in (False, True))
        worth, before, after = _routes(world, clean), _chosen(world, clean), _chosen(world, liars)
        lost = [float(worth[task][before[task]] - worth[task][after[task]]) for task in worth]
        routes += len(lost)
        flipped += sum(loss > SMALL for loss in lost)
        losses.append(float(np.mean(lost)))
        trusts.append(float(np.mean([liars.guard.trust(f"key-{n}") for n in range(LIARS)])))
    return Poisoned(world.source, routes, flipped, over_seeds(losses), over_seeds(trusts))


def _learned(world: World, seed: int, *, lies: bool) -> Learner:
    """A learner after CALLS calls of arms drawn at random."""
    rng = np.random.default_rng([seed, 41])
    rows = rng.integers(0, len(world.table.rows), CALLS)
    learner, waiting = Learner(world.base), list[tuple[int, Feedback]]()
    for number, row in enumerate(rows.tolist()):
        arm = int(rng.choice(np.flatnonzero(world.usable[row])))
        key, late = int(rng.integers(KEYS)), bool(rng.random() < LATE_SHARE)
        delay = int(rng.integers(1, LATEST)) if late and lies else 0
        record = _record(world, number, row, arm, f"key-{key}")
        learner.saw([record])
        said = float(world.score[row, arm]) >= 0.5
        outcome = Turned.SUCCESS if said != (lies and key < LIARS) else Turned.FAILURE
        word = Feedback(
            record["request_id"], record["key"], Speaker.VERIFIER, outcome, float(number + delay), record["key"]
        )
        waiting.append((number + delay, word))
        due = [one for one in waiting if one[0] <= number or number == CALLS - 1]
        waiting = [one for one in waiting if one not in due]
        learner.said([word for _, word in due])
        learner.step(float(number))
    return learner


def _record(world: World, number: int, row: int, arm: int, key: str) -> dict[str, Any]:
    demand = world.demands[row]
    candidates = [
        {"model": a.name, "provider": a.family, "tier": a.tier, "stands_for": a.model or a.name,
         "p_success": 0.5, "expected_cost_usd": float(price)}
        for a, price in zip(world.arms, world.price, strict=True)
    ]  # fmt: skip
    item = {"plain": True, "weights": world.base.weights, "ood": demand.ood, "u": demand.u.tolist()}
    return {
        "request_id": f"req_{number:020x}0000001", "created_s": float(number), "key": key, "task_id": None,
        "requested_model": "auto", "outcome": "completed", "model": world.arms[arm].name, "seen": None,
        "decision": {"route": "auto", "task_type": demand.task_type, "item": item, "candidates": candidates},
        "timings": {"duration_ms": 0.0},
    }  # fmt: skip


def _types(world: World) -> list[int]:
    return [task for task in range(len(world.tasks)) if (world.task == task).sum() >= MIN_TYPE]


def _routes(world: World, _: Learner) -> dict[int, Floats]:
    """What each arm is truly worth on each task type."""
    worth = np.where(world.usable, world.score - world.rate(RATE) * world.cost, np.nan)
    return {task: np.nanmean(worth[world.task == task], axis=0) for task in _types(world)}


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
    there = [name for name in SOURCES if name in setting.tables()] or list(setting.tables())
    found = []
    for name in there:
        world = setting.world(name)
        if len(world.arms) >= 2 and _types(world):
            setting.say(f"poisoned: {name}")
            found.append(poisoned(world, range(setting.seeds)))
    columns = ("source", "routes", "flipped", "lost per call, points", "trust in the liar")
    table = [(p.source, str(p.routes), str(p.flipped), shown(p.loss, 100), shown(p.trust)) for p in found]
    flips = sum(p.flipped for p in found)
    marks = [
        Mark("no flipped route", f"{flips} of {sum(p.routes for p in found)}", flips == 0),
        Mark("bounded loss", ", ".join(f"{p.source} {shown(p.loss, 100)} points" for p in found),
             all(p.loss.high <= SMALL for p in found)),
    ]  # fmt: skip
    notes = [
        f"{CALLS} calls of {KEYS} keys on real outcomes; {LIARS} key turns each word round, {LATE_SHARE:.0%} of words "
        f"come up to {LATEST} calls late (both injected); against the same learner without either"
    ]
    return Experiment("poisoned", [Sheet("Lies and lateness", columns, table, columns[1:])], marks, notes, found)
