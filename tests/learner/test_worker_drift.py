"""The learner at work when models and snapshots go wrong: what is published, taken back, and remembered."""

from __future__ import annotations

import numpy as np
import pytest
from structlog.testing import capture_logs

from app.learner import worker
from app.learner.aftermath import Aftermath
from app.learner.pack import unpack_down
from app.learner.worker import Worker
from app.stores.snapshots import Head, NoSnapshot
from tests.learner.calls import call_id, record, word
from tests.learner.test_worker import House, all_of, house

__all__ = ["house"]


async def served(house: House, made: Worker, first: int, count: int, rate: float) -> list[worker.Done]:
    """Calls of `small` with a verifier's words on them at once, synthetic successes at this rate; learned from."""
    await house.write([record(first + n) for n in range(count)])
    return await judged(house, made, first, count, rate, 0.0)


async def judged(house: House, made: Worker, first: int, count: int, rate: float, late_s: float) -> list[worker.Done]:
    """The words on such calls, so many seconds late."""
    good = np.random.default_rng(first).random(count) < rate
    await house.say(*(
        word(call_id(first + n), "success" if good[n] else "failure", said_s=1_001.0 + first + n + late_s)
        for n in range(count)
    ))  # fmt: skip
    return await all_of(made)


async def test_a_fall_is_published_at_once_and_outlives_the_learner(house: House) -> None:
    one = house.worker(labels=10_000, every_s=1e9)
    await served(house, one, 0, 300, 0.92)
    assert (await house.snapshots.head()).current == 0
    done = await served(house, one, 1_000, 150, 0.5)
    assert [event.cell.model for pass_ in done for event in pass_.events] == ["small"]
    head = await house.snapshots.head()
    (down,) = unpack_down(await house.snapshots.body(head.current))
    assert (down.model, down.task_type, down.cause) == ("small", "chat", "model")
    await one.leave()
    other = house.worker(labels=10_000, every_s=1e9)
    done = await served(house, other, 2_000, 300, 0.97)
    assert [event.fell for pass_ in done for event in pass_.events] == [False]
    head = await house.snapshots.head()
    assert unpack_down(await house.snapshots.body(head.current)) == ()
    # What it taught while it was down is forgotten, and what it taught before is not.
    assert other.learner is not None
    taught: dict[bool, list[float]] = {True: [], False: []}
    for lesson in other.learner.lessons.values():
        taught[bool(lesson.labels)].append(lesson.call.created_s + 1.0)
    assert min(taught[False]) >= down.since_s
    assert [said_s for said_s in taught[True] if down.since_s <= said_s < 3_000.0] == []


async def probed(house: House, made: Worker, first: int, rounds: int, wrong: int = 0) -> list[worker.Done]:
    """Rounds of 60 probe requests, pinned to `small` by name; 54 are right by a program's word, but for `wrong`."""
    calls = range(first, first + 60 * rounds)
    await house.write(
        [record(n, requested_model="small", seen={"began": "b", "asked": f"a{n * 37 % 60}"}) for n in calls]
    )
    await house.say(*(
        word(call_id(n), "success" if wrong <= n * 37 % 60 < 54 else "failure", source="program", said_s=1_001.0 + n)
        for n in calls
    ))  # fmt: skip
    return await all_of(made)


async def test_probe_requests_are_remembered_across_learners(house: House) -> None:
    """The model falls while no learner runs; the next one knows what the first had heard."""
    one = house.worker(labels=10_000, every_s=1e9)
    await probed(house, one, 0, 10)
    await one.leave()
    other = house.worker(labels=10_000, every_s=1e9)
    with capture_logs() as logs:
        done = await probed(house, other, 1_200, 4, wrong=6)
    assert [event.cell.model for pass_ in done for event in pass_.events] == ["small"]
    (told,) = [log for log in logs if log["event"] == "a model became worse at one kind of work"]
    assert told["paired"] > 0.9
    head = await house.snapshots.head()
    (down,) = unpack_down(await house.snapshots.body(head.current))
    assert down.paired == told["paired"]


async def test_after_a_rollback_who_is_in_quarantine_stays_there(house: House) -> None:
    made = house.worker(labels=10_000, every_s=1e9)
    await served(house, made, 0, 300, 0.92)
    await served(house, made, 1_000, 150, 0.5)
    await house.snapshots.rollback(0)
    await all_of(made)
    head = await house.snapshots.head()
    assert [one.model for one in unpack_down(await house.snapshots.body(head.current))] == ["small"]


@pytest.mark.parametrize("keep", [1, 10])
async def test_a_snapshot_that_live_outcomes_speak_against_is_taken_back(house: House, keep: int) -> None:
    made, house.now_s = house.worker(labels=100, every_s=1e9, keep=keep), 2_400.0
    await served(house, made, 0, 100, 0.95)
    first = (await house.snapshots.head()).current
    await served(house, made, 1_000, 100, 0.0)  # a verifier that is broken
    second = (await house.snapshots.head()).current
    assert second > first
    house.now_s = 2_500.0
    done = await served(house, made, 2_000, 95, 0.97)
    assert any(pass_.went_back for pass_ in done)
    told = {one.number: one.status for one in await house.snapshots.told()}
    assert told[second] == "rolled_back"


@pytest.mark.parametrize("keep", [1, 10])
async def test_what_is_published_meanwhile_does_not_end_the_judgement(house: House, keep: int) -> None:
    made, house.now_s = house.worker(labels=30, every_s=1e9, keep=keep), 2_400.0
    await served(house, made, 0, 120, 0.95)
    first = (await house.snapshots.head()).current
    await served(house, made, 1_000, 120, 0.0)  # a verifier that is broken
    assert (await house.snapshots.head()).current == first + 1
    house.now_s = 2_500.0
    passes = [done for n in range(4) for done in await served(house, made, 2_000 + 100 * n, 35, 0.97)]
    assert any(done.made is not None and done.made.number == first + 2 for done in passes)
    assert any(done.went_back for done in passes)
    told = {one.number: one.status for one in await house.snapshots.told()}
    assert (told[first], told[first + 1], told[first + 2]) == ("published", "rolled_back", "rolled_back")


async def test_words_that_come_later_than_snapshots_judge_them_too(house: House) -> None:
    """Every word is on a call from before the latest snapshot."""
    made, house.now_s = house.worker(labels=30, every_s=1e9), 2_400.0
    await served(house, made, 0, 120, 0.95)
    first, house.now_s = (await house.snapshots.head()).current, 3_050.0
    await served(house, made, 1_000, 120, 0.0)  # a verifier that is broken
    assert (await house.snapshots.head()).current == first + 1
    passes = []
    for n in range(5):
        await house.write([record(2_000 + 100 * n + one) for one in range(35)])
        house.now_s = 3_150.0 + 100 * n
        passes += await judged(house, made, 2_000 + 100 * n, 35, 0.97, 110.0)
    assert any(done.went_back for done in passes)
    told = {one.number: one.status for one in await house.snapshots.told()}
    assert (told[first], told[first + 1]) == ("published", "rolled_back")


async def test_where_the_one_before_is_gone_the_snapshot_in_force_stays(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, house.now_s = house.worker(labels=100, every_s=1e9), 2_400.0
    await served(house, made, 0, 100, 0.95)
    await served(house, made, 1_000, 100, 0.0)
    second = (await house.snapshots.head()).current
    monkeypatch.setattr(house.snapshots, "rollback", gone)
    done = await served(house, made, 2_000, 95, 0.97)
    assert not any(pass_.went_back for pass_ in done)
    assert (await house.snapshots.head()).current > second


async def gone(number: int | None) -> Head:
    raise NoSnapshot(f"{number}")


async def test_a_clock_that_is_set_back_keeps_nothing_from_judging(house: House) -> None:
    made, house.now_s = house.worker(labels=20, every_s=1e9), 2_400.0
    await served(house, made, 0, 60, 0.95)
    house.now_s = 90_000.0
    await served(house, made, 1_000, 60, 0.95)
    made._aftermath.labels = 1  # something was heard before the clock was set right
    house.now_s = 3_500.0
    await served(house, made, 2_000, 60, 0.95)
    assert made._aftermath.since_s == house.now_s


async def test_one_that_is_as_good_stays(house: House) -> None:
    made = house.worker(labels=100, every_s=1e9)
    for n in range(4):
        done = await served(house, made, 1_000 * n, 100, 0.9)
        assert not any(pass_.went_back for pass_ in done)
    assert isinstance(made._aftermath, Aftermath)
    assert made._aftermath.number == (await house.snapshots.head()).current


MODELS = {"a-small": "a", "a-large": "a", "b-small": "b", "b-large": "b"}
"""Of two providers."""


async def of_all(house: House, made: Worker, first: int, rounds: int, down: set[str]) -> None:
    """Rounds of one call of each of MODELS, and a verifier's word; synthetic: those that are down succeed at a half of
    their calls, the others at nineteen in twenty."""
    rng, records, words = np.random.default_rng(first), [], []
    for number in range(first, first + rounds * len(MODELS)):
        model = list(MODELS)[number % len(MODELS)]
        made_up = record(number, model)
        (like, *_) = made_up["decision"]["candidates"]
        made_up["decision"]["candidates"] = [
            {**like, "model": name, "stands_for": name, "provider": provider} for name, provider in MODELS.items()
        ]
        records.append(made_up)
        good = rng.random() < (0.5 if model in down else 0.95)
        words.append(word(call_id(number), "success" if good else "failure", said_s=1_001.0 + number))
    await house.write(records)
    await house.say(*words)
    await all_of(made)


@pytest.mark.parametrize(
    ("down", "cause"),
    [({"a-small"}, "model"), ({"a-small", "a-large"}, "provider"), (set(MODELS), "traffic")],
    ids=["one model", "one provider", "everybody"],
)
async def test_what_a_fall_is_laid_to_is_published_with_it(house: House, down: set[str], cause: str) -> None:
    made = house.worker(labels=10_000, every_s=1e9)
    await of_all(house, made, 0, 250, set())
    with capture_logs() as logged:
        await of_all(house, made, 1_000, 60, down)
        await of_all(house, made, 2_000, 60, down)
    head = await house.snapshots.head()
    fallen = {one.model: one.cause for one in unpack_down(await house.snapshots.body(head.current))}
    assert fallen == dict.fromkeys(down, cause)
    assert {entry["model"] for entry in logged if "became worse" in entry["event"]} == down
