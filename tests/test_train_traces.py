"""`bursar train --traces` on what a real gateway wrote: calls, feedback, weights, and a gateway that serves them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from app.commands.replay import routers_of
from app.learner.pack import pack_belief
from app.main import load_routers
from app.settings import SHIPPED_WEIGHTS, Settings
from app.stores.opening import make_snapshots
from app.stores.snapshots import Snapshot
from app.stores.traces_segments import Segment
from routers.artifact import read
from routers.learned import load
from routers.live import prior_of
from tests.conftest import ROOT
from tests.http.live import LiveGateway, contract, environment
from tests.upstream import ScriptedUpstream

CALLS = 60


def train(data_dir: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli", "train", "--traces", "--out", str(out)]
    env = environment(BURSAR_DATA_DIR=str(data_dir))
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)


def use(gateway: LiveGateway, calls: int) -> None:
    """Calls of two models, each judged by a verifier: the large one never fails, the small one always."""
    for number in range(calls):
        model = "small" if number % 2 else "large"
        answer = gateway.chat(model=model, messages=[{"role": "user", "content": f"Hi {number}! How are you?"}])
        outcome = "failure" if number % 2 else "success"
        said = {"request_id": answer.headers["x-request-id"], "outcome": outcome, "source": "verifier"}
        assert gateway.ask("POST", "/v1/feedback", said).status == 200


def of_the_future(folder: Path) -> None:
    """A call was recorded while the clock was a year ahead."""
    line = next(folder.glob("*.jsonl")).read_bytes().splitlines()[0]
    record = msgspec.json.decode(line)
    record |= {"request_id": record["request_id"][:-6] + "abcdef", "created_s": time.time() + 365 * 86_400.0}
    segment = Segment(folder)
    segment.write(msgspec.json.encode(record) + b"\n")
    segment.close()


def publish_for_other_weights(data_dir: Path) -> None:
    """A snapshot is in force that belongs to the weights before."""

    async def publish() -> None:
        snapshots, base = make_snapshots(Settings(data_dir=data_dir)), load(SHIPPED_WEIGHTS)
        await snapshots.start()
        body = pack_belief(prior_of(base).start(), base)
        await snapshots.publish(Snapshot(0, 1_000.0, base.weights), body, head=await snapshots.head(), keep=5)
        await snapshots.close()

    asyncio.run(publish())


def test_a_gateway_teaches_its_own_weights_and_serves_them(tmp_path: Path) -> None:
    home, out, again = tmp_path / "home", tmp_path / "weights", tmp_path / "again"
    home.mkdir()
    with ScriptedUpstream() as upstream:
        policy = contract(upstream)
        with LiveGateway(policy, home, learn=False) as gateway:
            use(gateway, 20)
            data_dir = gateway.data_dir
        early = train(data_dir, out)
        assert (early.returncode, out.exists()) == (1, False), early.stderr
        assert "nothing was written: 20 calls with 20 labels: fewer than 50" in early.stderr
        with LiveGateway(policy, home, learn=False) as gateway:
            use(gateway, CALLS)
        of_the_future(data_dir / "traces")
        made, same = train(data_dir, out), train(data_dir, again)
        assert made.returncode == 0, made.stderr
        assert f"{20 + CALLS} calls, {20 + CALLS} labels: " in made.stdout
        assert (out / "router.npz").read_bytes() == (again / "router.npz").read_bytes(), same.stderr
        taught = load(out)
        assert taught.house is not None
        assert taught.house.until_s < time.time()
        assert taught.version == read(out).version
        assert f"version {taught.version}" in made.stdout
        card = (out / "MODEL_CARD.md").read_text()
        assert card.startswith(f"# Weights {taught.version}: {taught.weights}, taught by own traffic\n")
        for text in (
            f"{20 + CALLS} labels: {20 + CALLS} by verifier",
            "| small | chat | 40 |",
            "| large | chat | 40 |",
        ):
            assert text in card
        publish_for_other_weights(data_dir)
        with LiveGateway(policy, home, learn=False, router_weights=out) as gateway:
            answer = gateway.chat(model="auto", messages=[{"role": "user", "content": "Hi! How are you today?"}])
            told = gateway.decision(answer)["decision"]
    seen = {one["model"]: one["p_success"] for one in told["candidates"]}
    assert told["router"] == f"learned@{taught.version}+0"
    replayed = asyncio.run(routers_of(Settings(data_dir=data_dir), "weights", load_routers(out)))
    assert replayed["learned"].version == f"{taught.version}+0"
    assert (seen["large"] > 0.8, seen["small"] < 0.4) == (True, True)


OUT = ["--traces", "--out", "w"]


@pytest.mark.parametrize("options", [[], ["--traces"], [*OUT, "--data", "rows"], [*OUT, "--own"]])
def test_wrong_usage_is_said(options: list[str]) -> None:
    command = [sys.executable, "-m", "app.cli", "train", *options]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--traces" in done.stderr
