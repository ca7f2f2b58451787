"""The experiment on tasks of many calls: streams that are what the report says, on synthetic rows."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from app.commands.evaluate import prices_of
from app.learner import experiment_tasks as experiment
from app.learner import experiment_tasks_made as made
from app.learner.experiment_tasks_made import BY_CALL, BY_ONE, BY_TASK, NAIVE, NOTHING, House, Setup, Work, found
from routers.eval_loop_world import Setting
from tests.routers.made_rows import made_rows


@pytest.fixture(scope="module")
def setting() -> Setting:
    rows = [*made_rows(320, source="here", seed=0), *made_rows(320, source="there", seed=1)]
    return Setting(rows, prices_of(None), 2)


@pytest.fixture(scope="module")
def work(setting: Setting) -> Work:
    return Work(setting.world("here"))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("CALLS", 480), ("QUIET", 96), ("FALLEN", 96), ("MIN_CALLS", 10)):
        monkeypatch.setattr(made, name, value)


def test_tasks_are_of_one_kind_and_the_same_whatever_is_chosen(work: Work) -> None:
    every = list(work.tasks(4, 0))
    assert every == list(work.tasks(4, 0))
    assert every != list(work.tasks(4, 1))
    assert len(every) == 120
    for task in every:
        assert {int(work.world.task[row]) for row in task.rows} == {task.kind}
        assert work.world.usable[task.rows].all()


@pytest.mark.parametrize(("rule", "wrong", "luck", "succeeds"), [
    ("all", 0, 0.99, True), ("all", 1, 0.0, False), ("noisy", 1, 0.69, True), ("noisy", 1, 0.71, False),
    ("noisy", 2, 0.48, True), ("noisy", 2, 0.5, False),
])  # fmt: skip
def test_a_task_succeeds_by_its_rule_and_only_that_is_said(
    work: Work, rule: str, wrong: int, luck: float, succeeds: bool
) -> None:
    task = next(work.tasks(4, 0))._replace(luck=luck)
    right = [False] * wrong + [True] * (4 - wrong)
    said = {}
    for way in (BY_TASK, NAIVE, BY_CALL, BY_ONE, NOTHING):
        house = House(work, Setup(4, way, rule))
        house.served(task, [0, 0, 0, 0], right)
        said[way] = [word.outcome == "success" for of in house.learner.words.values() for word in of.values()]
    assert said == {BY_TASK: [succeeds], NAIVE: [succeeds] * 4, BY_CALL: right, BY_ONE: [True], NOTHING: []}


def test_one_call_of_a_task_that_one_model_serves_is_credited(work: Work) -> None:
    house = House(work, Setup(4, BY_TASK))
    house.served(next(work.tasks(4, 0)), [0, 0, 0, 0], [True] * 4)
    house.step()
    assert [bool(lesson.told) for lesson in house.learner.lessons.values()] == [True, False, False, False]
    mixed = House(work, Setup(4, BY_TASK, held=False))
    mixed.served(next(work.tasks(4, 0)), [0, 1, 0, 1], [True] * 4)
    mixed.step()
    parts = [told.part for lesson in mixed.learner.lessons.values() for told in lesson.told]
    assert len(parts) == 4
    assert 0.49 < sum(parts) < 0.51


def test_who_hears_of_each_call_loses_less_than_who_hears_nothing(work: Work) -> None:
    heard, deaf = found(work, Setup(4, BY_CALL), 0), found(work, Setup(4, NOTHING), 0)
    assert heard[:4] == found(work, Setup(4, BY_CALL), 0)[:4]
    assert 0.0 <= heard.regret < deaf.regret
    assert heard.error < deaf.error
    assert isnan(heard.caught)
    assert 0.0 <= heard.covered <= 1.0


def test_the_tables_have_all_that_was_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "LENGTHS", (1, 8))
    whole = experiment.experiment(Setting(made_rows(320, source="here"), prices_of(None), 2))
    regret, fall, lies = (sheet.rows for sheet in whole.sheets)
    assert {(row[1], row[3], row[4]) for row in regret} == {
        (str(setup.calls), "once a task" if setup.held else "for each call", setup.way)
        for setup in experiment.setups() if not setup.lies
    }  # fmt: skip
    assert [(row[3], row[4]) for row in fall] == [("1", BY_CALL), ("8", BY_TASK), ("8", NAIVE)]
    assert [row[2] for row in lies] == [BY_CALL, BY_TASK, NAIVE]
    assert len(whole.marks) == 3
    by_call = [line for line in whole.data["lines"] if line.setup.way == BY_CALL and not line.setup.lies]
    assert all(np.isclose(line.more.value, 0.0) for line in by_call)
