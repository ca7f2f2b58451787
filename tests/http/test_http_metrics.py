"""`/metrics` is what Prometheus expects, after every kind of traffic, and clients cannot make it grow."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from prometheus_client import Gauge

from app.gateway.metrics import Metrics
from app.stores.budgets import LedgerUnavailable
from tests.http.live import LiveGateway, contract
from tests.tools import promtool
from tests.upstream import ScriptedUpstream
from tests.upstream_script import END, Script, words


@pytest.fixture(scope="module")
def gateway(shared_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    policy = f"""
version: 1
providers:
  a: {{base_url: "{shared_upstream.url}", any_model: true, free: true}}
models:
  small: {{provider: a, pricing: {{input_per_1k: 0, output_per_1k: 1}}, budgets: {{max_cost_usd: 1}}}}
  "vendor/large:q4":
    {{provider: a, pricing: {{input_per_1k: 0, output_per_1k: 2}}, budgets: {{expected_ttft_secs: 0.0001}}}}
routes: {{auto: {{candidates: [small], fallback: ["vendor/large:q4"], retries: {{attempts: 0}}}}}}
"""
    with LiveGateway(policy, tmp_path_factory.mktemp("metrics")) as live:
        yield live


def check(page: str) -> None:
    tool = promtool()
    if tool is None:
        pytest.skip("no promtool here")
    done = subprocess.run([tool, "check", "metrics"], input=page, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def series(page: str) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in page.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def total(page: str, name: str, **labels: str) -> float:
    """The sum of all series of that name with these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(v for k, v in series(page).items() if k.partition("{")[0] == name and all(w in k for w in wanted))


def test_clean_before_and_after_traffic(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    check(gateway.metrics())
    upstream.source = Script()
    gateway.chat()
    gateway.chat(stream=True)
    gateway.ask("POST", "/v1/embeddings", {"model": "small", "input": "x"})
    upstream.source = Script.of(words("w " * 60), obeys_limit=False, delay_s=0.001)
    gateway.chat(stream=True, max_cost_usd=0.01)
    gateway.chat(max_cost_usd=0)
    gateway.ask("GET", "/nowhere")
    upstream.source = {"small": Script.failure(503), "vendor/large:q4": Script()}
    gateway.chat(model="auto")
    upstream.source = Script.of(words("one"), END)
    gateway.chat(model="vendor/large:q4", stream=True)
    services = gateway.gateway.services
    assert services is not None
    gateway.until(lambda: len(services.calls) == 0)  # a call that failed is remembered when its client has the answer
    page = gateway.metrics()
    check(page)

    outcomes = {"completed": 4, "cost_killed": 1, "denied": 1, "api_error": 1}
    assert {o: total(page, "bursar_requests_total", outcome=o) for o in outcomes} == outcomes
    assert total(page, "bursar_requests_total", route="auto", model="vendor/large:q4") == 1
    assert total(page, "bursar_cuts_total", scope="request") == 1
    assert total(page, "bursar_denials_total", scope="request", reason="budget") == 1
    assert total(page, "bursar_fallbacks_total", model="small", provider="a") == 1
    assert total(page, "bursar_upstream_attempts_total", model="small", result="api_error") == 1
    assert total(page, "bursar_errors_total") == 2  # the denial and the path; what begins as a stream is no error reply
    assert total(page, "bursar_slow_total", kind="ttft") >= 1
    assert total(page, "bursar_requests_in_flight") == 0
    assert total(page, "bursar_ledger_up") == 1
    assert total(page, "bursar_cost_usd_total", model="small") >= 0.01
    assert total(page, "bursar_tokens_total", model="small", kind="output") >= 20
    assert total(page, "bursar_request_duration_seconds_count", model="small") == 4
    assert total(page, "bursar_overhead_seconds_count") == 6  # all but the denied
    assert total(page, "bursar_overhead_seconds_sum") < 1


def test_gauges_go_with_their_worker() -> None:
    """In any other mode prometheus_client keeps the gauges of the dead, and a file for each of them."""
    gauges = [c for c in Metrics().registry._collector_to_names if isinstance(c, Gauge)]
    assert len(gauges) > 5
    assert {gauge._multiprocess_mode.startswith("live") for gauge in gauges} == {True}


def test_the_circuit_is_shown(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    upstream.source = {"small": Script.failure(503), "vendor/large:q4": Script()}
    for _ in range(3):
        gateway.chat(model="auto")
    page = gateway.metrics()
    assert series(page)['bursar_circuit_state{model="small",provider="a"}'] == 2.0
    record = gateway.decision(gateway.chat(model="auto"))
    assert [c["verdict"] for c in record["decision"]["candidates"]] == ["circuit open", "chosen"]


def test_clients_cannot_add_series(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    upstream.source = Script()

    def traffic(n: int, first: int) -> None:
        for i in range(first, first + n):
            gateway.chat({"x-bursar-task-id": f"task-{i}", "x-request-id": f"id-{i}"}, model=f"a/unlisted-{i}")
            gateway.chat(model=f"unheard-of-{i}")
            gateway.ask("GET", f"/v1/nothing-{i}")
            gateway.ask("PATCH", f"/v1/models/{i}")

    traffic(2, 0)
    before = set(series(gateway.metrics()))
    traffic(125, 2)
    page = gateway.metrics()
    assert set(series(page)) == before
    assert total(page, "bursar_requests_total", model="unlisted", outcome="completed") == 127
    check(page)


def test_health(gateway: LiveGateway) -> None:
    assert gateway.ask("GET", "/healthz").json == {"status": "ok"}
    assert gateway.ask("GET", "/readyz").json == {"status": "ready"}


def test_a_silent_ledger_makes_it_unready(
    tmp_path: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LiveGateway(contract(upstream), tmp_path) as gateway:
        services = gateway.gateway.services
        assert services is not None
        budgets = services.ledger.budgets

        async def silent(*_: object) -> NoReturn:
            raise LedgerUnavailable("it was told so")

        with monkeypatch.context() as patch:
            for verb in ("apply", "beat", "balances"):
                patch.setattr(budgets, verb, silent)
            refused = gateway.chat()
            assert (refused.status, refused.error["code"]) == (503, "ledger_unavailable")
            for path in ("/readyz", "/v1/tasks/x"):
                answer = gateway.ask("GET", path)
                assert (answer.status, answer.error["code"]) == (503, "ledger_unavailable")
            assert gateway.ask("GET", "/healthz").status == 200
            assert total(gateway.metrics(), "bursar_ledger_up") == 0
            record = gateway.decision(refused)
            assert (record["outcome"], record["caps_now"]) == ("ledger_down", {})
        assert gateway.chat().status == 200
        assert gateway.ask("GET", "/readyz").status == 200
        assert total(gateway.metrics(), "bursar_ledger_up") == 1
