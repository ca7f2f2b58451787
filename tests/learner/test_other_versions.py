"""A learner that meets a state which it cannot read goes on, and loses nothing of it."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from app.learner.pack import Unreadable, pack_learner, unpack_belief, unpack_learner, without
from app.learner.step import Learner
from app.stores.snapshots import Snapshot
from tests.learner.calls import BASE
from tests.learner.other_versions import BODIES, STATES, changed, good_body, good_state, newer, of_other_weights
from tests.learner.test_worker import House, all_of, house

__all__ = ["house"]


@pytest.mark.parametrize("how", STATES)
async def test_it_begins_anew_and_keeps_what_it_cannot_read(house: House, how: str) -> None:
    broken = STATES[how](good_state())
    await house.snapshots.save(broken, head=await house.snapshots.head())
    await house.calls(0, 25)
    made = house.worker()
    with capture_logs() as logs:
        passes = await all_of(made)
    assert [done.made.status for done in passes if done.made] == ["published"]
    assert sum(len(done.learned) for done in passes) == 25
    (told,) = [one for one in logs if "set aside" in one["event"]]
    assert told["reason"]
    assert await house.snapshots.aside() == [broken]


async def test_what_was_set_aside_is_taken_up_by_who_can_read_it(house: House) -> None:
    """Weights, or versions, that take turns each go on from where they stopped."""
    await house.calls(0, 15)
    one = house.worker(every_s=1e9)
    await all_of(one)
    assert one.learner is not None
    head, mine = await house.snapshots.load()
    assert mine is not None
    await house.snapshots.set_aside(mine)  # as the other one did when it came
    others = changed(mine, newer)
    await house.snapshots.save(others, head=head)
    await house.snapshots.publish(
        Snapshot(0, house.now_s, "0123456789ab"), good_body(), head=await house.snapshots.head(), keep=3
    )
    await house.snapshots.rollback(0)  # of the other's: it concerns none of what this one has learned
    await house.calls(15, 30)
    again = house.worker(every_s=1e9)
    again.owner = one.owner
    with capture_logs() as logs:
        passes = await all_of(again)
    assert sum(done.records for done in passes) == 15
    assert again.learner is not None
    assert len(again.learner.lessons) == 30
    assert all(lesson.labels for lesson in again.learner.lessons.values())
    assert [one["event"] for one in logs if "taken up" in one["event"]]
    assert await house.snapshots.aside() == [others, mine]


@pytest.mark.parametrize("back_to", [1, 2])
async def test_a_rollback_of_its_own_snapshots_is_heeded_by_one_that_was_set_aside(house: House, back_to: int) -> None:
    """Who goes back has what was learned since forgotten, whoever learned meanwhile."""
    one = house.worker(every_s=1e9)
    for first in (0, 25):
        await house.calls(first, first + 25)
        await all_of(one)
    head, mine = await house.snapshots.load()
    assert (head.current, mine is not None) == (2, True)
    assert mine is not None
    await house.snapshots.set_aside(mine)
    head = await house.snapshots.save(changed(mine, newer), head=head)
    others = Snapshot(0, house.now_s, "0123456789ab")
    await house.snapshots.publish(others, good_body(), head=head, keep=3)
    await house.snapshots.rollback(back_to)
    again = house.worker(every_s=1e9)
    again.owner = one.owner
    await all_of(again)
    assert again.learner is not None
    known = [lesson for lesson in again.learner.lessons.values() if lesson.sites]
    assert bool(len(known) > 30) is (back_to == 2)


@pytest.mark.parametrize("how", BODIES)
def test_nobody_is_let_back_in_a_snapshot_that_cannot_be_read(how: str) -> None:
    """What a newer version says beside would be lost; of other weights nothing is."""
    broken = BODIES[how](good_body())
    with pytest.raises(Unreadable):
        unpack_belief(broken, BASE)
    if how not in ("of other weights", "of another size"):
        with pytest.raises(Unreadable):
            without(broken, "small", "chat")


def test_why_a_state_of_other_weights_cannot_be_used_is_said_of_its_weights() -> None:
    packed = changed(
        pack_learner(Learner(BASE)), lambda one: one.update(belief=changed(one["belief"], of_other_weights))
    )
    with pytest.raises(Unreadable, match="for the weights 0123456789ab"):
        unpack_learner(packed, BASE)
