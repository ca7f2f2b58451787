"""How the learner meets a new model in the harness. Rows and weights are synthetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from routers import eval_joining
from routers.artifact import Weights
from routers.eval_contenders import Readings
from routers.eval_joining import Joining, joining_apart, joining_of
from routers.eval_newcomer import newcomer, spread_models
from routers.eval_split import without_source
from routers.eval_table import Table, tables
from routers.rows import Outcome, Row, question_key
from tests.routers.outcomes import MODELS, rows, weights

NOTHING = np.array([], dtype=np.int64)


def price(_name: str) -> tuple[float, float]:
    return (1.0, 1.0)


@pytest.fixture(scope="module")
def table() -> Table:
    return tables(rows(), price)[0]


@pytest.fixture(scope="module")
def joining() -> Joining:
    return Joining(weights(), Readings())


def test_outcomes_move_a_new_model_towards_what_they_say(table: Table, joining: Joining) -> None:
    state = joining.start(table, table.models.index("mistral-7b-instruct"), NOTHING)
    everything = np.arange(len(table.rows))
    before = joining.predict(state, table, everything).mean()
    for row in range(30):
        state = joining.learn(state, table, row, 1.0)
    assert joining.predict(state, table, everything).mean() > before + 0.05


def test_a_new_model_starts_from_its_name_alone(table: Table, joining: Joining) -> None:
    """The weights were trained on its outcomes; as a newcomer it must not profit from them."""
    arm = Readings().arms(table)[0]
    known, fresh = joining.router.ability(arm), joining.start(table, 0, NOTHING).belief.ability(arm.name)
    k = len(known.mean)
    assert not np.allclose(known.mean, fresh.mean[:k])
    assert np.trace(fresh.cov[:k, :k]) > np.trace(known.cov)


def test_a_new_model_begins_with_the_level_that_the_others_show(table: Table) -> None:
    """Everybody fails here: so, it is expected, will the new one, of which no outcome is looked at."""
    hard = replace(table, score=np.zeros_like(table.score))
    own = replace(hard, score=np.where(np.arange(hard.score.shape[1]) == 0, 1.0, hard.score))
    known, everything = np.arange(40), np.arange(len(table.rows))
    first, second = (Joining(weights(), Readings()) for _ in range(2))
    fresh, told = (first.predict(first.start(hard, 0, of), hard, everything) for of in (NOTHING, known))
    assert told.mean() < fresh.mean() - 0.1
    assert second.predict(second.start(own, 0, known), own, everything) == pytest.approx(told)


def test_how_hard_a_family_is_for_others_tells_a_new_model(table: Table, joining: Joining) -> None:
    """Sums go wrong here and questions of place do not, for all that is known; of the new model nothing is."""
    sums = table.family == table.families.index("sums")
    odd = replace(table, score=np.repeat(np.where(sums, 0.0, 1.0)[:, None], table.score.shape[1], axis=1))
    known, asked = np.arange(0, 60), np.arange(60, len(table.rows))
    p = Joining(weights(), Readings())
    told, fresh = (p.predict(p.start(odd, 0, of), odd, asked) for of in (known, NOTHING))
    gap = told[~sums[asked]].mean() - told[sums[asked]].mean()
    assert gap > fresh[~sums[asked]].mean() - fresh[sums[asked]].mean() + 0.3


def test_the_learner_meets_a_newcomer_and_hides_it_from_the_others(table: Table, joining: Joining) -> None:
    found = newcomer(table, "gpt-4o", [0, 10], joining, draws=3, seed=0)
    assert found is not None
    assert {(line.method, line.labels) for line in found.lines} >= {("learned", 0), ("learned", 10)}
    chances = joining.others(table, 0, np.arange(30), np.arange(30, 50))
    assert np.isnan(chances[:, 0]).all()
    assert ((chances[:, 1:] > 0.0) & (chances[:, 1:] < 1.0)).all()


def test_models_to_be_new_go_from_the_weakest_to_the_best(table: Table) -> None:
    weakest_first = sorted(MODELS, key=MODELS.__getitem__)
    assert spread_models(table) == weakest_first
    assert spread_models(table, 2) == [weakest_first[0], weakest_first[-1]]


def test_a_retrained_router_never_saw_the_model_under_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()

    def train(some: Sequence[Row], seed: int) -> Weights:
        seen.update(model for row in some for model in row.outcomes)
        return weights()

    monkeypatch.setattr(eval_joining, "train_weights", train)
    joining_of(rows(20), "GPT-4o", 0)
    assert seen == {"gpt-4o-mini", "llama-3.1-8b-instruct", "mistral-7b-instruct"}


def test_apart_means_no_row_and_no_question_of_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    data = rows(30)
    asked_elsewhere = replace(data[0], id="again", source="elsewhere", outcomes={"m": Outcome(1.0)})
    trained: list[Row] = []

    def train(some: Sequence[Row], seed: int) -> Weights:
        trained.extend(some)
        return weights()

    monkeypatch.setattr(eval_joining, "train_weights", train)
    joining_apart([*data, asked_elsewhere], 0)(data[0].source)
    assert trained == without_source([*data, asked_elsewhere], data[0].source)
    assert {row.source for row in trained} == {row.source for row in data} - {data[0].source}
    assert question_key(data[0].prompt) not in {question_key(row.prompt) for row in trained}
