"""`bursar efficiency`: the table for people, the JSON for programs, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.commands.tree import cli
from tests.core.test_efficiency import FIELDS
from tests.stores.test_traces_runs import done
from tests.stores.traces_records import NOON_S, closed_segment


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tasks of one model, one of another."""
    monkeypatch.setenv("BURSAR_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("BURSAR_REDIS_URL", raising=False)
    monkeypatch.delenv("BURSAR_TRACES_URL", raising=False)
    (tmp_path / "traces").mkdir()
    other = done(4, task_id="run-3", model="large", key="bob", harness="pi")
    closed_segment(tmp_path / "traces", done(1), done(2, NOON_S + 4), done(3, task_id="run-2"), other)


def efficiency(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["efficiency", "--since", "all", *arguments])


def test_a_table() -> None:
    shown = efficiency()
    assert shown.exit_code == 0, shown.output
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert lines[0][:3] == ["model", "runs", "success"]
    assert [line[:3] for line in lines[1:]] == [["small", "2", "100%"], ["large", "1", "100%"]]


def test_json_by_several_names_of_one_key() -> None:
    found = json.loads(efficiency("--by", "model,harness", "--key", "ci", "--json").stdout)
    (row,) = found["data"]
    assert (row["model"], row["harness"], row["runs"]) == ("small", "codex", 2)
    assert list(row["efficiency"]) == FIELDS
    assert row["efficiency"]["median_time_to_success_ms"] == 4000.0
    assert json.loads(efficiency("--judged", "--json").stdout)["all"]["runs"] == 0


@pytest.mark.parametrize("arguments", [["--by", "colour"], ["--since", "yesterday"]])
def test_what_it_refuses(arguments: list[str]) -> None:
    refused = efficiency(*arguments)
    assert refused.exit_code == 2
    assert arguments[0] in refused.output
