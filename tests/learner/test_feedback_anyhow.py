"""Feedback late, replaced, repeated and in any order, from the store to what calls are said to have been: over both
stores, what is known in the end depends on the last word of each speaker alone."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.core.feedback import Correction, Feedback, Speaker, Turned, task_thing
from app.learner.labels import call_of
from app.learner.sources import Told
from app.learner.step import Learner
from app.stores.outcomes import OtherWord, Outcomes, Put
from app.stores.outcomes_redis import RedisOutcomes
from app.stores.outcomes_sqlite import SqliteOutcomes
from tests.learner.calls import BASE, call_id, record
from tests.redis_server import shared_server

CALLS, NOW_S = 12, 1_100.0
"""Signs of these calls have not settled by then: words are all there is."""
numbers = itertools.count()


@pytest.fixture(params=["sqlite", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Outcomes]:
    made: Outcomes
    if request.param == "sqlite":
        made = SqliteOutcomes(tmp_path / "outcomes.sqlite")
    else:
        made = RedisOutcomes(shared_server().url, namespace=f"anyhow-{next(numbers)}")
    await made.start()
    yield made
    await made.close()


def drawn(rng: random.Random) -> Feedback:
    """A word of somebody on some call or task."""
    things = [*(call_id(n) for n in range(CALLS)), task_thing("alice", "t0"), task_thing("alice", "t1")]
    by = rng.choice(["alice", "boss", "mallory"])  # the last may speak of nothing here
    return Feedback(
        rng.choice(things),
        by,
        rng.choice(list(Speaker)),
        rng.choice(list(Turned)),
        5_000.0 + rng.random(),
        "alice",
        admin=by == "boss",
        score=rng.choice([None, None, 0.25]),
        correction=rng.choice([None, None, None, *Correction]),
    )


def told_of(learner: Learner) -> dict[str, list[tuple[str, str, float, float, float]]]:
    """What is known of each call, in no order."""

    def fact(told: Told) -> tuple[str, str, float, float, float]:
        return told.source, told.key, round(told.good, 9), round(told.strength, 9), round(told.part, 9)

    return {name: sorted(map(fact, lesson.told)) for name, lesson in learner.lessons.items()}


@pytest.mark.parametrize("seed", range(6))
async def test_only_the_last_word_of_each_speaker_counts(store: Outcomes, seed: int) -> None:
    rng = random.Random(seed)
    calls = [record(n, task_id=(None, "t0", "t1")[n % 3]) for n in range(CALLS)]
    waiting = rng.sample(calls, CALLS)
    learner, cursor = Learner(BASE), 0
    last: dict[tuple[str, str, Speaker], Feedback] = {}
    sent: dict[str, tuple[Feedback, bytes]] = {}

    async def read(limit: int) -> bool:
        nonlocal cursor
        found = await store.since(cursor, limit)
        learner.said([word for _, word in found])
        cursor = found[-1][0] if found else cursor
        return bool(found)

    for number in range(120):
        if sent and rng.random() < 0.25:  # what a client sends again
            repeat_key = rng.choice(list(sent))
            word, digest = sent[repeat_key]
            assert await store.put(word, repeat_key=repeat_key, digest=digest) is Put.REPEATED
            with pytest.raises(OtherWord):
                await store.put(word, repeat_key=repeat_key, digest=b"other")
        else:
            word, repeat_key = drawn(rng), f"{number}"
            speaker = (word.thing, word.by, word.source)
            put = await store.put(word, repeat_key=repeat_key, digest=b"%d" % number)
            assert put is (Put.REPLACED if speaker in last else Put.NEW)
            last[speaker], sent[repeat_key] = word, (word, b"%d" % number)
        if rng.random() < 0.3:
            await read(rng.randint(1, 7))
        if waiting and rng.random() < 0.2:
            learner.saw([waiting.pop()])
        if rng.random() < 0.2:
            learner.step(NOW_S)
    learner.saw(waiting)
    while await read(rng.randint(1, 7)):
        pass
    learner.step(NOW_S)

    things = {thing for thing, _, _ in last}
    kept = await store.about(sorted(things))
    assert sorted(map(repr_of, kept)) == sorted(map(repr_of, last.values()))
    straight = Learner(BASE)
    straight.saw(calls)
    straight.said(last.values())
    straight.step(NOW_S)
    assert told_of(learner) == told_of(straight)
    spoken = {key for told in told_of(learner).values() for _, key, *_ in told}
    assert "mallory" not in spoken
    assert {"alice", "boss"} <= spoken
    assert all(call_of(call).completed for call in calls)


def repr_of(word: Feedback) -> str:
    return f"{word!r} {word.said_s} {word.score} {word.correction}"
