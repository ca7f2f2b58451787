"""What is told of a worker that died: run with pytest-xdist on tests that kill their worker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CONFTEST = "from tests import worker_deaths\n\ndef pytest_configure(config):\n    worker_deaths.register(config)\n"
TESTS = """
import os, pathlib, signal

def test_before(): pass

def test_once():
    if not pathlib.Path("died").exists():
        pathlib.Path("died").touch()
        os.kill(os.getpid(), signal.SIGTERM)

def test_abort(): os.abort()

def test_kill(): os.kill(os.getpid(), signal.SIGKILL)

def test_leave(): os._exit(7)
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("dying")
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_dying.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\n")
    options = ["-q", "-n", "1", "-p", "xdist", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(folder)],
        env={"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PATH": ""},
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    return ran.stdout


def test_the_signal_or_exit_code_is_told_with_the_test(said: str) -> None:
    for test, how in (
        ("abort", "killed by SIGABRT"),
        ("kill", "killed by SIGKILL"),
        ("leave", "left with exit code 7"),
    ):
        _, _, after = said.partition(f"crashed while running 'test_dying.py::test_{test}'")
        told = after.partition("crashed while running")[0]
        assert how in told, said
        assert "its peak of memory was" in told


def test_the_first_death_is_told_and_its_test_run_again(said: str) -> None:
    _, _, told = said.partition("a worker died, and its test was run again")
    assert "crashed while running 'test_dying.py::test_once'" in told
    assert "killed by SIGTERM" in told.partition("had run, last")[0]
    assert "3 failed, 2 passed, 1 run again" in said


def test_what_it_had_run_is_told(said: str) -> None:
    assert "it had run, last:\n  test_dying.py::test_before" in said


def test_the_stacks_of_a_fatal_signal_are_told(said: str) -> None:
    assert "Fatal Python error: Aborted" in said
    assert "in test_abort" in said
