"""`bursar eval loop` on small folders of synthetic rows: what it prints, writes and refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.learner import experiment_poisoned
from app.learner.experiments import EXPERIMENTS
from routers import eval_loop_adequate, eval_loop_drift, eval_loop_new, eval_loop_regret
from routers.eval_loop_contenders import BetaThompson, Kept, LinUcb, Online, Static, surely_best
from routers.eval_loop_world import Setting, World, over_seeds, share_found, stream
from routers.paired import NEW
from routers.rows import Outcome
from tests.routers.made_rows import made_rows, write_rows
from tests.test_eval_command import bursar


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    for number, source in enumerate(("here", "there")):
        rows = made_rows(320, source=source, seed=number)
        write_rows(folder / f"{source}.jsonl.gz", rows)
    return folder


@pytest.fixture(scope="module")
def world(folder: Path) -> World:
    from app.commands.evaluate import prices_of, read_data

    _, rows = read_data(folder)
    return Setting(rows, prices_of(None), 2).world("here")


def test_experiments_print_tables_and_marks(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eval_loop_regret, "REQUESTS", 60)
    monkeypatch.setattr(eval_loop_new, "EARLIER", 20)
    monkeypatch.setattr(eval_loop_new, "CHECKPOINTS", (0, 50, 60))
    out, markdown = tmp_path / "out.json", tmp_path / "out.md"
    asked = [part for name in ("regret", "family", "newcomer") for part in ("--experiment", name)]
    done = bursar(
        "loop", "--data", str(folder), "--seeds", "2", "--json", str(out), "--out", str(markdown), *asked
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    whole = json.loads(out.read_text())
    assert [one["name"] for one in whole["experiments"]] == ["regret", "family", "newcomer"]
    assert whole["seeds"] == 2
    assert all(isinstance(mark["met"], bool) for one in whole["experiments"] for mark in one["marks"])
    assert "Regret over a stream of requests" in done.output
    assert "| mark | found | met |" in markdown.read_text()


def test_what_is_not_there_is_said(folder: Path) -> None:
    done = bursar("loop", "--data", str(folder), "--experiment", "luck")
    assert (done.exit_code, "no experiment is called 'luck'" in done.output) == (2, True)
    assert bursar("loop", "--data", str(folder / "nowhere")).exit_code == 2
    assert set(EXPERIMENTS) == {"regret", "drift", "newcomer", "family", "adequate", "poisoned", "replay", "tasks"}


def test_one_source_alone_is_met_with_the_shipped_weights_and_too_little_meets_no_mark(tmp_path: Path) -> None:
    write_rows(tmp_path / "one.jsonl", made_rows(12))
    out = tmp_path / "out.json"
    asked = [part for name in ("drift", "family", "poisoned", "replay") for part in ("--experiment", name)]
    done = bursar("loop", "--data", str(tmp_path), "--seeds", "2", "--json", str(out), *asked)
    assert done.exit_code == 0, done.output
    whole = json.loads(out.read_text())
    assert whole["notes"] == ["made: no other source to train on; the shipped weights, which may know it"]
    assert whole["notes"][0] in done.output
    assert not any(mark["met"] for one in whole["experiments"] for mark in one["marks"])


def test_where_nothing_can_be_chosen_it_says_why(tmp_path: Path) -> None:
    rows = [replace(row, outcomes={"m": Outcome(1.0), "n": Outcome(0.0)}) for row in made_rows(12)]
    write_rows(tmp_path / "unpaid.jsonl", rows)
    done = bursar("loop", "--data", str(tmp_path), "--seeds", "2")
    assert done.exit_code == 1
    assert "no source has two models with a price (--prices)" in done.output


def test_the_drift_experiment_counts_what_it_finds(world: World) -> None:
    rows = np.arange(len(world.table.rows))
    report = eval_loop_drift.cell_report(world, world.best, rows, seeds=2, runs=4)
    assert report.level == pytest.approx(float(world.score[:, world.best].mean()))
    deep = report.falls[-1]
    assert (deep.drop, deep.of_seeds) == (0.30, 2)
    assert deep.share.low <= deep.share.value <= deep.share.high


@pytest.mark.parametrize(
    "repeats", [eval_loop_drift.ALL_AGAIN, *eval_loop_drift.SYNTHETIC, *eval_loop_drift.PROBE_SETS]
)
def test_requests_come_again_as_the_report_says(repeats: eval_loop_drift.Repeats) -> None:
    score, labels = (np.arange(400) % 10 < 9).astype(np.float64), 4_000
    at, y, history = eval_loop_drift._streamed(np.random.default_rng(0), score, labels, 0.3, repeats)
    again = history != NEW
    requests = repeats.probes or len(score)
    assert again.sum() == pytest.approx(repeats.share * labels - requests, abs=0.05 * labels)
    assert len(set(at[again].tolist())) <= requests
    quiet = np.arange(labels) < eval_loop_drift.BEFORE
    turned = (y != score[at])[quiet & again].mean()
    assert turned == pytest.approx(repeats.flips / 2.0, abs=0.01 + 0.5 / (quiet & again).sum() ** 0.5)
    assert y[quiet].mean() - y[~quiet].mean() == pytest.approx(0.27, abs=0.05)
    lost = [y[~quiet & (at == row)] for row in np.flatnonzero(score) if repeats.same]
    assert all(not 0.3 < of.mean() < 0.7 for of in lost if len(of) > 5)


def test_a_probe_set_comes_in_rounds_and_the_command_compares_them() -> None:
    score, size = np.ones(400), eval_loop_drift.PROBE_SET
    quiet, same = eval_loop_drift.PROBE_SETS[0], eval_loop_drift.PROBE_SETS[3]
    assert (quiet.flips, quiet.same, same.same) == (0.0, False, True)
    at, y, _ = eval_loop_drift._streamed(np.random.default_rng(0), score, 4_000, 0.05, same)
    rounds = at.reshape(-1, size)
    assert all(set(one) == set(rounds[0]) for one in rounds.tolist())
    assert any(rounds[0] != rounds[1])
    told = eval_loop_drift.told_by_rounds(at, y, size)
    assert told == [number >= eval_loop_drift.BEFORE // size for number in range(4_000 // size)]
    won = np.concatenate([np.where(np.arange(size) < 180, 1.0, 0.0), np.ones(size), np.arange(size) < 180])
    assert eval_loop_drift.told_by_rounds(np.tile(np.arange(size), 3), won, size) == [False, False, True]


def test_what_a_probe_set_finds_is_reported_with_what_the_command_finds(world: World) -> None:
    rows = np.arange(len(world.table.rows))
    report = eval_loop_drift.cell_report(world, world.best, rows, 2, eval_loop_drift.PROBE_SETS[0], runs=4)
    deep = report.falls[-1]
    assert deep.by_command is not None
    assert report.command_alarms is not None
    assert (deep.by_command.value, report.command_alarms.value) == (1.0, 0.0)
    alone = eval_loop_drift.cell_report(world, world.best, rows, 2, runs=4)
    assert (alone.command_alarms, alone.falls[-1].by_command) == (None, None)


def test_the_poisoned_experiment_has_its_controls(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.learner.experiment_poisoned import ALONE, ARMS, BEST, DEAREST, LEFT, OTHERS

    monkeypatch.setattr(experiment_poisoned, "LENGTHS", (100, 400))
    monkeypatch.setattr(experiment_poisoned, "MIN_TYPE", 20)
    found = experiment_poisoned.poisoned(world, [0, 1])
    compared = found.compared
    names = (*ARMS, OTHERS, LEFT)
    every = (*names, *(f"{how}: {name}" for how in (BEST, DEAREST) for name in (*names, ALONE)))
    assert set(compared) == {(length, name) for length in (100, 400) for name in every}
    routes = {of.routes for of in compared.values()}
    assert len(routes) == 1
    assert routes.pop() > 0
    left = [compared[400, name].changed for name in (LEFT, f"{BEST}: {LEFT}", f"{DEAREST}: {LEFT}")]
    assert left == [0, 0, 0], "whoever is found out has nothing left in force"
    assert all(0 < since <= 400 and since % experiment_poisoned.EVERY == 0 for since in found.found_out)
    assert (len(found.found_out), found.suspected) == (2, 0)
    for of in compared.values():
        assert of.sure <= of.flipped <= of.changed - of.better
    lost = experiment_poisoned._lost(np.array([[1.0, 0.0], [1.0, 0.0], [np.nan, 0.5]]), 0, 1)
    assert lost == pytest.approx((1.0 - 0.5 / 3, 1.0 - 0.5 / 3))


def test_who_keeps_to_a_baseline_leaves_it_for_what_surely_pays(world: World) -> None:
    """The middle arm is all that ever works; without outcomes nothing is left, whatever the weights expect."""
    rate = world.rate(0.0)
    for baseline in range(len(world.arms)):
        learner, rows = Kept(world, 0, baseline), stream(world, 300, 0).tolist()
        for row in rows:
            arm = learner.choose(row, rate)
            learner.learn(row, arm, float(arm == 1))
        assert {learner.best(row, rate) for row in rows if world.usable[row].all()} == {1}
    assert surely_best(np.array([0.9, 0.8]), np.array([2.2, 1.4]), np.array([0.2, 0.2]), [1, 1], 1, 1.0) == 0
    assert surely_best(np.array([0.9, 0.8]), np.array([2.2, 1.4]), np.array([1.0, 1.0]), [1, 1], 1, 1.0) == 1


def test_the_cheapest_adequate_is_what_is_asked_for_and_paid_as_little(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the made-up models the cheap one succeeds on 40, the middle one on 60, the dear one on 80 of 100."""
    monkeypatch.setattr(eval_loop_adequate, "REQUESTS", 600)
    found = {one.level: one for one in eval_loop_adequate.adequate(world, [0, 1])}
    assert set(found) == {0.6, 0.7, 0.8} & set(found)
    assert 0.7 in found
    for level, one in found.items():
        assert set(one.success) == set(eval_loop_adequate.OF)
        assert one.late[eval_loop_adequate.PLAIN].value > level - 0.12
        for name in eval_loop_adequate.OF:
            assert one.lowest[name].value <= one.success[name].value
            assert one.dollars[name].value <= 1.0 + 1e-9
    kept, plain = found[0.7].dollars[eval_loop_adequate.KEPT], found[0.7].dollars[eval_loop_adequate.PLAIN]
    assert plain.value <= kept.value


def test_without_outcomes_the_baseline_is_kept_and_one_surely_adequate_is_taken(world: World) -> None:
    dear, cheap = int(np.argmax(world.price)), int(np.argmin(world.price))
    learner = eval_loop_adequate.Adequate(world, 0, 0.7, dear)
    row = next(row for row in range(len(world.table.rows)) if world.usable[row].all())
    assert learner.best(row, 0.0) == dear
    for again in stream(world, 200, 0).tolist():
        learner.learn(again, cheap, 1.0)
    assert learner.best(row, 0.0) == cheap


def test_contenders_learn_from_their_own_outcomes_alone(world: World) -> None:
    rate = world.rate(0.0)
    for chooser in (Online(world, 0), Online(world, 0, share=0.0), BetaThompson(world, 0), LinUcb(world)):
        for row in stream(world, 200, 0).tolist():
            arm = chooser.choose(row, rate)
            chooser.learn(row, arm, float(arm == 1))  # the middle one is all that ever works
        chosen = [chooser.choose(row, rate) for row in range(40)]
        assert chosen.count(1) > 30
    static = Static(world)
    assert static.choose(0, 0.0) == static.choose(0, 0.0)


def test_what_first_outcomes_spoke_against_is_drawn_as_often_as_it_may_be_the_best(world: World) -> None:
    learner, tries = Online(world, 0, share=1.0), 4_000
    for row in range(4):
        learner.learn(row, 0, 1.0)
    learner.learn(5, 1, 0.0)
    mean, cov = learner.logits(40)
    draws = np.random.default_rng(1).multivariate_normal(mean, cov, 50_000)
    chance = float(np.mean((draws[:, 1] > draws[:, 0]) & (draws[:, 1] > draws[:, 2])))
    assert int(mean.argmax()) == 0
    assert 0.01 < chance < 0.1  # believed worse by some standard deviations
    chosen = [learner.choose(40, 0.0) for _ in range(tries)]
    sure = 4.0 * (chance / tries) ** 0.5
    assert chosen.count(1) / tries == pytest.approx(chance, abs=sure)


def test_one_that_hears_all_arms_takes_what_is_best_for_the_family(world: World) -> None:
    """Synthetic: the first arm is best in both of the families that are known, the second in the new one."""
    rng, family = np.random.default_rng(1), world.table.family
    rows, arms = world.score.shape
    good = np.full((rows, arms), 0.3)
    good[:, 0], good[:, 1] = 0.8, np.where(family == 1, 0.75, 0.5)
    good[family == 0, 0], good[family == 0, 1] = 0.2, 0.9
    score = (rng.random((rows, arms)) < good).astype(float)
    made = replace(world, score=score, cost=np.zeros((rows, arms)), usable=np.ones((rows, arms), bool))
    asked = rng.choice(np.flatnonzero(family == 0), eval_loop_new.CHECKPOINTS[-1])
    found = eval_loop_new.hearing_all(made, 0, asked, 0, 0.0)
    assert (found[0], found[-1]) == (0, 1)


def test_the_same_seed_is_the_same_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eval_loop_regret, "REQUESTS", 100)
    one, other = (eval_loop_regret.regrets(world, 0.2, [3]) for _ in range(2))
    assert one == other


def test_intervals() -> None:
    assert over_seeds([1.0, 2.0, 3.0]).value == 2.0
    assert over_seeds([1.0, 2.0, 3.0]).high == pytest.approx(2.0 + 4.30 / 3**0.5)
    assert share_found(20, 20).low == pytest.approx(0.839, abs=0.001)
