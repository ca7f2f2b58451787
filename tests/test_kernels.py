"""Training and evaluation round alike on every processor that has AVX2: what a process of theirs has loaded."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.commands import kernels
from app.commands.kernels import CHOSEN_BY, KERNELS, pin_kernels
from tests.conftest import ROOT
from tests.routers.made_rows import made_rows, write_rows

WITH_AVX2 = "flags\t\t: fpu sse2 fma avx avx2\n"
LOADED = """
import sys
from app.commands.tree import cli
try:
    cli(sys.argv[1:])
except SystemExit as end:
    import json
    from threadpoolctl import threadpool_info
    kernels = sorted({lib["architecture"] for lib in threadpool_info() if lib["internal_api"] == "openblas"})
    print(json.dumps([end.code, kernels]))
"""


def loaded(*command: str, **env: str) -> Any:
    """The exit code of a command, and the kernels that its numpy and scipy had."""
    kept = {name: value for name, value in os.environ.items() if name != CHOSEN_BY}
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *command],
        env={**kept, **env}, cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "made.jsonl", made_rows(40))


needs_avx2 = pytest.mark.skipif(not kernels._has_avx2(), reason="a processor that has no AVX2, or does not say so")


@needs_avx2
def test_training_takes_the_same_kernels_whatever_the_processor_has(data: Path, tmp_path: Path) -> None:
    assert loaded("train", "--data", str(data), "--out", str(tmp_path / "out")) == [0, [KERNELS]]


@needs_avx2
@pytest.mark.parametrize("command", [["router", "--no-baselines", "--bootstrap", "2"], ["new-model", "--draws", "2"]])
def test_evaluation_does_so_too(data: Path, command: list[str]) -> None:
    assert loaded("eval", *command, "--data", str(data)) == [0, [KERNELS]]


@needs_avx2
def test_who_chose_kernels_keeps_them(data: Path, tmp_path: Path) -> None:
    chosen = loaded("train", "--data", str(data), "--out", str(tmp_path / "out"), OPENBLAS_CORETYPE="Nehalem")
    assert chosen == [0, ["Nehalem"]]


@pytest.mark.parametrize(
    ("flags", "machine", "numpy_is_there", "pinned"),
    [
        (WITH_AVX2, "x86_64", False, True),
        (WITH_AVX2, "x86_64", True, False),
        (WITH_AVX2, "aarch64", False, False),
        ("flags\t\t: fpu sse2 avx\n", "x86_64", False, False),
        (None, "x86_64", False, False),
    ],
)
def test_kernels_are_pinned_only_where_they_can_run(
    flags: str | None, machine: str, numpy_is_there: bool, pinned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "cpuinfo"
    if flags is not None:
        said.write_text(flags)
    if numpy_is_there:
        importlib.import_module("numpy")
    monkeypatch.setattr(kernels, "PROCESSOR", said)
    monkeypatch.setattr("app.commands.kernels.platform.machine", lambda: machine)
    monkeypatch.delenv(CHOSEN_BY, raising=False)
    if not numpy_is_there:
        monkeypatch.delitem(sys.modules, "numpy", raising=False)
    try:
        pin_kernels()
        assert os.environ.get(CHOSEN_BY) == (KERNELS if pinned else None)
    finally:
        os.environ.pop(CHOSEN_BY, None)
