"""Drift in live traffic: every label moves the watch on its model and task type. Pure.

What is expected of a call is what the weights say of the model, and never what was learned from these labels: that
would follow a model down. Of a request that came before, what is expected is how the model did then (`learner/again`).
Hints about models that did not answer count for nothing here, and what is learned of a call a second time neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from app.core.quarantined import Quarantined
from app.learner.again import IN_ALL, MOST, Requests, name_of
from app.learner.labels import CORRECTION
from app.learner.lesson import Learned
from app.learner.step import Learner
from routers.drift import expectation, knows
from routers.paired import NEW
from routers.quarantine import Name, Watch, cause, hear, new_watch, released, state_of, watch_of

MAX_CELLS: Final = 2_000
"""Models of the policy times task types."""


@dataclass(frozen=True, slots=True)
class Event:
    """A model fell at one kind of work, or is back, and then as it was since `rose_s`."""

    fell: bool
    cell: Quarantined
    rose_s: float = 0.0


@dataclass
class Watching:
    """The watches on all cells, their requests that may come again, each model's provider, and what it stands for
    (`behind`). `let_back`: cells that an operator has let back, since when and until when they were down: what they
    taught meanwhile is to be forgotten."""

    watches: dict[Name, Watch] = field(default_factory=dict)
    requests: dict[Name, Requests] = field(default_factory=dict)
    providers: dict[str, str] = field(default_factory=dict)
    behind: dict[str, str] = field(default_factory=dict)
    let_back: list[tuple[str, str, float, float]] = field(default_factory=list)

    def saw(self, record: Mapping[str, Any]) -> None:
        """Note whose the candidates of a decision are. Another model under an old name is watched anew."""
        for candidate in (record.get("decision") or {}).get("candidates") or ():
            model = candidate["model"]
            self.providers[model] = candidate.get("provider") or ""
            stands_for = candidate.get("stands_for") or model
            if self.behind.setdefault(model, stands_for) != stands_for:
                self.behind[model] = stands_for
                self.watches = {name: watch for name, watch in self.watches.items() if name[0] != model}
                self.requests = {name: known for name, known in self.requests.items() if name[0] != model}

    def hear(self, learner: Learner, learned: Sequence[Learned]) -> list[Event]:
        """Take in what was learned; who fell, and who is back."""
        events = []
        for one in learned:
            lesson = learner.lessons.get(one.request_id)
            if lesson is None or not lesson.labels or not one.first:
                continue
            label, arm, name = lesson.labels[0], lesson.arms.get(one.model), (one.model, one.task_type)
            if label.model != one.model or one.model != lesson.call.model or label.source == CORRECTION or arm is None:
                continue
            if name not in self.watches and len(self.watches) >= MAX_CELLS:
                continue
            before = self.watches.get(name)
            if before is None:  # each remembers fewer: those too that are not heard of any more
                before = self.watches[name] = new_watch()
                for known in self.requests.values():
                    known.bound(self._most())
            expected = float(one.demand.u @ learner.base.ability(arm).mean)
            requests, request = self.requests.setdefault(name, Requests()), name_of(lesson.call, label)
            past = requests.past(request)
            if lesson.call.probe and past.history == NEW:
                # A set may be harder than users' requests are: what it is the first time is all that it is held to.
                self._remember(requests, request, label.said, before, before.cell.labels)
                continue
            if past.history != NEW and (before.fallen is None or knows(before.cell, past.history)):
                outcome, weight = label.said, label.scale * label.part
            else:
                outcome, weight = label.told(expectation(before.cell, expected))
            after = self.watches[name] = hear(before, expected, outcome, weight, one.said_s, past)
            self._remember(requests, request, label.said, before, after.cell.labels)
            if after.fallen is None:
                requests.since.clear()
            elif before.fallen is None:
                requests.take_back(after.cell.labels - after.fallen.window)
            if (after.fallen is None) != (before.fallen is None):
                rose_s = 0.0 if before.fallen is None else before.fallen.rising_s or one.said_s
                fell = after.fallen is not None
                events.append(Event(fell, self._told(name, after if fell else before), rose_s))
        return events

    def _remember(self, requests: Requests, request: str, outcome: float, before: Watch, at: int) -> None:
        if before.fallen is None:
            requests.heard(request, outcome, self._most(), at)
        else:
            requests.probed(request, outcome, self._most())

    def _most(self) -> int:
        """Requests that each cell may remember."""
        return min(MOST, IN_ALL // len(self.watches))

    def down(self) -> tuple[Quarantined, ...]:
        """All that have fallen and are not back, with what it is laid to by now."""
        return tuple(self._told(name, watch) for name, watch in sorted(self.watches.items()) if watch.fallen)

    def _told(self, name: Name, watch: Watch) -> Quarantined:
        fallen = watch.fallen
        assert fallen is not None
        leaning = {other: w.leaning for other, w in self.watches.items()}
        laid_to = cause(name, leaning, self.providers).value
        return Quarantined(
            *name, fallen.since_s, round(fallen.level, 4), round(fallen.drop, 4), laid_to, round(fallen.paired, 3)
        )

    def release(self, model: str, task_type: str, now_s: float) -> bool:
        """Let a model back by the operator's word; False where it was not in quarantine."""
        watch = self.watches.get((model, task_type))
        if watch is None or watch.fallen is None:
            return False
        self.watches[model, task_type] = released(watch)
        self.requests.setdefault((model, task_type), Requests()).since.clear()
        self.let_back.append((model, task_type, watch.fallen.since_s, now_s))
        return True

    def forget(self, learner: Learner) -> bool:
        """Have forgotten what those taught while they were down whom an operator has let back; True where any were."""
        gone, self.let_back = self.let_back, []
        for cell in gone:
            learner.forget(*cell)
        return bool(gone)

    def state(self) -> dict[str, Any]:
        """JSON-ready."""
        cells = [[*name, state_of(watch)] for name, watch in sorted(self.watches.items())]
        requests = [[*name, known.state()] for name, known in sorted(self.requests.items())]
        return {
            "cells": cells,
            "requests": requests,
            "providers": self.providers,
            "behind": self.behind,
            "let_back": self.let_back,
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Watching:
        """What `state` gave; nothing, for nothing."""
        watches = {(model, task): watch_of(kept) for model, task, kept in state.get("cells", ())}
        requests = {(model, task): Requests.of_state(kept) for model, task, kept in state.get("requests", ())}
        let_back = [tuple(one) for one in state.get("let_back", ())]
        return cls(watches, requests, dict(state.get("providers", {})), dict(state.get("behind", {})), let_back)


def differ(one: Iterable[Quarantined], other: Iterable[Quarantined]) -> bool:
    """Whether two lists differ in who is in quarantine, or why."""
    names = ({(q.model, q.task_type, q.cause) for q in found} for found in (one, other))
    return next(names) != next(names)
