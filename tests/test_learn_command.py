"""`bursar learn` and `bursar router`: as commands, on what a gateway left behind."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from app.commands.learn import _told as told_of
from app.commands.learn import _worker as opened_worker
from app.learner.worker import Done, Rules
from app.settings import Settings
from app.stores.opening import make_outcomes
from app.stores.traces_segments import Segment
from tests.conftest import ROOT
from tests.http.live import environment
from tests.learner.calls import BASE, call_id, record, word
from tests.upstream import PATIENCE_S


def bursar(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = environment(BURSAR_DATA_DIR=str(folder), **variables)
    command = [sys.executable, "-m", "app.cli", *arguments]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty calls, and a word on each."""
    traces = tmp_path / "traces"
    traces.mkdir()
    segment = Segment(traces)
    now_s = time.time()
    segment.write(b"".join(msgspec.json.encode(record(n, at_s=now_s + n)) + b"\n" for n in range(30)))
    segment.close()

    async def say() -> None:
        outcomes = make_outcomes(Settings(data_dir=tmp_path))
        await outcomes.start()
        for n in range(30):
            await outcomes.put(word(call_id(n), "failure" if n % 5 == 0 else "success", said_s=now_s))
        await outcomes.close()

    asyncio.run(say())
    return tmp_path


def test_learning_once_and_looking_at_it(folder: Path) -> None:
    empty = bursar(folder, "router", "list")
    assert empty.stdout == "no snapshots yet: the weights alone decide\n"
    assert "note: there are no snapshots at " in empty.stderr
    assert "BURSAR_DATA_DIR says where to look" in empty.stderr
    learned = bursar(folder, "learn", "--once", BURSAR_SNAPSHOT_LABELS="20")
    assert (learned.returncode, "a snapshot was published" in learned.stderr) == (0, True)
    assert "30 calls and 30 words read, 30 labels learned; snapshot 1 published\n" in learned.stdout
    assert "0 calls and 0 words read, 0 labels learned\n" in bursar(folder, "learn", "--once").stdout
    listed = json.loads(bursar(folder, "router", "list", "--json").stdout)
    assert [(one["number"], one["status"], one["in_force"], one["labels"]) for one in listed] == [
        (1, "published", True, 30)
    ]
    assert "in force" in bursar(folder, "router", "list").stdout
    shown = json.loads(bursar(folder, "router", "show", "--json").stdout)
    (model,) = shown["models"]
    assert (shown["snapshot"], model["model"], model["stands_for"]) == (1, "small", "small-v1")
    assert model["labels"] > 15
    assert model["kinds"]["chat"][0] > model["kinds"]["math"][0]
    assert "small" in bursar(folder, "router", "show", "1").stdout
    (easy,), (hard,) = (
        [one["surely_adequate"]["chat"] for one in json.loads(bursar(folder, *asked, level).stdout)["models"]]
        for asked in [("router", "show", "--json", "--adequacy")]
        for level in ("0.3", "0.99")
    )
    assert 0.0 <= hard < 0.5 < easy <= 1.0
    shown = bursar(folder, "router", "show", "--adequacy", "0.8").stdout
    assert "(a baseline is left at `sure`, or 0.95)" in shown
    assert "no outcome was heard" in shown


async def test_it_learns_by_the_rules_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LABELS", "7"), ("EVERY_S", "8.5")):
        monkeypatch.setenv(f"BURSAR_SNAPSHOT_{name}", value)
    monkeypatch.setenv("BURSAR_SNAPSHOTS_KEEP", "3")
    async with opened_worker(Settings(data_dir=tmp_path), BASE) as made:
        assert made._rules == Rules(labels=7, every_s=8.5, keep=3)


def test_a_snapshot_that_was_taken_back_is_said() -> None:
    assert "; the snapshot was taken back" in told_of(Done(went_back=True))
    assert "taken back" not in told_of(Done())


def test_rolling_back_and_what_is_not_there(folder: Path) -> None:
    nothing = bursar(folder, "router", "rollback")
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert "nothing to go back from" in nothing.stderr
    bursar(folder, "learn", "--once", "--quiet", BURSAR_SNAPSHOT_LABELS="20")
    assert bursar(folder, "router", "show", "7").returncode == 1
    back = bursar(folder, "router", "rollback")
    assert (back.returncode, back.stderr) == (0, "")
    assert back.stdout.startswith("the weights alone decide")
    assert "rolled_back" in bursar(folder, "router", "list").stdout
    assert bursar(folder, "router", "rollback", "1").stdout.startswith("snapshot 1 is in force")


def test_without_weights_nothing_can_be_learned(tmp_path: Path) -> None:
    failed = bursar(tmp_path, "learn", "--once", BURSAR_ROUTER_WEIGHTS=str(tmp_path / "none"))
    assert failed.returncode == 2
    assert "weights cannot be used" in failed.stderr


def test_a_learner_that_is_told_to_stop_saves_and_leaves(folder: Path) -> None:
    env = environment(BURSAR_DATA_DIR=str(folder), BURSAR_SNAPSHOT_LABELS="1000")
    command = [sys.executable, "-m", "app.cli", "learn", "--every", "30"]
    learner = subprocess.Popen(command, env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert learner.stderr is not None
    for line in learner.stderr:
        if "published" in line:
            break
    learner.send_signal(signal.SIGTERM)
    assert learner.wait(PATIENCE_S) == 0
    learner.stderr.close()
    assert "0 calls and 0 words read" in bursar(folder, "learn", "--once").stdout
    listed = json.loads(bursar(folder, "router", "list", "--json").stdout)
    assert sum(one["labels"] for one in listed if one["status"] == "published") == 30
