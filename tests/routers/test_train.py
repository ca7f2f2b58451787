"""Training on synthetic rows: deterministic, and it finds what was put in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.commands import train as command
from routers.artifact import read
from routers.base import RequestView
from routers.facts import arm_of_name
from routers.features import extract
from routers.learned import LearnedRouter
from routers.rows import Outcome, Row
from routers.train import train
from tests.routers import outcomes


def test_the_same_rows_and_seed_give_the_same_bytes() -> None:
    again = train(outcomes.rows(), seed=0)
    assert again.version == outcomes.weights().version
    for name, array in outcomes.weights().arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)


def test_other_rows_give_another_version() -> None:
    assert train(outcomes.rows(120, seed=4), seed=0).version != outcomes.weights().version


def test_agents_around_a_model_teach_nothing_unless_there_is_nothing_else() -> None:
    models = outcomes.rows(60)
    agents = [
        replace(
            row, id=f"a{row.id}", source="agents", outcomes={f"20240402_agent_{m}": o for m, o in row.outcomes.items()}
        )
        for row in outcomes.rows(40, seed=5)
    ]
    mixed = [replace(row, outcomes={**row.outcomes, "20240620_agent_gpt4o": Outcome(0.0)}) for row in models]
    assert train([*mixed, *agents]).version == train(models).version
    known = train(agents).part("ability")["known"]
    assert len(known) == len(outcomes.MODELS)


def test_nothing_to_train_on_is_said() -> None:
    with pytest.raises(ValueError, match="no outcomes"):
        train([])
    with pytest.raises(ValueError, match="no outcomes"):
        train([Row("a", "s", "f", "why?")])


@pytest.mark.parametrize("count", [1, 3, 12])
def test_a_handful_of_rows_is_enough_to_train(count: int) -> None:
    weights = train(outcomes.rows(count), seed=0)
    score = LearnedRouter(weights).score(extract(RequestView("Why is that?")), [arm_of_name("m")])[0]
    assert 0.0 < score.p_success < 1.0
    for name, array in weights.arrays.items():
        if array.dtype.kind == "f" and name != "length/known_verbosity":  # NaN there: not measured
            assert np.isfinite(array).all(), name


def test_one_model_and_one_family_are_enough_to_train() -> None:
    rows = [replace(row, outcomes={"m": Outcome(1.0)}, family="f", source="s") for row in outcomes.rows(30)]
    train(rows)


def test_the_command_writes_an_artifact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        {
            "id": row.id, "source": row.source, "family": row.family, "prompt": row.prompt,
            "outcomes": {model: {"score": outcome.score} for model, outcome in row.outcomes.items()},
        }
        for row in outcomes.rows(60)
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert command.train(tmp_path, tmp_path / "out", seed=0) == 0
    assert read(tmp_path / "out").version in capsys.readouterr().out
    assert command.train(tmp_path / "none", None, seed=0) == 1
    assert "none" in capsys.readouterr().err
    assert command.train(tmp_path, tmp_path / "rows.jsonl" / "under", seed=0) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_weights_of_ones_own_traffic_are_marked(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "a", "prompt": "why?", "outcomes": {"m": {"score": 1}}}))
    assert command.train(tmp_path, tmp_path / "own", seed=0, own=True) == 0
    assert float(read(tmp_path / "own").part("serve")["trust"]) == 1.0
    assert command.train(tmp_path, tmp_path / "other", seed=0) == 0
    assert float(read(tmp_path / "other").part("serve")["trust"]) < 1.0
