"""Whole evaluations on synthetic rows: routers of every form, newcomers, tables, JSON, plots."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from routers import eval_plots
from routers.eval_bootstrap import Estimate
from routers.eval_contenders import Readings, UnknownRouter, plugged_in
from routers.eval_newcomer import newcomer
from routers.eval_plots import write_html, write_png
from routers.eval_report import NOTHING, as_json, newcomer_sheets, sheets, shown
from routers.eval_table import tables
from routers.evaluate import Options, Report, evaluate
from routers.rows import Outcome, Row
from tests.routers.made_rows import made_rows
from tests.routers.plugged import GatewayLike, Learner

HERE = "tests.routers.plugged"


def no_price(_name: str) -> None:
    return None


@pytest.fixture(scope="module")
def report() -> Report:
    rows = [*made_rows(90), *made_rows(60, source="unpaid", families=["only"], costs=False)]
    options = Options(routers=("heuristic", f"{HERE}:matrix", f"{HERE}:needed", f"{HERE}:GatewayLike"), resamples=40)
    return evaluate(rows, options, no_price)


def test_every_source_and_router_is_reported(report: Report) -> None:
    assert [source.source for source in report.sources] == ["made", "unpaid"]
    for source in report.sources:
        assert [m.name for m in source.routers] == [
            "heuristic",
            f"{HERE}:matrix",
            f"{HERE}:needed",
            f"{HERE}:GatewayLike",
        ]
        assert source.pair is not None
    assert report.sources[0].pair == ("dear-405b", "cheap-7b")


def test_forms_that_say_the_same_measure_the_same(report: Report) -> None:
    _, matrix, _, gateway = report.sources[0].routers
    for key in ("APGR", "ECE", "AIQ"):
        assert matrix.values[key].value == pytest.approx(gateway.values[key].value, abs=0.02), key
    assert matrix.values["APGR"].value == pytest.approx(0.5)


def test_a_router_of_a_pair_has_no_calibration(report: Report) -> None:
    pair = report.sources[0].routers[2]
    assert {"APGR", "CPT50", "CPT80", "AIQ"} <= pair.values.keys()
    assert "ECE" not in pair.values
    assert not any(name.startswith("adequacy") for name in pair.points)


def test_without_dollars_there_are_no_dollar_figures(report: Report) -> None:
    unpaid = report.sources[1]
    assert unpaid.best is None
    assert any("no price (--prices) and no cost" in note for note in unpaid.notes)
    for measured in unpaid.routers:
        assert not measured.points
        assert "AIQ" not in measured.values
        assert "APGR" in measured.values


def test_every_figure_has_an_interval_around_it(report: Report) -> None:
    for measured in (*report.sources[0].routers, *report.sources[0].baselines):
        for key, found in measured.values.items():
            if math.isfinite(found.value) and math.isfinite(found.low):
                assert found.low <= found.high, key


def test_the_last_table_says_who_is_worse_than_the_static_mix(report: Report) -> None:
    last = sheets(report)[-1]
    assert last.title == "Against the static mix at equal spend"
    assert {row[2] for row in last.rows} <= {"yes", "NO"}
    assert len(last.rows) == 4
    assert {row[0:2] + row[5:] for row in last.rows} >= {("made", "heuristic", "knows names and prices")}
    families = next(sheet for sheet in sheets(report) if "heuristic: points of quality" in sheet.title)
    assert [row[0] for row in families.rows] == ["all", "a", "b", "c"]
    assert {row[3] for row in families.rows} <= {"better", "level", "worse", "unknown"}


def test_without_intervals_nobody_is_called_not_worse() -> None:
    found = evaluate(made_rows(60), Options(routers=("heuristic",), resamples=0, fitted=False), no_price)
    assert [row[2] for row in sheets(found)[-1].rows] == [NOTHING]


def test_tables_are_square(report: Report) -> None:
    for sheet in sheets(report):
        assert set(sheet.right) <= set(sheet.columns)
        assert {len(row) for row in sheet.rows} == {len(sheet.columns)}


def test_json_holds_everything_and_no_nan(report: Report) -> None:
    whole = json.loads(json.dumps(as_json(report), allow_nan=False))
    assert whole["options"]["seed"] == 0
    assert whole["versions"]["heuristic"]
    source = whole["sources"][0]
    assert (source["rows"], source["families"], source["best"]) == (90, 3, "dear-405b")
    assert source["routers"][0]["against_static"][0]["verdict"] in {"better", "level", "worse"}
    assert len(source["routers"][0]["curve"]) > 10


def test_it_is_the_same_for_the_same_seed() -> None:
    rows, options = made_rows(60), Options(resamples=10, seed=4)
    assert as_json(evaluate(rows, options, no_price)) == as_json(evaluate(rows, options, no_price))


def test_plots_are_written(report: Report, tmp_path: Path) -> None:
    write_png(report, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    write_html(report, tmp_path / "plot.html")
    text = (tmp_path / "plot.html").read_text()
    assert text.count("data:image/png;base64,") == 2
    assert "Against the static mix" in text


def test_a_picture_of_very_many_sources_is_drawn(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 lines at full size would be twice as high as matplotlib draws; here its limit comes sooner, for speed."""
    write_png(report, tmp_path / "few.png")
    monkeypatch.setattr(eval_plots, "MOST_DOTS", 300.0)
    write_png(report, tmp_path / "many.png")
    few, many = (Image.open(tmp_path / f"{name}.png").size for name in ("few", "many"))
    assert few == (1430, 1100)
    assert many == (390, 300)


@pytest.mark.parametrize(
    ("where", "says"),
    [("no_such_module:x", "no_such_module"), (f"{HERE}:absent", "absent"), (f"{HERE}:nothing", "not callable")],
)
def test_a_router_that_cannot_be_had_is_an_error(where: str, says: str) -> None:
    with pytest.raises(UnknownRouter, match=says):
        plugged_in(where, Readings())


def test_a_router_that_answers_amiss_is_an_error() -> None:
    with pytest.raises(UnknownRouter, match=r"wanted \(10, 3\)"):
        evaluate(made_rows(20), Options(routers=(f"{HERE}:wrong_shape",), resamples=2), no_price)
    with pytest.raises(UnknownRouter, match="no router named 'best'"):
        evaluate(made_rows(20), Options(routers=("best",)), no_price)


def test_routellms_method_is_known() -> None:
    """An object with it measures the same as its scores by themselves, at RouteLLM's metrics and everywhere else."""
    options = Options(routers=(f"{HERE}:needed", f"{HERE}:RouteLlmLike", f"{HERE}:made"), resamples=5, fitted=False)
    (source,) = evaluate(made_rows(60), options, no_price).sources
    function, of_class, instance = source.routers
    assert {"APGR", "CPT50", "CPT80"} <= function.values.keys()
    for other in (of_class, instance):
        assert (other.values, other.points, other.curve) == (function.values, function.points, function.curve)
    assert plugged_in(f"{HERE}:GatewayLike", Readings()).version == GatewayLike.version


def test_a_router_that_knows_who_needs_the_strong_model_has_the_best_apgr() -> None:
    rows = [
        Row(str(i), "s", "f", f"{'hard' if i % 4 == 0 else 'easy'} question {i} of many", (),
            {"weak": Outcome(float(i % 4 > 0), cost_usd=0.01), "strong": Outcome(1.0, cost_usd=0.1)})
        for i in range(80)
    ]  # fmt: skip
    options = Options(routers=(f"{HERE}:hard", f"{HERE}:easy"), resamples=0, fitted=False)
    (source,) = evaluate(rows, options, no_price).sources
    knows, errs = (measured.values for measured in source.routers)
    assert source.pair == ("strong", "weak")
    assert knows["CPT80"].value == pytest.approx(0.2, abs=0.01)
    assert knows["APGR"].value > 0.8
    assert errs["APGR"].value < 0.3
    assert errs["CPT80"].value == pytest.approx(0.95, abs=0.01)


def test_the_pair_can_be_named() -> None:
    options = Options(routers=("heuristic",), resamples=0, fitted=False, strong="middle-70b", weak="dear-405b")
    (source,) = evaluate(made_rows(60), options, no_price).sources
    assert source.pair == ("middle-70b", "dear-405b")
    assert source.best == "dear-405b"
    found = evaluate(made_rows(60), replace(options, strong="absent", weak="middle-70b"), no_price)
    assert found.sources[0].pair == ("dear-405b", "middle-70b")
    assert "no outcomes of a model named 'absent'" in found.notes


def test_too_little_is_a_note() -> None:
    found = evaluate(made_rows(3), Options(resamples=2), no_price)
    assert not found.sources
    assert "too few different questions" in found.notes[-1]
    assert sheets(found) == []


@pytest.mark.parametrize("cv", ["family", "source"])
def test_rows_without_outcomes_are_no_fold_to_train_on(cv: Any) -> None:
    nothing = [Row(f"{i}", "silent", "silent", f"Who is number {i}?") for i in range(5)]
    found = evaluate([*made_rows(12, families=["a"]), *nothing], Options(cv=cv, resamples=2), no_price)
    assert [source.source for source in found.sources] == ["made"]


def test_sparse_outcomes_are_compared_where_they_are() -> None:
    rows = [
        Row(
            row.id,
            row.source,
            row.family,
            row.prompt,
            (),
            {m: o for k, (m, o) in enumerate(row.outcomes.items()) if (i + k) % 3},
        )
        for i, row in enumerate(made_rows(90))
    ]
    (source,) = evaluate(rows, Options(resamples=10), no_price).sources
    assert math.isfinite(source.routers[0].values["AIQ"].value)


def test_one_model_alone_is_no_pair() -> None:
    rows = [Row(r.id, r.source, r.family, r.prompt, (), {"m": Outcome(1.0, cost_usd=0.1)}) for r in made_rows(20)]
    (source,) = evaluate(rows, Options(resamples=5), no_price).sources
    assert source.pair is None
    assert "APGR" not in source.routers[0].values


def test_only_the_models_asked_for() -> None:
    (source,) = evaluate(
        made_rows(40), Options(resamples=5, models=("cheap-7b", "dear-405b", "absent")), no_price
    ).sources
    assert [name for name, _, _ in source.models] == ["cheap-7b", "dear-405b"]


scores = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
recorded = st.builds(
    Outcome,
    scores,
    out_tokens=st.none() | st.sampled_from([0.0, 10.0, 1e6]),
    cost_usd=st.none() | st.sampled_from([0.0, 1e-9, 0.01, 100.0]),
)
some_rows = st.lists(
    st.builds(
        Row,
        st.just("id"),
        st.sampled_from(["s", "t"]),
        st.sampled_from(["f", "g", ""]),
        st.text(max_size=12),
        st.just(()),
        st.dictionaries(st.sampled_from(["gpt-4o", "o1", "20240101_agent", "?", "llama-7b"]), recorded, max_size=5),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(some_rows, st.sampled_from(["none", "random", "family", "source"]))
def test_no_data_breaks_it(rows: list[Row], cv: Any) -> None:
    found = evaluate(rows, Options(cv=cv, resamples=3), lambda name: (1.0, 2.0) if name == "gpt-4o" else None)
    json.dumps(as_json(found), allow_nan=False)
    for sheet in sheets(found):
        assert {len(row) for row in sheet.rows} == {len(sheet.columns)}


def test_a_newcomer_is_better_known_with_more_outcomes() -> None:
    (table,) = tables(made_rows(400), no_price)
    found = newcomer(table, "dear-405b", [0, 20, 50], Learner(), draws=12, seed=0)
    assert found is not None
    error = {(line.method, line.labels): line.error.value for line in found.lines}
    assert error["stand-in", 0] == pytest.approx(abs(found.rate - 0.6), abs=0.06)
    assert error["stand-in", 50] < error["stand-in", 0]
    assert {("mean of all models", 0), ("mean of its tier", 0), ("logistic from scratch", 200)} <= error.keys()
    line = found.lines[0]
    assert line.by_family.keys() == {"a", "b", "c"}
    assert line.regret.keys() == {"0", "0.05", "0.2"}
    assert all(np.isfinite(each.value) for each in line.regret.values())
    assert newcomer_sheets(found)[0].rows


def test_more_labels_than_there_are_outcomes_are_said_to_be_missing() -> None:
    (table,) = tables(made_rows(60), no_price)
    found = newcomer(table, "dear-405b", [0, 20, 50], Learner(), draws=2, seed=0)
    assert found is not None
    assert {line.labels for line in found.lines if line.method == "stand-in"} == {0, 20}
    assert "no figure with 50 labels: half of the questions are 30 outcomes" in found.notes


def test_a_newcomer_needs_outcomes_and_company() -> None:
    (table,) = tables(made_rows(12), no_price)
    assert newcomer(table, "dear-405b", [0], None, draws=2, seed=0) is None
    assert newcomer(table, "absent", [0], None, draws=2, seed=0) is None


def test_figures_read_with_their_interval() -> None:
    assert shown(Estimate(0.5, 0.25, 0.75), 100) == "50.0 [25.0, 75.0]"
    assert shown(Estimate(0.5, math.nan, math.nan)) == "0.500"
    assert shown(None) == shown(Estimate(math.nan, math.nan, math.nan)) == "-"
