"""`bursar report`: one file that draws the same charts from disk, offline, with nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser import seed
from tests.browser.conftest import Screen, Seeded
from tests.conftest import ROOT


def bursar(kept: Seeded, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "BURSAR_DATA_DIR": str(kept.gateway.data_dir),
        "BURSAR_POLICY": str(kept.gateway.policy_path),
    }
    command = [sys.executable, "-m", "app.cli", "report", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)


@pytest.fixture(scope="module")
def file(kept: Seeded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "made.html"
    done = bursar(kept, "--since", "7d", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(rf"{re.escape(str(out))}: \d+ calls since \S+\n", done.stdout)
    return out


@pytest.mark.parametrize(("theme", "phone"), [("light", False), ("dark", True)])
def test_the_same_charts_from_one_file(
    screens: Callable[..., Screen], kept: Seeded, file: Path, theme: str, phone: bool
) -> None:
    screen = screens(kept.gateway, theme=theme, phone=phone)
    asked: list[str] = []
    screen.page.on("request", lambda request: asked.append(request.url))
    screen.page.context.set_offline(True)
    screen.page.goto(file.as_uri())
    screen.page.get_by_role("heading", name="Report").wait_for()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    for title in ("Speed Radar", "Cost-Speed Frontier", "Trend by model", "Calibration", "Everybody, today"):
        assert screen.sheet(title).locator("canvas").count() == 1
    shown = screen.text()
    assert all(name in shown for name in seed.MODELS)
    assert "gpt-4.1-mini is" in shown
    assert "cut at its cap" in shown
    assert seed.HOSTILE in shown
    screen.check()


def test_its_figures_are_the_dashboards(kept: Seeded, file: Path) -> None:
    found: dict[str, Any] = json.loads(re.search(r'id="figures">(.*?)</script>', file.read_text(), re.DOTALL)[1])  # type: ignore[index]
    printed = json.loads(bursar(kept, "--since", "7d", "--json").stdout)
    assert found.keys() == printed.keys()
    counts = [{one["outcome"]: one["calls"] for one in f["overview"]["outcomes"]} for f in (found, printed)]
    assert counts[0] == counts[1]
    spent = sum(record["cost_usd"] or 0 for record in kept.past.records)
    assert found["overview"]["totals"]["cost_usd"] == pytest.approx(spent, abs=0.1)


def test_no_text_of_others_is_markup_in_it(file: Path) -> None:
    text = file.read_text()
    assert "<img src=x" not in text
    assert "<script>window.pwned" not in text
    assert "http://" not in re.sub(r'"https?://[^"]*w3\.org[^"]*"', "", text.split("<script>")[0])


def test_a_wrong_time_is_wrong_usage(kept: Seeded) -> None:
    done = bursar(kept, "--since", "yesterday")
    assert done.returncode == 2
    assert "--since" in done.stderr


def test_a_place_that_cannot_be_written(kept: Seeded, tmp_path: Path) -> None:
    done = bursar(kept, "--out", str(tmp_path / "none" / "x.html"))
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
