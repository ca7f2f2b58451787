"""The daily probes as a CronJob and as a systemd timer: valid, and of one piece with the command and the gateway."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from app.commands.tree import cli
from tests.deploy.test_manifests import DEPLOY, objects, run
from tests.tools import tool

MANIFEST = DEPLOY / "kubernetes" / "probe.yaml"
UNIT, TIMER = (DEPLOY / "systemd" / f"bursar-probe.{kind}" for kind in ("service", "timer"))
ANSWERS = {1, 2}
"""Exit codes by which the command says something."""


@cache
def found(kind: str) -> dict[str, Any]:
    (one,) = [one for one in yaml.safe_load_all(MANIFEST.read_text()) if one["kind"] == kind]
    assert isinstance(one, dict)
    return one


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = found("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return spec


def parsed(words: list[str]) -> dict[str, Any]:
    """What the command makes of its arguments; it refuses those that it does not have."""
    name, *arguments = words
    command: Any = get_command(cli)
    said: dict[str, Any] = command.commands[name].make_context(name, arguments).params
    return said


def systemd_command() -> list[str]:
    (line,) = re.findall(r"^ExecStart=(.+)$", UNIT.read_text(), re.MULTILINE)
    return shlex.split(line)


def test_the_objects_fit_their_schemas() -> None:
    said = run("kubernetes-validate", "--strict", MANIFEST)
    assert "find schema" not in said


def test_both_run_the_command_under_a_budget_with_a_state_that_stays() -> None:
    (container,) = pod()["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    here = parsed(container["args"])
    assert str(here["file"]).startswith(mounts["probes"])
    assert str(here["state"]).startswith(mounts["state"])
    (claim,) = [v["persistentVolumeClaim"]["claimName"] for v in pod()["volumes"] if v["name"] == "state"]
    assert claim == found("PersistentVolumeClaim")["metadata"]["name"]
    program, *words = systemd_command()
    there = parsed(words)
    (directory,) = re.findall(r"^StateDirectory=(.+)$", UNIT.read_text(), re.MULTILINE)
    assert str(there["state"]).startswith(f"/var/lib/{directory}/")
    assert program in (DEPLOY / "systemd" / "bursar.service").read_text()
    for said in (here, there):
        assert float(said["max_usd"]) > 0
    assert {entry["name"] for entry in container["env"]} == {"BURSAR_API_KEY"}
    assert all("secretKeyRef" in entry["valueFrom"] for entry in container["env"])


def test_an_answer_is_not_asked_for_again_and_what_was_killed_goes_on() -> None:
    job = found("CronJob")["spec"]["jobTemplate"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert (rule["action"], set(rule["onExitCodes"]["values"])) == ("FailJob", ANSWERS)
    assert rule["onExitCodes"]["containerName"] == pod()["containers"][0]["name"]
    assert pod()["restartPolicy"] == "Never"
    assert job["backoffLimit"] > 0
    assert found("CronJob")["spec"]["concurrencyPolicy"] == "Forbid"
    assert "Restart=on-abnormal" in UNIT.read_text()


def test_the_network_lets_it_reach_the_gateway_and_nothing_else() -> None:
    labels = found("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    policy = found("NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    gateway = next(d for d in objects("Deployment") if d["metadata"]["name"] == "bursar-gateway")
    dns, way = policy["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    (to,) = way["to"]
    assert to["podSelector"]["matchLabels"].items() <= gateway["spec"]["template"]["metadata"]["labels"].items()
    (port,) = gateway["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert [one["port"] for one in way["ports"]] == [port["name"]]
    theirs = next(n for n in objects("NetworkPolicy") if n["metadata"]["name"] == "bursar-gateway")
    selectors = [peer.get("podSelector", {}) for rule in theirs["spec"]["ingress"] for peer in rule["from"]
                 if "namespaceSelector" not in peer]  # fmt: skip
    assert any(one["matchLabels"].items() <= labels.items() for one in selectors)
    service = objects("Service")[0]
    assert parsed(pod()["containers"][0]["args"])["gateway"] == f"http://{service['metadata']['name']}"
    assert service["spec"]["ports"][0]["port"] == 80


def test_it_may_write_its_state_and_nothing_else() -> None:
    (container,) = pod()["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert pod()["securityContext"]["runAsNonRoot"]
    (learner,) = [d for d in objects("Deployment") if d["metadata"]["name"] == "bursar-learner"]
    assert pod()["securityContext"] == learner["spec"]["template"]["spec"]["securityContext"]


def test_the_units_are_ones_that_systemd_understands(tmp_path: Path) -> None:
    program = tool("systemd-analyze")
    if program is None:
        pytest.skip("no systemd here")
    for source in (UNIT, TIMER):
        text = source.read_text().replace("/opt/bursar/bin/bursar", sys.executable)
        (tmp_path / source.name).write_text(text)
    done = subprocess.run(
        [program, "verify", tmp_path / UNIT.name, tmp_path / TIMER.name], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "[Timer]" in TIMER.read_text()
    assert UNIT.stem == TIMER.stem
