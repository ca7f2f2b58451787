"""Two routers that disagree, through a real gateway: who decides, what the record says, and what is counted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.main import Gateway, load_routers
from app.settings import SHIPPED_WEIGHTS, Settings
from tests.gateway.policy_values import FixedRouter
from tests.http.live import LiveGateway, contract
from tests.stores.policy_texts import BASE
from tests.tools import promtool
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, words

SCORES = {"small": (0.3, 50.0), "large": (0.9, 50.0)}
CANDIDATE = {
    "model", "provider", "tier", "verdict", "p_success", "confidence", "expected_output_tokens", "expected_cost_usd",
    "price_usd_per_1k",
}  # fmt: skip
DECISION = {
    "route", "reason", "chosen", "order", "task_type", "item", "asked", "objective", "adequacy", "min_confidence",
    "propensity",
    "router", "assigned", "share", "explored", "instead_of", "deferred", "candidates", "others",
}  # fmt: skip


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as live:
        live.source = Script.of(words("one two three four five"))
        yield live


@pytest.fixture
def router() -> FixedRouter:
    """Finds `small` unable; the heuristic is made to find it able by an adequacy of 0.1."""
    return FixedRouter(SCORES, "learned", confidence=0.8)


@pytest.fixture
def gateway(upstream: ScriptedUpstream, router: FixedRouter, tmp_path: Path) -> Iterator[LiveGateway]:
    policy = f"""
version: 1
providers: {{a: {{base_url: "{upstream.url}"}}}}
models:
  small: {{provider: a, tier: 1, pricing: {{input_per_1k: 0, output_per_1k: 1}}, budgets: {{max_cost_usd: 0}}}}
  large: {{provider: a, tier: 4, pricing: {{input_per_1k: 0, output_per_1k: 2}}, budgets: {{max_cost_usd: 0}}}}
routes:
  auto: {{candidates: [small, large], adequacy: 0.4}}
  sure: {{candidates: [small, large], adequacy: 0.4, min_confidence: 0.9}}
  split: {{candidates: [small, large], adequacy: 0.4, split: {{learned: 0.5, heuristic: 0.5}}}}
  best: {{candidates: [small, large], objective: quality, max_expected_cost_usd: 0.06}}
  worth: {{candidates: [small, large], objective: utility, success_value_usd: 1}}
  pinned: {{candidates: [small], pin: large, fallback: [small]}}
"""
    live = LiveGateway(policy, tmp_path)
    live.gateway.routers["learned"] = router
    with live:
        yield live


def decided(gateway: LiveGateway, route: str, task: str = "job", **body: Any) -> dict[str, Any]:
    answer = gateway.chat({"x-bursar-task-id": task}, model=route, **body)
    assert answer.status == 200
    record = gateway.decision(answer)
    decision: dict[str, Any] = record["decision"]
    assert record["versions"]["router"] == decision["router"]
    assert answer.headers["x-bursar-model"] == record["model"] == decision["chosen"]
    return decision


def test_the_learned_router_decides(gateway: LiveGateway) -> None:
    decision = decided(gateway, "auto")
    assert set(decision) == DECISION
    assert (decision["router"], decision["assigned"], decision["chosen"]) == ("learned@7", "learned", "large")
    assert (decision["deferred"], decision["others"], decision["share"], decision["propensity"]) == (False, [], None, 1)
    small, large = decision["candidates"]
    assert set(small) == set(large) == CANDIDATE
    assert (small["verdict"], small["p_success"], small["confidence"]) == ("below adequacy", 0.3, 0.8)
    assert (large["verdict"], large["expected_output_tokens"], large["expected_cost_usd"]) == ("chosen", 50, 0.1)
    assert decision["task_type"] in ("chat", "question")


def test_an_unsure_router_leaves_it_to_the_heuristic(gateway: LiveGateway) -> None:
    decision = decided(gateway, "sure")
    assert (decision["router"], decision["assigned"], decision["chosen"]) == ("heuristic@1", "learned", "small")
    assert decision["deferred"]
    assert decision["reason"].endswith("confidence in its own choice was below min_confidence")
    (other,) = decision["others"]
    assert (other["router"], other["would_choose"]) == ("learned@7", "large")
    assert other["candidates"] == [
        {"model": "small", "p_success": 0.3, "confidence": 0.8, "expected_output_tokens": 50,
         "expected_cost_usd": 0.05},
        {"model": "large", "p_success": 0.9, "confidence": 0.8, "expected_output_tokens": 50,
         "expected_cost_usd": 0.1},
    ]  # fmt: skip
    assert 'bursar_router_deferrals_total{route="sure",router="learned"} 1.0' in gateway.metrics()


def test_a_split_keeps_each_task_with_its_router_and_counts_both(gateway: LiveGateway) -> None:
    arms: dict[str, int] = {"learned": 0, "heuristic": 0}
    for i in range(20):
        decision = decided(gateway, "split", f"task-{i}", stream=bool(i % 2))
        again = decided(gateway, "split", f"task-{i}", messages=[{"role": "user", "content": "Go on."}])
        assert again["assigned"] == decision["assigned"]
        assert (decision["share"], decision["propensity"]) == (0.5, 0.5)
        shown = {"learned": ("learned@7", "large", "heuristic@1"), "heuristic": ("heuristic@1", "small", "learned@7")}
        other = decision["others"][0]["router"]
        assert (decision["router"], decision["chosen"], other) == shown[decision["assigned"]]
        arms[decision["assigned"]] += 2
    assert min(arms.values()) >= 6
    page = gateway.metrics()
    if (tool := promtool()) is not None:
        done = subprocess.run([tool, "check", "metrics"], input=page, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
    for arm, cost_usd in (("learned", 0.01), ("heuristic", 0.005)):
        counted = f'{{outcome="completed",route="split",router="{arm}"}} {arms[arm]}.0'
        assert f"bursar_split_calls_total{counted}" in page
        labels = f'{{route="split",router="{arm}"}}'
        (spent,) = [line for line in page.splitlines() if line.startswith(f"bursar_split_cost_usd_total{labels}")]
        assert float(spent.split()[1]) == pytest.approx(arms[arm] * cost_usd)
        assert f'route="split",router="{arm}",task_type=' in page


def test_the_shares_can_be_changed_while_it_runs(gateway: LiveGateway) -> None:
    text = gateway.policy_path.read_text()
    gateway.edit_policy(text.replace("split: {learned: 0.5, heuristic: 0.5}", "split: {learned: 0, heuristic: 1}"))
    gateway.until(lambda: gateway.gateway.policies.current.routes["split"].split == {"heuristic": 1.0})
    for i in range(5):
        decision = decided(gateway, "split", f"task-{i}")
        assert (decision["assigned"], decision["propensity"], decision["share"]) == ("heuristic", 1.0, 1.0)


def test_objectives_and_pins(gateway: LiveGateway, router: FixedRouter) -> None:
    best = decided(gateway, "best")
    assert (best["chosen"], best["objective"], best["max_expected_cost_usd"]) == ("small", "quality", 0.06)
    assert [c["verdict"] for c in best["candidates"]] == ["chosen", "over max_expected_cost_usd"]
    worth = decided(gateway, "worth")
    assert (worth["chosen"], worth["objective"], worth["success_value_usd"]) == ("large", "utility", 1.0)
    router.asked = 0
    pinned = decided(gateway, "pinned")
    assert (pinned["chosen"], pinned["order"], pinned["assigned"]) == ("large", ["large", "small"], None)
    assert (pinned["reason"], pinned["objective"]) == ("the policy pins this route to large", None)
    named = decided(gateway, "small")
    assert (named["reason"], named["assigned"], named["route"]) == ("the client named this model", None, None)
    assert router.asked == 0
    assert 'bursar_decisions_total{model="large",route="pinned",router="-",task_type=' in gateway.metrics()


def learned_by(load: Callable[[Path], FixedRouter], monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("routers.learned")
    module.load = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "routers.learned", module)


def test_weights_bring_the_learned_router(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learned_by(lambda path: FixedRouter({}, f"from {path.name}"), monkeypatch)
    assert load_routers(tmp_path)["learned"].name == f"from {tmp_path.name}"


@pytest.mark.parametrize(
    ("error", "level"), [(FileNotFoundError("a file"), "info"), (ValueError("garbled"), "error"), (None, "info")]
)
def test_without_weights_that_can_be_used_there_is_the_heuristic(
    error: Exception | None, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_: Path) -> FixedRouter:
        assert error is not None
        raise error

    learned_by(load, monkeypatch)
    with capture_logs() as logs:
        assert list(load_routers(tmp_path if error else tmp_path / "nowhere")) == ["heuristic"]
    assert [entry["log_level"] for entry in logs] == [level]
    assert "the heuristic decides" in logs[0]["event"]


def test_a_route_that_names_a_router_that_is_not_there_is_warned_about(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(BASE + "routes: {auto: {candidates: [m], split: {learned: 0.5, heuristic: 0.5}}}\n")
    with capture_logs() as logs:
        Gateway(Settings(policy=policy, data_dir=tmp_path, router_weights=tmp_path / "nowhere"))
    (said,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert (said["route"], said["routers"]) == ("auto", ["learned"])


@pytest.mark.skipif(not any(SHIPPED_WEIGHTS.glob("*.npz")), reason="no weights are shipped")
def test_the_shipped_weights_serve(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    policy = contract(upstream).replace("min_confidence: 0.7", "min_confidence: 0")
    with LiveGateway(policy, tmp_path, router_weights=SHIPPED_WEIGHTS) as gateway:
        decision = gateway.decision(gateway.chat(model="auto"))["decision"]
    assert (decision["assigned"], decision["deferred"]) == ("learned", False)
    assert decision["router"].startswith("learned@")
    for seen in decision["candidates"]:
        assert 0 < seen["p_success"] < 1
        assert 0 <= seen["confidence"] <= 1
        assert seen["expected_output_tokens"] >= 1
        assert seen["expected_cost_usd"] > 0
