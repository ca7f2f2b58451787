"""Questions about traces, answered by a real process beside the gateway's."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import duckdb
import msgspec
import pytest
from pydantic import SecretStr

from app import figures as module
from app.figures import Figures
from app.http.dashboard.ask import FiguresUnavailable, Find, Overview
from app.settings import Settings
from app.stores.traces_schema import since_sql


@pytest.fixture
async def figures(tmp_path: Path) -> AsyncIterator[Figures]:
    (tmp_path / "traces").mkdir()
    made = Figures(Settings(data_dir=tmp_path))
    yield made
    await made.close()


async def test_one_process_answers_many_and_another_takes_its_place(figures: Figures) -> None:
    assert msgspec.json.decode(await figures(Find())) == {"calls": []}
    process = figures._process
    assert process is not None
    assert msgspec.json.decode(await figures(Overview(0.0)))["totals"]["calls"] == 0
    assert figures._process is process
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    assert msgspec.json.decode(await figures(Find())) == {"calls": []}
    assert figures._process is not process


def test_a_question_holds_the_call_that_it_begins_with() -> None:
    db = duckdb.connect()
    first_s = 1796026875.1958664
    db.execute(f"CREATE TABLE traces AS SELECT {first_s!r}::DOUBLE AS created_s, DATE '2026-11-30' AS day")
    for since_s, calls in ((first_s, 1), (first_s + 1e-6, 0)):
        assert db.execute(f"SELECT count(*) FROM traces WHERE {since_sql(since_s)}").fetchall() == [(calls,)]


async def test_what_cannot_be_read_is_said_and_the_next_question_is_asked_all_the_same(tmp_path: Path) -> None:
    figures = Figures(Settings(data_dir=tmp_path, traces_url=SecretStr("nonsense://x")))
    for _ in range(2):
        with pytest.raises(FiguresUnavailable, match="the gateway's log says why"):
            await figures(Find())
    await figures.close()


async def test_an_answer_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIGURES", ("-c", "import time; time.sleep(60)"))
    figures = Figures(Settings(data_dir=tmp_path), longest_s=0.2)
    with pytest.raises(FiguresUnavailable, match="within 0 s"):
        await figures(Find())
    assert figures._process is not None
    assert figures._process.returncode is not None
