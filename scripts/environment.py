"""`python environment.py FOLDER`: makes a virtual environment of the quickest Python that this machine has.

Pythons of one version differ: a build without profile-guided optimization (pyenv's default) takes 1.2 to 1.7 times the
time of a distribution's own for small calls, and most of what a gateway costs is the interpreter. So each CPython found
is timed for a moment, and another than the first on PATH is taken only where it is clearly quicker. It needs nothing
but the standard library, and runs on any Python 3.8 or newer. `--python PATH` takes that one, whatever its speed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path
from typing import Any

OLDEST, NEWEST = (3, 11), (3, 14)
NEEDED = "CPython 3.11 to 3.14 with sqlite3, ssl and venv (Debian, Ubuntu: python3-venv)"
QUICKER = 0.87  # of the time of the first on PATH: less than noise between two runs would be no reason
ROUNDS = 2
FOLDERS = ("/usr/bin", "/usr/local/bin", "/opt/homebrew/bin")
NAMES = ("python3", *(f"python3.{minor}" for minor in range(NEWEST[1], OLDEST[1] - 1, -1)), "python")

# What a gateway does most: calls, small objects, dicts, text. Printed: what it is, and its best time of 100 in seconds.
PROBE = """
import importlib.util, json, os, platform, sys, sysconfig, time
class Part:
    def __init__(self, name, size): self.name, self.size = name, size
    def more(self, size): return self.size + size
def work():
    found = {}
    for number in range(400):
        part = Part("part", number)
        found[part.name + str(number % 50)] = {"size": part.more(number), "of": [number, part]}
    return ",".join(found)
def timed():
    start = time.perf_counter()
    for _ in range(4): work()
    return time.perf_counter() - start
usable = platform.python_implementation() == "CPython" and not sysconfig.get_config_var("Py_GIL_DISABLED") \
    and not sysconfig.get_config_var("Py_DEBUG")
base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
print(json.dumps({"path": base, "version": list(sys.version_info[:3]), "usable": usable,
    "venv": all(importlib.util.find_spec(name) for name in ("venv", "ensurepip", "_sqlite3", "_ssl")),
    "seconds": min(timed() for _ in range(100))}))
"""


class Python:
    """An interpreter: its `path` and `version`, the `seconds` that PROBE's work took, and whether it `fits`."""

    def __init__(self, said: dict[str, Any]) -> None:
        self.path: str = said["path"]
        self.seconds: float = said["seconds"]
        self.version: tuple[int, ...] = tuple(said["version"])
        self.fits: bool = said["usable"] and said["venv"] and OLDEST <= self.version[:2] <= NEWEST

    def __str__(self) -> str:
        return "{} ({})".format(self.path, ".".join(map(str, self.version)))


def probe(path: str) -> Python | None:
    """What `path` says of itself, or None where it is no Python that starts."""
    try:
        ran = subprocess.run([path, "-I", "-S", "-c", PROBE], capture_output=True, text=True, timeout=60, check=True)
        return Python(json.loads(ran.stdout))
    except (OSError, ValueError, KeyError, subprocess.SubprocessError):
        return None


def found(search: str) -> list[Python]:
    """The Pythons in the folders of `search` (as PATH) and in the usual ones, each once, in that order."""
    folders = dict.fromkeys([*(folder for folder in search.split(os.pathsep) if folder), *FOLDERS])
    paths = [os.path.join(folder, name) for folder in folders for name in NAMES]
    pythons: dict[str, Python] = {}
    for path in dict.fromkeys(path for path in paths if os.access(path, os.X_OK)):
        python = probe(path)
        if python is not None:
            pythons.setdefault(python.path, python)
    for _ in range(ROUNDS - 1):
        for python in pythons.values():
            again = probe(python.path)
            python.seconds = min(python.seconds, again.seconds if again else python.seconds)
    return list(pythons.values())


def chosen(pythons: list[Python]) -> Python | None:
    """The first that fits, or the quickest where that one is clearly slower; None where none fits."""
    fitting = [python for python in pythons if python.fits]
    if not fitting:
        return None
    quickest = min(fitting, key=lambda python: python.seconds)
    return quickest if quickest.seconds < QUICKER * fitting[0].seconds else fitting[0]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="", help="this one, whatever its speed")
    options = parser.parse_args()
    pythons = [] if options.python else found(os.environ.get("PATH", ""))
    python = probe(options.python) if options.python else chosen(pythons)
    if python is None or not python.fits:
        raise SystemExit(f"Bursar needs {NEEDED}; {options.python or 'what was found here'} is not that")
    first = next((other for other in pythons if other.fits), python)
    if python.path != first.path:
        print(f"Taking {python}: {first.seconds / python.seconds:.1f} times as quick as {first}, the first on PATH.")
    subprocess.run([python.path, "-m", "venv", str(options.folder)], check=True)


if __name__ == "__main__":
    main()
