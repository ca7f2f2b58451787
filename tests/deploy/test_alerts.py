"""Every alert is tested by promtool, is about metrics that a gateway has, and has its place in the runbook."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.gateway.metrics import Metrics
from tests.tools import ROOT, promtool

PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
_NAME = re.compile(r"\b(bursar_[a-z0-9_]+)")


def known() -> set[str]:
    """Every series that a gateway may show."""
    found: set[str] = set()
    for family in Metrics().registry.collect():
        names = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        found |= {family.name + name for name in names}
    return found


def named(expression: str) -> set[str]:
    """The gateway's metrics in a PromQL expression."""
    return set(_NAME.findall(expression))


@cache
def alerts() -> dict[str, dict[str, Any]]:
    """All alerts by name, from all files of rules."""
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def run(*arguments: str | Path) -> None:
    program = promtool()
    if program is None:
        pytest.skip("no promtool here")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_and_configuration_are_well_formed() -> None:
    run("check", "rules", *RULES)
    run("check", "config", PROMETHEUS / "prometheus.yml")


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_alerts_ring_when_they_should(file: Path) -> None:
    run("test", "rules", file)


def test_every_alert_is_tested_to_ring_and_to_be_silent() -> None:
    rings: set[str] = set()
    silent: set[str] = set()
    for file in TESTS:
        for case in yaml.safe_load(file.read_text())["tests"]:
            for check in case.get("promql_expr_test", []):
                if found := re.search(r'ALERTS\{alertname="(\w+)",alertstate="firing"\}', check["expr"]):
                    (rings if check["exp_samples"] else silent).add(found[1])
            for check in case.get("alert_rule_test", []):
                (rings if check.get("exp_alerts") else silent).add(check["alertname"])
    assert rings == alerts().keys()
    assert silent == alerts().keys()


def test_alerts_name_what_there_is() -> None:
    unknown = {name: named(rule["expr"]) - known() for name, rule in alerts().items()}
    assert not {name: metrics for name, metrics in unknown.items() if metrics}


def test_the_runbook_says_what_to_do() -> None:
    parts = re.split(r"^## (.+)$", (ROOT / "deploy" / "runbook.md").read_text(), flags=re.MULTILINE)[1:]
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    entries = {title: text for title, text in sections.items() if title.startswith("Bursar")}
    assert sorted(entries) == sorted(alerts())
    for title, text in entries.items():  # what it means, and something to look at or to do
        assert len(text.split()) >= 30, title
        assert re.search(r"`[^`]+`|\*[A-Z][^*]+\*|\(Bursar\w+\)|[Ll]ook at|As above", text), title
    for name, rule in alerts().items():
        assert rule["annotations"]["runbook"] == f"deploy/runbook.md#{name.lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning")
