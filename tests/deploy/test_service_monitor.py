"""The ServiceMonitor, against what its CRD says of the fields that are used.

The CRD is 70 kB, and no Python package brings it without a client for clusters, so the part of it that matters here
is written down below, from `monitoring.coreos.com_servicemonitors.yaml` of the Prometheus operator 0.84.1: names,
types, patterns and what is required. Fields that are not in the list are refused, though the CRD has more: whoever uses
another one adds it here after a look at the CRD.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from tests.deploy.test_manifests import objects

TEXT, TEXTS = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
DURATION = {
    "type": "string",
    "pattern": "^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$",
}
LABELS = {"type": "object", "additionalProperties": TEXT}
ACTIONS = [
    "replace", "keep", "drop", "hashmod", "labelmap", "labeldrop", "labelkeep", "lowercase", "uppercase", "keepequal",
    "dropequal",
]  # fmt: skip


def record(required: list[str], **fields: Any) -> dict[str, Any]:
    """An object of these fields and no others."""
    return {"type": "object", "additionalProperties": False, "required": required, "properties": fields}


RELABELING = record(
    [],
    action={"enum": ACTIONS},
    regex=TEXT,
    replacement=TEXT,
    separator=TEXT,
    sourceLabels={"type": "array", "items": {"type": "string", "pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"}},
    targetLabel=TEXT,
)
ENDPOINT = record(
    [],
    port=TEXT,
    path=TEXT,
    scheme={"enum": ["http", "https"]},
    interval=DURATION,
    scrapeTimeout=DURATION,
    honorLabels={"type": "boolean"},
    relabelings={"type": "array", "items": RELABELING},
    metricRelabelings={"type": "array", "items": RELABELING},
)
SPEC = record(
    ["endpoints", "selector"],
    endpoints={"type": "array", "items": ENDPOINT},
    selector=record([], matchLabels=LABELS),
    namespaceSelector=record([], any={"type": "boolean"}, matchNames=TEXTS),
    jobLabel=TEXT,
    targetLabels=TEXTS,
    podTargetLabels=TEXTS,
)
MONITOR = record(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "monitoring.coreos.com/v1"},
    kind={"const": "ServiceMonitor"},
    metadata=record(["name"], name=TEXT, namespace=TEXT, labels=LABELS, annotations=LABELS),
    spec=SPEC,
)


def the_monitor() -> dict[str, Any]:
    (found,) = objects("ServiceMonitor")
    return copy.deepcopy(found)


def test_it_fits() -> None:
    jsonschema.validate(the_monitor(), MONITOR)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda one: one["spec"].pop("selector"),
        lambda one: one["spec"]["endpoints"][0].update(intervall="15s"),
        lambda one: one["spec"]["endpoints"][0].update(interval="15 s"),
        lambda one: one["spec"]["endpoints"][0].update(port=8080),
        lambda one: one["spec"]["endpoints"][0]["relabelings"][0].update(action="rename"),
        lambda one: one["spec"]["endpoints"][0]["relabelings"][0].update(target_label="job"),
        lambda one: one["spec"]["selector"].update(app="bursar"),
    ],
)
def test_what_does_not_fit_is_found(spoil: Callable[[dict[str, Any]], object]) -> None:
    monitor = the_monitor()
    spoil(monitor)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(monitor, MONITOR)
