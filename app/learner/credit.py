"""Credit: which calls answer for what was said of them and of their task.

A task's outcome is credited to those of its completed calls for which a model was chosen, the last one most: each
earlier one CREDIT times the next, and all together one label at most. Calls that only go on with the model of an open
tool loop get nothing: it is the choice at the loop's beginning that is to be made better. What is divided is the
label's weight and not its evidence: weakened evidence would explain failures away, the more the longer tasks are, and
P(success) is to be that of the tasks which a model is given. Where several models made a task's calls the label of each
call weighs as much less as the task was not its model's; to believe the word less instead would draw P(success) away
from the middle (of tasks of two models of which 4 in 10 succeed it would be 0.15). A call of which the same speaker has
said something itself takes nothing from its task.

A task may go on after a word: a session under one name, one that was cut and resumed. What it does then has no part in
what was said before, unless nothing had been done by then and the word came ahead of all its calls.

A probe that names a user's task is no step of it.

A task was broken off where its last call before the word was stopped: by a cap, a clock, the provider or the gateway.
How it would have turned out nobody knows, so that nothing is learned of what is said of it, good or bad: to hear only
successes of such tasks would flatter their models. Two things are the models' all the same. Who was going in circles
when it was stopped (the tool loops of `learner/signs.py`) has burned the cap, and answers for the task alone; and who
says that a stronger model should have been used speaks of the choice, and not of the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from app.core.feedback import Correction, Feedback, task_thing
from app.learner.labels import Call, told_of
from app.learner.signs import circling
from app.learner.sources import TASK, Told

CREDIT: Final = 0.9


def credits_of(n: int) -> list[float]:
    """The parts of one label that each of a task's n calls gets, in order; see the module's rule."""
    shares = [CREDIT ** (n - 1 - place) for place in range(n)]
    return [share / sum(shares) for share in shares]


def may_speak(word: Feedback, call: Call) -> bool:
    """Whether a word counts for a call: its key's own, or an admin's. Unmatched words were not checked when said."""
    return word.admin or word.by == call.key


def spoken(calls: Sequence[Call], words: Iterable[Feedback]) -> dict[str, list[Told]]:
    """What was said of each call by its request id: of itself, and as its part of its task. `calls` are all that are
    known of the tasks in question, in any order."""
    by_id = {call.request_id: call for call in calls if call.completed}
    tasks: dict[str, list[Call]] = {}
    for call in sorted(calls, key=lambda call: (call.created_s, call.request_id)):
        if call.task_id is not None:
            tasks.setdefault(task_thing(call.key, call.task_id), []).append(call)
    found: dict[str, list[Told]] = {}
    said: set[tuple[str, str, str]] = set()
    of_tasks: list[Feedback] = []
    for word in words:
        call_said_of = by_id.get(word.thing)
        if call_said_of is not None and may_speak(word, call_said_of):
            found.setdefault(word.thing, []).append(told_of(word))
            said.add((word.thing, word.by, word.source))
        elif word.thing in tasks:
            of_tasks.append(word)
    for word in of_tasks:
        told, every = told_of(word), tasks[word.thing]
        steps = _answerable(every, word)
        of_whom = TASK if len(steps) > 1 else ""
        credits, mine = credits_of(len(steps)), dict[str, float]()
        for call, credit in zip(steps, credits, strict=True):
            mine[call.model] = mine.get(call.model, 0.0) + credit
        for call, credit in zip(steps, credits, strict=True):
            if may_speak(word, call) and (call.request_id, word.by, word.source) not in said:
                part = min(credit * mine[call.model], 1.0)
                found.setdefault(call.request_id, []).append(replace(told, source=of_whom + told.source, part=part))
    return found


def _answerable(task: Sequence[Call], word: Feedback) -> list[Call]:
    """The calls of a task, which are in order, that answer for what a word says of it."""
    task = [call for call in task if not call.probe] or task
    task = [call for call in task if call.created_s <= word.said_s] or task
    done = [call for call in task if call.completed]
    if not task[-1].stopped or word.correction is Correction.SHOULD_HAVE_USED_STRONGER:
        return [call for call in done if not call.goes_on] or done
    loop = circling(done)
    chosen = [call for call in loop if not call.goes_on]
    if loop and not chosen:  # the choice came before the first answer that was given again
        before = [call for call in done if call.created_s < loop[0].created_s and call.model == loop[0].model]
        chosen = [call for call in before if not call.goes_on][-1:] or loop
    return chosen
