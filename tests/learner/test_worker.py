"""The learner at work on real stores: it goes on where it stopped, publishes what is not worse, heeds rollbacks."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from app.core.feedback import Feedback
from app.learner import step, worker
from app.learner.late import LOOK_AFTER_S
from app.learner.step import Learner
from app.learner.trial import LEAST
from app.learner.worker import Checkpoint, Done, Rules, Worker
from app.settings import Settings
from app.stores.opening import make_outcomes, make_snapshots, make_tail
from app.stores.outcomes import Outcomes
from app.stores.snapshots import Overtaken, Snapshots
from app.stores.traces_redis import RedisTraces
from app.stores.traces_segments import Segment
from tests.learner.calls import BASE, call_id, record, word
from tests.redis_server import shared_server

_numbers = itertools.count()


@dataclass
class House:
    """A gateway's stores, and learners on them."""

    settings: Settings
    outcomes: Outcomes
    snapshots: Snapshots
    write: Callable[[list[dict[str, Any]]], Any]
    now_s: float = 1_000.0

    def worker(self, **rules: Any) -> Worker:
        made = Rules(**{"labels": 20, **rules})
        return Worker(BASE, self.snapshots, self.outcomes, make_tail(self.settings), made, lambda: self.now_s)

    async def say(self, *words: Feedback) -> None:
        for one in words:
            await self.outcomes.put(one)

    async def calls(self, first: int, last: int, outcome: str = "success", held: bool = False) -> None:
        """Calls that ended, and a word on each."""
        await self.write([record(n, held=held) for n in range(first, last)])
        await self.say(*(word(call_id(n, held), outcome) for n in range(first, last)))


@pytest.fixture(params=["embedded", "redis"])
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    redis_url = None if request.param == "embedded" else SecretStr(shared_server().url)
    settings = Settings(data_dir=tmp_path, redis_namespace=f"worker-{next(_numbers)}", redis_url=redis_url)
    outcomes, snapshots = make_outcomes(settings), make_snapshots(settings)
    await outcomes.start()
    await snapshots.start()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(outcomes.close)
        stack.push_async_callback(snapshots.close)
        yield House(settings, outcomes, snapshots, await _writer(settings, stack))


async def _writer(settings: Settings, stack: contextlib.AsyncExitStack) -> Callable[[list[dict[str, Any]]], Any]:
    if settings.redis_url is not None:
        url, name = settings.redis_url.get_secret_value(), settings.redis_namespace

        async def to_redis(records: list[dict[str, Any]]) -> None:
            traces = RedisTraces(url, namespace=name)
            await traces.start()
            for one in records:
                traces.append(one["request_id"], one.copy)
            await traces.close()

        return to_redis
    folder = settings.data_dir / "traces"
    folder.mkdir()
    segment = Segment(folder)
    stack.callback(segment.close)

    async def to_file(records: list[dict[str, Any]]) -> None:
        segment.write(b"".join(msgspec.json.encode(one) + b"\n" for one in records))

    return to_file


async def all_of(made: Worker) -> list[Done]:
    passes = [await made.once()]
    while passes[-1].more:
        passes.append(await made.once())
    return passes


def belief(of: Worker) -> float:
    assert of.learner is not None
    return p(of.learner)


def p(learner: Learner) -> float:
    demand = BASE.demand_of((), (), 1.0, "chat", plain=True, read=False)
    return learner.probability(learner.belief, "small", demand)


async def test_it_learns_publishes_and_goes_on_where_it_stopped(house: House) -> None:
    await house.calls(0, 15)
    one = house.worker(every_s=10_000.0)
    passes = await all_of(one)
    assert (sum(done.records for done in passes), sum(done.words for done in passes)) == (15, 15)
    assert all(done.made is None for done in passes)
    await house.calls(15, 30)
    await one.leave()
    other = house.worker(every_s=10_000.0)
    passes = await all_of(other)
    assert (sum(done.records for done in passes), sum(done.words for done in passes)) == (15, 15)
    made = next(done.made for done in passes if done.made is not None)
    assert (made.labels, made.models, made.status, made.weights) == (30, 1, "published", BASE.version)
    assert (await house.snapshots.head()).current == made.number
    assert (await all_of(other))[-1].learned == []
    assert belief(other) > 0.85


async def test_a_learner_that_died_loses_and_doubles_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies before it saves, after it published, at every pass; what goes on ends where one that lives does."""
    monkeypatch.setattr(worker, "WORDS", 7)
    await house.calls(0, 40)
    dying = house.worker()
    owner = dying.owner
    save, count = house.snapshots.save, itertools.count()

    async def dies_now_and_then(state: bytes, *, head: Any) -> Any:
        if next(count) % 2 == 0:
            raise ConnectionError("killed")
        return await save(state, head=head)

    monkeypatch.setattr(house.snapshots, "save", dies_now_and_then)
    for _ in range(30):
        with contextlib.suppress(ConnectionError):
            await dying.once()
            if dying.learner is not None and len(dying.learner.lessons) == 40 and dying.learner.labels == 0:
                break
        dying = house.worker()
        dying.owner = owner
    monkeypatch.undo()
    last = house.worker()
    last.owner = owner
    await all_of(last)
    living = Learner(BASE)
    living.saw(record(n) for n in range(40))
    living.said(word(call_id(n)) for n in range(40))
    living.step(house.now_s)
    assert last.learner is not None
    assert set(last.learner.lessons) == set(living.lessons)
    assert all(len(lesson.sites) == 1 for lesson in last.learner.lessons.values())
    assert last.learner.belief.own["small"].labels == pytest.approx(living.belief.own["small"].labels, rel=0.05)
    assert belief(last) == pytest.approx(p(living), abs=0.01)


async def test_one_that_died_right_after_it_published_knows_what_it_published(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next snapshot is tried on what the one in force was told, and an honest one is refused."""
    dying = house.worker()
    publish = house.snapshots.publish

    async def the_last_it_did(*given: Any, **more: Any) -> Any:
        await publish(*given, **more)
        raise ConnectionError("killed")

    monkeypatch.setattr(house.snapshots, "publish", the_last_it_did)
    await house.calls(0, 25)
    with pytest.raises(ConnectionError):
        await all_of(dying)
    monkeypatch.undo()
    other = house.worker()
    other.owner = dying.owner
    await house.calls(25, 48)
    (made,) = [done.made for done in await all_of(other) if done.made is not None]
    first = (await house.snapshots.told())[1]
    assert (first.labels, made.parent, made.labels, made.trial.labels) == (25, first.number, 23, 23)
    assert other.learner is not None
    assert len(other.learner.lessons) == 48
    assert {lesson.since for lesson in other.learner.lessons.values()} == {0, first.number}


async def test_a_snapshot_that_is_worse_is_refused_and_said(house: House) -> None:
    made = house.worker()
    await house.calls(100, 160, "failure", held=True)
    await house.calls(0, 25, "success")
    await all_of(made)
    (told,) = await house.snapshots.told()
    assert (told.status, told.trial.labels) == ("refused", 85)
    assert "worse" in told.why
    assert told.trial.loss is not None
    assert told.trial.before is not None
    assert told.trial.loss > told.trial.before
    assert (await house.snapshots.head()).current == 0
    # With what is true the next one is published.
    await house.calls(200, 300, "failure")
    await all_of(made)
    assert (await house.snapshots.head()).current > told.number


async def test_where_there_are_few_labels_time_makes_a_snapshot(house: House) -> None:
    made = house.worker(every_s=60.0)
    await house.calls(0, 3)
    await all_of(made)
    (told,) = await house.snapshots.told()
    assert (told.status, told.why) == ("postponed", "too few held out: 3 of 20")
    await house.calls(3, 10)
    assert all(done.made is None for done in await all_of(made))
    house.now_s += 61
    await made.once()
    assert [one.why for one in await house.snapshots.told()] == [f"too few held out: {n} of 20" for n in (10, 3)]
    await house.calls(10, 20)  # as soon as there are enough
    (done,) = (done.made for done in await all_of(made) if done.made is not None)
    assert (done.status, done.labels, done.trial.labels) == ("published", 20, 20)
    await house.calls(20, 22)
    assert all(done.made is None for done in await all_of(made))
    house.now_s -= 10_000  # a clock that is set back holds nothing up
    await house.calls(22, 42)
    assert [one.made.status for one in await all_of(made) if one.made] == ["published"]
    assert sum(one.labels for one in await house.snapshots.told() if one.status == "published") == 42


async def test_calls_whose_signs_were_not_all_heard_are_told_with_each_entry(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "WINDOW", 30)
    made = house.worker()
    await house.write([record(n) for n in range(100, 140)])  # nobody speaks of these: ten too many
    await all_of(made)
    monkeypatch.undo()
    for first in (0, 200):
        await house.calls(first, first + 25)
        await all_of(made)
    assert [one.unheard for one in reversed(await house.snapshots.told())] == [10, 0]


@dataclass(frozen=True)
class Batch:
    """Calls that end between two passes, and how they turned out."""

    good: list[bool]
    held: bool
    seconds: float


@settings(max_examples=25, deadline=None)
@given(st.lists(st.builds(
    Batch, st.lists(st.booleans(), max_size=30), st.booleans(), st.floats(-100.0, 400.0)
), min_size=1, max_size=6))  # fmt: skip
def test_whatever_comes_what_is_published_was_tried_enough(batches: list[Batch]) -> None:
    """And the first comes within reasonable traffic: it is postponed only while less than LEAST are known at all."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_through(Path(folder), batches))


async def _through(folder: Path, batches: list[Batch]) -> None:
    config = Settings(data_dir=folder)
    outcomes, snapshots = make_outcomes(config), make_snapshots(config)
    await outcomes.start()
    await snapshots.start()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(outcomes.close)
        stack.push_async_callback(snapshots.close)
        here, told = House(config, outcomes, snapshots, await _writer(config, stack)), 0
        made = here.worker(every_s=300.0)
        for batch in batches:
            here.now_s += batch.seconds
            await here.write([record(told + n, held=batch.held) for n in range(len(batch.good))])
            names = [call_id(told + n, batch.held) for n in range(len(batch.good))]
            await here.say(*(word(name, "success" if good else "failure")
                             for name, good in zip(names, batch.good, strict=True)))  # fmt: skip
            told += len(batch.good)
            for done in await all_of(made):
                assert done.made is None or (done.made.status == "postponed") is (done.made.trial.labels < LEAST)
                if told >= LEAST and done.made is not None and not (await snapshots.head()).current:
                    assert done.made.status == "refused"
        assert made.learner is not None
        known = [one for one in await snapshots.told() if one.status == "published"]
        assert sum(one.labels for one in known) + made.learner.labels + len(made.learner.held) == told


async def test_where_feedback_was_removed_what_is_said_from_then_on_is_learned(house: House, tmp_path: Path) -> None:
    """An operator removes it, or goes back to a copy; the learner's own state stays."""
    made = house.worker(every_s=10_000.0)
    await house.calls(0, 15)
    await all_of(made)
    other = house.settings.model_copy(update={"data_dir": tmp_path / "new", "redis_namespace": f"new-{next(_numbers)}"})
    house.outcomes = make_outcomes(other)
    await house.outcomes.start()
    again = house.worker(every_s=10_000.0)
    again.owner = made.owner
    await house.calls(15, 18)
    assert sum(done.words for done in await all_of(again)) == 3
    assert again.learner is not None
    assert all(again.learner.lessons[call_id(n)].labels for n in range(18))
    await house.outcomes.close()


async def test_a_rollback_is_heeded(house: House) -> None:
    made = house.worker()
    await house.calls(0, 25)
    await all_of(made)
    good = belief(made)
    await house.calls(25, 60, "failure")
    await all_of(made)
    assert belief(made) < good - 0.1
    await house.snapshots.rollback(None)
    await all_of(made)
    assert belief(made) == pytest.approx(good, abs=1e-9)
    again = house.worker()
    again.owner = made.owner
    await all_of(again)
    assert belief(again) == pytest.approx(good, abs=1e-9)
    await house.calls(60, 85)
    passes = await all_of(again)
    assert any(done.made is not None and done.made.status == "published" for done in passes)


async def test_one_learner_leads_and_one_that_is_overtaken_begins_again(house: House) -> None:
    one, other = house.worker(), house.worker()
    await house.calls(0, 10)
    await all_of(one)
    assert (await other.once()).leads is False
    await house.calls(10, 20)
    # The lease was lost: both believe that they lead.
    other.owner = one.owner
    passes = await all_of(other)
    assert sum(done.records for done in passes) == 10
    await house.calls(20, 30)
    await all_of(one)
    assert one.learner is not None
    assert len(one.learner.lessons) == 30
    with pytest.raises(Overtaken):
        await house.snapshots.save(b"", head=other._head)


async def test_lines_that_are_no_records_are_passed_over(house: House) -> None:
    if house.settings.redis_url is not None:
        pytest.skip("a line can be cut short in a file only")
    folder = house.settings.data_dir / "traces"
    segment = Segment(folder)
    segment.write(b'{"request_id":"req_cut\n[]\n{"a":1}\n' + msgspec.json.encode(record(1)) + b"\n")
    await house.say(word(call_id(1)))
    made = house.worker()
    await all_of(made)
    assert made.learner is not None
    assert list(made.learner.lessons) == [call_id(1)]
    segment.close()


async def test_a_late_word_is_learned_though_its_call_has_left(
    house: House, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Calls are read again, wherever traces are kept; after a restart, too."""
    monkeypatch.setattr(step, "WINDOW", 10)
    came_ms = int(time.time() * 1000)
    names = [f"req_{came_ms:011x}{n:015x}1" for n in range(40)]
    calls = [record(n, task_id="job") for n in range(40)]
    for one, name in zip(calls, names, strict=True):
        one["request_id"] = name
        await house.write([one])
    made = house.worker()
    await all_of(made)
    assert made.learner is not None
    assert list(made.learner.lessons) == names[30:]
    await house.say(word(names[3], "failure", said_s=house.now_s), word(call_id(999), said_s=house.now_s))
    assert sum(len(done.learned) for done in await all_of(made)) == 0
    await made.leave()
    house.now_s += LOOK_AFTER_S
    other = house.worker()
    (learned,) = [one for done in await all_of(other) for one in done.learned]
    assert (learned.request_id, learned.source) == (names[3], "verifier")
    assert "words came when the traces of their calls had gone" in "".join(capfd.readouterr())
    assert (await all_of(other))[-1].more is False
    assert other.learner is not None
    assert other.learner.late.wanted == {}
    await house.say(word(names[3], "failure", said_s=house.now_s + 1))
    assert sum(len(done.learned) for done in await all_of(other)) == 0  # it says the same


async def test_segments_that_cannot_be_read_are_passed_over_and_said(
    house: House, capfd: pytest.CaptureFixture[str]
) -> None:
    if house.settings.redis_url is not None:
        pytest.skip("there are segments in a folder only")
    (house.settings.data_dir / "traces" / "00000000000-00000000.jsonl").mkdir()
    made = house.worker()
    await house.calls(0, 3)
    await all_of(made)
    assert made.learner is not None
    assert list(made.learner.lessons) == [call_id(n) for n in range(3)]
    assert "".join(capfd.readouterr()).count("cannot be read, and are passed over") == 1


async def test_watches_that_are_damaged_stop_no_learner(house: House) -> None:
    made = house.worker()
    await house.calls(0, 25)
    await all_of(made)
    await made.leave()
    head, state = await house.snapshots.load()
    assert state is not None
    kept = msgspec.msgpack.decode(state, type=Checkpoint)
    kept.watching = b"{"
    await house.snapshots.save(msgspec.msgpack.encode(kept), head=head)
    await all_of(other := house.worker())
    assert belief(other) == pytest.approx(belief(made), abs=0.01)


async def test_what_is_damaged_stops_no_learner(house: House) -> None:
    """A record that is none, the snapshot in force, and the learner's own state."""
    made = house.worker()
    await house.calls(0, 25)
    await house.write([{"request_id": call_id(500), "decision": []}])
    await house.calls(25, 50)
    await all_of(made)
    await made.leave()
    head, state = await house.snapshots.load()
    assert head.current
    assert state is not None
    head = await house.snapshots.save(b"\xc1" + state[1:], head=head)
    other = house.worker()
    await all_of(other)  # anew, from the first record on
    assert belief(other) == pytest.approx(belief(made), abs=0.01)
    assert other.learner is not None
    assert len(other.learner.lessons) == 50
    await other.leave()
    told = (await house.snapshots.told())[0]
    await house.snapshots.publish(told, b"\x80\x81\xff", head=await house.snapshots.head(), keep=5)
    last = house.worker()
    await house.calls(50, 80)
    made_of = [done.made.status for done in await all_of(last) if done.made is not None]
    assert made_of[-1] == "published"
