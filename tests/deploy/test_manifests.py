"""What is deployed, checked as far as it can be without a container engine: by schemas, linters, and one another."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.commands.tree import cli
from app.settings import Settings
from app.stores.policy_file import load_policy
from app.stores.prices import PriceBook
from tests.deploy.test_alerts import known, named
from tests.http.live import LiveGateway, contract
from tests.tools import ROOT, environment_of, tool
from tests.upstream import ScriptedUpstream

DEPLOY = ROOT / "deploy"
COMPOSE = ROOT / "docker-compose.yml"
BEYOND_DRAIN_S = 10.0
"""Settling, and last words to slow clients, after the drain (calls.SETTLE_S, server.LAST_WORDS_S)."""


def run(name: str, *arguments: str | Path) -> str:
    program = tool(name)
    if program is None:
        pytest.skip(f"no {name} here")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@cache
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


@cache
def rendered() -> str:
    return run("kubectl", "kustomize", DEPLOY / "kubernetes")


def objects(kind: str) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all(rendered()) if found["kind"] == kind]


def commands() -> set[str]:
    return {str(command.name or getattr(command.callback, "__name__", "")) for command in cli.registered_commands}


# Schemas and linters


def test_the_dockerfile_is_clean() -> None:
    run("hadolint", DEPLOY / "Dockerfile")


def test_compose_fits_its_schema() -> None:
    run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_kubernetes_objects_fit_their_schemas(tmp_path: Path) -> None:
    page = tmp_path / "all.yaml"
    known = [found for found in yaml.safe_load_all(rendered()) if found["kind"] != "ServiceMonitor"]
    page.write_text(yaml.safe_dump_all(known))
    said = run("kubernetes-validate", "--strict", page, DEPLOY / "kubernetes" / "secrets.example.yaml")
    assert "find schema" not in said


def test_the_validator_would_have_said_so(tmp_path: Path) -> None:
    page = tmp_path / "wrong.yaml"
    page.write_text(rendered().replace("terminationGracePeriodSeconds", "terminationGraceSeconds"))
    with pytest.raises(AssertionError, match="terminationGraceSeconds"):
        run("kubernetes-validate", "--strict", page)


@pytest.mark.skipif(tool("haproxy") is None, reason="no haproxy here")
def test_haproxy_accepts_its_configuration() -> None:
    balancer = compose()["services"]["balancer"]["environment"]
    program = tool("haproxy")
    assert program is not None
    # Names of containers mean nothing here; what HAProxy cannot look up, it looks up later.
    environment = {**environment_of(program), **balancer}
    done = subprocess.run(
        [program, "-c", "-f", DEPLOY / "haproxy" / "haproxy.cfg"], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


# One against the other


def test_the_image_has_all_it_is_built_from() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    (lock,) = re.findall(r"^ARG REQUIREMENTS=(\S+)$", text, re.MULTILINE)
    text = text.replace("${REQUIREMENTS}", lock)
    taken = [name for line in re.findall(r"^COPY ((?!--).*) \S+$", text, re.MULTILINE) for name in line.split()]
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(taken) == {lock if "*" in name and fnmatch.fnmatch(lock, name) else name for name in let_in}
    assert all((ROOT / name).exists() for name in taken)
    assert "--require-hashes -r requirements.lock" in text
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)


def test_the_health_check_tells_the_living_from_the_dead(tmp_path: Path, free_port: int) -> None:
    found = re.search(r"^HEALTHCHECK.*\\\n\s+CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert found is not None
    command = [sys.executable, *json.loads(found[1])[1:]]
    with ScriptedUpstream() as upstream, LiveGateway(contract(upstream), tmp_path) as gateway:
        alive = subprocess.run(command, env={"BURSAR_PORT": str(gateway.port)}, check=False)
        dead = subprocess.run(command, env={"BURSAR_PORT": str(free_port)}, stderr=subprocess.DEVNULL, check=False)
    assert (alive.returncode, dead.returncode) == (0, 1)


def test_settings_that_are_set_exist() -> None:
    texts = [
        DEPLOY / "Dockerfile",
        COMPOSE,
        DEPLOY / "systemd" / "bursar.service",
        DEPLOY / "kubernetes" / "gateway.yaml",
    ]
    others = {"KEY_SHA256", "CUSTOM_BASE_URL", "CUSTOM_MODEL", "PUBLISH"}  # the policy's, and compose's own
    balancers = {"LISTEN", "WATCH", "GATEWAY_1", "GATEWAY_2"}
    known = {name.upper() for name in Settings.model_fields} | others | balancers
    for text in texts:
        assert set(re.findall(r"\bBURSAR_([A-Z0-9_]+)", text.read_text())) <= known, text


def test_commands_that_are_run_exist() -> None:
    said = {
        name
        for service in compose()["services"].values()
        if "bursar" in service.get("image", "")
        for name in service["command"]
    }
    said |= {pod["args"][0] for d in objects("Deployment") for pod in d["spec"]["template"]["spec"]["containers"]}
    assert said == {"serve", "learn"}
    assert said <= commands()


def seconds(text: str) -> float:
    return float(str(text).removesuffix("s"))


def test_whoever_stops_a_gateway_waits_for_its_drain() -> None:
    asked = []
    for name in ("gateway-1", "gateway-2"):
        service = compose()["services"][name]
        asked.append((service["environment"], seconds(service["stop_grace_period"])))
    unit = systemd()["Service"]
    asked.append(
        (dict(re.findall(r"(BURSAR_\w+)=(\S+)", " ".join(unit["Environment"]))), seconds(unit["TimeoutStopSec"][0]))
    )
    pod = objects("Deployment")[0]["spec"]["template"]["spec"]
    environment = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}
    asked.append((environment, pod["terminationGracePeriodSeconds"]))
    for found, grace_s in asked:
        assert grace_s >= float(found["BURSAR_DRAIN_NOTICE_S"]) + float(found["BURSAR_DRAIN_S"]) + BEYOND_DRAIN_S


def test_balancers_notice_in_time() -> None:
    text = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
    found = re.search(r"check inter (\d+)s .*fall (\d+)", text)
    assert found is not None
    assert int(found[1]) * int(found[2]) < float(
        compose()["services"]["gateway-1"]["environment"]["BURSAR_DRAIN_NOTICE_S"]
    )
    pod = objects("Deployment")[0]["spec"]["template"]["spec"]["containers"][0]
    probe = pod["readinessProbe"]
    notice_s = next(float(entry["value"]) for entry in pod["env"] if entry["name"] == "BURSAR_DRAIN_NOTICE_S")
    assert probe["httpGet"]["path"] == "/readyz"
    assert probe["periodSeconds"] * probe["failureThreshold"] < notice_s


def test_pods_are_found_by_all_that_look_for_them() -> None:
    gateway = next(d for d in objects("Deployment") if d["metadata"]["name"] == "bursar-gateway")
    labels = gateway["spec"]["template"]["metadata"]["labels"]
    selectors = [
        gateway["spec"]["selector"]["matchLabels"],
        objects("Service")[0]["spec"]["selector"],
        objects("PodDisruptionBudget")[0]["spec"]["selector"]["matchLabels"],
        objects("NetworkPolicy")[0]["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    monitor = objects("ServiceMonitor")[0]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= objects("Service")[0]["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == objects("Service")[0]["spec"]["ports"][0]["name"]
    (scaler,) = objects("HorizontalPodAutoscaler")
    assert scaler["spec"]["scaleTargetRef"]["name"] == gateway["metadata"]["name"]
    assert "replicas" not in gateway["spec"]  # else every apply would undo the autoscaler


def test_the_autoscaler_asks_for_what_the_adapter_serves_of_what_gateways_show() -> None:
    (metric,) = (
        one["pods"] for one in objects("HorizontalPodAutoscaler")[0]["spec"]["metrics"] if one["type"] == "Pods"
    )
    (rule,) = yaml.safe_load((DEPLOY / "kubernetes" / "adapter-rules.yaml").read_text())["rules"]["custom"]
    assert rule["name"]["as"] == metric["metric"]["name"]
    assert named(rule["seriesQuery"]) == {rule["name"]["as"]} <= known()
    assert re.fullmatch(rule["name"]["matches"], rule["name"]["as"])
    asked = rule["metricsQuery"].replace("<<.Series>>", rule["name"]["as"]).replace("<<.GroupBy>>", "pod")
    query = asked.replace("<<.LabelMatchers>>", 'namespace="bursar",pod=~"bursar-gateway-1|bursar-gateway-2"')
    assert (
        query == 'sum(bursar_requests_in_flight{namespace="bursar",pod=~"bursar-gateway-1|bursar-gateway-2"}) by (pod)'
    )
    # Those two labels are on what the operator scrapes by a ServiceMonitor, unless it takes them away.
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}
    changed = objects("ServiceMonitor")[0]["spec"]["endpoints"][0]["relabelings"]
    assert not {"namespace", "pod"} & {one.get("targetLabel") for one in changed}


Peer = tuple[dict[str, str], dict[str, str]]
"""The labels of a namespace, and of a pod in it."""
CLIENT: Peer = {"kubernetes.io/metadata.name": "shop", "bursar.dev/clients": "true"}, {"app": "shop"}
STRANGER: Peer = {"kubernetes.io/metadata.name": "other"}, {"app": "other"}
PROMETHEUS: Peer = {"kubernetes.io/metadata.name": "monitoring"}, {"app.kubernetes.io/name": "prometheus"}
GRAFANA: Peer = {"kubernetes.io/metadata.name": "monitoring"}, {"app.kubernetes.io/name": "grafana"}
DNS: Peer = {"kubernetes.io/metadata.name": "kube-system"}, {"k8s-app": "kube-dns"}
OUTSIDE: Peer = {}, {}


def lets(rules: list[dict[str, Any]], side: str, peer: Peer, port: int | str, protocol: str = "TCP") -> bool:
    """Whether one of a policy's rules lets this peer through, as Kubernetes reads them: no peers are all peers, a
    selector that is not there selects everything."""

    def selects(one: dict[str, Any]) -> bool:
        wanted = [one.get(name, {}).get("matchLabels", {}) for name in ("namespaceSelector", "podSelector")]
        return all(labels.items() <= has.items() for labels, has in zip(wanted, peer, strict=True))

    return any(
        (side not in rule or any(selects(one) for one in rule[side]))
        and any((at["port"], at["protocol"]) == (port, protocol) for at in rule["ports"])
        for rule in rules
    )


def test_the_network_lets_through_what_serving_needs_and_no_more() -> None:
    policies = {found["metadata"]["name"]: found["spec"] for found in objects("NetworkPolicy")}
    deployments = {found["metadata"]["name"]: found["spec"]["template"] for found in objects("Deployment")}
    assert policies.keys() == deployments.keys()
    (port,) = deployments["bursar-gateway"]["spec"]["containers"][0]["ports"]
    ingress = policies["bursar-gateway"]["ingress"]
    for peer, let_in in ((CLIENT, True), (PROMETHEUS, True), (STRANGER, False), (GRAFANA, False), (OUTSIDE, False)):
        assert lets(ingress, "from", peer, port["name"]) == let_in
    for name, spec in policies.items():
        labels = deployments[name]["metadata"]["labels"]
        assert spec["podSelector"]["matchLabels"].items() <= labels.items()
        assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
        for peer, asked, protocol, let_out in (
            (DNS, 53, "UDP", True), (DNS, 53, "TCP", True), (STRANGER, 53, "UDP", False),
            (OUTSIDE, 443, "TCP", True), (STRANGER, 6379, "TCP", True), (STRANGER, 26379, "TCP", True),
            (OUTSIDE, 80, "TCP", False), (OUTSIDE, 22, "TCP", False), (STRANGER, 5432, "TCP", False),
        ):  # fmt: skip
            assert lets(spec["egress"], "to", peer, asked, protocol) == let_out, (name, asked)
    assert "ingress" not in policies["bursar-learner"], "nobody calls the learner"


def test_the_services_own_variables_are_not_taken_for_settings() -> None:
    """Kubernetes gives every pod NAME_PORT=tcp://... of each Service of its namespace, over what the image sets
    (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables)."""
    (service,) = objects("Service")
    given = service["metadata"]["name"].upper().replace("-", "_") + "_PORT"
    assert given.removeprefix("BURSAR_").lower() in Settings.model_fields
    jobs = [one for one in yaml.safe_load_all((DEPLOY / "kubernetes" / "probe.yaml").read_text())
            if one["kind"] == "CronJob"]  # fmt: skip
    pods = [d["spec"]["template"]["spec"] for d in objects("Deployment")]
    pods += [job["spec"]["jobTemplate"]["spec"]["template"]["spec"] for job in jobs]
    assert len(pods) == 3
    assert all(pod["enableServiceLinks"] is False for pod in pods)


def test_no_secret_is_in_what_is_applied() -> None:
    assert not objects("Secret")
    for deployment in objects("Deployment"):
        for entry in deployment["spec"]["template"]["spec"]["containers"][0]["env"]:
            if re.search(r"URL|KEY|SHA", entry["name"]):
                assert "secretKeyRef" in entry["valueFrom"]


def test_containers_may_write_only_where_they_must() -> None:
    for deployment in objects("Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert pod["securityContext"]["runAsNonRoot"]
        writable = {v["name"] for v in pod["volumes"] if "emptyDir" in v}
        assert {m["mountPath"] for m in container["volumeMounts"] if m["name"] in writable} == {
            "/tmp",
            "/var/lib/bursar",
        }
    for name, service in compose()["services"].items():
        assert service.get("read_only") or name == "grafana"  # Grafana unpacks plugins beside itself


def test_the_policy_of_a_deployment_is_good() -> None:
    live = DEPLOY / "policy" / "live"
    env = {"BURSAR_KEY_SHA256": "0" * 64, "OPENAI_API_KEY": "x", "ANTHROPIC_API_KEY": "x", "GEMINI_API_KEY": "x"}
    policy = load_policy(live, env=env, catalogue=PriceBook(None).current)
    assert not policy.open_access
    assert len(policy.routes["auto"].candidates) == 7
    assert yaml.safe_load(objects("ConfigMap")[0]["data"]["policy.yaml"]) == yaml.safe_load(
        (live / "policy.yaml").read_text()
    )


def systemd() -> dict[str, dict[str, list[str]]]:
    """The unit's sections; a name may stand several times."""
    found: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in (DEPLOY / "systemd" / "bursar.service").read_text().splitlines():
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), {})
        elif "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            section.setdefault(name, []).append(value)
    return found


def test_the_unit_is_one_that_systemd_understands(tmp_path: Path) -> None:
    program = tool("systemd-analyze")
    if program is None:
        pytest.skip("no systemd here")
    unit = tmp_path / "bursar.service"
    text = (DEPLOY / "systemd" / "bursar.service").read_text()
    unit.write_text(text.replace("/opt/bursar/bin/bursar", sys.executable))
    done = subprocess.run([program, "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert systemd()["Service"]["KillMode"] == ["mixed"]  # the parent drains its workers; each is told once
