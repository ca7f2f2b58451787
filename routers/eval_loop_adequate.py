"""What "the cheapest model with P(success) >= p" keeps of its promise while it learns, on real outcomes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from routers.eval_bootstrap import Estimate
from routers.eval_loop import Experiment, Mark
from routers.eval_loop_contenders import SHARE, SURE, Online
from routers.eval_loop_world import Setting, World, over_seeds, stream
from routers.eval_policies import column_means
from routers.eval_report import Sheet, shown
from routers.eval_table import Floats
from routers.rows import Indices
from routers.thompson import first_adequate

REQUESTS: Final = 4_000
WINDOW: Final = 500
LEVELS: Final = (0.6, 0.7, 0.8, 0.9)
"""What is asked for: of these, those that a source's best single model reaches on the whole."""
PLAIN, KEPT, HINDSIGHT = "ours", "ours, kept to the best single model", "cheapest adequate arm in hindsight"
OF: Final = (PLAIN, KEPT, HINDSIGHT)


class Adequate(Online):
    """The learner on a route that asks for the cheapest candidate with P(success) >= `level`, and for a constant share
    of requests draws each arm by itself, as the gateway does. With a `baseline` it keeps to that arm as
    `gateway/baseline.py` does. The heuristic, to which a gateway leaves what it is not sure of, has no part in it."""

    def __init__(self, world: World, seed: int, level: float, baseline: int | None = None) -> None:
        super().__init__(world, seed)
        self._level, self._baseline = level, baseline
        self._cheapest = np.argsort(world.price).tolist()

    def choose(self, row: int, rate: float) -> int:
        if self._rng.random() >= SHARE:
            return self.best(row, rate)
        mean, cov = self.logits(row)
        drawn = mean + np.sqrt(np.diag(cov)) * self._rng.normal(size=len(mean))
        return self._first(1.0 / (1.0 + np.exp(-drawn)), self.world.usable[row].tolist())

    def best(self, row: int, rate: float) -> int:
        able = self.world.usable[row].tolist()
        if self._baseline is not None and able[self._baseline]:
            mean, cov = self.logits(row)
            surely = self._surely_preferred(self._baseline, mean.tolist(), np.sqrt(np.diag(cov)).tolist())
            able = [is_able and is_sure for is_able, is_sure in zip(able, surely, strict=True)]
        return self._first(self.p(row), able)

    def _first(self, p: Floats, able: Sequence[bool]) -> int:
        """The cheapest that is adequate; where none is, the likeliest to succeed."""
        adequate = [arm for arm in self._cheapest if able[arm] and p[arm] >= self._level]
        return adequate[0] if adequate else int(np.argmax(np.where(able, p, -np.inf)))

    def _surely_preferred(self, baseline: int, means: Sequence[float], spreads: Sequence[float]) -> Iterator[bool]:
        """Of each arm, whether it is the baseline or surely chosen before it."""
        place = {arm: at for at, arm in enumerate(self._cheapest)}
        for arm in range(len(means)):
            pair = sorted((arm, baseline), key=place.__getitem__)
            drawn = [means[one] for one in pair], [spreads[one] for one in pair]
            heard = self.belief.own[self.world.arms[arm].name].labels > 0.0
            yield arm == baseline or (heard and first_adequate(*drawn, pair.index(arm), self._level) >= SURE)


@dataclass(frozen=True)
class Kept:
    """One source at one level, by contender, means over seeds: success over all requests, in the last quarter, and in
    the worst window of WINDOW; dollars, of what the best single model costs, over all and in the last quarter."""

    source: str
    level: float
    success: dict[str, Estimate]
    late: dict[str, Estimate]
    lowest: dict[str, Estimate]
    dollars: dict[str, Estimate]
    late_dollars: dict[str, Estimate]


def adequate(world: World, seeds: Sequence[int]) -> list[Kept]:
    """Each level that the best single model reaches."""
    reached = column_means(world.score)
    return [_kept(world, level, seeds, reached) for level in LEVELS if reached[world.best] >= level]


def _kept(world: World, level: float, seeds: Sequence[int], reached: Floats) -> Kept:
    found: dict[str, list[tuple[float, ...]]] = {}
    able = [arm for arm in np.argsort(world.price).tolist() if reached[arm] >= level]
    for seed in seeds:
        rows = stream(world, REQUESTS, seed)
        for name, learner in ((PLAIN, Adequate(world, seed, level)), (KEPT, Adequate(world, seed, level, world.best))):
            arms = []
            for row in rows.tolist():
                arms.append(learner.choose(row, 0.0))
                learner.learn(row, arms[-1], float(world.score[row, arms[-1]]))
            found.setdefault(name, []).append(_came_to(world, rows, np.array(arms)))
        fixed = np.where(world.usable[rows, able[0]], able[0], world.best)
        found.setdefault(HINDSIGHT, []).append(_came_to(world, rows, fixed))
    columns = {name: [over_seeds(column) for column in zip(*of, strict=True)] for name, of in found.items()}
    return Kept(world.source, level, *({name: of[at] for name, of in columns.items()} for at in range(5)))


def _came_to(world: World, rows: Indices, arms: Indices) -> tuple[float, ...]:
    score, cost = world.score[rows, arms], world.cost[rows, arms]
    usable = world.usable[rows, world.best]
    dear = np.where(usable, world.cost[rows, world.best], cost)
    late = slice(-REQUESTS // 4, None)
    windows = [float(np.nanmean(score[at : at + WINDOW])) for at in range(0, len(score), WINDOW)]
    return (
        float(np.nanmean(score)), float(np.nanmean(score[late])), min(windows),
        float(np.nansum(cost) / np.nansum(dear)), float(np.nansum(cost[late]) / np.nansum(dear[late])),
    )  # fmt: skip


def experiment(setting: Setting) -> Experiment:
    """The cheapest candidate that is adequate."""
    found: list[Kept] = []
    for world in setting.worlds():
        setting.say(f"adequate: {world.source}")
        found += adequate(world, range(setting.seeds))
    columns = ("source", "asked", "how", "success", "in the last quarter", f"worst {WINDOW}", "dollars, of the best's",
               "in the last quarter")  # fmt: skip
    table = [
        (k.source, f"{k.level:g}", name, shown(k.success[name], 100), shown(k.late[name], 100),
         shown(k.lowest[name], 100), shown(k.dollars[name], 100), shown(k.late_dollars[name], 100))
        for k in found for name in OF
    ]  # fmt: skip
    marks = [
        Mark(f"success is not below what is asked for, for sure: {name}",
             f"below in {len(whole)} of {len(found)}, in the last quarter in {len(late)}",
             bool(found) and not whole and not late)
        for name in (PLAIN, KEPT)
        for whole in [[k for k in found if k.success[name].high < k.level]]
        for late in [[k for k in found if k.late[name].high < k.level]]
    ]  # fmt: skip
    notes = [
        f"{REQUESTS:,} requests; success and dollars in points; a window of {WINDOW} is off by some 2 points by "
        "chance, and the worst of eight by some 3"
    ]
    return Experiment("adequate", [Sheet("Cheapest adequate", columns, table, columns[1:])], marks, notes, found)
