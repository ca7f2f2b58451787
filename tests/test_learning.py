"""How long feedback waits for a learner, as gateways show it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.commands.tree import cli
from app.gateway.metrics import Metrics
from app.gateway.unlearned import Unlearned
from app.settings import SHIPPED_WEIGHTS
from tests.http.live import LiveGateway, contract
from tests.upstream import ScriptedUpstream


def test_it_waits_from_the_first_word_until_a_learner_saves() -> None:
    metrics, now_s = Metrics(), [100.0]
    waiting = Unlearned(gauge := metrics.unlearned._gauge, lambda: now_s[0])

    def shown() -> float:
        waiting.show()
        return float(next(iter(gauge.collect())).samples[0].value)

    assert shown() == 0.0
    waiting.heard()
    now_s[0] = 130.0
    waiting.heard()
    assert shown() == 30.0
    waiting.saved()
    assert shown() == 0.0
    now_s[0] = 200.0
    waiting.heard()
    assert shown() == 0.0


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveGateway]:
    """One with which no learner runs."""
    monkeypatch.setattr("app.learning.FOLLOW_EVERY_S", 0.02)
    with (
        ScriptedUpstream() as upstream,
        LiveGateway(contract(upstream), tmp_path, router_weights=SHIPPED_WEIGHTS, learn=False) as live,
    ):
        yield live


def test_a_gateway_tells_that_nobody_learns(gateway: LiveGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    def waited_s() -> float:
        page = gateway.metrics().split("\nbursar_feedback_unlearned_seconds ")[1]
        return float(page.split("\n")[0])

    answer = gateway.chat(model="auto")
    assert waited_s() == 0.0
    said = {"request_id": answer.headers["x-request-id"], "outcome": "success", "source": "user"}
    once = {"idempotency-key": "once"}
    assert gateway.ask("POST", "/v1/feedback", said, once).status == 200
    gateway.until(lambda: waited_s() > 0.05)
    monkeypatch.setenv("BURSAR_DATA_DIR", str(gateway.data_dir))
    monkeypatch.setenv("BURSAR_ROUTER_WEIGHTS", str(SHIPPED_WEIGHTS))
    done = CliRunner().invoke(cli, ["learn", "--once"])
    assert "1 calls and 1 words read" in done.output, done.output
    gateway.until(lambda: waited_s() == 0.0)
    assert gateway.ask("POST", "/v1/feedback", said, once).json["status"] == "repeated"
    services = gateway.gateway.services
    assert services is not None
    services.metrics.unlearned.show()
    assert waited_s() == 0.0, "what was learned before waits for nobody"
