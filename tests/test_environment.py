"""`scripts/environment.py`: which Python the environment is made of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.environment import Python, chosen, found, probe

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "environment.py"


def python(path: str, seconds: float, version: tuple[int, int, int] = (3, 11, 7), **more: bool) -> Python:
    return Python({"path": path, "version": version, "usable": True, "venv": True, "seconds": seconds, **more})


def path_of(found: Python | None) -> str:
    assert found is not None
    return found.path


def test_the_first_on_path_is_taken_where_no_other_is_clearly_quicker() -> None:
    assert path_of(chosen([python("first", 1.0), python("second", 0.95)])) == "first"


def test_a_clearly_quicker_one_is_taken() -> None:
    assert path_of(chosen([python("first", 1.0), python("second", 0.7), python("third", 0.8)])) == "second"


@pytest.mark.parametrize(
    "unfit",
    [
        python("unfit", 0.1, (3, 10, 9)),
        python("unfit", 0.1, (3, 15, 0)),
        python("unfit", 0.1, usable=False),
        python("unfit", 0.1, venv=False),
    ],
)
def test_a_quicker_one_that_cannot_run_us_is_not(unfit: Python) -> None:
    assert path_of(chosen([unfit, python("fit", 1.0)])) == "fit"
    assert chosen([unfit]) is None


def test_a_real_python_says_what_it_is() -> None:
    said = probe(sys.executable)
    assert said is not None
    assert said.version == sys.version_info[:3]
    assert said.seconds > 0


def test_what_is_no_python_is_passed_over(tmp_path: Path) -> None:
    broken = tmp_path / "python3"
    broken.write_text("#!/bin/sh\necho not a Python\n")
    broken.chmod(0o755)
    (tmp_path / "python").symlink_to(Path(sys.executable).resolve())
    pythons = found(str(tmp_path))
    assert pythons[0].path == str(Path(sys.executable).resolve())
    assert str(broken) not in {python.path for python in pythons}
    assert len({python.path for python in pythons}) == len(pythons)


@pytest.mark.parametrize("lock", sorted(ROOT.glob("requirements*.lock")), ids=lambda lock: lock.stem)
def test_every_python_gets_the_same_version_of_a_package(lock: Path) -> None:
    """Else types are checked against other stubs than here, some of which no Python 3.11 could read."""
    pinned = [line.partition("==")[0] for line in lock.read_text().splitlines() if line[:1].isalnum()]
    assert pinned
    assert len(pinned) == len(set(pinned))


def test_one_that_is_named_must_fit(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(tmp_path / "venv"), "--python", "/bin/false"]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ran.returncode == 1
    assert "Bursar needs CPython 3.11 to 3.14" in ran.stderr
    assert "/bin/false" in ran.stderr
    assert not (tmp_path / "venv").exists()
