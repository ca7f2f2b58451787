"""`bursar replay --router N`: a live gateway's calls are decided again by each snapshot, quarantine included."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.commands.tree import cli
from app.core.quarantined import Quarantined
from app.learner.pack import pack_belief
from app.settings import SHIPPED_WEIGHTS
from routers.probes import PROBE_SHARE
from tests.http.live import LiveGateway, contract
from tests.http.test_http_snapshots import BASE, CHAT, published, taught
from tests.upstream import ScriptedUpstream

CALLS = 30
DOWN = Quarantined("small", "chat", 1_000.0, 0.9, 0.6)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """One that has served a little chat by the weights alone; three snapshots: `small` does it well, `large` does it
    well, and as the first with `small` in quarantine."""
    folder: Path = tmp_path_factory.mktemp("replayed")
    settings: dict[str, Any] = {"router_weights": SHIPPED_WEIGHTS, "learn": False, "traces_compact": False}
    with ScriptedUpstream() as upstream:
        policy = contract(upstream).replace("candidates: [small, small-b, large]", "candidates: [small, large]")
        with LiveGateway(policy, folder, **settings) as live:
            for _ in range(CALLS):
                assert live.chat(model="auto", messages=CHAT).status == 200
            bodies = [pack_belief(taught(live, model), BASE) for model in ("small", "large")]
            bodies.append(pack_belief(taught(live, "small"), BASE, (DOWN,)))
            assert [published(live, body) for body in bodies] == [1, 2, 3]
            yield live


def would(gateway: LiveGateway, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, float]:
    """The share of decisions that each model would have."""
    for name, value in (
        ("DATA_DIR", gateway.data_dir), ("POLICY", gateway.policy_path), ("ROUTER_WEIGHTS", SHIPPED_WEIGHTS),
    ):  # fmt: skip
        monkeypatch.setenv(f"BURSAR_{name}", str(value))
    done = CliRunner().invoke(cli, ["replay", "--since", "all", "--json", *arguments])
    assert done.exit_code == 0, done.output
    group = json.loads(done.stdout)["all"]
    assert group["decisions"] == CALLS
    return {model: shares["would"] for model, shares in group["models"].items()}


def test_each_snapshot_decides_by_what_it_knows(gateway: LiveGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    assert would(gateway, monkeypatch, "--router", "1")["small"] == pytest.approx(1.0)
    assert would(gateway, monkeypatch, "--router", "2")["large"] == pytest.approx(1.0)


def test_whom_a_snapshot_has_in_quarantine_it_passes_over(
    gateway: LiveGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for probes, as live decisions do; by its number, and as the one that is in force."""
    for arguments in (("--router", "3"), ()):
        found = would(gateway, monkeypatch, *arguments)
        assert found["small"] == pytest.approx(PROBE_SHARE)
        assert found["large"] == pytest.approx(1.0 - PROBE_SHARE)


def test_one_that_is_not_there_is_refused(gateway: LiveGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="snapshot 9 cannot be used"):
        would(gateway, monkeypatch, "--router", "9")
