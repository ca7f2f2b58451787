"""What recorded calls and words teach weights: as a learner beside the gateway would, tested on each label before it
is learned. Traffic and words are synthetic."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.feedback import Feedback
from app.learner.step import Learner
from app.learner.teach import SURE, TooLittle, judged, teach, with_house
from app.settings import SHIPPED_WEIGHTS
from routers.artifact import Weights, read
from routers.base import RequestView
from routers.features import extract
from routers.house import House
from routers.learned import LearnedRouter
from routers.live import LiveRouter, prior_of
from tests.learner.calls import BASE, call_id, of_task, record, word

WEIGHTS = read(SHIPPED_WEIGHTS)
CHAT = extract(RequestView(last_user="Hi! How are you today?", first_user=""))


def traffic(count: int, first: int = 0) -> tuple[list[dict[str, Any]], list[Feedback]]:
    """Two models at chat, in turn: the small one fails, the large one does well."""
    numbers = range(first, first + count)
    records = [record(n, "small" if n % 2 else "large", held=n % 10 == 0) for n in numbers]
    words = [word(call_id(n, n % 10 == 0), "failure" if n % 2 else "success") for n in numbers]
    return records, words


def taught(weights: Weights, *of: tuple[list[dict[str, Any]], list[Feedback]]) -> Weights:
    records = [one for calls, _ in of for one in calls]
    words = [one for _, said in of for one in said]
    return with_house(weights, teach(LearnedRouter(weights), records, words).house)


def test_own_traffic_makes_weights_that_begin_where_it_left_off() -> None:
    records, words = traffic(120)
    found = teach(BASE, records, words)
    assert (found.calls, found.labels, found.helps) == (120, 120, True)
    assert found.after < found.before
    assert found.sources == {"verifier": 120}
    assert {(key, cell.labels) for key, cell in found.cells.items()} == {
        (("large", "chat"), 60),
        (("small", "chat"), 60),
    }
    made = LearnedRouter(with_house(WEIGHTS, found.house))
    assert (made.weights, made.version != BASE.version) == (BASE.weights, True)
    arms = tuple(own.arm for own in found.house.belief.own.values())
    live = LiveRouter(made, prior_of(made).begin(), "0")
    chance = dict(zip((arm.name for arm in arms), live.score(CHAT, arms), strict=True))
    assert chance["large"].p_success > 0.8
    assert chance["small"].p_success < 0.3
    assert chance["large"].confidence > BASE.score(CHAT, arms)[0].confidence
    assert Learner(made).belief.own["large"].labels == pytest.approx(found.house.belief.own["large"].labels, rel=1e-5)


def test_the_same_traces_in_any_order_give_the_same_weights() -> None:
    records, words = traffic(80)
    assert taught(WEIGHTS, (records, words)).version == taught(WEIGHTS, (records[::-1], words)).version


def test_what_was_learned_is_not_learned_again() -> None:
    """A learner on taught weights that reads the traces from their beginning learns the new calls alone."""
    old, new = traffic(80), traffic(80, 80)
    made = LearnedRouter(taught(WEIGHTS, old))
    learner = Learner(made)
    before = learner.belief
    for records, words in (old, new):
        learner.said(words)
        learner.saw(records)
    assert {learned.request_id for learned in learner.step(9_000.0)} == {one["request_id"] for one in new[0]}
    assert learner.belief.own["small"].labels > before.own["small"].labels


def test_taught_twice_is_as_taught_once_of_all() -> None:
    old, new = traffic(80), traffic(80, 80)
    twice, once = (LearnedRouter(made) for made in (taught(taught(WEIGHTS, old), new), taught(WEIGHTS, old, new)))
    assert twice.house is not None
    assert once.house is not None
    for a, b in zip((twice.house, once.house), (once.house, twice.house), strict=True):
        assert a.belief.ability("small").mean == pytest.approx(b.belief.ability("small").mean, abs=0.05)
    assert taught(taught(WEIGHTS, old), old, new).version == taught(taught(WEIGHTS, old), new).version


def tasks(outcomes: list[bool], calls: int) -> tuple[list[dict[str, Any]], list[Feedback]]:
    """Tasks of so many calls each of the large model at chat, of which only the task's outcome is said."""
    records = [
        record(at * calls + n, "large", task_id=f"t{at}") for at in range(len(outcomes)) for n in range(calls)
    ]  # fmt: skip
    return records, [of_task(f"t{at}", "success" if good else "failure") for at, good in enumerate(outcomes)]


def test_what_is_said_of_a_task_is_one_label_however_many_calls_it_took() -> None:
    with pytest.raises(TooLittle, match="60 calls with 6 labels: fewer than 50"):
        teach(BASE, *tasks([True] * 6, 10))
    found = teach(BASE, *tasks([True] * 60, 4))
    assert (found.calls, found.labels, found.sources) == (240, 60, {"task_verifier": 60})
    alone = teach(BASE, *tasks([True] * 60, 1))
    cell, whole = (of.cells["large", "chat"] for of in (found, alone))
    assert cell.labels == 60
    assert cell.weight == pytest.approx(whole.weight, rel=0.05)


def test_no_call_of_a_task_is_foreseen_by_what_the_others_taught() -> None:
    """Every other task fails, whose 13 calls share that: what is foreseen is no better, nor surer, than of tasks of one
    call. Batches end within tasks."""
    outcomes = [True, False] * 60
    found, alone = teach(BASE, *tasks(outcomes, 13)), teach(BASE, *tasks(outcomes, 1))
    assert found.labels == alone.labels == 120
    assert found.after == pytest.approx(alone.after, abs=0.01)
    assert found.error > 0.9 * alone.error


@pytest.mark.parametrize(("calls", "says"), [(0, "0 calls with 0 labels"), (49, "49 labels: fewer than 50")])
def test_too_little_is_said(calls: int, says: str) -> None:
    with pytest.raises(TooLittle, match=says):
        teach(BASE, *traffic(calls))


def test_what_foresees_worse_beyond_chance_is_refused() -> None:
    with pytest.raises(TooLittle, match=r"60 labels: .* worse than the weights as they are \(0.9500 against 0.6500"):
        judged([(0.6, 0.9, 1.0), (0.7, 1.0, 1.0)] * 30, 60)
    before, after, gain, error = judged([(0.6, 0.9, 1.0), (0.9, 0.59, 1.0)] * 30, 60)
    assert (before, after, gain) == pytest.approx((0.75, 0.745, 0.005))
    assert error > gain / SURE


def test_a_house_of_other_coordinates_is_refused() -> None:
    made = taught(WEIGHTS, traffic(60))
    assert House.of({}, 33) is None
    with pytest.raises(ValueError, match="another version"):
        House.of(made.part("house"), 7)
    assert made.without("house").version == WEIGHTS.version
