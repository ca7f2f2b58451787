"""What is new: a model that joins with a few labels, and a family of requests that nobody has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from routers.abilities import regressed
from routers.belief import Belief
from routers.eval_bootstrap import Estimate
from routers.eval_fits import Texts, fit_single
from routers.eval_loop_contenders import Kept, Online
from routers.eval_loop_world import World, over_seeds
from routers.eval_policies import column_means
from routers.eval_table import Floats
from routers.live import prior_of
from routers.rows import Indices
from routers.trust import trusted, typical_slopes

OURS, FITTED = 20, 100
"""Labels that the learner gets, and those that a model's own fit gets."""
HISTORY: Final = 150
"""Requests on which outcomes of all other models are known."""
TESTED: Final = 1_000
RATES: Final = (0.05, 0.2)
"""What a call of the best single model costs, in successes."""
CHECKPOINTS: Final = (0, 10, 25, 50, 100, 200)
CONVERGED: Final = 50
EARLIER: Final = 1_000
MIN_FAMILY: Final = 60
TELLING: Final = 20
"""Rows of a family from which on it tells how families differ."""
LEAST_SPREAD: Final = 1e-4


@dataclass(frozen=True)
class Joined:
    """One model that joins a source's others. In points of utility, means over seeds: routing with it after OURS labels
    against routing with its own fit after FITTED, and against leaving it out."""

    source: str
    model: str
    rate: float
    against_fit: Estimate
    against_none: Estimate


def joined(world: World, arm: int, seeds: Sequence[int]) -> list[Joined]:
    """The comparison at each rate; a model is new to weights and learner alike: its name, price and neighbours are all
    that is known."""
    dense = Texts(world.table, 0).dense()
    gains: dict[float, list[tuple[float, float]]] = {rate: [] for rate in RATES}
    for seed in seeds:
        order = np.random.default_rng([seed, 31]).permutation(np.flatnonzero(world.usable[:, arm]))
        known, labelled, tested = order[:HISTORY], order[HISTORY : HISTORY + FITTED], order[HISTORY + FITTED :][:TESTED]
        if len(labelled) < FITTED or len(tested) < MIN_FAMILY:
            return []
        learner = Online(world, seed)
        learner.believe(_without(learner.belief, world.arms[arm].name))
        for row in known:
            for other in np.flatnonzero(world.usable[row]):
                if other != arm:
                    learner.learn(int(row), int(other), float(world.score[row, other]))
        _join(learner, world, arm)
        for row in labelled[:OURS]:
            learner.learn(int(row), arm, float(world.score[row, arm]))
        p = learner.everywhere(tested)
        own = fit_single(dense, world.score[:, arm], labelled, tested)
        for share in RATES:
            rate = world.rate(share)
            ours, none = utility(world, tested, p, rate), utility(world, tested, p, rate, leave_out=arm)
            fitted = p.copy()
            fitted[:, arm] = own
            gains[share].append((ours - utility(world, tested, fitted, rate), ours - none))
    name = world.arms[arm].name
    return [Joined(world.source, name, share, *(over_seeds(column) for column in zip(*of, strict=True)))
            for share, of in gains.items()]  # fmt: skip


def _join(learner: Online, world: World, arm: int) -> None:
    weights = world.base.ability_weights
    expected = trusted(regressed(world.arms[arm], weights), typical_slopes(weights))
    learner.believe(prior_of(world.base).joined(learner.belief, world.arms[arm], expected))


def _without(belief: Belief, name: str) -> Belief:
    return replace(belief, own={other: own for other, own in belief.own.items() if other != name})


def utility(world: World, rows: Indices, p: Floats, rate: float, *, leave_out: int | None = None) -> float:
    """Mean success less what was paid for it, of choosing by these chances."""
    worth = np.where(world.usable[rows], p - rate * world.price, -np.inf)
    if leave_out is not None:
        worth[:, leave_out] = -np.inf
    chosen = worth.argmax(axis=1)
    at = np.arange(len(rows))
    return float(np.mean(world.score[rows][at, chosen] - rate * world.cost[rows][at, chosen]))


@dataclass(frozen=True)
class Appeared:
    """Families that nobody had seen, in one source, after so many of their labels. In points of utility on other
    requests of the family, means over seeds: against the static choice, which was made on the earlier families, and
    against the same learner after the last checkpoint. `kept`, `kept_last`: the same of a learner that keeps to the
    static choice from the first request on, as a route's baseline (`Kept`); `told`, `told_last`: of one that hears all
    arms (see `hearing_all`)."""

    source: str
    rate: float
    labels: int
    against_static: Estimate
    against_last: Estimate
    kept: Estimate
    kept_last: Estimate
    told: Estimate
    told_last: Estimate


def appeared(world: World, seeds: Sequence[int]) -> list[Appeared]:
    """One family a seed is kept away while the learner routes EARLIER requests of the others."""
    table = world.table
    large = [f for f in range(len(table.families)) if (table.family == f).sum() >= MIN_FAMILY]
    if len(large) < 2:
        return []
    found: dict[tuple[float, int], list[tuple[float, ...]]] = {}
    for seed in seeds:
        rng = np.random.default_rng([seed, 32])
        family = large[int(rng.integers(len(large)))]
        mine, others = np.flatnonzero(table.family == family), np.flatnonzero(table.family != family)
        mine = rng.permutation(mine)
        half = min(len(mine) // 2, CHECKPOINTS[-1])
        asked, tested = rng.choice(mine[:half], CHECKPOINTS[-1], replace=half < CHECKPOINTS[-1]), mine[half:][:TESTED]
        for share in RATES:
            rate, earlier = world.rate(share), rng.permutation(others)[:EARLIER]
            static = int(np.argmax(column_means(world.score[others] - rate * world.cost[others])))
            fixed = utility(world, tested, _only(world, static), rate)
            ours = _on_the_way(Online(world, seed), world, earlier, asked, tested, rate)
            kept = _on_the_way(Kept(world, seed, static), world, earlier, asked, tested, rate)
            told = [
                utility(world, tested, _only(world, arm), rate)
                for arm in hearing_all(world, family, asked, static, rate)
            ]
            for labels, *reached in zip(CHECKPOINTS, ours, kept, told, strict=True):
                gains = [gain for worth, last in zip(reached, (ours[-1], kept[-1], told[-1]), strict=True)
                         for gain in (worth - fixed, worth - last)]  # fmt: skip
                found.setdefault((share, labels), []).append(tuple(gains))
    return [Appeared(world.source, share, labels, *(over_seeds(column) for column in zip(*of, strict=True)))
            for (share, labels), of in found.items()]  # fmt: skip


def _on_the_way(
    learner: Online, world: World, earlier: Indices, asked: Indices, tested: Indices, rate: float
) -> list[float]:
    """Utility on the tested requests at each checkpoint, of a learner that routed the earlier ones and then these."""
    for row in earlier.tolist():
        _serve(learner, world, row, rate)
    reached, at = [], np.arange(len(tested))
    for number in range(CHECKPOINTS[-1] + 1):
        if number in CHECKPOINTS:
            chosen = [learner.best(row, rate) for row in tested.tolist()]
            reached.append(float(np.mean(world.score[tested][at, chosen] - rate * world.cost[tested][at, chosen])))
        if number < CHECKPOINTS[-1]:
            _serve(learner, world, int(asked[number]), rate)
    return reached


def hearing_all(world: World, family: int, asked: Indices, static: int, rate: float) -> list[int]:
    """The arm that is taken for a whole family at each checkpoint by one that has as many labels as the learner, but of
    all arms on the same requests, at no cost: the arm with the largest mean by how arms differed from the static choice
    in the other families, of which it knows all outcomes, and by what it heard of this one (both normal)."""
    worth = np.where(world.usable, world.score - rate * world.cost, np.nan)
    gain = worth - worth[:, [static]]
    of = world.table.family
    others = [gain[of == f] for f in range(len(world.table.families)) if f != family and (of == f).sum() >= TELLING]
    means = np.array([np.nanmean(rows, axis=0) for rows in others])
    within = np.maximum(np.mean([np.nanvar(rows, axis=0) for rows in others], axis=0), LEAST_SPREAD)
    errors = np.mean([np.nanvar(rows, axis=0) / len(rows) for rows in others], axis=0)
    spread = np.maximum(means.var(axis=0) - errors, LEAST_SPREAD)
    chosen = []
    for labels in CHECKPOINTS:
        heard = gain[asked[: round(labels / len(world.arms))]]
        known = np.sum(~np.isnan(heard), axis=0) / within
        mean = (means.mean(axis=0) / spread + np.nansum(heard, axis=0) / within) / (1.0 / spread + known)
        mean[static] = 0.0
        chosen.append(int(np.argmax(mean)))
    return chosen


def _only(world: World, arm: int) -> Floats:
    """Chances by which this arm is always taken where it can be."""
    return np.where(np.arange(len(world.arms)) == arm, 1e6, 0.0)[None]


def _serve(learner: Online, world: World, row: int, rate: float) -> None:
    arm = learner.choose(row, rate)
    learner.learn(row, arm, float(world.score[row, arm]))
