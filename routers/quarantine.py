"""Quarantine: a model that fell at one kind of work is kept from it, let back by probing, and told from its provider.

A fallen model is asked a few times on (probes). Each answer is weighed: likelier from what the model was, or from what
it fell to? A sum of log likelihood ratios that never goes below 0 (Page 1954, https://doi.org/10.2307/2333009) lets it
back when it reaches RECOVERED, and its cell is watched again from the base that it had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from math import log
from typing import Any, Final

import numpy as np

from routers import paired
from routers.drift import BUCKET, FIRST, LIMITS, WINDOWS, Cell, evidence, expectation, heard, new_cell
from routers.paired import NEW

MIN_DROP: Final = 0.025
"""A loss that is sure but less than half of the 5 points that an alarm is for is none."""
MIN_TESTED: Final = 0.05
"""A recovery is told from a loss of at least this."""
RECOVERED: Final = log(300.0)
"""A model that is still down is let back by chance after some 4,900 probes where it lost 15 points of 90, 2,100 where
it lost 30; one that is as it was after about 70 and 23 (means of 300 synthetic runs)."""
AGAIN: Final = 0.5
"""What the outcome of a request that came before counts for in a recovery: those of one request depend on each other. A
model that lost 5 points of 200 such requests, now these and now those or the same each time, was let back in none of 36
synthetic runs of 1,000 labels, and one that was as it was again after 110 to 140 (medians); at 1.0 in 5 of 20."""
DOUBTS: Final = 2.0
"""Labels' worth of belief that a request which failed since the fall fails no more than others do."""
LEANS: Final = 0.6
"""Share of a limit from which a cell speaks for a common cause, where another has passed its own."""

Name = tuple[str, str]
"""Model and task type."""


@dataclass(frozen=True, slots=True)
class Fallen:
    """A fall that was found. `level`: success expected before; `drop`: of it, what is gone; `recovered`: evidence of
    recovery, in log odds, and `rising_s`, when the first of it came; `probes`: labels since; `paired`: the part of the
    evidence of the fall that requests gave which had come before; `window`: in how many of the latest labels it was
    found; `again`, `gone`: labels since of requests that had come before, and how many successes less than expected."""

    since_s: float
    level: float
    drop: float
    recovered: float = 0.0
    probes: int = 0
    rising_s: float = 0.0
    paired: float = 0.0
    window: int = 0
    again: float = 0.0
    gone: float = 0.0

    @property
    def lost(self) -> float:
        """What is gone by what requests that come again have shown since, too. A fall that is found in few labels is
        overestimated, and held against too deep a one a model that is down by less looks recovered."""
        return min((self.drop * self.window + self.gone) / max(self.window + self.again, 1.0), self.drop)

    @property
    def left(self) -> float:
        """Success since it fell."""
        return min(max(self.level - self.drop, 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class Watch:
    """One cell under watch; `fallen` while it is in quarantine."""

    cell: Cell
    fallen: Fallen | None = None

    @property
    def leaning(self) -> float:
        """The evidence of a fall as a share of its limit: 1 or more when it is found."""
        if self.fallen is not None:
            return 1.0
        return max(float((evidence(self.cell).root / LIMITS).max()), 0.0)


def new_watch() -> Watch:
    """A cell without a label."""
    return Watch(new_cell())


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of a label's request. `history`: as `routers.paired` has it, in quarantine as it was before;
    `right` of `since` outcomes: in quarantine."""

    history: int = NEW
    right: int = 0
    since: int = 0


UNKNOWN: Final = Past()


def hear(watch: Watch, expected: float, outcome: float, weight: float, now_s: float, past: Past = UNKNOWN) -> Watch:
    """The watch after one label; `expected` in logits, from a reference that does not learn from these labels."""
    if watch.fallen is not None:
        return _probed(watch, watch.fallen, expected, outcome, weight, now_s, past)
    cell = heard(watch.cell, expected, outcome, weight, past.history)
    if cell.labels % BUCKET:
        return Watch(cell)
    return _looked_at(cell, now_s)


def _looked_at(cell: Cell, now_s: float) -> Watch:
    """Whether a cell fell; what its repeats were until then is what its probes are held against."""
    found = evidence(cell)
    over = np.where(found.drop >= MIN_DROP, found.root - LIMITS, -np.inf)
    at = int(over.argmax())
    if over[at] <= 0.0:
        return Watch(cell)
    level, drop, of_pairs = (float(each[at]) for each in (found.level, found.drop, found.paired))
    fallen = Fallen(now_s, level, drop, paired=of_pairs, window=int(WINDOWS[at]) * BUCKET)
    return Watch(replace(cell, pairs=cell.pairs and paired.settled(cell.pairs, int(WINDOWS[at]))), fallen)


def _probed(
    watch: Watch, fallen: Fallen, expected: float, outcome: float, weight: float, now_s: float, past: Past
) -> Watch:
    up = min(max(expectation(watch.cell, expected, past.history), 1e-4), 1.0 - 1e-4)
    again = past.history != NEW
    drop = max(fallen.lost if again else fallen.drop, MIN_TESTED)
    down = up * (1.0 - min(drop / max(fallen.level, MIN_TESTED), 0.95))
    # Where it fell it may fail at the same requests each time, or now at one and now at another.
    # However often it was right since: few requests that are right each time must be able to let a model back.
    down = min((down * DOUBTS + past.right) / (DOUBTS + past.since), up * (1.0 - MIN_TESTED))
    change = (
        weight
        * (AGAIN if again else 1.0)
        * (outcome * log(up / down) + (1.0 - outcome) * log((1.0 - up) / (1.0 - down)))
    )
    recovered = max(fallen.recovered + change, 0.0)
    if recovered >= RECOVERED:
        return released(watch)
    rising_s = (fallen.rising_s or now_s) if recovered else 0.0
    fallen = replace(fallen, recovered=recovered, probes=fallen.probes + 1, rising_s=rising_s)
    if again:
        fallen = replace(fallen, again=fallen.again + weight, gone=fallen.gone + weight * (up - outcome))
    return replace(watch, fallen=fallen)


def released(watch: Watch) -> Watch:
    """Out of quarantine, with the base that it had."""
    new, old = new_cell(), watch.cell
    labels = FIRST * BUCKET
    return Watch(Cell(labels, old.offset, old.precision, old.noise, new.open, new.closed, old.pairs))


class Cause(StrEnum):
    """What a fall is laid to."""

    MODEL = "model"
    PROVIDER = "provider"
    TRAFFIC = "traffic"


def cause(name: Name, leaning: Mapping[Name, float], provider_of: Mapping[str, str]) -> Cause:
    """What the fall of one cell is laid to, by what else leans the same way at the time.

    `traffic`: on that task type most of the models of at least two providers lean down, so that the work has become
    harder, and no other model is better than before. `provider`: of its provider's cells at least another model's
    leans down, and most of them do. `leaning`: of all cells that are watched, as `Watch.leaning` says.
    """
    model, task_type = name
    beside = {other: down >= LEANS for (other, task), down in leaning.items() if task == task_type and other != model}
    mine = provider_of.get(model, "")
    elsewhere = [down for other, down in beside.items() if provider_of.get(other, "") != mine]
    if elsewhere and _most(elsewhere) and _most(list(beside.values())):
        return Cause.TRAFFIC
    siblings = [
        down >= LEANS for (other, _), down in leaning.items() if other != model and provider_of.get(other, "") == mine
    ]
    return Cause.PROVIDER if siblings and _most(siblings) else Cause.MODEL


def _most(down: list[bool]) -> bool:
    return 2 * sum(down) > len(down)


def state_of(watch: Watch) -> dict[str, Any]:
    """JSON-ready."""
    cell, fallen = watch.cell, watch.fallen
    filled = max(min(cell.labels // BUCKET - FIRST, len(cell.closed)), 0)
    return {
        "labels": cell.labels,
        "base": [float(cell.offset), float(cell.precision), *cell.noise.tolist()],
        "open": cell.open.tolist(),
        "closed": [[round(x, 6) for x in bucket] for bucket in cell.closed[:filled].tolist()],
        "pairs": cell.pairs and paired.state_of(cell.pairs),
        "fallen": fallen and asdict(fallen),
    }


def watch_of(state: Mapping[str, Any]) -> Watch:
    """What `state_of` gave."""
    new = new_cell()
    offset, precision, *noise = state["base"]
    for at, bucket in enumerate(state["closed"]):
        new.closed[at] = bucket
    cell = Cell(
        int(state["labels"]),
        np.asarray(offset),
        np.asarray(precision),
        np.array(noise),
        np.array(state["open"]),
        new.closed,
        paired.pairs_of(kept, len(new.closed)) if (kept := state.get("pairs")) else None,
    )
    return Watch(cell, Fallen(**state["fallen"]) if state["fallen"] else None)
