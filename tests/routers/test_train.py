"""Training on synthetic rows: deterministic, and it finds what was put in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.commands import train as command
from routers.artifact import CARD, read
from routers.base import RequestView
from routers.facts import arm_of_name
from routers.features import extract
from routers.learned import LearnedRouter
from routers.rows import Outcome, Row
from routers.train import train
from tests.routers import outcomes
from tests.routers.made_rows import made_rows, write_rows


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


def test_a_card_is_written_beside_the_weights(tmp_path: Path) -> None:
    file, out = tmp_path / "rows.jsonl", tmp_path / "out"
    rows = [*made_rows(60), *made_rows(30, source="a|b", families=["only"])]
    agents = [replace(row, source="agents", outcomes={f"20240402_agent_{m}": o for m, o in row.outcomes.items()})
              for row in made_rows(5, source="x")]  # fmt: skip
    write_rows(file, [*rows, *rows[:7], *agents])
    assert command.train(file, out, seed=3) == 0
    card, version = (out / CARD).read_text(), read(out).version
    assert card.startswith(f"# Weights {version}\n")
    assert "`bursar train --data DIR --seed 3`" in card
    assert "| made | 60 | 3 | 3 | 180 | 0." in card
    assert "| a\\|b | 30 | 1 | 3 | 90 | 0." in card
    assert "| agents |" not in card
    assert "trust 0.4" in card
    assert rows[0].prompt not in card


def test_a_card_is_of_the_weights_beside_it(tmp_path: Path) -> None:
    """One that says more of the very same weights stays; one of others goes."""
    file, out = write_rows(tmp_path / "rows.jsonl", made_rows(40)), tmp_path / "out"
    assert command.train(file, out, seed=0) == 0
    said = f"Weights {read(out).version} reach 0.9 of what they should.\n"
    (out / CARD).write_text(said)
    assert command.train(file, out, seed=0) == 0
    assert (out / CARD).read_text() == said
    assert command.train(file, out, seed=0, own=True) == 0
    card = (out / CARD).read_text()
    assert read(out).version in card
    assert "all they tell of a model is believed" in card
