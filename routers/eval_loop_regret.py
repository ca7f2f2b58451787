"""What is lost while learning: regret against hindsight, of the learner and of what others do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from routers.eval_bootstrap import Estimate
from routers.eval_loop_contenders import BetaThompson, Chooser, Kept, LinUcb, Online, Static
from routers.eval_loop_world import World, over_seeds, stream
from routers.eval_table import Floats
from routers.rows import Indices

REQUESTS: Final = 5_000
RATES: Final = (0.05, 0.2)
"""What a call of the best single model costs, in successes."""
OURS: Final = "learned prior + online"
CHEAP, DEAR, RANDOM = "always cheapest", "always dearest", "random at equal spend"
STRONG, FIXED = "best model, known beforehand", "best arm in hindsight"
KEPT_DEAR, KEPT_FIXED = "ours, kept to the dearest", "ours, kept to the best arm in hindsight"
LEARNERS: Final[dict[str, Callable[[World, int], Chooser]]] = {
    OURS: Online,
    "static learned": lambda world, _seed: Static(world),
    "Beta Thompson per task type": BetaThompson,
    "LinUCB, forgetting": lambda world, _seed: LinUcb(world),
}
HINDSIGHT: Final = (STRONG, FIXED, KEPT_FIXED)
"""They know outcomes that no contender knows: no part of the mark, as the oracle is none."""
VARIANTS: Final = (KEPT_DEAR,)
"""What is ours otherwise is no rival."""


@dataclass(frozen=True)
class Regret:
    """One source and rate: mean regret over the requests by contender, in successes, over seeds; and by how much each
    is above ours, seed by seed."""

    source: str
    rate: float
    arms: int
    regret: dict[str, Estimate]
    above: dict[str, Estimate]


def regrets(world: World, share: float, seeds: Sequence[int]) -> dict[str, list[float]]:
    """The regret of each contender by seed."""
    rate = world.rate(share)
    worth = np.where(world.usable, world.score - rate * world.cost, -np.inf)
    top = worth.max(axis=1)
    found: dict[str, list[float]] = {}
    for seed in seeds:
        order = stream(world, REQUESTS, seed)
        order = order[np.isfinite(top[order])]
        spent = 0.0
        for name, make in LEARNERS.items():
            lost, dollars = _run(make(world, seed), world, order, rate, top, worth)
            found.setdefault(name, []).append(lost)
            spent = dollars if name == OURS else spent
        alone = [_alone(world, order, arm, top, worth) for arm in range(len(world.arms))]
        cheap, strong = alone[int(world.price.argmin())], alone[world.best]
        found.setdefault(CHEAP, []).append(cheap[0])
        found.setdefault(DEAR, []).append(alone[int(world.price.argmax())][0])
        found.setdefault(STRONG, []).append(strong[0])
        part = (spent - cheap[1]) / (strong[1] - cheap[1]) if strong[1] > cheap[1] else 1.0
        part = min(max(part, 0.0), 1.0)
        found.setdefault(RANDOM, []).append((1.0 - part) * cheap[0] + part * strong[0])
        best = min(range(len(alone)), key=lambda arm: alone[arm][0])
        found.setdefault(FIXED, []).append(alone[best][0])
        for name, arm in ((KEPT_DEAR, int(world.price.argmax())), (KEPT_FIXED, best)):
            found.setdefault(name, []).append(_run(Kept(world, seed, arm), world, order, rate, top, worth)[0])
    return found


def _run(
    chooser: Chooser, world: World, order: Indices, rate: float, top: Floats, worth: Floats
) -> tuple[float, float]:
    lost = dollars = 0.0
    for row in order.tolist():
        arm = chooser.choose(row, rate)
        chooser.learn(row, arm, float(world.score[row, arm]))
        lost += float(top[row] - worth[row, arm])
        dollars += float(world.cost[row, arm])
    return lost, dollars


def _alone(world: World, order: Indices, arm: int, top: Floats, worth: Floats) -> tuple[float, float]:
    """Regret and dollars of one arm for all; of the best other where it cannot be called."""
    usable = world.usable[order, arm]
    lost = np.where(usable, top[order] - worth[order, arm], 0.0)
    return float(lost.sum()), float(np.where(usable, world.cost[order, arm], 0.0).sum())


def summed_up(world: World, share: float, by_seed: dict[str, list[float]]) -> Regret:
    """Means over seeds."""
    ours = np.array(by_seed[OURS])
    return Regret(
        world.source,
        share,
        len(world.arms),
        {name: over_seeds(values) for name, values in by_seed.items()},
        {name: over_seeds(np.array(values) - ours) for name, values in by_seed.items() if name != OURS},
    )


def total(found: Sequence[dict[str, list[float]]]) -> dict[str, list[float]]:
    """The sum over sources and rates, seed by seed."""
    names = found[0]
    return {name: np.sum([np.array(one[name]) for one in found], axis=0).tolist() for name in names}
