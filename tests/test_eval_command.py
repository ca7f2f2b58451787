"""`bursar eval` as a user meets it: what it prints, writes and refuses, on small folders of rows."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.commands.tree import cli
from tests.routers.made_rows import line_of, made_rows, write_rows


def bursar(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["eval", *arguments])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "rows"
    folder.mkdir()
    write_rows(folder / "made.jsonl.gz", made_rows(60))
    (folder / "other.jsonl").write_text('{"messages": []}\n')
    return folder


def test_it_prints_tables_and_writes_files(data: Path, tmp_path: Path) -> None:
    out = {kind: tmp_path / f"out.{kind}" for kind in ("json", "html", "png")}
    options = [part for kind, path in out.items() for part in (f"--{kind}", str(path))]
    done = bursar("router", "--data", str(data), "--bootstrap", "20", *options)
    assert done.exit_code == 0, done.output
    for text in ("note: other.jsonl: skipped", "made: 60 rows, 3 models", "static mix", "oracle", "APGR", "not worse"):
        assert text in done.output
    whole = json.loads(out["json"].read_text())
    assert whole["data"] == str(data)
    assert whole["options"] == {
        "routers": ["learned", "heuristic"], "cv": "none", "seed": 0, "resamples": 20, "models": [], "strong": None,
        "weak": None, "fitted": True,
    }  # fmt: skip
    assert out["png"].stat().st_size > 1000
    assert "<table>" in out["html"].read_text()


def test_names_that_look_like_formulas_are_plotted(tmp_path: Path) -> None:
    name = "$\\frac$"
    rows = [replace(r, source=name, outcomes={**r.outcomes, name: r.outcomes["dear-405b"]}) for r in made_rows(40)]
    write_rows(tmp_path / "odd.jsonl", rows)
    png = tmp_path / "out.png"
    few = ("--bootstrap", "2", "--no-baselines", "--router", "heuristic")
    for command in (("router", *few), ("new-model", "--model", name, "--draws", "2")):
        done = bursar(*command, "--data", str(tmp_path), "--png", str(png))
        assert done.exit_code == 0, (done.output, done.exception)
        assert png.read_bytes().startswith(b"\x89PNG")
        png.unlink()


def test_json_alone_goes_to_stdout(data: Path) -> None:
    done = bursar("router", "--data", str(data), "--bootstrap", "0", "--json", "-", "--no-baselines", "--cv", "random")
    assert done.exit_code == 0, done.output
    whole = json.loads(done.stdout)
    learned = ["learned", "learned, or the mix", "learned, told", "learned, told, or the mix"]
    assert [m["name"] for m in whole["sources"][0]["routers"]] == [*learned, "heuristic"]
    names = [m["name"] for m in whole["sources"][0]["baselines"]]
    assert names == ["always cheapest", "always best", "static mix", "random", "oracle"]


def test_bad_lines_are_said_and_the_rest_is_used(data: Path) -> None:
    (data / "broken.jsonl").write_text(json.dumps(line_of(made_rows(1)[0])) + "\n{oops\n")
    done = bursar("router", "--data", str(data), "--bootstrap", "5", "--no-baselines")
    assert done.exit_code == 0, done.output
    assert "note: broken.jsonl:2: not JSON" in done.output


def test_a_folder_with_too_few_questions_is_said_to_be_one(tmp_path: Path) -> None:
    write_rows(tmp_path / "one.jsonl", made_rows(1))
    out = tmp_path / "out.json"
    done = bursar("router", "--data", str(tmp_path), "--router", "heuristic", "--json", str(out))
    assert done.exit_code == 1
    assert "too few different questions" in done.output
    assert json.loads(out.read_text())["sources"] == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--data", "nowhere"], "nowhere: no such file"),
        (["--router", "best"], "no router named 'best'"),
        (["--router", "tests.routers.plugged:absent"], "absent"),
        (["--prices", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_wrong_usage_is_said_without_a_traceback(data: Path, options: list[str], says: str) -> None:
    done = bursar("router", "--data", str(data), *options)
    assert done.exit_code == 2
    assert says in done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)


@pytest.mark.parametrize("where", ["theirs_of_this_test:router", "sub/random.py:router"])
def test_a_router_of_the_working_folder_is_plugged_in(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    (tmp_path / "sub").mkdir()
    for file in (tmp_path / "theirs_of_this_test.py", tmp_path / "sub" / "random.py"):
        file.write_text("def router(prompts, models):\n    return [[0.5] * len(models) for _ in prompts]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [part for part in sys.path if part])
    done = bursar("router", "--data", str(data), "--router", where, "--bootstrap", "2", "--no-baselines")
    assert done.exit_code == 0, done.output
    assert where in done.output


@pytest.mark.parametrize("body", ["raise KeyError('oops')", "return 'oops'", "return [[1, 2], 'oops']"])
def test_what_another_router_raises_is_said_with_its_line(data: Path, tmp_path: Path, body: str) -> None:
    file = tmp_path / "theirs.py"
    file.write_text(f"def router(prompts, models):\n    {body}\n")
    done = bursar("router", "--data", str(data), "--router", f"{file}:router", "--bootstrap", "2", "--no-baselines")
    assert done.exit_code == 2, done.output
    assert f"--router {file}:router: " in done.output
    assert "Error at " in done.output
    if body.startswith("raise"):
        assert f"(KeyError at {file}:2)" in done.output


def test_prices_come_from_a_file(data: Path, tmp_path: Path) -> None:
    rows = made_rows(40, source="unpaid", costs=False)
    folder = tmp_path / "unpaid"
    folder.mkdir()
    write_rows(folder / "unpaid.jsonl", rows)
    prices = tmp_path / "prices.yaml"
    prices.write_text("cheap-7b: [1, 2]\nmiddle-70b: {input: 3, output: 4}\ndear-405b: [50, 60]\n")
    arguments = ("router", "--data", str(folder), "--prices", str(prices), "--bootstrap", "0", "--json", "-")
    models = json.loads(bursar(*arguments).stdout)["sources"][0]["models"]
    cost = {name: cost["value"] for name, _, cost in models}
    assert cost["cheap-7b"] < cost["middle-70b"] < cost["dear-405b"]
    prices.write_text("cheap-7b: free\n")
    refused = bursar(*arguments)
    assert refused.exit_code == 2
    assert "cheap-7b: must be [input, output]" in refused.output


def test_a_new_model_is_evaluated(data: Path, tmp_path: Path) -> None:
    out = {kind: tmp_path / f"new.{kind}" for kind in ("json", "html", "png")}
    options = [part for kind, path in out.items() for part in (f"--{kind}", str(path))]
    done = bursar("new-model", "--data", str(data), "--model", "dear-405b", "--draws", "3", *options)
    assert done.exit_code == 0, done.output
    assert "dear-405b as a new model" in done.output
    assert out["png"].read_bytes().startswith(b"\x89PNG")
    page = out["html"].read_text()
    assert "dear-405b" in page
    assert page.count("data:image/png") == 1
    (source,) = json.loads(out["json"].read_text())["sources"]
    assert {line["method"] for line in source["lines"]} >= {"logistic from scratch", "own mean", "mean of its tier"}


@pytest.mark.parametrize("options", [("--cv", "source"), ("--model", "dear-405b", "--retrain")])
def test_where_nothing_is_left_to_train_on_the_other_methods_stand_alone(
    data: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    alone = [replace(row, outcomes={"dear-405b": row.outcomes["dear-405b"]}) for row in made_rows(60)]
    write_rows(data / "made.jsonl.gz", made_rows(60) if "source" in options else alone)
    out = tmp_path / "out.json"
    done = bursar("new-model", "--data", str(data), "--draws", "2", "--json", str(out), *options)
    if "source" not in options:  # nobody to be compared with, either
        assert (done.exit_code, "too few outcomes of 'dear-405b' beside other models" in done.output) == (1, True)
        return
    assert done.exit_code == 0, done.output
    assert "made: the learned router cannot be trained" in done.output
    assert "learned" not in {line["method"] for line in json.loads(out.read_text())["sources"][0]["lines"]}


def test_without_a_name_every_source_has_new_models_from_its_weakest_to_its_best(data: Path, tmp_path: Path) -> None:
    write_rows(data / "second.jsonl.gz", made_rows(60, source="second"))
    out = tmp_path / "out.json"
    options = ("--data", str(data), "--labels", "0,20", "--draws", "2", "--json", str(out))
    done = bursar("new-model", *options)
    assert done.exit_code == 0, done.output
    assert "6 models, each as new: mean error of its rate by family, points" in done.output
    found = json.loads(out.read_text())["sources"]
    assert [one["source"] for one in found] == ["made"] * 3 + ["second"] * 3
    rates = [one["rate"] for one in found[:3]]
    assert rates == sorted(rates)
    assert bursar("new-model", *options, "--cv", "family").exit_code == 2
    assert bursar("new-model", *options, "--retrain").exit_code == 2


def test_a_new_model_needs_different_questions(tmp_path: Path) -> None:
    write_rows(tmp_path / "again.jsonl", [replace(row, prompt="Why?") for row in made_rows(60)])
    done = bursar("new-model", "--data", str(tmp_path))
    assert done.exit_code == 1
    assert "too few outcomes of any model beside other models: 40 are needed, on 20 questions" in done.output


def test_a_new_model_that_is_not_there_is_named_with_others_like_it(data: Path) -> None:
    done = bursar("new-model", "--data", str(data), "--model", "dear-405")
    assert done.exit_code == 2
    assert "similar names: dear-405b" in done.output
    assert bursar("new-model", "--data", str(data), "--model", "dear-405b", "--labels", "many").exit_code == 2
