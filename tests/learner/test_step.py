"""A step of learning: what comes late, twice or in another order changes nothing but what it should."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from app.core.feedback import Correction, Feedback
from app.core.seen import Seen
from app.learner import step
from app.learner.credit import spoken
from app.learner.labels import Call
from app.learner.lesson import Learned, is_held
from app.learner.pack import Unreadable, pack_belief, pack_learner, unpack_belief, unpack_learner
from app.learner.signs import SETTLED_S
from app.learner.sources import SIGNS, Told, prior_of
from app.learner.step import Learner
from routers.belief import Belief
from routers.kinds import extended
from tests.learner.calls import BASE, call_id, of_task, record, word

NOW_S = 1_000.0


def learner(records: Iterable[dict[str, Any]] = (), words: Iterable[Feedback] = (), now_s: float = NOW_S) -> Learner:
    made = Learner(BASE)
    made.saw(records)
    made.said(words)
    made.step(now_s)
    return made


def p(of: Learner, model: str = "small", *, belief: Belief | None = None) -> float:
    demand = BASE.demand_of((), (), 1.0, "chat", plain=True, read=False)
    return of.probability(belief or of.belief, model, demand)


def close(one: Learner, other: Learner, within: float) -> bool:
    return abs(p(one) - p(other)) < within


def test_outcomes_move_what_is_expected() -> None:
    calls = [record(n) for n in range(30)]
    good = learner(calls, [word(call_id(n)) for n in range(30)])
    bad = learner(calls, [word(call_id(n), "failure") for n in range(30)])
    assert p(good) > 0.85
    assert p(bad) < 0.2
    assert good.labels == 30


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_what_comes_matters_little(seed: int) -> None:
    """Words before their calls, calls in any order, a step after each or one for all: nearly the same belief."""
    rng = random.Random(seed)
    outcomes = [rng.random() < 0.7 for _ in range(40)]
    calls = [record(n, ("small", "large")[n % 2]) for n in range(40)]
    words = [word(call_id(n), "success" if good else "failure") for n, good in enumerate(outcomes)]
    at_once = learner(calls, words)
    scattered = Learner(BASE)
    events: list[tuple[str, Any]] = [("call", call) for call in calls] + [("word", one) for one in words]
    rng.shuffle(events)
    for kind, event in events:
        if kind == "call":
            scattered.saw([event])
        else:
            scattered.said([event])
        scattered.step(NOW_S)
    assert scattered.labels == at_once.labels == 40
    for model in ("small", "large"):
        assert p(scattered, model) == pytest.approx(p(at_once, model), abs=0.02)


def test_the_same_again_teaches_nothing_more() -> None:
    calls, words = [record(n) for n in range(10)], [word(call_id(n)) for n in range(10)]
    once = learner(calls, words)
    twice = learner(calls, words)
    twice.saw(calls)
    twice.said(words)
    assert twice.step(NOW_S) == []
    assert p(twice) == p(once)
    assert twice.labels == once.labels


def test_a_later_word_replaces_an_earlier_one() -> None:
    calls = [record(n) for n in range(20)]
    right = learner(calls, [word(call_id(n)) for n in range(20)])
    changed = learner(calls, [word(call_id(n), "failure") for n in range(20)])
    assert p(changed) < 0.3
    changed.said(word(call_id(n), said_s=6_000.0) for n in range(20))
    found = changed.step(NOW_S)
    assert [one.first for one in found] == [False] * 20
    assert close(changed, right, 0.03)
    for own in changed.belief.own.values():
        assert np.linalg.eigvalsh(own.cov).min() > 0.0


def told_by_five(lies: str | None, silent: str | None = None) -> Learner:
    """400 calls of five keys, on two models of which one is good; one key may turn its words round, or say nothing."""
    made, rng = Learner(BASE), random.Random(3)
    for n in range(400):
        key, model = f"key-{n % 5}", rng.choice(("small", "large"))
        good = rng.random() < (0.9 if model == "large" else 0.25)
        made.saw([record(n, model, key=key)])
        if key != silent:
            made.said([word(call_id(n), "success" if good != (key == lies) else "failure", by=key)])
        if n % 20 == 19:
            made.step(NOW_S)
    return made


def test_of_a_liar_that_is_found_out_nothing_stays() -> None:
    lied, silent = told_by_five("key-0"), told_by_five(None, silent="key-0")
    assert lied.guard.out == {"key-0"}
    assert lied.guard.cleared >= {"key-1", "key-2"}
    for lesson in lied.lessons.values():
        if lesson.call.key == "key-0":
            assert [label.weight for label in lesson.labels] == [0.0]
            assert all(site.precision == 0.0 for site in lesson.sites)
    for model in ("small", "large"):
        assert p(lied, model) == pytest.approx(p(silent, model), abs=0.02)
    again = unpack_learner(pack_learner(lied), BASE)
    assert again.guard.out == {"key-0"}
    assert [lesson.admitted for lesson in again.lessons.values()] == [one.admitted for one in lied.lessons.values()]


def test_who_is_believed_again_counts_again() -> None:
    made = told_by_five("key-0")
    told = {name: lesson.admitted for name, lesson in made.lessons.items() if lesson.call.key == "key-0"}
    for n in range(400):
        if n % 5 == 0:
            lesson = made.lessons[call_id(n)]
            right = "failure" if lesson.labels[0].high > 0.0 else "success"
            made.said([word(call_id(n), right, by="key-0", said_s=9_000.0)])
        made.step(NOW_S)
    later = [(n, n % 5) for n in range(400, 800)]
    rng = random.Random(4)
    for n, key in later:
        made.saw([record(n, "large", key=f"key-{key}")])
        made.said([word(call_id(n), "success" if rng.random() < 0.9 else "failure", by=f"key-{key}")])
        made.step(NOW_S)
    assert "key-0" not in made.guard.out
    assert len(told) == 80
    assert sum(made.lessons[name].labels[0].scale > 0.0 for name in told) == 80


@pytest.mark.parametrize("right", [True, False])
def test_how_far_a_speaker_is_believed_is_learned_where_a_better_one_spoke_too(right: bool) -> None:
    """And then counts on calls of which nobody else says anything; once a call, however often it is heard."""
    calls, truth = [record(n) for n in range(40)], ["success", "failure"]
    said = [word(call_id(n), truth[n % 2]) for n in range(40)]
    said += [word(call_id(n), truth[n % 2 if right else n // 2 % 2], source="user") for n in range(40)]
    made = learner(calls, said)
    before, after = prior_of("user").informed, made.sources.reliability("user", "alice").informed
    assert after > before if right else after < before - 0.1
    assert made.sources.reliability("user", "bob").informed == before
    state = made.sources.state()
    made.said([word(call_id(n), truth[(n + 1) % 2], said_s=6_000.0) for n in range(40)])
    made.step(NOW_S)
    assert made.sources.state() == state
    (learned,) = alone(made, word(call_id(50), "failure", source="user"))
    (newcomer,) = alone(learner(), word(call_id(50), "failure", source="user"))
    assert learned.weight > newcomer.weight if right else learned.weight < newcomer.weight


def alone(made: Learner, said: Feedback) -> list[Learned]:
    """What the one word on another call teaches."""
    made.saw([record(50)])
    made.said([said])
    return made.step(NOW_S)


def test_what_was_said_of_a_task_is_shared_and_a_word_on_a_call_goes_before_it() -> None:
    calls = [record(n, task_id="work") for n in range(6)]
    made = learner(calls, [of_task("work")])
    assert made.labels == 6
    alone = p(made)
    assert alone > p(made, belief=untaught(made))
    made.said([word(call_id(5), "failure")])
    made.step(NOW_S)
    assert p(made) < alone
    made.saw([record(6, task_id="work")])
    assert {one.request_id for one in made.step(NOW_S)} >= {call_id(6), call_id(0)}


def test_a_long_tasks_word_is_shared_anew_with_each_call_and_counts_no_more_than_one() -> None:
    made, calls = Learner(BASE), [record(n, task_id="job") for n in range(200)]
    made.said([of_task("job")])
    for call in calls:
        made.saw([call])
        made.step(NOW_S)
    at_once = learner(calls, [of_task("job")])
    told = {name: lesson.told for name, lesson in made.lessons.items()}
    assert told == {name: lesson.told for name, lesson in at_once.lessons.items()}
    parts = [word.part for words in told.values() for word in words]
    assert len(parts) < 70
    assert sum(parts) == pytest.approx(1.0, rel=0.01)
    assert close(made, at_once, 0.05)


@pytest.mark.parametrize("calls", [1, 2, 5, 12])
@pytest.mark.parametrize("rate", [0.6, 0.8])
def test_what_tasks_come_to_is_what_is_believed_however_long_they_are(rate: float, calls: int) -> None:
    """Synthetic. P(success) is compared with `adequacy`, and the measures, dashboard and replay compare it with how
    tasks turned out: tasks of many calls that fail as often must not look better than those of one."""
    rng, made, number = np.random.default_rng(3), Learner(BASE), 0
    alone = Learner(BASE)
    for task in range(250):
        outcome = "success" if rng.random() < rate else "failure"
        made.saw([record(number + n, task_id=f"t{task}") for n in range(calls)])
        made.said([of_task(f"t{task}", outcome)])
        alone.saw([record(number)])
        alone.said([word(call_id(number), outcome)])
        number += calls
        made.step(NOW_S)
        alone.step(NOW_S)
    assert p(made) == pytest.approx(p(alone), abs=0.03)
    assert p(made) == pytest.approx(rate, abs=0.12)


@pytest.mark.parametrize("rate", [0.4, 0.9])
def test_what_tasks_of_two_models_come_to_is_believed_of_both(rate: float) -> None:
    """Synthetic. That either may be why makes neither's tasks fail more, nor less, than they do."""
    rng, made = np.random.default_rng(4), Learner(BASE)
    for task in range(400):
        models = ("small", "large") if task % 2 else ("large", "small")
        made.saw([record(2 * task + n, model, task_id=f"t{task}") for n, model in enumerate(models)])
        made.said([of_task(f"t{task}", "success" if rng.random() < rate else "failure")])
        made.step(NOW_S)
    for model in ("small", "large"):
        assert p(made, model) == pytest.approx(rate, abs=0.08)


def test_what_is_learned_anew_is_counted_once() -> None:
    """A task's word is shared anew with each call that joins, and what a model has taught stays one label."""
    made = learner()
    made.said([of_task("work")])
    for n in range(30):
        made.saw([record(n, task_id="work")])
        made.step(NOW_S)
    at_once = learner([record(n, task_id="work") for n in range(30)], [of_task("work")])
    assert made.belief.own["small"].labels == pytest.approx(at_once.belief.own["small"].labels, rel=0.02)
    assert made.without(*made.lessons.values()).own["small"].labels == pytest.approx(0.0, abs=1e-9)


def test_a_cut_that_is_heard_of_after_the_word_takes_back_what_the_word_taught() -> None:
    """The gateway that cut the task wrote its trace late; then the cap is raised, and the task goes on."""
    calls = [record(n, task_id="work") for n in range(40)]
    made = learner([*calls, record(90)], [word(call_id(90))])
    quiet = p(made)
    made.said([of_task("work", "failure")])
    made.step(NOW_S)
    blamed = p(made)
    assert blamed < quiet - 0.01
    made.saw([record(40, task_id="work", outcome="cost_killed")])
    made.step(NOW_S)
    assert p(made) == pytest.approx(quiet, abs=1e-6)
    made.saw([record(41, task_id="work")])
    made.step(NOW_S)
    assert p(made) < quiet - 0.01


def test_a_tasks_words_are_gone_through_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each of its calls anew would hold the learner up for minutes, where an agent makes thousands in a task."""
    gone_through: list[int] = []

    def counted(calls: Sequence[Call], words: Iterable[Feedback]) -> dict[str, list[Told]]:
        gone_through.append(len(calls))
        return spoken(calls, words)

    monkeypatch.setattr(step, "spoken", counted)
    learner([record(n, task_id="job") for n in range(100)], [of_task("job"), word(call_id(3))])
    assert gone_through == [100]


def test_signs_speak_once_they_can_no_longer_change() -> None:
    seen = msgspec.to_builtins(Seen("b", "a", empty=True))
    made = learner([record(n, seen={**seen, "asked": f"a{n}", "began": f"b{n}"}) for n in range(20)])
    assert made.labels == 0
    found = made.step(1_000.0 + SETTLED_S + 30)
    assert {one.source for one in found} <= set(SIGNS)
    assert made.labels == 20
    assert p(made) < 0.45


def test_nothing_is_learned_of_calls_that_did_not_complete_or_of_models_that_are_not_listed() -> None:
    killed = record(1, outcome="cost_killed")
    unlisted = record(2)
    for candidate in unlisted["decision"]["candidates"]:
        candidate["listed"] = False
    made = learner([killed, unlisted, record(3, decision=None)], [word(call_id(n), "failure") for n in (1, 2, 3)])
    assert (made.labels, dict(made.belief.own)) == (0, {})


def test_who_has_no_say_is_not_heard() -> None:
    calls = [record(n) for n in range(10)]
    made = learner(calls, [word(call_id(n), "failure", by="mallory") for n in range(10)])
    assert made.labels == 0
    made.said(word(call_id(n), "failure", by="boss", admin=True) for n in range(10))
    made.step(NOW_S)
    assert made.labels == 10


@pytest.mark.parametrize("alices", ["success", "failure"])
def test_who_contradicts_the_operator_is_believed_no_longer(alices: str) -> None:
    """The operator judges every other call of a model, a failure each; the key whose calls they are says what it says
    of the rest. Nobody else is there to compare it with."""
    made = learner(map(record, range(80)))
    for n in range(0, 80, 2):
        made.said([word(call_id(n), "failure", by="boss", admin=True), word(call_id(n + 1), alices)])
        made.step(NOW_S)
    if alices == "success":
        assert made.guard.trust("alice") < 0.1
    else:
        assert made.guard.trust("alice") == 1.0


def hint(number: int, by: str = "alice") -> Feedback:
    """The call was good, and a cheaper model would have been."""
    return word(call_id(number), by=by, correction=Correction.STRONGER_NOT_NEEDED)


def test_who_has_no_say_gives_no_hint() -> None:
    calls, words = [record(n, "large") for n in range(10)], [word(call_id(n)) for n in range(10)]
    made = learner(calls, [*words, *(hint(n, by="mallory") for n in range(10))])
    assert set(made.belief.own) == {"large"}


def test_a_correction_may_come_later_and_be_taken_back() -> None:
    calls, words = [record(n, "large") for n in range(20)], [word(call_id(n)) for n in range(20)]
    made = learner(calls, words)
    small = learner([record(1)], [word(call_id(1))]).belief.own["small"].arm
    without = p(made, belief=made.prior.joined(made.belief, small, BASE.ability(small)))
    made.said(hint(n) for n in range(20))
    assert {one.model for one in made.step(NOW_S)} == {"large", "small"}
    assert close(made, learner(calls, map(hint, range(20))), 0.02)
    assert p(made) > without + 0.05
    made.said(words)
    made.step(NOW_S)
    assert p(made) == pytest.approx(without, abs=0.02)
    assert all(len(lesson.labels) == 1 for lesson in made.lessons.values())


def test_the_window_is_bounded_and_keeps_what_was_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "WINDOW", 10)
    monkeypatch.setattr(step, "MAX_THINGS", 10)
    made = Learner(BASE)
    for n in range(50):
        made.saw([record(n, task_id=f"job-{n % 7}")])
        made.said([word(call_id(n)), word(f"req_unknown{n}")])
        made.step(NOW_S)
    before = p(made)
    assert before > 0.85
    assert len(made.lessons) <= 10
    assert len(made.words) <= 20  # of the calls in the window, and of as many things that nobody has seen
    made.said([word(call_id(3), "failure")])
    assert made.step(NOW_S) == []
    assert p(made) == before
    assert made.late.ignored == 1


def test_a_tenth_is_held_out_and_learned_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "MAX_HELD", 5)
    names = [f"req_{number:027x}" for number in range(20_000, 60_000, 7)]
    assert 0.09 < sum(map(is_held, names)) / len(names) < 0.11
    made = learner([record(n, held=True) for n in range(5)], [word(call_id(n, True)) for n in range(5)])
    assert made.labels == 0
    assert p(made) == pytest.approx(p(made, belief=untaught(made)))
    made.saw(record(n, held=True) for n in range(5, 10))
    made.said(word(call_id(n, True)) for n in range(5, 10))
    found = made.step(NOW_S)
    assert [one.held for one in found] == [True] * 5
    assert (made.labels, len(made.held)) == (5, 5)
    assert p(made) > p(made, belief=untaught(made))


def untaught(of: Learner) -> Belief:
    belief = of.prior.start()
    for own in of.belief.own.values():
        belief = of.prior.joined(belief, own.arm, BASE.ability(own.arm))
    return belief


def test_a_rollback_forgets_what_was_learned_since() -> None:
    made = learner([record(n) for n in range(10)], [word(call_id(n)) for n in range(10)])
    made.term, snapshot = 1, made.belief
    made.saw(record(n) for n in range(10, 30))
    made.said(word(call_id(n), "failure") for n in range(10, 30))
    made.step(NOW_S)
    assert p(made) < p(made, belief=snapshot)
    made.rolled_back(snapshot, 1)
    assert p(made) == p(made, belief=snapshot)
    # What was learned before it can still change; what was forgotten does not come back by a word that repeats it.
    made.said([word(call_id(15), "failure")])
    assert made.step(NOW_S) == []
    made.said([word(call_id(3), "failure")])
    assert [one.request_id for one in made.step(NOW_S)] == [call_id(3)]
    assert p(made) < p(made, belief=snapshot)


def test_a_rollback_forgets_what_was_held_out_since() -> None:
    """Else what a broken verifier said would go on judging what comes after it."""
    made = learner([record(n, held=True) for n in range(5)], [word(call_id(n, True)) for n in range(5)])
    made.published(1, left_out=False)
    snapshot = made.belief
    made.saw(record(n, held=True) for n in range(5, 30))
    made.said(word(call_id(n, True), "failure") for n in range(5, 30))
    made.step(NOW_S)
    assert len(made.held) == 30
    made.rolled_back(snapshot, 1)
    assert list(made.held) == [call_id(n, True) for n in range(5)]


def test_a_snapshot_that_leaves_out_what_was_learned_is_one_to_roll_back_to() -> None:
    made = learner([record(n) for n in range(10)], [word(call_id(n)) for n in range(10)])
    untold = untaught(made)
    made.published(1, left_out=True)
    assert (made.term, made.labels) == (1, 10)
    made.rolled_back(untold, 1)
    # Nothing of it is in the belief, so nothing of it may be divided out by a word that comes later.
    assert not any(lesson.sites for lesson in made.lessons.values())
    made.said([word(call_id(3), "failure")])
    made.step(NOW_S)
    alone = learner([record(3)], [word(call_id(3), "failure")])
    assert p(made) == pytest.approx(p(alone), abs=0.01)


def test_a_learner_goes_on_from_its_bytes() -> None:
    calls = [record(n, held=n % 4 == 0, u=[1.0, 0.2, 0.1, 0.0, -0.3], task_type="code") for n in range(30)]
    words = [word(call_id(n, n % 4 == 0), "failure" if n % 3 == 0 else "success") for n in range(30)]
    one = learner(calls[:20], words[:15])
    other = unpack_learner(pack_learner(one), BASE)
    for made in (one, other):
        made.said([word(call_id(1), "failure"), *words[15:]])
        made.saw(calls[20:])
        made.step(NOW_S)
    assert pack_learner(one) == pack_learner(other)
    assert list(one.held) == list(other.held)
    z = extended(BASE.demand_of([1.0, 0.2, 0.1, 0.0, -0.3], [0.1] * BASE.places, 0.2, "code", plain=True, read=True))
    assert one.belief.logit("small", z) == other.belief.logit("small", z)


def test_beliefs_of_other_weights_or_versions_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack_belief(learner([record(1)], [word(call_id(1))]).belief, BASE)
    assert set(unpack_belief(packed, BASE).own) == {"small"}
    with pytest.raises(Unreadable):
        unpack_belief(b"nonsense", BASE)
    with pytest.raises(Unreadable):
        unpack_learner(packed, BASE)
    monkeypatch.setattr(BASE, "version", "another")
    with pytest.raises(Unreadable):
        unpack_belief(packed, BASE)


def test_probes_teach_nothing_of_how_good_a_model_is_nor_of_who_is_honest() -> None:
    """They are the same questions each day, and the operator's, not users'."""
    calls = [record(n, held=n % 10 == 0, probe=True) for n in range(60)]
    words = [word(call_id(n, n % 10 == 0), "failure", source="program", admin=True) for n in range(60)]
    made, untold = Learner(BASE), Learner(BASE)
    made.saw(calls)
    made.said(words)
    learned = made.step(NOW_S + 2 * SETTLED_S)
    assert (len(learned), all(one.first for one in learned)) == (60, True)
    arm = made.lessons[call_id(1)].arms["small"]
    expected = p(made, belief=made.prior.joined(untold.belief, arm, BASE.ability(arm)))
    assert (made.labels, made.held, p(made)) == (0, {}, expected)
    assert made.guard.state() == untold.guard.state()
    assert made.sources.state() == untold.sources.state()
    assert not any(lesson.signs for lesson in made.lessons.values())
    again = unpack_learner(pack_learner(made), BASE)
    assert all(lesson.call.probe and lesson.labels for lesson in again.lessons.values())
    made.said([word(call_id(3), "success", source="program", admin=True, said_s=6_000.0)])
    assert [(one.first, one.outcome > 0.5) for one in made.step(NOW_S + 2 * SETTLED_S)] == [(False, True)]


def test_a_probe_that_asks_the_same_as_a_user_is_no_sign_that_he_was_not_content() -> None:
    seen = {"began": "b", "asked": "a", "finish": "stop"}
    one, same = record(1, seen=seen), record(2, seen=seen)
    for probe in (False, True):
        made = learner([one, {**same, "probe": probe}], now_s=NOW_S + 2 * SETTLED_S)
        told = {sign.source: sign.good for sign in made.lessons[call_id(1)].signs}
        assert told["asked_again"] == (1.0 if probe else 0.0)
