"""Replay against the truth: how often the intervals of `replay_estimates` cover it, where it is known.

Every row of a source has outcomes of all arms, so what another policy comes to is known; the estimators see one drawn
arm a row. Decisions are logged by a policy that is random in known ways, over scores of weights that never saw the
source; the other policy takes the arm that these weights think the most useful.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from app.learner.replay_estimates import Logged, estimate
from routers.eval_bootstrap import Estimate
from routers.eval_loop import Experiment, Mark
from routers.eval_loop_contenders import Static
from routers.eval_loop_world import Setting, World, share_found
from routers.eval_report import Sheet, shown
from routers.eval_table import Floats

DECISIONS: Final = 1_500
A_SEED: Final = 25
"""Replays for each seed."""
RATE: Final = 0.2
HEAT: Final = 0.1
"""The logging policy takes an arm with a chance that falls by e for so much utility less."""
FLOOR: Final = 0.02
"""The least chance of an arm."""
LOW, HIGH = 0.93, 0.97
ESTIMATORS: Final = ("ips", "snips", "dr")


@dataclass(frozen=True)
class Coverage:
    """One estimator on one source: the share of replays whose 95 % interval held the truth, the mean width."""

    source: str
    estimator: str
    replays: int
    covered: Estimate
    width: float


def coverage(world: World, seeds: Sequence[int]) -> list[Coverage]:
    """All estimators on one source."""
    rows = np.flatnonzero(world.usable.all(axis=1))
    if len(rows) < DECISIONS // 10:
        return []
    p, score = Static(world).p[rows], world.score[rows]
    useful = p - world.rate(RATE) * world.price
    logging, target = _logging(useful), np.eye(useful.shape[1])[useful.argmax(axis=1)]
    truth = float((target * score).sum(axis=1).mean())
    hits, widths = dict.fromkeys(ESTIMATORS, 0), dict.fromkeys(ESTIMATORS, 0.0)
    replays = 0
    for seed in seeds:
        rng = np.random.default_rng([seed, 51])
        for _ in range(A_SEED):
            found = estimate(_logged(rng, p, score, logging, target), least=0.0, most=1.0)
            if found.refusal is not None:
                continue
            replays += 1
            for name in ESTIMATORS:
                one = getattr(found, name)
                hits[name] += one.low <= truth <= one.high
                widths[name] += one.high - one.low
    if not replays:
        return []
    return [
        Coverage(world.source, name, replays, share_found(hits[name], replays), widths[name] / replays)
        for name in ESTIMATORS
    ]


def _logging(useful: Floats) -> Floats:
    weights = np.exp((useful - useful.max(axis=1, keepdims=True)) / HEAT)
    chances = weights / weights.sum(axis=1, keepdims=True)
    return np.asarray(FLOOR + (1.0 - FLOOR * useful.shape[1]) * chances)


def _logged(rng: np.random.Generator, p: Floats, score: Floats, logging: Floats, target: Floats) -> Logged:
    """Decisions on rows drawn with repetition."""
    at = rng.integers(0, len(p), DECISIONS)
    arm = (logging[at].cumsum(axis=1) > rng.random((DECISIONS, 1))).argmax(axis=1)
    place = np.arange(DECISIONS)
    return Logged(
        unit=place,
        propensity=logging[at, arm],
        target=target[at, arm],
        unsupported=np.zeros(DECISIONS),
        outcome=score[at, arm],
        expected=p[at, arm],
        expected_target=(target[at] * p[at]).sum(axis=1),
    )


def experiment(setting: Setting) -> Experiment:
    """The intervals' coverage."""
    found: list[Coverage] = []
    for world in setting.worlds():
        setting.say(f"replay: {world.source}")
        found += coverage(world, range(setting.seeds))
    columns = ("source", "estimator", "replays", "covered", "mean width, points")
    table_ = [
        (c.source, c.estimator, str(c.replays), shown(c.covered, 100), f"{c.width * 100:.1f}") for c in found
    ]  # fmt: skip
    inside = [c for c in found if LOW <= c.covered.value <= HIGH]
    marks = [
        Mark(f"95 % intervals cover {LOW * 100:.0f} to {HIGH * 100:.0f} %", f"{len(inside)} of {len(found)}",
             len(inside) == len(found) > 0)
    ]  # fmt: skip
    notes = [
        f"{DECISIONS} logged decisions on real outcomes, {A_SEED} replays a seed; the logging policy is made up, its "
        "chances known; a share of replays has its own 95 % interval"
    ]
    return Experiment("replay", [Sheet("Replay against the truth", columns, table_, columns[2:])], marks, notes, found)
