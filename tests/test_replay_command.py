"""`bursar replay` over stored traces and feedback: synthetic traffic that a split sent either way."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from typer.testing import CliRunner, Result

from app.commands.tree import cli
from app.core.policy import HEURISTIC, LEARNED
from app.gateway.view import View
from app.stores.outcomes_sqlite import SqliteOutcomes
from app.stores.prices import Catalogue
from tests.gateway.policy_values import policy
from tests.learner.replayed import CHEAP, DEAR, SPLIT, ByLength, Traffic, traffic
from tests.stores.traces_records import closed_segment

POLICY = """\
version: 1
providers: {p: {base_url: "http://127.0.0.1:9/v1"}}
models:
  cheap: {provider: p, tier: 1, pricing: {input_per_1k: 0.001, output_per_1k: 0.001}}
  dear: {provider: p, tier: 4, pricing: {input_per_1k: 0.01, output_per_1k: 0.01}}
routes:
  auto: {candidates: [cheap, dear], adequacy: ADEQUACY}
"""


@pytest.fixture(scope="module")
def seen() -> Traffic:
    """One router of the split sends all to `cheap`, the other all to `dear`."""
    routers = {LEARNED: ByLength(LEARNED, 10**6), HEURISTIC: ByLength(HEURISTIC, 0)}
    view = View(policy([CHEAP, DEAR], [SPLIT]), routers, Catalogue(b"{}"))
    return traffic(view, 600, np.random.default_rng(3))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Traffic) -> Path:
    """A data folder that holds it."""
    monkeypatch.setenv("BURSAR_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("BURSAR_ROUTER_WEIGHTS", str(tmp_path / "none"))
    for name in ("BURSAR_REDIS_URL", "BURSAR_TRACES_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("app.main.log", structlog.wrap_logger(structlog.ReturnLogger(), processors=[]))
    (tmp_path / "traces").mkdir()
    closed_segment(tmp_path / "traces", *seen.records)
    asyncio.run(_say(tmp_path, seen))
    return tmp_path


async def _say(folder: Path, seen: Traffic) -> None:
    outcomes = SqliteOutcomes(folder / "outcomes.sqlite")
    await outcomes.start()
    for word in seen.words[:300]:
        await outcomes.put(word)
    await outcomes.close()


def replay(folder: Path, adequacy: float, *arguments: str, since: str = "all") -> Result:
    path = folder / "other.yaml"
    path.write_text(POLICY.replace("ADEQUACY", str(adequacy)))
    return CliRunner().invoke(cli, ["replay", "--policy", str(path), "--since", since, *arguments])


def test_a_policy_that_sends_all_to_the_cheap_one(folder: Path, seen: Traffic) -> None:
    done = replay(folder, 0.0, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    group = found["all"]
    assert (found["records"], group["decisions"]) == (600, 600)
    assert group["models"]["cheap"]["would"] == pytest.approx(1.0)
    cost, success = group["cost_usd"], group["success"]
    assert (cost["rows"], cost["known"], success["known"]) == (600, 600, 300)
    truth = float(seen.cost["cheap"].mean())
    assert cost["dr"]["low"] <= truth <= cost["dr"]["high"] < cost["recorded"]["low"]
    assert success["dr"]["low"] <= float(seen.success["cheap"].mean()) <= success["dr"]["high"]
    assert sum(part["decisions"] for part in found["by_task_type"].values()) == 600


def test_a_table_for_people(folder: Path) -> None:
    done = replay(folder, 0.0)
    assert done.exit_code == 0
    assert "600 decisions since" in done.stdout
    assert "doubly robust" in done.stdout
    assert "\x1b" not in done.stdout


def test_nothing_recorded_is_refused(folder: Path) -> None:
    done = replay(folder, 0.0, since="2100-01-01")
    assert done.exit_code == 1
    assert done.stderr == "no decision is on record since 2100-01-01: there is nothing to replay\n"


def test_only_the_latest(folder: Path) -> None:
    done = replay(folder, 0.0, "--most", "400")
    assert "400 decisions" in done.stdout
    assert "older ones are left out" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "yesterday"], "must be a span"),
        (["--router", "7"], "no weights"),
        (["--policy", "/nowhere.yaml"], "nowhere"),
    ],
)
def test_wrong_usage_says_what_is_wrong(folder: Path, arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(cli, ["replay", *arguments])
    assert done.exit_code == 2
    assert said in done.stderr


def test_by_the_heuristic_of_the_policy_in_force(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "in-force.yaml"
    path.write_text(POLICY.replace("ADEQUACY", "0.0"))
    monkeypatch.setenv("BURSAR_POLICY", str(path))
    done = CliRunner().invoke(cli, ["replay", "--router", "heuristic", "--since", "all", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["all"]["decisions"] == 600
