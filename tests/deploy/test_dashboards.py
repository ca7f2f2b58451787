"""Every query of every Grafana dashboard parses and names metrics, and labels of them, that a live gateway shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.test_alerts import known, named, run
from tests.http.live import LiveGateway, contract
from tests.tools import ROOT
from tests.upstream import ScriptedUpstream

GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
_BY = re.compile(r"\b(?:by|without|ignoring|on)\s*\(([^)]*)\)")
_MATCHED = re.compile(r'(\w+)(?:=~|!~|!=|=)"')
ADDED = {"instance", "job", "le"}
"""Labels that Prometheus adds, and that of buckets."""


def panels(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(file.read_text())["panels"]
    return found


def queries(file: Path) -> list[str]:
    """All of a dashboard's queries, Grafana's variables filled in as Grafana would."""
    found = [target["expr"] for panel in panels(file) for target in panel["targets"]]
    return [query.replace("$__rate_interval", "1m").replace("$instance", ".*") for query in found]


def test_there_are_dashboards() -> None:
    assert len(DASHBOARDS) >= 2
    uids = [json.loads(file.read_text())["uid"] for file in DASHBOARDS]
    assert len(set(uids)) == len(uids)
    for file in DASHBOARDS:
        ids = [panel["id"] for panel in panels(file)]
        assert len(set(ids)) == len(ids)


def test_no_metric_of_learning_goes_unshown() -> None:
    """Drift, quarantine, snapshots and exploration each have their panel."""
    shown = {metric for query in queries(GRAFANA / "dashboards" / "learning.json") for metric in named(query)}
    words = ("quarantine", "snapshot", "explored", "deferral", "feedback")
    assert shown >= {name for name in known() if any(word in name for word in words)}


def test_panels_do_not_lie_on_one_another() -> None:
    for file in DASHBOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in panels(file):
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert not cells & taken, (file.name, panel["title"])
            assert at["x"] + at["w"] <= 24
            taken |= cells


def test_they_ask_the_source_that_is_provisioned() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    for file in DASHBOARDS:
        assert {panel["datasource"]["uid"] for panel in panels(file)} == {source["uid"]}


def test_every_query_parses(tmp_path: Path) -> None:
    rules = [{"record": f"q:{n}", "expr": query} for n, query in enumerate(q for f in DASHBOARDS for q in queries(f))]
    assert len(rules) > 30
    page = tmp_path / "queries.yml"
    page.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    run("check", "rules", page)


def test_every_query_names_what_a_gateway_shows(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, LiveGateway(contract(upstream), tmp_path) as gateway:
        page = gateway.metrics()
        labels = labels_of(gateway)
    typed = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
    shown = {name for name, kind in typed.items() if kind != "histogram"}
    shown |= {
        name + part for name, kind in typed.items() if kind == "histogram" for part in ("_bucket", "_sum", "_count")
    }
    for file in DASHBOARDS:
        for query in queries(file):
            assert named(query) <= shown, query
            used = {label.strip() for group in _BY.findall(query) for label in group.split(",")}
            used |= set(_MATCHED.findall(query))
            assert used <= labels | ADDED, query


def labels_of(gateway: LiveGateway) -> set[str]:
    """Every label that a metric of the gateway has."""
    collectors = gateway.gateway.metrics.registry._collector_to_names
    return {label for collector in collectors for label in getattr(collector, "_labelnames", ())}


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_legends_name_labels_that_their_query_keeps(file: Path) -> None:
    for panel in panels(file):
        for target in panel["targets"]:
            kept = {label.strip() for group in _BY.findall(target["expr"]) for label in group.split(",")} | {"instance"}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept, target
