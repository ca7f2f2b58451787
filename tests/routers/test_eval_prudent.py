"""The static mix in a router's place until validation rows speak for the router."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from routers.eval_baselines import STATIC, baselines
from routers.eval_measure import ground_of, measure
from routers.eval_policies import SPENDS, Forecast
from routers.eval_prudent import draws, lead_by_row, prudent, surely_positive
from routers.eval_runs import Trial, forecast_trial, run
from routers.eval_split import Fold, swapped
from routers.eval_table import Floats, Table, tables
from tests.routers.made_rows import made_rows

EACH = np.arange(40)


def table_of(count: int, seed: int = 0) -> Table:
    (table,) = tables(made_rows(count, seed=seed), lambda _name: None)
    return table


def halves(table: Table) -> list[Fold]:
    return swapped(table, np.arange(len(table.rows)), 0, 0)


def trial_by(table: Table, fold: Fold, p: Floats) -> Trial:
    return forecast_trial(table, fold, Forecast(p[fold.validation]), Forecast(p[fold.test]))


def test_a_lead_is_sure_where_it_stands_out_of_its_noise() -> None:
    rng = np.random.default_rng(0)
    found = [surely_positive(rng.normal(size=40), EACH) for _ in range(600)]
    assert 0.02 < np.mean(found) < 0.08
    assert np.mean([surely_positive(rng.normal(1.0, 1.0, 40), EACH) for _ in range(50)]) == 1.0
    assert not surely_positive(np.full(40, -1.0), EACH)


def test_rows_of_one_draw_count_as_one() -> None:
    """Forty rows of four families say no more than four do; of two, nothing."""
    rng = np.random.default_rng(1)
    family = np.repeat(np.arange(4), 10)
    found = [surely_positive(np.repeat(rng.normal(size=4), 10), family) for _ in range(600)]
    assert 0.02 < np.mean(found) < 0.08
    assert not surely_positive(np.ones(40), np.repeat([0, 1], 20))
    assert not surely_positive(np.full(40, np.nan), EACH)
    unknown = np.where(np.arange(40) % 2 > 0, np.nan, 1.0)
    assert surely_positive(unknown, EACH)


def test_a_router_that_knows_stays_and_one_that_guesses_gives_way() -> None:
    table = table_of(400)
    knows, rng = table.score, np.random.default_rng(0)
    guesses: Floats = rng.uniform(size=(400, 3))
    for fold in halves(table):
        kept = trial_by(table, fold, knows)
        stays = prudent(table, fold, kept).test.quality
        assert stays[:, :SPENDS].tolist() == kept.test.quality.tolist()
        gone = prudent(table, fold, trial_by(table, fold, guesses))
        assert gone.test.quality.shape == stays.shape
        assert gone.points == {}


def test_what_gave_way_is_level_with_the_mix_at_every_spend() -> None:
    table = table_of(300)
    guesses: Floats = np.random.default_rng(2).uniform(size=(300, 3))
    folds = halves(table)
    static = next(done for done in baselines(table, folds, 0, fitted=False) if done.name == STATIC)
    ground = ground_of(table, [fold.test for fold in folds], 50, 0)
    plain, careful = (
        measure(ground, run(name, table, folds, attempt), static, None, by_family=False).against_static[0].average
        for name, attempt in (
            ("guesses", lambda fold: trial_by(table, fold, guesses)),
            ("guesses, or the mix", lambda fold: prudent(table, fold, trial_by(table, fold, guesses))),
        )
    )
    assert plain.value < -0.02
    assert careful.value == pytest.approx(0.0, abs=1e-6)
    assert careful.low <= 0.0 <= careful.high


def test_the_lead_is_over_a_mix_that_spends_as_much() -> None:
    """Who knows each model's mean and no more is the mix itself, neither ahead of it nor behind."""
    table = table_of(300)
    (fold, _) = halves(table)
    p = np.tile(np.nanmean(table.score[fold.validation], axis=0), (len(table.rows), 1))
    assert np.nanmean(lead_by_row(table, fold, trial_by(table, fold, p))) == pytest.approx(0.0, abs=1e-9)
    assert np.nanmean(lead_by_row(table, fold, trial_by(table, fold, table.score))) > 0.1


def test_new_families_are_drawn_whole_and_known_ones_question_by_question() -> None:
    table = table_of(90)
    names = np.array([row.family for row in table.rows])
    by_name = {name: np.flatnonzero(names == name) for name in "abc"}
    new = Fold(0, by_name["a"], by_name["b"], by_name["c"])
    assert np.unique(draws(table, new)).size == 1
    known = replace(new, train=by_name["a"][:10], test=by_name["a"][10:])
    assert draws(table, known).tolist() == table.group[by_name["b"]].tolist()
    untrained = replace(new, train=np.array([], dtype=np.int64))
    assert draws(table, untrained).tolist() == table.group[by_name["b"]].tolist()
