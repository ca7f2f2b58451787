"""The learned router under test: what it is trained on, and what it is told. Rows and weights are synthetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from routers import eval_learned
from routers.artifact import Weights
from routers.eval_contenders import Readings, UnknownRouter
from routers.eval_learned import TOLD, Learning, _as_priced
from routers.eval_policies import Forecast
from routers.eval_split import Fold
from routers.eval_table import ASSUMED_OUTPUT_TOKENS, Table, tables
from routers.evaluate import OR_THE_MIX, Options, evaluate
from routers.live import LiveRouter
from routers.rows import Outcome, Row, question_key
from tests.routers.outcomes import rows, weights


def price(_name: str) -> tuple[float, float]:
    return (1.0, 1.0)


@pytest.fixture(scope="module")
def table() -> Table:
    return tables(rows(), price)[0]


def test_training_sees_nothing_of_the_tested_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[set[str]] = []

    def train(some: Sequence[Row], seed: int) -> Weights:
        trained.append({question_key(row.prompt) for row in some})
        return weights()

    monkeypatch.setattr(eval_learned, "train_weights", train)
    data = rows(120)
    found = evaluate(data, Options(routers=("learned",), cv="family", resamples=3, fitted=False), price)
    names = [[m.name for m in source.routers] for source in found.sources]
    assert names == [["learned", f"learned{OR_THE_MIX}", TOLD, f"{TOLD}{OR_THE_MIX}"]] * 2
    families = {family: {question_key(r.prompt) for r in data if r.family == family} for family in ("sums", "places")}
    assert len(trained) == 2
    for prompts in trained:
        assert sum(bool(prompts & of) for of in families.values()) == 1
        # Some rows of the family that is trained on are set aside to choose settings on.
        assert any(prompts < of for of in families.values())


def test_the_told_router_expects_what_the_gateways_learner_would(table: Table) -> None:
    """Whatever it is told, it is the belief of the learner, read as live traffic reads it."""
    learning, known, asked = Learning(weights(), Readings()), np.arange(40), np.arange(60, 64)
    belief = learning.heard(table, range(len(table.models)), known)
    live = LiveRouter(learning.router, belief, "told")
    arms, features = Readings().arms(table), Readings().features(table)
    served = [[score.p_success for score in live.score(features[row], arms)] for row in asked]
    assert learning.forecast(table, known, asked) == pytest.approx(np.array(served), abs=0.06)


def test_the_told_router_knows_the_outcomes_that_it_was_told(table: Table) -> None:
    learning = Learning(weights(), Readings())
    later = np.arange(60, len(table.rows))
    p = learning.forecast(table, np.arange(60), later)
    assert p.mean(axis=0) == pytest.approx(np.nanmean(table.score[later], axis=0), abs=0.15)


def test_what_is_tested_is_not_told(table: Table) -> None:
    """Outcomes of the tested rows are turned round: nothing changes."""
    known, later = np.arange(60), np.arange(60, len(table.rows))
    score = table.score.copy()
    score[later] = 1.0 - score[later]
    first, second = (Learning(weights(), Readings()) for _ in range(2))
    again = second.forecast(replace(table, score=score), known, later)
    assert np.array_equal(first.forecast(table, known, later), again)


@pytest.mark.parametrize("trained", [0, 30])
def test_settings_are_chosen_on_rows_that_were_not_heard(table: Table, trained: int) -> None:
    """A validation row's own outcomes are turned round: its forecast stays, and that of others changes."""
    fold = Fold(0, np.arange(trained), np.arange(trained, 60), np.arange(60, len(table.rows)))
    score, row = table.score.copy(), 45
    score[row] = 1.0 - score[row]
    turned = replace(table, score=score)
    first, second = (Learning(weights(), Readings()).unheard(one, fold) for one in (table, turned))
    assert np.array_equal(first[row - trained], second[row - trained])
    assert np.array_equal(first, second) is bool(trained)


def test_a_length_that_dollars_assume_is_expected(table: Table) -> None:
    forecast = Forecast(np.zeros((3, 2)), np.array([[10.0, 900.0]] * 3))
    unknown = replace(table, out_tokens=np.full_like(table.out_tokens, np.nan))
    assert _as_priced(forecast, unknown).tokens == pytest.approx(np.full((3, 2), ASSUMED_OUTPUT_TOKENS))
    known = replace(table, out_tokens=np.ones_like(table.out_tokens))
    assert _as_priced(forecast, known) is forecast
    paid = replace(unknown, rows=(replace(table.rows[0], outcomes={"m": Outcome(1.0, cost_usd=0.1)}),))
    assert _as_priced(forecast, paid) is forecast


def test_weights_that_are_not_there_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    with pytest.raises(UnknownRouter, match="weights cannot be used"):
        eval_learned.load_weights(tmp_path)  # type: ignore[arg-type]
