"""Requests that come again, on synthetic labels: what they add to finding a fall, and what they must not do."""

from __future__ import annotations

import functools
import json
from dataclasses import fields

import numpy as np
import pytest

from routers import paired
from routers.drift import BUCKET, LIMITS, Cell, evidence, expectation, heard, new_cell
from routers.paired import KIND, KINDS, LEARNED, NEW, REMEMBERED, then
from routers.quarantine import MIN_DROP, Past, Watch, hear, new_watch, state_of, watch_of

RUNS = 60


def streamed(
    seed: int, labels: int, *, flips: float = 0.0, requests: int = 300, drop: float = 0.0, at: int = 2000
) -> tuple[np.ndarray, np.ndarray]:
    """(labels, RUNS) outcomes of requests that come again and again, right in 9 of 10, and their histories; each answer
    is turned round by chance, and from label `at` on so many points of all are lost."""
    rng, each = np.random.default_rng(seed), np.arange(RUNS)
    truth, known = rng.random((RUNS, requests)) < 0.9, np.full((RUNS, requests), NEW)
    outcomes, histories = np.empty((labels, RUNS)), np.empty((labels, RUNS), dtype=np.int64)
    for number in range(labels):
        request = rng.integers(0, requests, RUNS)
        right = truth[each, request] ^ (rng.random(RUNS) < flips / 2.0)
        right &= (rng.random(RUNS) >= drop / 0.9) | (number < at)
        outcomes[number], histories[number] = right, known[each, request]
        known[each, request] = then(known[each, request], right)
    return outcomes, histories


def alarms(outcomes: np.ndarray, histories: np.ndarray) -> np.ndarray:
    """(labels / BUCKET, RUNS): whether an alarm is up."""
    cell, found = new_cell(outcomes.shape[1]), []
    for number, (row, before) in enumerate(zip(outcomes, histories, strict=True), 1):
        cell = heard(cell, 1.0, row, 1.0, before)
        if number % BUCKET == 0:
            of = evidence(cell)
            found.append(((of.root > LIMITS) & (of.drop >= MIN_DROP)).any(axis=-1))
    return np.array(found)


def told(cell: Cell, *labels: tuple[float, int], times: int = 1) -> Cell:
    """One cell after labels: outcomes and histories."""
    for _ in range(times):
        for outcome, history in labels:
            cell = heard(cell, 2.2, outcome, 1.0, history)
    return cell


def history_of(outcomes: str) -> int:
    history = NEW
    for outcome in outcomes:
        history = int(then(history, float(outcome)))
    return history


def test_a_history_holds_the_latest_outcomes() -> None:
    assert history_of("0" + "1" * REMEMBERED) == history_of("1" * (REMEMBERED + 3))
    assert history_of("10") != history_of("01") != history_of("1")
    assert history_of("110" + "101") == history_of("101")
    assert len({history_of(f"{n:b}") for n in range(200)}) < len(KIND)
    assert then(np.array([NEW, history_of("1")]), np.array([0.2, 0.7])).tolist() == [history_of("0"), history_of("11")]


def test_kinds_go_from_right_to_wrong() -> None:
    ordered = ["1", "111", "101", "100", "0", "00"]
    assert [int(KIND[history_of(outcomes)]) for outcomes in ordered] == list(range(1, KINDS + 1))
    assert (KIND[NEW], KIND[history_of("01")], KIND[history_of("10")]) == (0, 3, 4)


def test_where_no_request_comes_again_nothing_is_different() -> None:
    rng = np.random.default_rng(1)
    plain, marked = new_cell(3), new_cell(3)
    for _ in range(900):
        logits, y, w = rng.normal(1.0, 1.0, 3), rng.random(3), rng.random(3)
        plain, marked = heard(plain, logits, y, w), heard(marked, logits, y, w, np.full(3, NEW))
    assert marked.pairs is None
    for field in fields(Cell):
        assert np.array_equal(getattr(plain, field.name), getattr(marked, field.name)), field.name
    assert not evidence(marked).paired.any()


def test_one_cell_that_has_repeats_leaves_others_beside_it_as_they_are() -> None:
    rng = np.random.default_rng(2)
    alone, beside = new_cell(1), new_cell(2)
    for _ in range(900):
        y = float(rng.random() < 0.9)
        alone = heard(alone, 1.0, np.full(1, y))
        beside = heard(beside, 1.0, np.full(2, y), 1.0, np.array([NEW, history_of("11")]))
    assert beside.pairs is not None
    for one, other in zip(evidence(alone), evidence(beside), strict=True):
        assert np.array_equal(one[0], other[0])


def test_a_fall_that_new_requests_hardly_show_is_found_by_repeats() -> None:
    outcomes, histories = streamed(3, 2600, flips=0.02, drop=0.05)
    of_pairs = alarms(outcomes, histories)[200:].any(axis=0).mean()
    of_new = alarms(outcomes, np.full_like(histories, NEW))[200:].any(axis=0).mean()
    assert of_pairs >= 0.95
    assert of_new <= 0.8


@pytest.mark.parametrize("flips", [0.0, 0.05, 0.3])
def test_quiet_cells_are_left_alone_however_repeatable_a_model_is(flips: float) -> None:
    assert alarms(*streamed(4, 3000, flips=flips)).any(axis=0).mean() <= 0.05


def test_how_repeatable_a_model_is_is_learned_in_both_directions() -> None:
    right, wrong = history_of("111"), history_of("000")
    cell = told(new_cell(), (1.0, NEW), times=10)
    assert expectation(cell, 2.2, right) == expectation(cell, 2.2)  # nothing is assumed
    steady = told(cell, (1.0, right), (0.0, wrong), times=45)
    assert expectation(steady, 2.2, right) > 0.97
    assert expectation(steady, 2.2, wrong) < 0.03
    flighty = told(cell, (1.0, right), (0.0, right), (1.0, wrong), times=30)
    assert expectation(flighty, 2.2, right) == pytest.approx(0.5, abs=0.02)
    assert expectation(flighty, 2.2, wrong) > 0.95


def test_a_request_that_fails_in_a_loop_counts_once() -> None:
    """A hundred times the same failure: as new requests they would be a fall."""
    outcomes, histories = (of[:, :1] for of in streamed(5, 2000))
    cell = new_cell()
    for row, before in zip(outcomes[:, 0], histories[:, 0], strict=True):
        cell = heard(cell, 1.0, row, 1.0, before)
    looping = hammered = cell
    history = history_of("111")
    for _ in range(100):
        looping, hammered = heard(looping, 1.0, 0.0), heard(hammered, 1.0, 0.0, 1.0, history)
        history = int(then(history, 0.0))
    assert (evidence(looping).root > LIMITS).any()
    of = evidence(hammered)
    assert not ((of.root > LIMITS) & (of.drop >= MIN_DROP)).any()


def test_kinds_that_are_hardly_known_say_nothing() -> None:
    cell = told(new_cell(), (1.0, NEW), times=200)
    cell = told(cell, (1.0, history_of("1")), times=int(LEARNED) - 1)
    fell = told(cell, (0.0, history_of("1")), times=11)
    assert not (evidence(fell).root > LIMITS).any()


def test_graded_outcomes_tell_more_than_yes_or_no() -> None:
    """Those of one kind, around .8, that lose a tenth."""
    history = history_of("111")
    rng, clear, graded = np.random.default_rng(9), new_cell(), new_cell()
    for number in range(1200):
        level = 0.8 if number < 1000 else 0.7
        clear = heard(clear, 1.0, float(rng.random() < level), 1.0, history)
        graded = heard(graded, 1.0, level + rng.uniform(-0.2, 0.2), 1.0, history)
    assert evidence(graded).root.max() > 1.7 * evidence(clear).root.max()


@functools.cache
def fallen() -> Watch:
    """A watch on requests that come again, after it fell by half."""
    outcomes, histories = (of[:, 0] for of in streamed(6, 2400, drop=0.45))
    watch = new_watch()
    for number, (outcome, before) in enumerate(zip(outcomes, histories, strict=True)):
        watch = hear(watch, 1.0, outcome, 1.0, float(number), Past(int(before)))
        if watch.fallen is not None:
            assert number >= 2000
            return watch
    raise AssertionError("not found")


def test_a_fall_says_how_much_of_it_repeats_showed() -> None:
    found = fallen().fallen
    assert found is not None
    assert found.paired > 0.8
    assert 0.8 < found.level < 0.97


def probes_until_back(past: Past, rate: float, seed: int, most: int = 3000) -> int:
    watch, rng = fallen(), np.random.default_rng(seed)
    for number in range(most):
        watch = hear(watch, 1.0, float(rng.random() < rate), 1.0, float(number), past)
        if watch.fallen is None:
            return number + 1
    return most


def test_repeats_show_a_recovery_and_sooner_where_they_had_failed_since() -> None:
    """Of a fall as deep as this one in more labels than new requests: it may be less deep than it looked."""

    def mean(past: Past, rate: float) -> float:
        return float(np.mean([probes_until_back(past, rate, seed) for seed in range(10)]))

    known = history_of("111")
    assert mean(Past(known, 0, 2), 0.99) < mean(Past(known), 0.99) < 250


def test_repeats_of_one_that_is_still_down_do_not_let_it_back() -> None:
    for past in (Past(history_of("111")), Past(history_of("111"), 0, 1), Past(history_of("111"), 3, 6)):
        assert all(probes_until_back(past, 0.45, seed, 200) == 200 for seed in range(5))


def test_state_survives_json() -> None:
    for watch in (fallen(), Watch(fallen().cell)):
        again = watch_of(json.loads(json.dumps(state_of(watch))))
        assert state_of(again) == state_of(watch)
        assert again.fallen == watch.fallen
        assert evidence(again.cell).root == pytest.approx(evidence(watch.cell).root, abs=1e-3)


def test_a_base_of_many_repeats_still_learns() -> None:
    pairs = paired.new_pairs((), 60)
    for outcome in (1.0, 0.0):
        for _ in range(200):
            pairs = paired.heard(pairs, np.asarray(1), outcome, 1.0, at_once=True)
            pairs = paired.turned(pairs, 50.0)
    assert paired.rates(pairs.base)[0] < 0.05
