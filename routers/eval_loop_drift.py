"""A model that silently becomes worse at one kind of work: found how soon, and what quarantine then saves.

Outcomes are real ones of one model on one task type, drawn anew with repetition; the fall is injected: from one label
on, an answer that was right is taken for wrong with the chance that makes so many points of all answers. Rows of a
source come again in such a stream, and with exactly the outcome that was recorded, which no model does: so falls are
looked for with every request held to be new as well, and with requests that come again seldom and turn out differently
by (synthetic) chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np

from routers.drift import BUCKET, LIMITS, evidence, heard, least_labels, most_found, new_cell
from routers.eval_bootstrap import Estimate
from routers.eval_loop_contenders import Online, best_of
from routers.eval_loop_world import Setting, World, over_seeds, share_found, stream
from routers.eval_table import Bools, Floats
from routers.mcnemar import p_fallen
from routers.paired import AFTERWARDS, GOOD, NEW
from routers.probes import PROBE_SHARE
from routers.quarantine import MIN_DROP, Fallen, Watch, hear, new_watch
from routers.rows import Indices

QUIET: Final = 4_000
ALARMS: Final = 0.05
"""False alarms in so many labels: one in 20 runs."""
BEFORE: Final = 2_000
"""Labels before the fall."""
DROPS: Final = ((0.05, 600), (0.15, 150), (0.30, 150))
"""Points lost, and the labels within which they are to be found."""
RUNS: Final = 400
"""Runs for the shares; the first `seeds` of them are those of the mark."""
MIN_CELL: Final = 100
HEALTHY, FALLEN = 1_500, 1_000
"""Requests before and after the fall, where quarantine is tried."""
MIN_ROWS, MIN_ARMS = 500, 4
"""A world in which quarantine is tried has so many."""
RATE: Final = 0.05


@dataclass(frozen=True)
class FoundIn:
    """Falls of one size in one cell: how many of the mark's runs, the share of all runs, the median delay in labels of
    those found at all within twice the time, and the most that any detector finds (NaN for graded outcomes, which tell
    more than yes or no). `least`: labels within which the best finds all of the mark's runs as likely as not (0 for
    graded outcomes). `by_command`: the share of runs in which `bursar probe` itself finds it, at the latest with the
    round of fixed requests in which that many labels are reached; None where they come in no rounds."""

    drop: float
    within: int
    of_seeds: int
    share: Estimate
    delay: float
    most: float
    least: int
    by_command: Estimate | None = None


@dataclass(frozen=True)
class Repeats:
    """How requests come again in a stream. `share` of the labels are of `probes` fixed requests (0: of all rows there
    are), each of the others is new; of two answers to the same request `flips` differ by chance. `same`: a fall loses
    the same requests each time, where they come again. `rounds`: all fixed requests come before any comes again, each
    time in another order, as `bursar probe` sends them."""

    share: float = 1.0
    probes: int = 0
    flips: float = 0.0
    same: bool = False
    rounds: bool = False


ALL_NEW: Final = Repeats(share=0.0)
ALL_AGAIN: Final = Repeats()
PROBES: Final = 100
SYNTHETIC: Final = (
    *(Repeats(flips=flips) for flips in (0.02, 0.05, 0.1)),
    *(Repeats(share, PROBES, 0.05) for share in (0.05, 0.1, 0.2)),
    Repeats(1.0, 2 * PROBES, 0.02),
    Repeats(1.0, 2 * PROBES, 0.02, same=True),
)
SYNTHETIC_RUNS: Final = 100
PROBE_SET: Final = 200
PROBE_SETS: Final = tuple(
    Repeats(1.0, PROBE_SET, flips, same, rounds=True) for same in (False, True) for flips in (0.0, 0.02, 0.05)
)
"""A set of fixed requests and nothing else, sent in rounds."""
ALPHA: Final = 0.01
"""Of the command's own test of each round against the last that was not found worse, its default."""


@dataclass(frozen=True)
class CellReport:
    """One cell: the model's success there, false alarms in quiet runs, falls found. `repeats`: how its requests came
    again; `command_alarms`: quiet runs in which `bursar probe` itself gives an alarm; None where they come in no
    rounds."""

    source: str
    model: str
    task_type: str
    rows: int
    level: float
    alarms_of_seeds: int
    alarms: Estimate
    falls: list[FoundIn]
    repeats: Repeats = ALL_NEW
    command_alarms: Estimate | None = None


def cells(setting: Setting) -> list[tuple[World, int, Indices]]:
    """Of each source its best model of those in its world on the commonest task type: (world, arm, rows)."""
    found = []
    for world in setting.worlds(1):
        common = int(np.bincount(world.task).argmax())
        rows = np.flatnonzero((world.task == common) & ~np.isnan(world.score[:, world.best]))
        if len(rows) >= MIN_CELL:
            found.append((world, world.best, rows))
    return found


def cell_report(
    world: World, arm: int, rows: Indices, seeds: int, repeats: Repeats = ALL_NEW, runs: int = RUNS
) -> CellReport:
    """The detector on one cell's outcomes."""
    score = world.score[rows, arm]
    ability = world.base.ability(world.arms[arm])
    expected = np.array([world.demands[row].u @ ability.mean for row in rows])
    turned = _turned(repeats.flips)
    level = float(score.mean())
    level += repeats.share * turned * (1.0 - 2.0 * level)
    runs = max(runs, seeds)

    def alarmed(labels: int, drop: float) -> tuple[Bools, Bools]:
        """(labels / BUCKET, runs): whether an alarm is up; (rounds, runs): whether the command gives one."""
        made = [
            _streamed(np.random.default_rng([run, 21]), score, labels, drop / level, repeats) for run in range(runs)
        ]
        at, y, history = (np.stack(of, axis=1) for of in zip(*made, strict=True))
        told = [told_by_rounds(rows, good, size) for rows, good in zip(at.T, y.T, strict=True)] if size else []
        return _alarms(y, expected[at], history, size), np.array(told, dtype=bool).T

    size = min(repeats.probes, len(score)) if repeats.rounds else 0
    up, told = alarmed(QUIET, 0.0)
    quiet, quiet_told = np.any(up, axis=0), np.any(told, axis=0)
    falls = []
    for drop, within in DROPS:
        if drop >= level:
            continue
        up, told = alarmed(BEFORE + 2 * max(within, size), drop)
        up, by_command = up[BEFORE // BUCKET :][: 2 * within // BUCKET], None
        if size:
            last = -(-(BEFORE + within) // size)
            by_command = share_found(int(np.any(told[BEFORE // size : last], axis=0).sum()), runs)
        found, ever = np.any(up[: within // BUCKET], axis=0), np.any(up, axis=0)
        delays = (up.argmax(axis=0)[ever] + 1) * BUCKET
        graded = bool(np.any((score > 0.0) & (score < 1.0)))
        most, least = float("nan"), 0
        if not graded:
            most = most_found(level, drop, within, false_alarms=ALARMS, labels=QUIET)
            least = least_labels(level, drop, 0.5 ** (1.0 / seeds), false_alarms=ALARMS, labels=QUIET)
        falls.append(
            FoundIn(
                drop,
                within,
                int(found[:seeds].sum()),
                share_found(int(found.sum()), runs),
                float(np.median(delays)) if len(delays) else float("nan"),
                most,
                least,
                by_command,
            )
        )
    alarms = share_found(int(quiet.sum()), runs)
    arm_name, task = world.arms[arm].name, world.tasks[int(world.task[rows[0]])]
    alarmed_of_seeds = int(quiet[:seeds].sum())
    by_command = share_found(int(quiet_told.sum()), runs) if size else None
    return CellReport(
        world.source, arm_name, task, len(rows), level, alarmed_of_seeds, alarms, falls, repeats, by_command
    )


def told_by_rounds(at: Indices, y: Floats, size: int) -> list[bool]:
    """Whether `bursar probe` gives an alarm after each whole round of so many fixed requests. Each is compared with the
    first, or with the last that was found better."""
    found, base = [], None
    for end in range(size, len(at) + 1, size):
        now = (y[end - size : end] >= GOOD)[np.argsort(at[end - size : end])]
        base = now if base is None else base
        lost, won = int((base & ~now).sum()), int((now & ~base).sum())
        found.append(p_fallen(lost, won) <= ALPHA)
        base = now if p_fallen(won, lost) <= ALPHA else base
    return found


def _turned(flips: float) -> float:
    """The chance with which each of two answers is turned round, so that they differ with this one."""
    return (1.0 - sqrt(1.0 - 2.0 * flips)) / 2.0


def _streamed(
    rng: np.random.Generator, score: Floats, labels: int, lost: float, repeats: Repeats
) -> tuple[Indices, Floats, Indices]:
    """Labels drawn from a cell's rows: their rows, outcomes, and the histories of their requests. From label BEFORE on
    a right answer is `lost` with this chance."""
    at = rng.integers(0, len(score), labels)
    falls = (rng.random(labels) < lost) & (np.arange(labels) >= BEFORE)
    y = score[at]
    if repeats.share:
        again = rng.random(labels) < repeats.share
        asked = np.arange(len(score))
        if repeats.probes:
            asked = rng.choice(len(score), min(repeats.probes, len(score)), replace=False)
            at = np.where(again, asked[at % len(asked)], at)
            if repeats.rounds:
                laps = [rng.permutation(asked) for _ in range(-(-labels // len(asked)))]
                at = np.concatenate(laps)[:labels]
            y = score[at]
        turned = again & (rng.random(labels) < _turned(repeats.flips))
        y = np.where(turned, 1.0 - y, y)
        if repeats.same:
            right = rng.permutation(asked[score[asked] >= GOOD])
            gone = np.isin(at, right[: round(lost * len(right))])
            falls = np.where(again, gone & (np.arange(labels) >= BEFORE), falls)
    y = y * ~falls
    history, known, afterwards = np.full(labels, NEW), [NEW] * len(score), AFTERWARDS.tolist()
    for number in np.flatnonzero(again).tolist() if repeats.share else ():
        history[number] = before = known[at[number]]
        known[at[number]] = afterwards[before][int(y[number] >= GOOD)]
    return at, y, history


def _alarms(y: Floats, expected: Floats, history: Indices, first: int) -> Bools:
    """`first`: labels of a round that is the first of its requests. As live, these are no evidence themselves: a probe
    set may be harder than users' requests are."""
    skipped = -(-first // BUCKET)
    cell, found = new_cell(y.shape[1]), list[Bools]([np.zeros(y.shape[1], dtype=bool)] * skipped)
    heard_of = (of[skipped * BUCKET :] for of in (y, expected, history))
    for number, (row, logits, before) in enumerate(zip(*heard_of, strict=True), 1):
        cell = heard(cell, logits, row, 1.0, before)
        if number % BUCKET == 0:
            of = evidence(cell)
            found.append(np.any((of.root > LIMITS) & (of.drop >= MIN_DROP), axis=-1))
    return np.array(found)


@dataclass(frozen=True)
class Saved:
    """What quarantine is worth after a fall: successes and dollars per 1,000 requests of that task type, against the
    same learner without it, and the share of seeds in which it set in."""

    source: str
    model: str
    task_type: str
    drop: float
    successes: Estimate
    dollars: Estimate
    worth: Estimate
    quarantined: float


def saved(world: World, seeds: Sequence[int]) -> list[Saved]:
    """The learner routes HEALTHY requests; then the arm it used most on its commonest task type falls there."""
    gained: dict[float, list[tuple[float, float, float, float]]] = {drop: [] for drop, _ in DROPS}
    cell = 0, 0
    for seed in seeds:
        first, second = np.split(stream(world, HEALTHY + FALLEN, seed), [HEALTHY])
        before = _Gateway(world, seed)
        arms = before.route(first)[0]
        counts = np.zeros((len(world.tasks), len(world.arms)))
        np.add.at(counts, (world.task[first], arms), 1)
        task, arm = (int(place) for place in np.unravel_index(int(counts.argmax()), counts.shape))
        cell, mine = (task, arm), world.task[second] == task
        if not mine.any():
            continue
        for drop, so_far in gained.items():
            fall = task, arm, drop
            (_, score, cost, _), (_, kept, paid, hit) = (
                before.copy().route(second, fall, quarantine=q) for q in (False, True)
            )
            scale = 1000.0 / int(mine.sum())
            successes, dollars = (float((b - a)[mine].sum()) * scale for a, b in ((score, kept), (paid, cost)))
            so_far.append((successes, dollars, successes + world.rate(RATE) * dollars, float(hit)))
    name, work = world.arms[cell[1]].name, world.tasks[cell[0]]
    found = []
    for drop, of in gained.items():
        if of:
            good, dollars_, worth, hits = zip(*of, strict=True)
            means = over_seeds(good), over_seeds(dollars_), over_seeds(worth)
            found.append(Saved(world.source, name, work, drop, *means, sum(hits) / len(hits)))
    return found


class _Gateway:
    """A learner that routes by its means, and a watch on each of its cells."""

    def __init__(self, world: World, seed: int) -> None:
        self._world, self._seed = world, seed
        self._learner = Online(world, seed, share=0.0)
        self._watches: dict[tuple[int, int], Watch] = {}
        self._reference = [world.base.ability(arm).mean for arm in world.arms]

    def copy(self) -> _Gateway:
        """Another that goes on from here."""
        twin = copy(self)
        twin._learner, twin._watches = self._learner.copy(), dict(self._watches)
        return twin

    def route(
        self, order: Indices, fall: tuple[int, int, float] | None = None, *, quarantine: bool = True
    ) -> tuple[Indices, Floats, Floats, bool]:
        """Arms, scores and costs of requests in order, and whether the fallen cell was kept from any. `fall`: task, arm
        and points lost; which answers are lost is drawn per request, the same with quarantine and without."""
        luck, probe = np.random.default_rng([self._seed, 22]).random((2, len(order)))
        arms, score, cost = np.empty(len(order), dtype=np.int64), np.empty(len(order)), np.empty(len(order))
        world, hit = self._world, False
        lost = 0.0
        if fall is not None:
            known = world.score[world.task == fall[0], fall[1]]
            lost = fall[2] / max(float(np.nanmean(known)), fall[2])
        for number, row in enumerate(order.tolist()):
            task = int(world.task[row])
            p = self._learner.p(row)
            chosen = best_of(p - world.rate(RATE) * world.price, world, row)
            down = self._down(task) if quarantine else {}
            if down:
                before, since = p.copy(), p.copy()
                for arm, fallen in down.items():
                    before[arm], since[arm] = max(p[arm], fallen.level), min(p[arm], fallen.left)
                as_it_was = best_of(before - world.rate(RATE) * world.price, world, row)
                if as_it_was in down:
                    hit |= fall is not None and (task, as_it_was) == fall[:2]
                    spared = best_of(since - world.rate(RATE) * world.price, world, row)
                    chosen = as_it_was if probe[number] < PROBE_SHARE else spared
            good = float(world.score[row, chosen])
            if fall is not None and (task, chosen) == fall[:2] and luck[number] < lost:
                good = 0.0
            arms[number], score[number], cost[number] = chosen, good, world.cost[row, chosen]
            self._learner.learn(row, chosen, good)
            if quarantine:
                expected = float(world.demands[row].u @ self._reference[chosen])
                watch = self._watches.get((task, chosen)) or new_watch()
                self._watches[task, chosen] = hear(watch, expected, good, 1.0, float(number))
        return arms, score, cost, hit

    def _down(self, task: int) -> dict[int, Fallen]:
        """The models in quarantine for a task type: each counts for no more than it fell to, and is probed as if it had
        not fallen."""
        return {arm: watch.fallen for (of, arm), watch in self._watches.items() if of == task and watch.fallen}
