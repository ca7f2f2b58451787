"""`bursar router quarantine` and `release`, on what a gateway left behind."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from app.settings import Settings
from app.stores.opening import make_outcomes
from app.stores.traces_segments import Segment
from tests.learner.calls import call_id, record, word
from tests.test_learn_command import bursar


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Calls of a model that fell after 300 of 450 (synthetic outcomes), learned from."""
    (tmp_path / "traces").mkdir()
    segment, now_s = Segment(tmp_path / "traces"), time.time()
    segment.write(b"".join(msgspec.json.encode(record(n, at_s=now_s + n)) + b"\n" for n in range(450)))
    segment.close()
    good = np.random.default_rng(1).random(450) < np.where(np.arange(450) < 300, 0.92, 0.5)

    async def say() -> None:
        outcomes = make_outcomes(Settings(data_dir=tmp_path))
        await outcomes.start()
        for n in range(450):
            await outcomes.put(word(call_id(n), "success" if good[n] else "failure", said_s=now_s + n))
        await outcomes.close()

    asyncio.run(say())
    assert bursar(tmp_path, "learn", "--once", "--quiet").returncode == 0
    return tmp_path


def test_the_operator_sees_who_fell_and_lets_it_back(folder: Path) -> None:
    (down,) = json.loads(bursar(folder, "router", "quarantine", "--json").stdout)
    assert (down["model"], down["task_type"], down["cause"]) == ("small", "chat", "model")
    assert down["drop"] > 0.1
    assert "small" in bursar(folder, "router", "quarantine").stdout
    other = bursar(folder, "router", "release", "small", "code")
    assert (other.returncode, "these are: small chat" in other.stderr) == (1, True)
    done = bursar(folder, "router", "release", "small", "chat")
    assert (done.returncode, done.stdout.startswith("small may do chat again")) == (0, True)
    assert bursar(folder, "router", "quarantine").stdout == "no model is in quarantine\n"
    assert "let back" in bursar(folder, "router", "list").stdout
    # The learner goes on from there and does not think otherwise.
    assert bursar(folder, "learn", "--once", "--quiet").returncode == 0
    assert bursar(folder, "router", "quarantine").stdout == "no model is in quarantine\n"
    assert bursar(folder, "router", "release", "small", "chat").returncode == 1


def test_nobody_is_in_quarantine_to_begin_with(tmp_path: Path) -> None:
    assert bursar(tmp_path, "router", "quarantine").stdout == "no model is in quarantine\n"
    assert bursar(tmp_path, "router", "release", "small", "chat").returncode == 1
