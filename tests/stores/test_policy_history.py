"""Which policies were in force."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.stores import policy_history
from app.stores.policy_history import PolicyHistory


def test_the_latest_first_and_workers_told_once(tmp_path: Path) -> None:
    path = tmp_path / "data" / "policies.jsonl"
    one, other = PolicyHistory(path), PolicyHistory(path)
    for worker in (one, other):
        worker.note("v1", (), 1.0)
        worker.note("v1", (), 2.0)
    for worker in (one, other):
        worker.note("v2", ["model a: added"], 3.0)
    one.note("v1", ["model a: removed"], 4.0)
    PolicyHistory(path).note("v1", (), 5.0)
    assert [(e.version, e.changes, e.at_s) for e in other.recent()] == [
        ("v1", ("model a: removed",), 4.0), ("v2", ("model a: added",), 3.0), ("v1", (), 1.0),
    ]  # fmt: skip
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.version for entry in one.recent(1)] == ["v1"]


def test_it_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_history, "MAX_BYTES", 20_000)
    history = PolicyHistory(tmp_path / "policies.jsonl")
    for number in range(1_000):
        history.note(f"v{number}", ["x" * 50], float(number))
    assert (tmp_path / "policies.jsonl").stat().st_size < 2 * 20_000
    assert history.recent(2)[0].version == "v999"


def test_what_is_broken_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "policies.jsonl"
    path.write_bytes(b'{"at_s": 1.0, "version": "v1"}\n{"at_s": 2.0, "ver')
    assert [entry.version for entry in PolicyHistory(path).recent()] == ["v1"]
    assert PolicyHistory(tmp_path / "none").recent() == []
