"""What commands print, piped and on a real terminal: whatever clients have called things, and however narrow it is."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from app.commands.terminal import plain_table, visible
from app.commands.train import train
from tests.conftest import ROOT

EVIL = "gpt\x1b[2J\x1b]0;owned\x07\r\n2026 completed\u202egnp"
SHOWN = r"gpt\x1b[2J\x1b]0;owned\x07\r\n2026 completed\u202egnp"


def on_terminal(code: str, columns: int) -> list[str]:
    """What Python code prints on a terminal of this width, styles taken away, line by line."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")} | {"TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=follower, stdout=follower, env=env) as running:
        os.close(follower)
        said = b""
        while part := _read(leader):
            said += part
    os.close(leader)
    assert running.returncode == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", said.decode())
    return [line.rstrip() for line in text.replace("\r\n", "\n").split("\n") if line.strip()]


def _read(leader: int) -> bytes:
    try:
        return os.read(leader, 4096)
    except OSError:  # how Linux says that nobody holds the other side any more
        return b""


def table_of(row: list[str]) -> str:
    """Code that prints one row."""
    columns = ["model", "why", "dollars", "calls"]
    return f"from app.commands.terminal import table; table({columns}, {[row]!r}, right={columns[2:]})"


def test_names_cannot_steer_the_terminal() -> None:
    assert visible(EVIL) == SHOWN
    lines = on_terminal(table_of([EVIL, "", "1.50", "2"]), 200)
    assert lines[-1].split("   ")[0].strip() == SHOWN
    assert len(lines) == 3


def test_nor_can_they_where_the_table_is_piped() -> None:
    done = subprocess.run(
        [sys.executable, "-c", table_of([EVIL, "", "1.50", "2"])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[1].startswith(SHOWN)


def test_markup_and_other_scripts_are_plain_text() -> None:
    lines = on_terminal(table_of(["[bold]中文[/bold] :smile:", "é", "1", "2"]), 100)
    assert lines[-1].split() == ["[bold]中文[/bold]", ":smile:", "é", "1", "2"]


@pytest.mark.parametrize("columns", [20, 60, 80])
def test_numbers_stay_in_one_piece_on_a_narrow_terminal(columns: int) -> None:
    row = [
        "provider/" + "long-" * 12 + "name",
        "for it was the cheapest of all that are good enough",
        "1234.567890",
        "4711",
    ]
    shown = " ".join(on_terminal(table_of(row), columns))
    for whole in ("dollars", "calls", "1234.567890", "4711"):
        assert whole in shown


def test_tables_are_aligned_and_end_without_spaces() -> None:
    lines = plain_table(("name", "n", ""), [("a", "1", ""), ("longer", "22", "x")], right=("n",))
    assert lines == ["name     n", "a        1", "longer  22  x"]


def test_what_is_lacking_is_installed_by_this_python(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """A name given to whatever `pip` is on the path would be looked up on an index, where it is none of ours."""
    monkeypatch.setitem(sys.modules, "routers.train", None)
    assert train(Path("rows"), None, seed=1) == 1
    command = capsys.readouterr().err.partition("scikit-learn: ")[2].partition(" (")[0]
    assert shlex.split(command) == [sys.executable, "-m", "pip", "install", "bursar[train]"]
