"""Where tests keep their files: in memory where that has room, and where nobody has said otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import temporary


@pytest.fixture(autouse=True)
def _nobody_has_said(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", None)
    with monkeypatch.context() as room:
        room.setattr(temporary, "ROOM_BYTES", 64 * 1024)
        yield


def meminfo(folder: Path, available_kib: int) -> Path:
    """A machine's memory as Linux tells it."""
    path = folder / "meminfo"
    path.write_text(f"MemTotal:       99999999 kB\nMemAvailable:   {available_kib} kB\n")
    return path


def test_processes_and_their_children_keep_their_files_there(tmp_path: Path) -> None:
    assert temporary.in_memory(tmp_path, meminfo(tmp_path, 64))
    assert tempfile.gettempdir() == str(tmp_path)
    code = "import tempfile; print(tempfile.gettempdir())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == str(tmp_path)


def test_not_where_it_would_take_the_machines_memory(tmp_path: Path) -> None:
    assert not temporary.in_memory(tmp_path, meminfo(tmp_path, 63))
    assert "TMPDIR" not in os.environ


def test_not_where_it_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporary, "ROOM_BYTES", 1 << 60)
    assert not temporary.in_memory(tmp_path, meminfo(tmp_path, 1 << 60))


def test_not_where_there_is_none(tmp_path: Path) -> None:
    assert not temporary.in_memory(tmp_path / "none", meminfo(tmp_path, 64))
    assert not temporary.in_memory(tmp_path, tmp_path / "none")


def test_not_where_the_operator_has_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/var/tmp")
    assert not temporary.in_memory(tmp_path, meminfo(tmp_path, 64))
    assert os.environ["TMPDIR"] == "/var/tmp"
