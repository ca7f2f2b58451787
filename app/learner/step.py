"""One step of learning: traces and words go in, beliefs come out. Pure; time is an argument.

What each call has taught is kept for a window of calls, so that a word that comes late, twice, or in another's place
changes what the call teaches, and no more: its old evidence is divided out of the belief and the new one multiplied in.
In whatever order words come the evidence is the same; only the expectation against which each was taken in differs.
Calls that leave the window keep what they taught; one on which a word comes later is looked up (`learner/late.py`).

A tenth of the labels is held out: snapshots are judged by them, among others, before they are published
(`learner/trial.py`). When newer ones take their place they are learned as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from app.core.feedback import Feedback
from app.learner.credit import may_speak, spoken
from app.learner.guard import Guard
from app.learner.labels import CORRECTION, Call, Label, hint_of, label_of
from app.learner.late import Late, lessons_late
from app.learner.lesson import NEVER, Learned, Lesson, Malformed, is_held, lesson_of, order_of
from app.learner.signs import SETTLED_S, around, signs_of
from app.learner.sources import SIGNS, Sources, Told
from routers.base import Arm
from routers.belief import Belief, same_model
from routers.kinds import Demand, extended
from routers.learned import LearnedRouter
from routers.live import prior_of

WINDOW: Final = 10_000
"""Calls whose lessons can still change."""
MAX_THINGS: Final = 10_000
"""Calls and tasks of which words are kept though their traces have not come."""
MAX_HELD: Final = 400
FAINT: Final = 0.001
"""Of a task's word, a call is told nothing whose credit is less."""
OfTasks = dict[str, dict[str, list[Told]]]
MAX_JUDGED: Final = 3
"""How often the guard hears the words on one call: who changes its word cannot do so without being judged, nor be
judged good for it for ever."""


@dataclass
class Learner:
    """All that is known and kept. `base` gives items and priors; `term` is the snapshot in force; `labels` counts what
    was learned that it does not hold; `unheard` counts calls that were not kept until all their signs had spoken;
    `tasks` names each one's calls."""

    base: LearnedRouter
    belief: Belief = field(init=False)
    sources: Sources = field(default_factory=Sources)
    guard: Guard = field(default_factory=Guard)
    lessons: dict[str, Lesson] = field(default_factory=dict)
    words: dict[str, dict[tuple[str, str], Feedback]] = field(default_factory=dict)
    held: dict[str, None] = field(default_factory=dict)
    term: int = 0
    labels: int = 0
    late: Late = field(default_factory=Late)
    malformed: int = 0
    unheard: int = 0

    def __post_init__(self) -> None:
        self.prior, self.belief = (prior := prior_of(self.base)), prior.begin()
        self._after_s = float("-inf") if self.base.house is None else self.base.house.until_s
        self.tasks: dict[str, list[str]] = {}
        self._due: dict[str, None] = {}
        self._open: dict[str, None] = {}
        self._strangers: dict[str, None] = {}
        self._behind: dict[str, tuple[float, Arm]] = {}
        self._apart: dict[str, Belief] = {}

    def saw(self, records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Take in finished calls, in any order; one that came before, or that the weights were taught by, is not taken
        again. Those that are traces, whether taken or not: `malformed` counts the others."""
        found = []
        for record in records:
            try:
                lesson = lesson_of(record, self.base)
            except Malformed:
                self.malformed += 1
                continue
            found.append(record)
            if lesson is not None and self._is_news(lesson.call):
                self.late.read_until_s = max(self.late.read_until_s, lesson.call.ended_s)
                if lesson.call.completed and not lesson.call.probe:
                    self.guard.saw(lesson.call)
                if len(self.lessons) < WINDOW or not self._is_passed_over(lesson):
                    self._keep(lesson)
                else:
                    self.unheard += 1
        return found

    def recall(self, asked: Iterable[str], records: Sequence[Mapping[str, Any]]) -> None:
        """Take in calls that were looked up for the words on them; words on what is gone or teaches nothing go."""
        for lesson in lessons_late(records, self.base):
            if self._is_news(lesson.call):
                self._keep(lesson)
        for name in self.late.looked_up(asked, records, self.lessons):
            self._strangers.pop(name, None)
            self.words.pop(name, None)

    def _is_news(self, call: Call) -> bool:
        return call.created_s > self._after_s and call.request_id not in self.lessons

    def _is_passed_over(self, lesson: Lesson) -> bool:
        """Whether the full window waits for its calls' signs, and nobody speaks of this one, nor will of its task."""
        if lesson.task is not None or lesson.call.request_id in self.words:
            return False
        # Where it ended long before the oldest, a clock was ahead: what that one waits for is not to come soon.
        return abs(lesson.call.ended_s - next(iter(self.lessons.values())).call.ended_s) < SETTLED_S

    def _keep(self, lesson: Lesson) -> None:
        """Take in one call."""
        call = lesson.call
        self.lessons[call.request_id] = lesson
        self.attach(lesson)
        if call.request_id in self.words:
            self._due[call.request_id] = None
        if (task := lesson.task) is not None and task in self.words:
            self._due.update(dict.fromkeys(self.tasks[task]))  # they share the word anew

    def attach(self, lesson: Lesson) -> None:
        """Note a lesson that is in `lessons` under its task, as open where its signs may still change, and what its
        models' names stand for."""
        call = lesson.call
        self._strangers.pop(call.request_id, None)
        self.late.wanted.pop(call.request_id, None)
        for name, arm in lesson.arms.items():
            if name not in self._behind or self._behind[name][0] <= call.created_s:
                self._behind[name] = call.created_s, arm
        if (task := lesson.task) is not None:
            self.tasks.setdefault(task, []).append(call.request_id)
            self._strangers.pop(task, None)
        if not lesson.settled:
            self._open[call.request_id] = None

    def said(self, words: Iterable[Feedback]) -> None:
        """Take in words, in the order in which they were stored: a later one replaces what the same speaker said."""
        for word in words:
            self.remember(word)
            if word.thing in self.lessons:
                self._due[word.thing] = None
            self._due.update(dict.fromkeys(self.tasks.get(word.thing, ())))
        while len(self._strangers) > MAX_THINGS:
            self.words.pop(name := next(iter(self._strangers)))
            self.late.wanted.pop(name, None)
            del self._strangers[name]

    def remember(self, word: Feedback) -> None:
        """Keep a word, unless it is too late."""
        if word.thing not in self.lessons and word.thing not in self.tasks:
            if not self.late.missed(word):
                return
            self._strangers[word.thing] = None
        self.words.setdefault(word.thing, {})[word.by, word.source] = word

    def step(self, now_s: float) -> list[Learned]:
        """Learn what has come; what was learned, in the order of the calls."""
        # In a busy house calls of tasks leave before their signs are final: those that have spoken by then are heard.
        leaving = set(itertools.islice(self.lessons, max(len(self.lessons) - WINDOW, 0)))
        for request_id in [name for name in self._open if name in leaving or self.lessons[name].settles(now_s)]:
            del self._open[request_id]
            self._due[request_id] = None
            self.unheard += not self.lessons[request_id].settles(now_s)
        due = sorted((self.lessons[name] for name in self._due if name in self.lessons), key=order_of)
        self._due.clear()
        self._apart.clear()
        if due:
            known = (lesson.call for lesson in self.lessons.values() if not lesson.call.probe)
            signs = signs_of(around([lesson.call for lesson in due], known), now_s)
            for lesson in due:
                lesson.signs = tuple(signs.get(lesson.call.request_id, lesson.signs))
                name = lesson.call.request_id
                lesson.settled = name in leaving or self.lessons[name].settles(now_s)
        of_tasks: OfTasks = {}
        found = [learned for lesson in due for learned in self._hear(lesson, of_tasks)]
        if due:
            self._sort_out()
        while len(self.held) > MAX_HELD:
            self._release(next(iter(self.held)))
        self._forget()
        return found

    def learn_held(self) -> None:
        """Learn all that is held out: nothing is tested by it any more."""
        for request_id in list(self.held):
            self._release(request_id)

    def probability(self, belief: Belief, model: str, demand: Demand) -> float:
        """P(success) of a model by a belief, which must know it."""
        mean, variance = belief.logit(model, extended(demand))
        spread = variance + belief.noise(model, demand)
        return float(1.0 / (1.0 + np.exp(-mean / np.sqrt(1.0 + np.pi / 8.0 * spread))))

    def rolled_back(self, belief: Belief, term: int) -> None:
        """Go on from an earlier snapshot's belief: what was learned or held out since it was published is forgotten."""
        self.belief, self.labels = belief, 0
        for request_id, lesson in self.lessons.items():
            if lesson.term >= term:
                lesson.sites, lesson.since, lesson.term = (), NEVER, NEVER
                self.held.pop(request_id, None)
        self.term = term

    def published(self, number: int, *, left_out: bool) -> None:
        """A snapshot is in force that holds all that was learned; or, `left_out`, nothing since the one before it."""
        if left_out:
            for lesson in self.lessons.values():
                lesson.since = number if lesson.since == self.term else lesson.since
                lesson.term = number if lesson.term == self.term else lesson.term
        else:
            self.labels = 0
        self.term = number

    def _told(self, lesson: Lesson, of_tasks: OfTasks) -> tuple[tuple[Told, ...], list[Feedback]]:
        """What is said of a call, with its part of what is said of its task; and the words on itself. `of_tasks` keeps,
        for the rest of a step, what is said of each task's calls."""
        call, task = lesson.call, lesson.task
        own = [word for word in self.words.get(call.request_id, {}).values() if may_speak(word, call)]
        if task is None or task not in self.words:
            found = spoken([call], own).get(call.request_id, [])
        else:
            if task not in of_tasks:
                mates = [self.lessons[name].call for name in self.tasks[task]]
                things = [*(mate.request_id for mate in mates), task]
                of_tasks[task] = spoken(mates, [w for name in things for w in self.words.get(name, {}).values()])
            found = [word for word in of_tasks[task].get(call.request_id, []) if word.part >= FAINT]
        # Signs that may still change wait, unless somebody has spoken: they are evidence on him, too.
        signs = lesson.signs if lesson.settled or found else ()
        return (*found, *signs), own

    def _hear(self, lesson: Lesson, of_tasks: OfTasks) -> list[Learned]:
        """Learn what is now known of a call, in the place of what was."""
        call = lesson.call
        told, own = self._told(lesson, of_tasks)
        hints = [hint for word in own if (hint := hint_of(call, word, self.sources)) is not None]
        rests_on = (*told, *(Told(CORRECTION, 1.0, hint.key) for hint in hints))
        if not call.completed or rests_on == lesson.told:
            return []
        said_s = max((word.said_s for word in own), default=call.ended_s)
        expected = self._expected(lesson, call.model)
        labels = [label_of(call, told, self.sources, said_s), *hints]
        given = [label for label in labels if label is not None and self.is_current(lesson, label.model)]
        if call.probe:
            return self._watched(lesson, rests_on, given[:1])
        admitted = self._admitted(lesson, given, own)
        if not lesson.sources_heard and any(word.source not in SIGNS for word in told):
            lesson.sources_heard = True
            self.sources.learn(told, expected)
        first = not lesson.labels
        self._unlearn(lesson)
        lesson.told, lesson.labels = rests_on, tuple(admitted)
        lesson.admitted = () if any(word.admin for word in own) else tuple(label.scale for label in admitted)
        if lesson.admitted:
            lesson.weigh(self.guard.out, self.guard.cleared)
        if not admitted:
            self.held.pop(call.request_id, None)
            return []
        if call.request_id in self.held or (first and is_held(lesson.unit)):
            self.held.setdefault(call.request_id, None)
            lesson.term = self.term
            return [self._noted(lesson, label, first=first, held=True) for label in admitted[:1]]
        return self._learn(lesson, first=first)

    def _watched(self, lesson: Lesson, rests_on: tuple[Told, ...], labels: list[Label]) -> list[Learned]:
        """What a probe teaches: whether its model is still as it was, and nothing else. The set is asked again and
        again and is not users' work, so it says nothing of how good a model is there, nor who is honest."""
        first, lesson.told, lesson.labels = not lesson.labels, rests_on, tuple(labels)
        return [self._noted(lesson, label, first=first, held=True) for label in labels]

    def _admitted(self, lesson: Lesson, given: list[Label], own: list[Feedback]) -> list[Label]:
        """The labels with what the guard leaves of them. Its books are changed by what is new."""
        admin = any(word.admin for word in own)
        before = {(label.model, label.source): label for label in lesson.labels}
        least = min(lesson.admitted, default=1.0)
        found = []
        for label in given:
            same = before.get((label.model, label.source))
            heard = same is not None and (same.high > 0.0) == (label.high > 0.0)
            if heard or lesson.judged >= MAX_JUDGED:
                found.append(label if admin else self.guard.again(replace(label, scale=least)))
            else:
                lesson.judged += 1
                found.append(self.guard.admit(label, admin=admin))
        return found

    def _learn(self, lesson: Lesson, *, first: bool) -> list[Learned]:
        found, sites = [], []
        for label in lesson.labels:
            if label.model not in lesson.arms or not self.is_current(lesson, label.model):
                continue
            found.append(self._noted(lesson, label, first=first, held=False))
            site = self.belief.site(label.model, lesson.demand, found[-1].outcome, found[-1].weight)
            self.belief = self.belief.told(site)
            sites.append(site)
        lesson.sites, lesson.term = tuple(sites), self.term
        lesson.since = self.term if lesson.since == NEVER else lesson.since
        self.labels += 1
        return found

    def forget(self, model: str, task_type: str, since_s: float, until_s: float) -> None:
        """Take back what a model taught at one kind of work in a time, as far as the window goes: it was not itself.
        Snapshots are not judged by it either."""
        for request_id, lesson in self.lessons.items():
            call = lesson.call
            if (call.model, call.task_type) != (model, task_type) or not lesson.labels:
                continue
            if since_s <= lesson.labels[0].said_s < until_s:
                self._unlearn(lesson)
                lesson.labels = lesson.admitted = ()
                self.held.pop(request_id, None)

    def _sort_out(self) -> None:
        """Learn again what keys taught of which it is now known, or doubted again, whether they are honest."""
        changed = self.guard.sort_out()
        for lesson in self.lessons.values() if changed else ():
            if lesson.admitted and any(label.key in changed for label in lesson.labels):
                lesson.weigh(self.guard.out, self.guard.cleared)
                if lesson.sites:
                    self._unlearn(lesson)
                    self._learn(lesson, first=False)

    def is_current(self, lesson: Lesson, name: str) -> bool:
        """Whether the model of this name that a call knew is the one that the name stands for since: of one that is
        gone nothing is learned, and nothing that it taught is in the belief any more."""
        arm = lesson.arms.get(name)
        return arm is None or same_model(arm, self._behind[name][1])

    def without(self, *lessons: Lesson) -> Belief:
        """What would be believed, had these lessons not been learned."""
        belief = self.belief
        for lesson, site in [(one, site) for one in lessons for site in reversed(one.sites)]:
            if self.is_current(lesson, site.model):
                belief = belief.told(site, back=True)
        return belief

    def told_with(self, lesson: Lesson) -> list[Lesson]:
        """The lessons of its unit that are in the belief."""
        names = self.tasks[lesson.unit] if lesson.unit == lesson.task else [lesson.call.request_id]
        return [mate for mate in map(self.lessons.__getitem__, names) if mate.sites and mate.unit == lesson.unit]

    def _unlearn(self, lesson: Lesson) -> None:
        self.belief, lesson.sites = self.without(lesson), ()

    def _release(self, request_id: str) -> None:
        """Learn what was held out the longest; it was noted when it came."""
        del self.held[request_id]
        lesson = self.lessons.get(request_id)
        if lesson is not None and not lesson.sites:
            self._learn(lesson, first=False)

    def _noted(self, lesson: Lesson, label: Label, *, first: bool, held: bool) -> Learned:
        expected = self._expected(lesson, label.model)
        outcome, weight = label.told(expected)
        if first and lesson.unit == lesson.task:
            expected = self._expected(lesson, label.model, self._without_unit(lesson))
        return Learned(
            label.request_id, label.model, label.task_type, lesson.demand, label.source, label.key, label.said_s,
            expected, outcome, weight, first, held,
        )  # fmt: skip

    def _without_unit(self, lesson: Lesson) -> Belief:
        """What was believed before anything of a unit was learned in this step, without what was before."""
        if lesson.unit not in self._apart:
            self._apart[lesson.unit] = self.without(*self.told_with(lesson))
        return self._apart[lesson.unit]

    def _expected(self, lesson: Lesson, model: str, belief: Belief | None = None) -> float:
        """P(success) by the learner's belief, which learns of the model where it did not know it, or by another."""
        arm = lesson.arms.get(model)
        if arm is None or not self.is_current(lesson, model):
            return lesson.call.expected
        there = self.belief.own.get(arm.name)
        if there is None or there.arm != arm:
            self.belief = self.prior.joined(self.belief, arm, self.base.ability(arm))
        if belief is not None:
            belief = self.prior.joined(belief, arm, self.base.ability(arm))
        return self.probability(belief or self.belief, model, lesson.demand)

    def _forget(self) -> None:
        """Let the oldest calls leave the window; what they taught stays."""
        while len(self.lessons) > WINDOW:
            request_id, lesson = next(iter(self.lessons.items()))
            if request_id in self.held:
                self._release(request_id)
            if lesson.labels and any(word.source not in SIGNS for word in lesson.told):
                self.late.left(request_id)
            del self.lessons[request_id]
            self._open.pop(request_id, None)
            self.words.pop(request_id, None)
            if (task := lesson.task) is not None:
                mates = self.tasks[task]
                mates.remove(request_id)
                if not mates:
                    del self.tasks[task]
                    self.words.pop(task, None)
