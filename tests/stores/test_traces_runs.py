"""Runs as they are read from traces, compacted or not, old or new, with what was said of them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest

from app.core.efficiency import efficiency_of
from app.core.feedback import Feedback, Speaker, Turned, task_thing
from app.core.runs import NOT_MEASURED, Run, pace_of
from app.learner.measured_runs import judged_since
from app.learner.measures import cache_hit_rate
from app.stores.outcomes_sqlite import SqliteOutcomes
from app.stores.traces_compact import compact_segments
from app.stores.traces_parquet import ParquetFolder
from app.stores.traces_query import open_files
from app.stores.traces_runs import COLUMNS, every_word, make_runs, runs_since
from tests.stores.traces_records import NOON_S, closed_segment, record, request_id

TIMES = {
    "duration_ms": 2000.0,
    "ttft_ms": 100.0,
    "first_attempt_ms": 150.0,
    "generation_ms": 1000.0,
    "tokens_per_sec": 100.0,
    "success_ms": -1,
    "overhead_ms": 0.5,
}


def done(number: int, at_s: float = NOON_S, **more: Any) -> dict[str, Any]:
    """A call that completed, with all that is measured."""
    usual = {"outcome": "completed", "cut": None, "cached": None, "cost_killed_at_usd": None, "timings": TIMES}
    return record(number, at_s, **{**usual, **more})


def read(folder: Path, since_s: float = 0.0, key: str | None = None, words: Any = None) -> list[Run]:
    with open_files(folder, ParquetFolder(str(folder / "parquet"))) as db:
        return list(runs_since(db, since_s, words or {}, key=key))


def test_runs_are_a_table_beside_traces(tmp_path: Path) -> None:
    closed_segment(tmp_path, done(1), done(2, NOON_S + 10), done(3, NOON_S + 1, task_id=None))
    told = Feedback(task_thing("ci", "run-1"), "ci", Speaker.VERIFIER, Turned.SUCCESS, NOON_S + 20, key="ci")
    with open_files(tmp_path, ParquetFolder(str(tmp_path / "parquet"))) as db:
        make_runs(db, {told.thing: [told]})
        asked = db.execute("SELECT * FROM runs ORDER BY calls DESC")
        assert {name: str(kind) for name, kind, *_ in asked.description or ()}.keys() == COLUMNS.keys()
        task, lone = (dict(zip(COLUMNS, row, strict=True)) for row in asked.fetchall())
        of_all = list(runs_since(db, 0.0, {told.thing: [told]}))
    assert {field.name for field in dataclasses.fields(Run)} | {"began_at", "time_to_success_ms"} == COLUMNS.keys()
    for row, run in zip((task, lone), sorted(of_all, key=lambda run: -run.calls), strict=True):
        assert {name: row[name] for name in dataclasses.asdict(run)} == dataclasses.asdict(run)
        assert row["time_to_success_ms"] == run.time_to_success_ms
        assert row["began_at"] == dt.datetime.fromtimestamp(run.began_s, dt.UTC).replace(tzinfo=None)
    assert (task["success_ms"], lone["success_ms"], lone["judged"]) == (20_000, NOT_MEASURED, False)


def test_a_call_that_the_cache_answered_is_measured_and_no_run(tmp_path: Path) -> None:
    """Alone it says nothing of a model's speed; in a task it is one of the task's calls."""
    told = {"request_id": request_id(1, NOON_S), "model": "small", "provider": "a", "task_type": "code",
            "input_tokens": 900, "saved_usd": 0.01}  # fmt: skip
    nobody: dict[str, Any] = {
        "model": None,
        "provider": None,
        "decision": None,
        "usage": {},
        "attempts": [],
        "cost_usd": 0.0,
    }
    hits = [done(n, NOON_S + n, task_id=task, cached=told, **nobody) for n, task in ((2, "run-1"), (3, None))]
    embedded = done(4, NOON_S + 4, task_id=None, cached={**told, "task_type": None}, **nobody)
    closed_segment(tmp_path, done(1), *hits, embedded)
    (run,) = read(tmp_path)
    assert (run.task_id, run.calls, run.turns, run.model, run.task_type) == ("run-1", 2, 2, "small", "code")
    with open_files(tmp_path, ParquetFolder(str(tmp_path / "parquet"))) as db:
        columns = "request_id, cached.request_id, cached.saved_usd"
        asked = f"SELECT {columns} FROM traces WHERE cached IS NOT NULL ORDER BY ALL"
        expected = [(hit["request_id"], told["request_id"], 0.01) for hit in (*hits, embedded)]
        assert db.execute(asked).fetchall() == expected
        judged = sorted(judged_since(db, 0.0, {}), key=lambda one: len(one.steps))
    assert [len(one.steps) for one in judged] == [1, 2]
    assert [cache_hit_rate(one) for one in judged] == [(900.0, 900.0), (910.0, 1_900.0)]
    assert pace_of(hits[1]).answered
    assert not pace_of(embedded).answered


def test_without_traces_the_table_is_empty(tmp_path: Path) -> None:
    with open_files(tmp_path, ParquetFolder(str(tmp_path / "parquet"))) as db:
        make_runs(db, {})
        assert db.execute("SELECT * FROM runs").fetchall() == []
        assert [row[0] for row in db.execute("DESCRIBE runs").fetchall()] == list(COLUMNS)


def test_calls_of_a_task_are_one_run_and_others_their_own(tmp_path: Path) -> None:
    lone = done(4, NOON_S + 1, task_id=None)
    closed_segment(tmp_path, done(1), done(2, NOON_S + 10), done(3, key="other"), lone)
    runs = sorted(read(tmp_path), key=lambda run: (run.key, -run.calls))
    assert [(run.key, run.task_id, run.calls) for run in runs] == [
        ("ci", "run-1", 2),
        ("ci", None, 1),
        ("other", "run-1", 1),
    ]
    task = runs[0]
    assert (task.began_s, task.duration_ms, task.first_token_ms, task.first_attempt_ms) == (NOON_S, 12_000, 100, 150)
    assert (task.tokens_per_sec, task.harness, task.task_type, task.model) == (100.0, "codex", "code", "small")
    assert task.cost_usd == pytest.approx(0.003)
    assert [run.key for run in read(tmp_path, key="other")] == ["other"]


def test_records_from_before_read_as_nothing_measured(tmp_path: Path) -> None:
    """Also from Parquet files whose columns are of then: three of three at 6 s are shared PARTS.md's 0.90909."""
    olds = [done(n, task_id=None) for n in range(3)]
    for old in olds:
        old["timings"] = {"duration_ms": 6000.0, "ttft_ms": None, "overhead_ms": None}
        del old["cost_killed_at_usd"], old["seen"], old["harness"]
    closed_segment(tmp_path, *olds)

    def check() -> None:
        runs = read(tmp_path)
        assert {(run.first_attempt_ms, run.tokens_per_sec, run.success_ms) for run in runs} == {
            (0.0, 0.0, NOT_MEASURED)
        }
        assert {(run.time_to_success_ms, run.passed, run.killed_usd) for run in runs} == {(6000.0, True, None)}
        block = efficiency_of(runs)
        assert (block.median_time_to_first_attempt_ms, block.median_tokens_per_sec, block.cost_killed_count) == (
            0,
            0,
            0,
        )
        assert block.median_time_to_success_ms == 6000.0
        assert block.speed_efficiency_score == pytest.approx(0.90909, abs=5e-6)

    check()
    compact_segments(tmp_path, ParquetFolder(str(tmp_path / "parquet")), 0)
    check()
    (part,) = (tmp_path / "parquet").rglob("*.parquet")
    since = (
        "first_attempt_ms",
        "generation_ms",
        "tokens_per_sec",
        "success_ms",
        "cost_killed_at_usd",
        "seen",
        "harness",
    )
    with duckdb.connect() as db:
        columns = f"* EXCLUDE ({', '.join(since)})"
        db.execute(f"COPY (SELECT {columns} FROM read_parquet('{part}')) TO '{part}.old' (FORMAT parquet)")
    part.with_suffix(".parquet.old").rename(part)
    check()


def test_the_same_from_parquet(tmp_path: Path) -> None:
    closed_segment(tmp_path, done(1), done(2, NOON_S + 10), done(3, task_id=None, cost_killed_at_usd=0.5))
    before = read(tmp_path)
    compact_segments(tmp_path, ParquetFolder(str(tmp_path / "parquet")), 0)
    assert list(tmp_path.glob("*.done"))
    assert read(tmp_path) == before
    assert {run.task_id: run.killed_usd for run in before} == {"run-1": None, None: 0.5}


def test_a_task_that_goes_on_since_then_is_read_whole(tmp_path: Path) -> None:
    closed_segment(
        tmp_path,
        done(1),
        done(2, NOON_S + 100),
        done(3, NOON_S, task_id="over"),
        done(4, NOON_S, task_id=None),
    )
    (run,) = read(tmp_path, since_s=NOON_S + 50)
    assert (run.task_id, run.calls, run.began_s) == ("run-1", 2, NOON_S)
    assert read(tmp_path, since_s=NOON_S + 101) == []


def test_signs_and_embeddings(tmp_path: Path) -> None:
    refused = done(1, task_id=None, seen={"began": "b", "asked": "a", "refused": True})
    shapeless = done(2, task_id=None, seen={"began": "b", "asked": "a", "shape_ok": False, "arguments_ok": True})
    fine = done(3, task_id=None, seen={"began": "b", "asked": "a", "shape_ok": True})
    embedding = done(4, task_id=None, decision=None, seen=None)
    within = done(5, decision=None, seen=None, usage={"input_tokens": 5, "output_tokens": 0})
    closed_segment(tmp_path, refused, shapeless, fine, embedding, within, done(6, NOON_S + 1))
    runs = read(tmp_path)
    assert sorted(run.passed is True for run in runs if run.task_id is None) == [False, False, True]
    (task,) = [run for run in runs if run.task_id is not None]
    assert (task.calls, task.turns) == (2, 1)


async def test_words_are_read_to_the_last_and_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.stores.traces_runs.WORDS", 2)
    outcomes = SqliteOutcomes(tmp_path / "outcomes.sqlite")
    await outcomes.start()
    now_s = time.time()
    for thing in ("req_a", "req_b", "req_c", "task:ci:run-1", "req_d"):
        word = Feedback(thing, "ci", Speaker.VERIFIER, Turned.FAILURE, now_s, key="ci")
        await outcomes.put(word)
    words = await every_word(outcomes)
    await outcomes.close()
    assert sorted(words) == ["req_a", "req_b", "req_c", "req_d", "task:ci:run-1"]
    folder = tmp_path / "traces"
    folder.mkdir()
    closed_segment(folder, done(1))
    (run,) = read(folder, words=words)
    assert (run.passed, run.judged) == (False, True)
