"""Lies and lateness: what they cost the learner that the gateway runs, on real outcomes.

The whole chain is the gateway's: records and words go through `learner/step.py` with its labels, sources and guard. The
control hears the same calls of the same keys, with three words in ten late and out of order, from honest keys. Beside
it: a tenth of the keys turns every word round (injected); the same keys say nothing, which is what a guard that knew
them at once would leave; a tenth of all keys' words is turned round (injected), which no guard can tell; all words come
in order; and another draw of calls, all honest, which is what chance does to routes. The liar is also held against his
own silence: what is left of his words in force. And all that for routes that keep to a baseline: the best single
model on the whole, or the dearest; there a kind of work has the model that most of its requests are given. All are
looked at after several lengths of the same stream, for how far routes can be known depends on how many calls there
were.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final, NamedTuple

import numpy as np

from app.core.feedback import Feedback, Speaker, Turned
from app.learner.guard import CROWD
from app.learner.step import Learner
from routers.eval_bootstrap import Estimate
from routers.eval_loop import Experiment, Mark
from routers.eval_loop_contenders import NANO, surely_best
from routers.eval_loop_world import Setting, World, over_seeds
from routers.eval_policies import column_means
from routers.eval_report import Sheet, shown
from routers.eval_table import Floats
from routers.eval_told import predicted
from routers.kinds import extended

LENGTHS: Final = (800, 2_000, 5_000)
"""Calls after which routes are looked at, in rising order."""
KEYS: Final = 10
LIARS: Final = frozenset({"key-0"})
LATE_SHARE, LATEST = 0.3, 300
"""Of the words, and calls that come in between at most."""
RATE: Final = 0.2
MIN_TYPE: Final = 50
SMALL: Final = 0.01
"""A route is flipped where another model is taken than in the control, and more than this is lost by it, in
successes."""
EVERY: Final = 50
"""Calls between two passes of the learner."""
SOURCES: Final = ("mmlu_pro", "llmrouter9", "routellm_mmlu")
"""Where they are among the data; else all."""


@dataclass(frozen=True)
class Words:
    """How one learner's words differ from the control's."""

    lies: bool = False
    silent: bool = False
    scattered: float = 0.0
    late: bool = True


LIARS_IN: Final = "a tenth of the keys lies"
SILENT: Final = "these keys are silent"
OTHERS: Final = "honest, other calls"
LEFT: Final = "they lie, against their silence"
BEST, DEAREST = "kept to the best", "kept to the dearest"
ALONE: Final = "the baseline alone, against honest keys' routes"
"""Before the colon of a name stands what the routes keep to that it is of, where they keep to a baseline."""
ARMS: Final = {
    LIARS_IN: Words(lies=True),
    SILENT: Words(silent=True),
    "a tenth of all words is turned round": Words(scattered=0.1),
    "honest, in order": Words(late=False),
}


class Route(NamedTuple):
    """One kind of work in one seed: what is lost per call against another learner's choice, the low end of its
    interval, and whether another model is taken."""

    lost: float
    at_least: float
    changed: bool


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
    """One source: by length of the stream and by how words differed. `found_out`: calls after which the liar was found
    out for good, a number a seed; none where he was not by the end. `suspected`: honest keys that are found out at the
    end, of all seeds and learners."""

    source: str
    compared: dict[tuple[int, str], Compared]
    found_out: tuple[int, ...]
    suspected: int


def poisoned(world: World, seeds: Sequence[int]) -> Poisoned:
    """All learners in each seed."""
    found: dict[tuple[int, str], list[list[Route]]] = {}
    found_out, suspected = [], 0
    controls = [_looked_at(world, seed, Words()) for seed in seeds]
    worth, baselines = _worth(world), _baselines(world)
    for seed, control, other in zip(seeds, controls, [*controls[1:], *controls[:1]], strict=True):
        looked = {name: _looked_at(world, seed, how) for name, how in ARMS.items()}
        pairs = {name: (control, one) for name, one in looked.items()}
        pairs[OTHERS] = control, other
        pairs[LEFT] = looked[SILENT], looked[LIARS_IN]
        for length in LENGTHS:
            for how, chosen in control.chosen[length].items():
                if how:
                    alone = dict.fromkeys(chosen, baselines[how])
                    found.setdefault((length, f"{how}: {ALONE}"), []).append(_routes(worth, alone, chosen))
                for name, (before, after) in pairs.items():
                    routes = _routes(worth, before.chosen[length][how], after.chosen[length][how])
                    found.setdefault((length, f"{how}: {name}" if how else name), []).append(routes)
        suspected += sum(len(one.out - LIARS - {CROWD}) for one in looked.values())
        if (since := looked[LIARS_IN].since) is not None:
            found_out.append(since)
    compared = {of: _compared(every) for of, every in sorted(found.items())}
    return Poisoned(world.source, compared, tuple(found_out), suspected)


def _routes(worth: dict[int, Floats], before: dict[int, int], after: dict[int, int]) -> list[Route]:
    return [Route(*_lost(worth[task], before[task], after[task]), before[task] != after[task]) for task in worth]


def _compared(seeds: list[list[Route]]) -> Compared:
    every = [route for routes in seeds for route in routes]
    flipped = [route for route in every if route.lost > SMALL]
    return Compared(
        len(every), sum(route.changed for route in every), sum(route.lost < -SMALL for route in every), len(flipped),
        sum(route.at_least > 0.0 for route in flipped),
        over_seeds([float(np.mean([route.lost for route in routes])) for routes in seeds]),
    )  # fmt: skip


def _lost(worth: Floats, before: int, after: int) -> tuple[float, float]:
    """What is lost per call by taking one model for another, and the low end of its 95 % interval over rows."""
    apart = worth[:, before] - worth[:, after]
    apart = apart[np.isfinite(apart)]
    mean = float(np.nanmean(worth[:, before]) - np.nanmean(worth[:, after]))
    return mean, mean - 1.96 * float(apart.std()) / sqrt(max(len(apart), 1))


@dataclass
class _Looked:
    """`chosen`: each kind of work's arm, by length and by what the routes keep to (`""`: nothing); `out`: who is found
    out at the end; `since`: calls after which all liars were from then on."""

    chosen: dict[int, dict[str, dict[int, int]]]
    out: frozenset[str] = frozenset()
    since: int | None = None


def _looked_at(world: World, seed: int, how: Words) -> _Looked:
    found = _Looked({})
    for calls, learner in _passes(world, seed, how):
        if not learner.guard.out >= LIARS:
            found.since = None
        elif found.since is None:
            found.since = calls
        if calls in LENGTHS:
            found.chosen[calls] = _chosen(world, learner)
            found.out = frozenset(learner.guard.out)
    return found


def _passes(world: World, seed: int, how: Words) -> Iterator[tuple[int, Learner]]:
    """A learner that hears of arms drawn at random, after each of its passes. Words that are late are not yet there."""
    rng = np.random.default_rng([seed, 41])
    rows = rng.integers(0, len(world.table.rows), LENGTHS[-1])
    learner, waiting = Learner(world.base), dict[int, list[Feedback]]()
    for number, row in enumerate(rows.tolist()):
        arm = int(rng.choice(np.flatnonzero(world.usable[row])))
        key, late = f"key-{int(rng.integers(KEYS))}", bool(rng.random() < LATE_SHARE)
        delay, turned = int(rng.integers(1, LATEST)), bool(rng.random() < how.scattered)
        delay = delay if late and how.late else 0
        record = record_of(world, number, row, arm, key)
        learner.saw([record])
        said = float(world.score[row, arm]) >= 0.5
        outcome = Turned.SUCCESS if said != (turned or (how.lies and key in LIARS)) else Turned.FAILURE
        word = Feedback(record["request_id"], key, Speaker.VERIFIER, outcome, float(number + delay), key)
        if not (how.silent and key in LIARS):
            waiting.setdefault((number + delay) // EVERY, []).append(word)
        if (number + 1) % EVERY == 0:
            learner.said(sorted(waiting.pop(number // EVERY, ()), key=lambda one: one.said_s))
            learner.step(float(number))
            yield number + 1, learner


def record_of(world: World, number: int, row: int, arm: int, key: str, *, request_id: str = "") -> dict[str, Any]:
    """The trace of a call of one of a world's arms, at second `number`."""
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
        "request_id": request_id or f"req_{number:020x}0000001", "created_s": float(number), "key": key,
        "task_id": None, "requested_model": "auto", "outcome": "completed", "model": world.arms[arm].name, "seen": None,
        "decision": {"route": "auto", "task_type": demand.task_type, "item": item, "candidates": candidates},
        "timings": {"duration_ms": 0.0},
    }  # fmt: skip


def _types(world: World) -> list[int]:
    return [task for task in range(len(world.tasks)) if (world.task == task).sum() >= MIN_TYPE]


def _worth(world: World) -> dict[int, Floats]:
    """What each arm was truly worth on each row of each task type."""
    worth = np.where(world.usable, world.score - world.rate(RATE) * world.cost, np.nan)
    return {task: worth[world.task == task] for task in _types(world)}


def _chosen(world: World, learner: Learner) -> dict[str, dict[int, int]]:
    """The arm that is believed to be worth the most on each task type; and the one that most requests of the type are
    given where a baseline is kept to."""
    rate, baselines = world.rate(RATE), _baselines(world)
    found: dict[str, dict[int, int]] = {how: {} for how in ("", *baselines)}
    costs = [round(price * NANO) for price in world.price.tolist()]
    for task in _types(world):
        rows = np.flatnonzero(world.task == task)[:200]
        z = np.array([extended(world.demands[row]) for row in rows])
        var = np.zeros_like(z)
        var[:, : len(world.demands[0].u)] = [world.demands[row].var for row in rows]
        p, mean, spread = np.zeros((3, len(rows), len(world.arms)))
        known = [arm for arm, one in enumerate(world.arms) if one.name in learner.belief.own]
        for arm in known:
            ability = learner.belief.ability(world.arms[arm].name)
            p[:, arm], mean[:, arm] = predicted(ability, z, var), z @ ability.mean
            spread[:, arm] = np.sqrt(np.einsum("ik,kl,il->i", z, ability.cov, z))
        worth = p - rate * world.price
        found[""][task] = int(np.argmax(worth.mean(axis=0)))
        worth[:, np.setdiff1d(np.arange(len(world.arms)), known)] = -np.inf
        for how, kept in baselines.items():
            each = zip(worth, mean, spread, strict=True)
            found[how][task] = int(np.bincount([surely_best(w, m, s, costs, kept, rate) for w, m, s in each]).argmax())
    return found


def _baselines(world: World) -> dict[str, int]:
    """The arm that is worth the most on the whole, and the dearest."""
    worth = column_means(world.score - world.rate(RATE) * world.cost)
    return {BEST: int(np.argmax(worth)), DEAREST: int(np.argmax(world.price))}


def experiment(setting: Setting) -> Experiment:
    """10 % of feedback is adversarial, 30 % late."""
    able = setting.worlds()
    there = [world for world in able if world.source in SOURCES] or able
    found = []
    for world in there:
        if _types(world):
            setting.say(f"poisoned: {world.source}")
            found.append(poisoned(world, range(setting.seeds)))
    columns = ("source", "calls", "against the same calls, all honest", "routes", "changed", "better", "flipped",
               "for sure", "lost per call, points")  # fmt: skip
    table = [
        (p.source, str(calls), name, str(c.routes), str(c.changed), str(c.better), str(c.flipped), str(c.sure),
         shown(c.loss, 100)) for p in found for (calls, name), c in p.compared.items()
    ]  # fmt: skip

    def flips(calls: int, name: str) -> str:
        compared = [p.compared[calls, name] for p in found]
        return f"{sum(c.flipped for c in compared)} ({sum(c.sure for c in compared)} for sure)"

    routes = sum(p.compared[LENGTHS[0], LIARS_IN].routes for p in found)
    text = "; ".join(
        f"after {calls} calls {flips(calls, LIARS_IN)} of {routes}, were they silent {flips(calls, SILENT)}, of other "
        f"calls {flips(calls, OTHERS)}" for calls in LENGTHS
    )  # fmt: skip
    flipped = sum(p.compared[calls, LIARS_IN].flipped for p in found for calls in LENGTHS)
    loss = {(p.source, calls): p.compared[calls, LIARS_IN].loss for p in found for calls in LENGTHS}
    marks = [
        Mark("no flipped route", text, bool(found) and flipped == 0),
        *(Mark(f"no flipped route; {how}",
               ", ".join(f"after {calls} calls {flips(calls, f'{how}: {LIARS_IN}')}" for calls in LENGTHS),
               bool(found) and not any(p.compared[calls, f"{how}: {LIARS_IN}"].flipped for p in found
                                       for calls in LENGTHS)) for how in (BEST, DEAREST)),
        Mark("bounded loss", ", ".join(f"{name} {calls}: {shown(lost, 100)} points"
                                       for (name, calls), lost in loss.items()),
             bool(loss) and all(lost.high <= SMALL for lost in loss.values())),
    ]  # fmt: skip
    caught = ", ".join(f"{p.source} {_times(p.found_out, setting.seeds)}" for p in found)
    notes = [
        f"{LENGTHS[-1]} calls of {KEYS} keys on real outcomes; {len(LIARS)} key turns each word round, "
        f"{LATE_SHARE:.0%} of words come up to {LATEST} calls late (both injected); found out for good: {caught}; "
        f"honest keys that are found out at the end: {sum(p.suspected for p in found)}"
    ]
    return Experiment("poisoned", [Sheet("Lies and lateness", columns, table, columns[1:])], marks, notes, found)


def _times(found_out: tuple[int, ...], seeds: int) -> str:
    at = f" after {np.median(found_out):.0f} calls (at most {max(found_out)})" if found_out else ""
    return f"{len(found_out)} of {seeds}{at}"
