"""Weak labels that nobody had to say: what showed in an answer, and in what the client did next.

Each is a source of its own (`learner/sources.py` weighs it): a word "bad" where it shows, "good" where it could have
shown and did not, nothing where it could not. A sign that depends on what comes next speaks only once that time is
over, so the same calls always give the same words.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from app.core.seen import Seen
from app.learner.labels import Call
from app.learner.sources import (
    ASKED_AGAIN,
    EMPTY,
    MOVED_UP,
    REFUSAL,
    TOOL_LOOP,
    TRUNCATED,
    WRONG_ARGUMENTS,
    WRONG_SHAPE,
    Told,
)

AGAIN_S: Final = 120.0
"""The same prompt within this long of its answer was asked "at once"."""
SAMPLES: Final = 3
"""Who asks the same more often than this within AGAIN_S draws samples, and is not dissatisfied."""
MOVE_S: Final = 600.0
DEARER: Final = 1.5
"""By how many times a model must cost more for a change to it to be a move up."""
LOOP: Final = 3
"""Answers in a row with the same tool calls, or whose tools all failed, that make a loop."""
SETTLED_S: Final = max(AGAIN_S, MOVE_S)
"""After this long every sign of a call has spoken."""
CONTEXT_S: Final = 3 * SETTLED_S
"""What a client did so long before and after tells the signs of a call."""


def around(due: Sequence[Call], calls: Iterable[Call]) -> list[Call]:
    """The calls around those that are due: what clients did before and after."""
    first = min(call.created_s for call in due) - CONTEXT_S
    last = max(call.ended_s for call in due) + CONTEXT_S
    return [call for call in calls if first <= call.created_s <= last]


def signs_of(calls: Iterable[Call], now_s: float) -> dict[str, list[Told]]:
    """The words of all signs on each completed call, by request id. `calls` are all of a stretch of time, in any
    order, those that did not complete too: what a client did next may have failed."""
    ordered = sorted((call for call in calls if call.seen is not None), key=lambda c: (c.created_s, c.request_id))
    again = dict(_asked_again(ordered, now_s))
    moved = dict(_moved_up(ordered, now_s))
    loops = dict(_tool_loops(ordered))
    found: dict[str, list[Told]] = {}
    for call in ordered:
        if not call.completed:
            continue
        shown = _of_the_answer(call)
        for source, later in ((ASKED_AGAIN, again), (MOVED_UP, moved), (TOOL_LOOP, loops)):
            if call.request_id in later:
                shown[source] = later[call.request_id]
        found[call.request_id] = [Told(source, 0.0 if bad else 1.0, call.key) for source, bad in shown.items()]
    return found


def _of_the_answer(call: Call) -> dict[str, bool]:
    """What the answer alone shows."""
    seen = call.seen
    assert seen is not None
    shown = {REFUSAL: seen.refused, EMPTY: seen.empty, TRUNCATED: seen.finish == "length"}
    if seen.shape_ok is not None:
        shown[WRONG_SHAPE] = not seen.shape_ok
    if seen.arguments_ok is not None:
        shown[WRONG_ARGUMENTS] = not seen.arguments_ok
    return shown


def _asked_again(ordered: Sequence[Call], now_s: float) -> Iterator[tuple[str, bool]]:
    """Whether the same key asked the same again, soon after it had the answer."""
    for same in _grouped(ordered, lambda seen: seen.asked):
        starts = [call.created_s for call in same]
        for call in same:
            if now_s < call.ended_s + AGAIN_S:
                continue
            around = bisect_right(starts, call.ended_s + AGAIN_S) - bisect_right(starts, call.created_s - AGAIN_S)
            if around <= SAMPLES:
                yield call.request_id, any(call.ended_s < start <= call.ended_s + AGAIN_S for start in starts)


def _moved_up(ordered: Sequence[Call], now_s: float) -> Iterator[tuple[str, bool]]:
    """Whether the conversation, or the same question, went on with a dearer model that the client named."""
    for same in _grouped(ordered, lambda seen: seen.began):
        for place, call in enumerate(same):
            if now_s >= call.ended_s + MOVE_S and call.seen is not None and call.seen.rate_nano is not None:
                after = same[place + 1] if place + 1 < len(same) else None
                yield call.request_id, after is not None and _is_move_up(call, after)


def _is_move_up(call: Call, after: Call) -> bool:
    assert call.seen is not None
    assert after.seen is not None
    if not after.by_hand or after.requested == call.requested or after.seen.rate_nano is None:
        return False
    in_time = call.ended_s <= after.created_s <= call.ended_s + MOVE_S
    return in_time and after.seen.rate_nano > DEARER * (call.seen.rate_nano or 0)


def _tool_loops(ordered: Sequence[Call]) -> Iterator[tuple[str, bool]]:
    """Whether an answer's tool calls belong to a run of LOOP or more that got nowhere."""
    for same in _grouped(ordered, lambda seen: seen.began):
        run: list[Call] = []
        for call in (call for call in same if call.completed):
            assert call.seen is not None
            if run and not _goes_in_circles(run[-1], call):
                yield from ((stuck.request_id, len(run) >= LOOP) for stuck in run)
                run = []
            if call.seen.calls:
                run.append(call)
        yield from ((stuck.request_id, len(run) >= LOOP) for stuck in run)


def circling(calls: Sequence[Call]) -> list[Call]:
    """The run of LOOP or more answers that get nowhere with which a task's completed calls, in order, end; none where
    the last is in no such run."""
    if not calls or calls[-1].seen is None or not calls[-1].seen.began:
        return []
    run = [calls[-1]]
    for call in reversed(calls[:-1]):
        if call.seen is None or call.seen.began != calls[-1].seen.began:
            continue
        if not _goes_in_circles(call, run[-1]):
            break
        run.append(call)
    return run[::-1] if len(run) >= LOOP and run[-1].seen is not None and run[-1].seen.calls else []


def _goes_in_circles(before: Call, call: Call) -> bool:
    assert before.seen is not None
    assert call.seen is not None
    return bool(call.seen.calls) and (call.seen.tool_failed or call.seen.calls == before.seen.calls)


def _grouped(ordered: Sequence[Call], mark: Callable[[Seen], str]) -> Iterator[list[Call]]:
    """Calls of one key and task whose mark is the same, in order; those without one are left out."""
    groups: dict[tuple[str, str | None, str], list[Call]] = {}
    for call in ordered:
        if call.seen is not None and (found := mark(call.seen)):
            groups.setdefault((call.key, call.task_id, found), []).append(call)
    yield from groups.values()
