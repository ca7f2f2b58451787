"""What a run of `bursar probe` says: how each model did at each kind of work, and whether it has become worse. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.commands.probe_set import Probe
from app.commands.probe_state import Answered, Begun, Kept, Round, State
from app.core.money import usd_float, usd_text
from routers.mcnemar import p_fallen, rejected

ALL_WORK: Final = "(all)"
COLUMNS: Final = ("model", "work", "right", "asked", "last run", "lost", "won", "p", "cost $", "")
SHOWN: Final = 20
"""Requests that are named one by one."""


@dataclass(frozen=True, slots=True)
class Line:
    """One model at one kind of work. `right` of `asked` that were judged, and of those in the last run; `lost`, `won`:
    ids of those that were right in the run that it is compared with and are not, and the other way round; `p`: the
    chance of so many lost, had nothing changed; `worse`: it is less than what all such tests may err together."""

    model: str
    work: str
    right: int
    asked: int
    last_right: int
    last_asked: int
    lost: tuple[str, ...]
    won: tuple[str, ...]
    p: float
    cost_nano: int | None
    worse: bool = False

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "model": self.model,
            "work": None if self.work == ALL_WORK else self.work,
            "right": self.right,
            "asked": self.asked,
            "last_right": self.last_right,
            "last_asked": self.last_asked,
            "lost": list(self.lost),
            "won": list(self.won),
            "p": self.p,
            "worse": self.worse,
            "cost_usd": None if self.cost_nano is None else usd_float(self.cost_nano),
        }

    def row(self) -> tuple[str, ...]:
        """As a row of COLUMNS."""
        change = "-"
        if self.last_asked and self.asked:
            points = 100.0 * (self.right / self.asked - self.last_right / self.last_asked)
            change = f"{points:+.1f}" if round(points, 1) else "same"
        cost = "unknown" if self.cost_nano is None else usd_text(self.cost_nano)
        return (
            self.model, self.work, str(self.right), str(self.asked), change, str(len(self.lost)), str(len(self.won)),
            f"{self.p:.2g}" if self.lost or self.won else "-", cost, "WORSE" if self.worse else "",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """All of it. `unjudged`: how many calls say nothing of a model, by model and why; `unasked` by model, for want of
    money."""

    lines: tuple[Line, ...]
    unjudged: Mapping[tuple[str, str], int]
    unasked: Mapping[str, int]

    @property
    def worse(self) -> tuple[str, ...]:
        """The models that became worse."""
        return tuple(dict.fromkeys(line.model for line in self.lines if line.worse))

    @property
    def silent(self) -> tuple[str, ...]:
        """The models of which not one answer could be judged."""
        heard = {line.model for line in self.lines if line.asked}
        return tuple(dict.fromkeys(line.model for line in self.lines if line.model not in heard))


def report(
    probes: Sequence[Probe], models: Sequence[str], answers: Mapping[tuple[str, str], Answered], state: State,
    alpha: float,
) -> Report:  # fmt: skip
    """What a run came to, beside what is known of those before it."""
    ids = {probe.name: probe.id for probe in probes}
    lines: list[Line] = []
    unjudged: dict[tuple[str, str], int] = {}
    unasked: dict[str, int] = {}
    for model in models:
        mine = [answers[model, probe.name] for probe in probes if (model, probe.name) in answers]
        kept = state.models.get(model)
        if missing := len(probes) - len(mine):
            unasked[model] = missing
        for one in mine:
            if one.right is None:
                unjudged[model, one.why] = unjudged.get((model, one.why), 0) + 1
        works: dict[str, list[Answered]] = {}
        for one in mine:
            if one.right is not None:
                works.setdefault(one.work, []).append(one)
        found = [_line(model, work, of, kept, ids) for work, of in sorted(works.items())]
        if len(found) != 1:  # a little lost at each kind of work is seen in all together alone
            found.append(_line(model, ALL_WORK, [one for of in works.values() for one in of], kept, ids))
        lines += found
    said = rejected([line.p for line in lines], alpha)
    marked = (_marked(line, worse) for line, worse in zip(lines, said, strict=True))
    return Report(tuple(marked), unjudged, unasked)


def kept_after(
    probes: Iterable[Probe], begun: Begun, answers: Mapping[tuple[str, str], Answered], before: State, alpha: float,
    *, accept: bool,
) -> State:  # fmt: skip
    """What is to be known of this run. The run that others are compared with stays the first (requests that are new
    join it), until one is to be taken as it is (`accept`), or one was better beyond chance: then the next is taken that
    is not below the first. The better one itself may have been lucky, and day after day one is: what is as it ever was
    would look worse beside the luckiest of many."""
    names = {probe.name for probe in probes}
    models = dict(before.models)
    for model in begun.models:
        mine = [one for (of, _), one in answers.items() if of == model]
        right = {one.probe: one.right for one in mine if one.right is not None}
        costs = [one.cost_nano for one in mine]
        total = None if None in costs else sum(cost for cost in costs if cost is not None)
        now, kept = Round(begun.run, begun.at_s, right, total), models.get(model)
        if not right:
            continue
        if kept is None or accept or (_better(kept.base, kept.last.right, alpha) and _better(kept.base, right, 1.0)):
            base = now
        else:
            known = {name: was for name, was in kept.base.right.items() if name in names}
            base = Round(kept.base.run, kept.base.at_s, {**right, **known}, kept.base.cost_nano)
        models[model] = Kept(base, now)
    return State(models=models, untold=dict(before.untold))


def told_by_name(report_: Report) -> list[str]:
    """The requests that turned out differently, a line for each model and kind of work."""
    found = []
    for line in report_.lines:
        if line.work == ALL_WORK and any(o.model == line.model and o.work != ALL_WORK for o in report_.lines):
            continue
        for what, ids in (("lost", line.lost), ("won", line.won)):
            if ids:
                more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
                found.append(f"{line.model} {line.work}: {what}: {', '.join(ids[:SHOWN])}{more}")
    return found


def sorted_otherwise(answers: Iterable[Answered]) -> list[str]:
    """Where the file names a kind of work, as what the gateway sorted its requests, if otherwise."""
    found: dict[str, dict[str, int]] = {}
    for one in answers:
        if one.sorted:
            counts = found.setdefault(one.work, {})
            counts[one.sorted] = counts.get(one.sorted, 0) + 1
    return [
        f"{work}: the gateway sorts it as {', '.join(f'{name} ({n})' for name, n in sorted(counts.items()))}"
        for work, counts in sorted(found.items())
        if set(counts) != {work}
    ]


def _line(model: str, work: str, of: Sequence[Answered], kept: Kept | None, ids: Mapping[str, str]) -> Line:
    base, last = (kept.base.right, kept.last.right) if kept is not None else ({}, {})
    now = {one.probe: bool(one.right) for one in of}
    lost = tuple(sorted(ids[name] for name, right in now.items() if base.get(name, right) and not right))
    won = tuple(sorted(ids[name] for name, right in now.items() if right and not base.get(name, right)))
    before = [last[name] for name in now if name in last]
    costs = [one.cost_nano for one in of]
    cost = None if None in costs else sum(cost for cost in costs if cost is not None)
    right = sum(now.values())
    p = p_fallen(len(lost), len(won))
    return Line(model, work, right, len(now), sum(before), len(before), lost, won, p, cost)


def _better(base: Round, right: Mapping[str, bool], alpha: float) -> bool:
    both = [(base.right[name], now) for name, now in right.items() if name in base.right]
    lost, won = (sum(was is x and now is not x for was, now in both) for x in (True, False))
    return won >= lost and p_fallen(won, lost) <= alpha


def _marked(line: Line, worse: bool) -> Line:
    return Line(
        line.model, line.work, line.right, line.asked, line.last_right, line.last_asked, line.lost, line.won, line.p,
        line.cost_nano, worse,
    )  # fmt: skip
