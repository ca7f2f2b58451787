"""Alertmanager's configuration: each alert goes to whom it should, what follows from another is told once."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.test_alerts import alerts
from tests.http.live import until
from tests.stack.processes import Program, answers, clean_environment, fetch, free_ports
from tests.tools import ROOT, alertmanager, tool

CONFIG = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
_COMMENTED = re.compile(r"^    # (\w+_configs: .*)$", re.MULTILINE)


def amtool(*arguments: str | Path) -> str:
    program = tool("amtool")
    if program is None:
        pytest.skip("no amtool here")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_well_formed() -> None:
    said = amtool("check-config", CONFIG)
    assert "2 receivers" in said
    assert "2 inhibit rules" in said


def test_receivers_in_comments_work_once_they_are_let_in(tmp_path: Path) -> None:
    text = CONFIG.read_text()
    assert len(_COMMENTED.findall(text)) == 4
    page = tmp_path / "alertmanager.yml"
    page.write_text(_COMMENTED.sub(r"    \1", text).replace("smtp.example.com:587", "127.0.0.1:25"))
    amtool("check-config", page)


@pytest.mark.parametrize("name", sorted(alerts()))
def test_each_alert_goes_to_whom_it_should(name: str) -> None:
    severity = alerts()[name]["labels"]["severity"]
    said = amtool("config", "routes", "test", f"--config.file={CONFIG}", f"alertname={name}", f"severity={severity}")
    assert said.strip() == {"critical": "at-once", "warning": "people"}[severity]


def test_inhibitions_name_alerts_and_labels_that_there_are() -> None:
    for rule in yaml.safe_load(CONFIG.read_text())["inhibit_rules"]:
        for matchers in (rule["source_matchers"], rule["target_matchers"]):
            assert {name for text in matchers for name in re.findall(r"Bursar\w+", text)} <= alerts().keys()


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real one with the configuration as it is shipped."""
    program = alertmanager()
    if program is None:
        pytest.skip("no Alertmanager here")
    folder, (port,) = tmp_path_factory.mktemp("alertmanager"), free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [
        *program, f"--config.file={CONFIG}", f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
    ]  # fmt: skip
    running = Program("alertmanager", command, clean_environment(), folder / "log", lambda: answers(f"{url}/-/ready"))
    running.start()
    try:
        running.wait_until_ready()
        yield url
    finally:
        running.stop()


def ring(url: str, *rung: dict[str, str]) -> None:
    """Tell it of alerts, as Prometheus does."""
    body = json.dumps([{"labels": {"severity": "critical", **labels}} for labels in rung]).encode()
    request = urllib.request.Request(f"{url}/api/v2/alerts", body, {"content-type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as response:
        assert response.status == 200


def heard(url: str) -> dict[tuple[str, str], dict[str, Any]]:
    """All alerts by name and by what they are of."""
    found: list[dict[str, Any]] = json.loads(fetch(f"{url}/api/v2/alerts"))
    return {
        (one["labels"]["alertname"], one["labels"].get("instance") or one["labels"]["provider"]): one["status"]
        for one in found
    }


def test_what_follows_from_another_is_told_once(manager: str) -> None:
    ring(
        manager,
        {"alertname": "BursarLedgerDown", "instance": "a"},
        {"alertname": "BursarLedgerErrors", "instance": "a"},
        {"alertname": "BursarLedgerErrors", "instance": "b"},
        {"alertname": "BursarProviderFailing", "provider": "p"},
        {"alertname": "BursarCircuitOpen", "provider": "p", "model": "m"},
        {"alertname": "BursarCircuitOpen", "provider": "q", "model": "m"},
    )
    silent = {("BursarLedgerErrors", "a"), ("BursarCircuitOpen", "p")}
    until(lambda: {key for key, status in heard(manager).items() if status["state"] == "suppressed"} == silent)
    assert len(heard(manager)) == 6
    assert all(heard(manager)[key]["inhibitedBy"] for key in silent)
