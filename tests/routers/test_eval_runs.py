"""From forecasts to choices to runs: the rules, the choice of settings on validation rows only, baselines, splits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from routers import eval_fits
from routers.eval_baselines import ORACLE, STATIC, baselines, comparable, static_corners, static_weights
from routers.eval_fits import Texts, fit_single, fits
from routers.eval_measure import ground_of, measure, verdict
from routers.eval_policies import (
    Forecast,
    by_adequacy,
    by_utility,
    column_means,
    expected_costs,
    picked,
    rates_of,
    setting_for,
)
from routers.eval_runs import HIGHEST, Part, Run, Trial, forecast_trial, mixed_rates, run
from routers.eval_split import Cv, Fold, plans, swapped
from routers.eval_table import Floats, Table, tables
from routers.rows import Indices, Outcome, Row
from tests.routers.made_rows import made_rows


def no_price(_name: str) -> None:
    return None


def one_table(rows: list[Row]) -> Table:
    (table,) = tables(rows, no_price)
    return table


def halves(table: Table) -> list[Fold]:
    return swapped(table, np.arange(len(table.rows)), 0, 0)


P = np.array([[0.5, 0.7, 0.9], [0.9, 0.9, 0.9], [0.1, 0.2, 0.3]])
COST = np.array([[1.0, 2.0, 10.0]] * 3)
ALL = np.ones((3, 3), dtype=bool)


def test_utility_weighs_success_against_dollars() -> None:
    chosen = by_utility(P, COST, ALL, np.array([0.0, 0.05, 1.0]))
    assert chosen.T.tolist() == [[2, 0, 2], [1, 0, 1], [0, 0, 0]]


def test_adequacy_is_the_cheapest_that_suffices_else_the_likeliest() -> None:
    assert by_adequacy(P, COST, ALL, 0.7).tolist() == [1, 0, 2]


def test_only_what_can_be_called_is_chosen() -> None:
    usable = np.array([[True, True, False], [False, True, True], [False, False, False]])
    assert by_adequacy(P, COST, usable, 0.8).tolist() == [1, 1, -1]
    assert by_utility(P, COST, usable, np.zeros(1))[:, 0].tolist() == [1, 1, -1]
    assert np.isnan(picked(COST, np.array([[-1], [0], [2]]))[0, 0])


def test_a_model_that_the_router_does_not_know_is_its_last_choice() -> None:
    p = np.array([[np.nan, 0.1, 0.2], [np.nan, np.nan, np.nan], [0.3, np.nan, 0.1]])
    assert by_adequacy(p, COST, ALL, 0.9).tolist() == [2, 0, 0]


def test_a_setting_is_the_cheapest_that_reaches_its_target_else_the_best() -> None:
    quality, cost = np.array([0.5, 0.8, 0.9, 0.85]), np.array([1.0, 2.0, 9.0, 3.0])
    assert setting_for(0.95, quality, cost, 0.85) == 3
    assert setting_for(1.0, quality, cost, 0.95) == 2


def test_settings_are_chosen_on_validation_rows_and_not_on_tested_ones() -> None:
    """A run that is good at setting 0 on validation rows and at setting 1 on tested rows gets setting 0."""
    table = one_table(made_rows(40))
    fold = Fold(0, np.array([], dtype=np.int64), np.arange(20), np.arange(20, 40))
    good, bad = np.ones(20), np.zeros(20)
    price = np.full((20, 2), 0.01)
    trial = Trial(Part(np.stack([good, bad], 1), price), Part(np.stack([bad, good], 1), price))
    done = run("turncoat", table, [fold], lambda _fold: trial)
    for name in ("100% of best", "95% of best", HIGHEST):
        assert done.points[name].quality[20:].tolist() == [0.0] * 20
        assert np.isnan(done.points[name].quality[:20]).all()


def test_halves_and_folds_never_share_a_question() -> None:
    rows = made_rows(60) + [
        Row(f"other:{row.id}", "other", "z", row.prompt.upper(), (), row.outcomes) for row in made_rows(60)
    ]
    made = tables(rows, no_price)
    for kind in ("none", "random", "family", "source"):
        found, _ = plans(rows, made, kind, 0)
        for plan in found:
            trained = {row.prompt.lower() for row in (rows[i] for i in plan.train)}
            for place, fold in plan.folds:
                table = made[place]
                parts = [{table.group[i] for i in part} for part in (fold.train, fold.validation, fold.test)]
                assert not (parts[0] & parts[2])
                assert not (parts[1] & parts[2])
                assert not (parts[0] & parts[1])
                held = [*fold.validation, *fold.test]
                assert not trained & {table.rows[i].prompt.lower() for i in held if kind != "source"}
                assert not trained & {table.rows[i].prompt.lower() for i in fold.test}


@pytest.mark.parametrize("kind", ["none", "random", "family"])
def test_every_row_is_tested_once(kind: Cv) -> None:
    rows = made_rows(60)
    made = tables(rows, no_price)
    found, _ = plans(rows, made, kind, 1)
    tested = np.concatenate([fold.test for plan in found for _, fold in plan.folds])
    assert sorted(tested.tolist()) == list(range(60))


def test_what_cannot_be_split_as_asked_is_said() -> None:
    rows = made_rows(40, families=["only"])
    found, notes = plans(rows, tables(rows, no_price), "family", 0)
    assert "do not make two folds" in notes[0]
    assert len(found) == 1
    assert not len(found[0].train)


def test_costs_are_recorded_or_tokens_at_a_price() -> None:
    row = Row(
        "r", "s", "f", "x" * 40, (),
        {
            "said": Outcome(1.0, cost_usd=0.5),
            "counted": Outcome(1.0, in_tokens=100, out_tokens=50),
            "measured": Outcome(1.0, out_chars=400),
            "o1-preview": Outcome(1.0, out_chars=400),
            "unpriced": Outcome(1.0, out_tokens=5),
        },
    )  # fmt: skip
    (table,) = tables([row], lambda name: None if name == "unpriced" else (1.0, 10.0))
    cost = dict(zip(table.models, table.cost[0], strict=True))
    assert cost["said"] == 0.5
    assert cost["counted"] == pytest.approx((100 * 1 + 50 * 10) / 1e6)
    assert cost["measured"] == pytest.approx((10 * 1 + 100 * 10) / 1e6)
    assert np.isnan([cost["o1-preview"], cost["unpriced"]]).all()
    assert any("reasoning" in note and "o1-preview" in note for note in table.notes)
    assert any("no price" in note and "unpriced" in note for note in table.notes)


def test_one_model_alone_with_dollars_is_said_to_be_compared_with_itself() -> None:
    rows = [Row("r", "s", "f", "x", (), {"paid": Outcome(1.0), "o1-preview": Outcome(1.0), "free": Outcome(0.0)})]
    (table,) = tables(rows, lambda name: None if name == "free" else (1.0, 10.0))
    assert table.notes[-1] == "only paid has dollars: all figures of money compare it with itself"


def test_few_shot_examples_are_paid_for() -> None:
    row = Row("r", "mmlu_pro", "f", "x" * 40, (), {"m": Outcome(1.0, out_tokens=0)})
    (table,) = tables([row], lambda _name: (1.0, 1.0))
    assert table.in_tokens.tolist() == [1210.0]


def test_expected_costs_are_scaled_to_what_validation_rows_cost() -> None:
    rows = [Row(str(i), "s", "f", "word " * 8, (), {"m": Outcome(1.0, out_tokens=100)}) for i in range(8)]
    (table,) = tables(rows, lambda _name: (1.0, 10.0))
    fold = Fold(0, np.array([], dtype=np.int64), np.arange(4), np.arange(4, 8))
    said = Forecast(np.ones((4, 1)), np.full((4, 1), 50.0))
    assert expected_costs(table, fold, fold.test, said, said) == pytest.approx(table.cost[4:])
    double = Forecast(np.ones((4, 1)), np.full((4, 1), 100.0))
    assert (expected_costs(table, fold, fold.test, said, double) > 1.5 * table.cost[4:]).all()
    blind = Forecast(np.ones((4, 1)))
    assert expected_costs(table, fold, fold.test, blind, blind) == pytest.approx(table.cost[4:])


def test_the_static_mix_calls_neighbours_on_the_hull() -> None:
    table = one_table(made_rows(200))
    fold = halves(table)[0]
    corners, costs = static_corners(table, fold)
    assert costs == sorted(costs)
    assert table.models[corners[0]] == "cheap-7b"
    weights = static_weights(table, fold)
    assert weights.sum(axis=1) == pytest.approx(1.0)
    assert ((weights > 0).sum(axis=1) <= 2).all()


@pytest.fixture(scope="module")
def compared() -> tuple[Table, list[Run]]:
    table = one_table(made_rows(240, seed=5))
    return table, baselines(table, halves(table), 0)


def by_name(runs: list[Run], name: str) -> Run:
    return next(done for done in runs if done.name == name)


def test_the_oracle_dominates_everything_at_any_rate(compared: tuple[Table, list[Run]]) -> None:
    table, runs = compared
    rates = rates_of(table)
    worth = {}
    for done in runs:
        quality, cost = column_means(done.quality), column_means(done.cost)
        worth[done.name] = (quality[:, None] - rates * cost[:, None]).max(axis=0)
    # A second draw can succeed where no recorded outcome does.
    for name in worth.keys() - {ORACLE, "best model with retry"}:
        assert (worth[ORACLE] >= worth[name] - 1e-9).all(), name


def test_all_baselines_are_there(compared: tuple[Table, list[Run]]) -> None:
    names = [done.name for done in compared[1]]
    for part in ("cheapest", "always best", STATIC, "random", "length", "kNN", "TF-IDF", "matrix", "cascade", "retry"):
        assert any(part in name for name in names), part


def test_a_coin_between_two_models_is_on_their_line(compared: tuple[Table, list[Run]]) -> None:
    _table, runs = compared
    coin = by_name(runs, "random")
    quality, cost = column_means(coin.quality), column_means(coin.cost)
    middle = (quality[0] + quality[-1]) / 2, (cost[0] + cost[-1]) / 2
    assert np.interp(middle[1], cost, quality) == pytest.approx(middle[0])


def test_the_static_mix_is_level_with_itself_and_a_bad_router_is_worse(compared: tuple[Table, list[Run]]) -> None:
    table, runs = compared
    ground = ground_of(table, [np.arange(240)], 200, 0)
    static, oracle = by_name(runs, STATIC), by_name(runs, ORACLE)
    again = Run("copy", static.quality, static.cost, static.points)
    (same,) = measure(ground, again, static, oracle, by_family=False).against_static
    assert same.average.value == pytest.approx(0.0, abs=1e-6)
    assert same.verdict == "level"
    worse = Run("worse", static.quality * 0.5, static.cost, {})
    (found,) = measure(ground, worse, static, oracle, by_family=False).against_static
    assert found.verdict == "worse"
    top = measure(ground, oracle, static, None, by_family=True).against_static
    assert [line.family for line in top] == ["all", "a", "b", "c"]
    assert top[0].verdict == "better"


def test_a_family_of_a_few_questions_is_not_judged() -> None:
    """A resample of one question is the question: its interval would be a point, beside 0 as likely as not."""
    rows = [replace(row, family="rare" if number < 3 else "common") for number, row in enumerate(made_rows(120))]
    table = one_table(rows)
    beside = baselines(table, swapped(table, np.arange(120), 0, 0), 0, fitted=False)
    static, oracle = by_name(beside, STATIC), by_name(beside, ORACLE)
    ground = ground_of(table, [np.arange(60), np.arange(60, 120)], 50, 0)
    whole, common, rare = measure(ground, oracle, static, None, by_family=True).against_static
    assert (whole.verdict, common.verdict, rare.verdict) == ("better", "better", "unknown")
    assert (rare.family, rare.rows) == ("rare", 3)
    assert np.isfinite(rare.average.value)
    assert np.isnan(rare.average.low)


def test_a_router_that_is_the_static_mix_is_level_with_it_whatever_was_not_asked() -> None:
    """The best cheap model has no outcome on the hard rows of one fold, and one fold's calls are five times as dear."""
    rows = made_rows(400, seed=3)
    gone = {row.id for row in rows[200:] if row.outcomes["dear-405b"].score < 1.0}
    kept = [
        replace(r, outcomes={m: o for m, o in r.outcomes.items() if not (m == "cheap-7b" and r.id in gone)})
        for r in rows
    ]
    dear = [replace(r, outcomes={m: _dearer(o, 5.0) for m, o in r.outcomes.items()}) for r in kept[:200]]
    table = one_table([*dear, *kept[200:]])
    folds = [fold for part in np.split(np.arange(400), 2) for fold in swapped(table, part, int(part[0]), 0)]

    def attempt(fold: Fold) -> Trial:
        means = np.nanmean(table.score[fold.validation], axis=0)
        said = [Forecast(np.tile(means, (len(part), 1))) for part in (fold.validation, fold.test)]
        return forecast_trial(table, fold, *said)

    tested = [comparable(table, fold) for fold in folds]
    assert sum(map(len, tested)) == 400 - len(gone)
    beside = baselines(table, folds, 0, fitted=False)
    done = run("means", table, folds, attempt)
    static, oracle = by_name(beside, STATIC), by_name(beside, ORACLE)
    found = measure(ground_of(table, tested, 50, 0), done, static, oracle, by_family=False)
    assert found.against_static[0].average.value == pytest.approx(0.0, abs=2e-4)
    assert found.values["gap to the oracle closed"].value == pytest.approx(0.0, abs=2e-3)
    naive = measure(ground_of(table, [fold.test for fold in folds], 50, 0), done, static, oracle, by_family=False)
    assert naive.against_static[0].average.value < -0.002


def _dearer(outcome: Outcome, times: float) -> Outcome:
    return replace(outcome, cost_usd=(outcome.cost_usd or 0.0) * times)


def test_savings_of_a_known_router() -> None:
    """Two models, 1 and 10 cents; the router knows which half needs the dear one: it saves 45 % at full quality."""
    rows = [
        Row(str(i), "s", "f", f"question number {i} of the list", (),
            {"weak": Outcome(float(i % 2), cost_usd=0.01), "strong": Outcome(1.0, cost_usd=0.1)})
        for i in range(80)
    ]  # fmt: skip
    table = one_table(rows)

    def attempt(fold: Fold) -> Trial:
        told = [
            Forecast(np.where(np.isnan(table.score[part]), 0, table.score[part]))
            for part in (fold.validation, fold.test)
        ]
        return forecast_trial(table, fold, *told)

    ground = ground_of(table, [np.arange(80)], 50, 0)
    done = measure(ground, run("knows", table, halves(table), attempt), None, None, by_family=False)
    assert done.points["100% of best"]["saved"].value == pytest.approx(0.45, abs=0.01)
    assert done.points["100% of best"]["of best"].value == pytest.approx(1.0)
    assert done.values["saved at 100%, in hindsight"].value == pytest.approx(0.45, abs=0.01)
    assert done.points["adequacy 0.9"]["unsafe cheap misses"].value == 0.0
    assert done.values["ECE"].value == 0.0
    careless = measure(ground, run("careless", table, halves(table), sure_of_all(table)), None, None, by_family=False)
    assert careless.points["adequacy 0.9"]["unsafe cheap misses"].value == pytest.approx(0.5)
    assert careless.points["adequacy 0.9"]["missed escalations"].value == pytest.approx(1.0)
    assert careless.values["ECE"].value == pytest.approx(0.25)


def sure_of_all(table: Table) -> Callable[[Fold], Trial]:
    def attempt(fold: Fold) -> Trial:
        sure = [Forecast(np.ones((len(part), len(table.models)))) for part in (fold.validation, fold.test)]
        return forecast_trial(table, fold, *sure)

    return attempt


@pytest.mark.parametrize("name", ["prompt length", "kNN", "logistic on TF-IDF", "matrix factorisation"])
def test_fits_learn_what_words_tell(name: str) -> None:
    rows = [
        Row(str(i), "s", "f", f"{'easy tea' if i % 2 else 'hard integral of a long expression'} {i}", (),
            {"m": Outcome(float(i % 2)), "n": Outcome(1.0), "unseen": Outcome(1.0)} if i < 80 else
            {"m": Outcome(float(i % 2)), "n": Outcome(1.0)})
        for i in range(100)
    ]  # fmt: skip
    table = one_table(rows)
    fit: Indices = np.arange(70)
    p: Floats = fits(Texts(table, 0))[name](table, fit, np.arange(70, 100))
    assert p.shape == (30, 3)
    assert ((p > 0) & (p < 1)).all()
    assert p[1::2, 0].min() > p[0::2, 0].max()
    assert (p[:, 1] > 0.9).all()


def test_a_fit_in_the_span_of_its_rows_is_the_fit_by_words(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = made_rows(240)
    rows += [replace(row, id=f"again {row.id}") for row in rows[:20]]  # the same text twice: a span of fewer dimensions
    table = one_table(rows)
    logistic = fits(Texts(table, 0))["logistic on TF-IDF"]
    fit, ask = np.arange(0, 260, 4), np.arange(1, 260, 4)
    monkeypatch.setattr(eval_fits, "WORDS_PER_ROW", 1)
    found = logistic(table, fit, ask)
    monkeypatch.setattr(eval_fits, "MAX_SPAN", 0)
    assert np.abs(found - logistic(table, fit, ask)).max() < 1e-9
    assert found.std(axis=0).min() > 0.01


def test_a_fit_from_few_labels_is_cautious() -> None:
    x = np.random.default_rng(0).normal(size=(60, 5))
    p = fit_single(x, np.ones(60), np.arange(5), np.arange(5, 60))
    assert ((p > 0.8) & (p < 0.99)).all()


def test_a_verdict_needs_an_interval_on_one_side() -> None:
    from routers.eval_bootstrap import Estimate

    assert [verdict(Estimate(0.1, *ends)) for ends in ((0.05, 0.2), (-0.1, 0.2), (-0.2, -0.1))] == [
        "better",
        "level",
        "worse",
    ]
    assert verdict(Estimate(0.1, float("nan"), float("nan"))) == "unknown"


def test_a_spend_is_a_mix_of_the_two_rates_around_it() -> None:
    costs = np.array([8.0, 4.0, 4.0, 1.0])
    spends = np.array([0.5, 1.0, 2.0, 6.0, 8.0, 20.0])
    share = mixed_rates(costs, spends)
    assert share.sum(axis=0) == pytest.approx(np.ones(len(spends)))
    assert costs @ share == pytest.approx([1.0, 1.0, 2.0, 6.0, 8.0, 8.0])
    assert (share >= 0.0).all()
    assert ((share > 0.0).sum(axis=0) <= 2).all()


def test_of_rates_that_spend_the_same_the_one_that_minds_money_least_is_used() -> None:
    costs = np.array([4.0, 4.0 + 1e-15, 4.0, 1.0, 1.0])
    share = mixed_rates(costs, np.array([0.1, 1.0, 2.5, 4.0, 9.0]))
    assert np.flatnonzero(share.sum(axis=1)).tolist() == [0, 3]
    assert share[3] == pytest.approx([1.0, 1.0, 0.5, 0.0, 0.0])


def test_where_all_models_cost_the_same_the_likeliest_is_called() -> None:
    """Prices by name differ, the recorded dollars do not; the router was judged by what it would call cheapest."""
    rows = [replace(r, outcomes={m: replace(o, cost_usd=0.003) for m, o in r.outcomes.items()}) for r in made_rows(80)]
    table = one_table(rows)
    table = replace(table, rates=np.array([[1.0, 1.0], [50.0, 50.0], [5.0, 5.0]]))
    knows = Forecast(table.score[:40] * 0.8 + 0.1, np.random.default_rng(0).uniform(50, 500, (40, 3)))
    fold = Fold(0, np.array([], dtype=np.int64), np.arange(40), np.arange(40))
    trial = forecast_trial(table, fold, knows, knows)
    assert trial.test.quality.mean(axis=0) == pytest.approx(table.score[:40].max(axis=1).mean())


@pytest.mark.parametrize("costs", [[3.0], [2.0, 2.0], [0.0, 0.0]])
def test_with_one_cost_every_spend_is_the_same(costs: list[float]) -> None:
    share = mixed_rates(np.array(costs), np.array([1.0, 5.0]))
    assert share.sum(axis=0).tolist() == [1.0, 1.0]


def test_at_a_setting_folds_spend_alike_whatever_gap_they_expect() -> None:
    """Two folds that expect different gaps: at one rate one would buy strong for all, the other for none."""
    table = one_table(made_rows(80))
    one, other = (
        Fold(plan, np.array([], dtype=np.int64), rows, rows) for plan, rows in enumerate(np.split(np.arange(80), 2))
    )
    means = column_means(table.score)

    def attempt(fold: Fold) -> Trial:
        p = np.tile(means * (0.2 if fold.plan else 1.0), (40, 1))
        return forecast_trial(table, fold, Forecast(p), Forecast(p))

    done = run("constant", table, [one, other], attempt)
    spent = np.nanmean(done.cost[:40], axis=0), np.nanmean(done.cost[40:], axis=0)
    assert spent[0] == pytest.approx(spent[1], rel=0.25)
