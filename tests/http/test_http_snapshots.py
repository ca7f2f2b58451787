"""Snapshots on a live gateway: taken into force as they are published, named in decisions, left when rolled back."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.core.quarantined import Quarantined
from app.gateway.choose import IN_QUARANTINE
from app.learner.pack import pack_belief
from app.settings import SHIPPED_WEIGHTS, Settings
from app.stores.opening import make_snapshots
from app.stores.snapshots import Head, NoSnapshot, Snapshot, Trial
from routers import artifact
from routers.belief import Belief
from routers.learned import load
from routers.live import prior_of
from routers.probes import PROBE_SHARE
from tests.http.live import LiveGateway, contract
from tests.upstream import ScriptedUpstream

BASE = load(SHIPPED_WEIGHTS)
PRIOR = prior_of(BASE)
CHAT = [{"role": "user", "content": "Hi! How are you today?"}]


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveGateway]:
    monkeypatch.setattr("app.learning.FOLLOW_EVERY_S", 0.05)
    with (
        ScriptedUpstream() as upstream,
        LiveGateway(contract(upstream), tmp_path, router_weights=SHIPPED_WEIGHTS, learn=False) as live,
    ):
        yield live


def taught(gateway: LiveGateway, model: str) -> Belief:
    """A belief by which a model of the gateway's policy does all chat well."""
    assert gateway.gateway.services is not None
    view = gateway.gateway.services.view
    arm = view.arm(view.policy.models[model])
    belief = PRIOR.joined(PRIOR.start(), arm, BASE.ability(arm))
    demand = BASE.demand_of((), (), 1.0, "chat", plain=True, read=False)
    for _ in range(60):
        belief = belief.told(belief.site(model, demand, 1.0, 1.0))
    return belief


def published(gateway: LiveGateway, body: bytes | None, **told: Any) -> int:
    async def publish() -> int:
        snapshots = make_snapshots(Settings(data_dir=gateway.data_dir))
        await snapshots.start()
        snapshot = Snapshot(0, 1_000.0, BASE.weights, **told)
        made = await snapshots.publish(snapshot, body, head=await snapshots.head(), keep=5)
        await snapshots.close()
        return made.number

    return asyncio.run(publish())


def rolled_back(gateway: LiveGateway) -> None:
    async def back() -> None:
        snapshots = make_snapshots(Settings(data_dir=gateway.data_dir))
        await snapshots.start()
        await snapshots.rollback(None)
        await snapshots.close()

    asyncio.run(back())


def head(gateway: LiveGateway) -> Head:
    async def read() -> Head:
        snapshots = make_snapshots(Settings(data_dir=gateway.data_dir))
        await snapshots.start()
        found = await snapshots.head()
        await snapshots.close()
        return found

    return asyncio.run(read())


def decided(gateway: LiveGateway) -> dict[str, Any]:
    decision: dict[str, Any] = gateway.decision(gateway.chat(model="auto", messages=CHAT))["decision"]
    return decision


def in_force(gateway: LiveGateway, number: int) -> bool:
    return f"bursar_router_snapshot {number:.1f}" in gateway.metrics()


def test_what_is_published_decides_until_it_is_rolled_back(gateway: LiveGateway) -> None:
    before = decided(gateway)
    assert (before["deferred"], before["router"].partition("@")[0]) == (True, "heuristic")
    assert before["item"] == {"plain": True}
    number = published(gateway, pack_belief(taught(gateway, "small"), BASE))
    gateway.until(lambda: in_force(gateway, number))
    after = decided(gateway)
    assert (after["deferred"], after["router"]) == (False, f"learned@{BASE.version}+{number}")
    assert after["chosen"] == "small"
    (small,) = (seen for seen in after["candidates"] if seen["model"] == "small")
    assert small["p_success"] > 0.85
    assert small["stands_for"] == "small-v1"
    rolled_back(gateway)
    gateway.until(lambda: in_force(gateway, 0))
    assert decided(gateway)["router"] == before["router"]


def test_snapshots_come_and_go_while_two_gateways_serve(
    gateway: LiveGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is published and rolled back meanwhile, calls are served, each by one that there was, and both gateways
    end with the one in force."""
    monkeypatch.setattr("app.learning.FOLLOW_EVERY_S", 0.001)
    bodies = [pack_belief(taught(gateway, model), BASE) for model in ("small", "large")]
    known, rng, enough = {0}, random.Random(1), threading.Event()

    def moves() -> None:
        for number in itertools.count():
            if number == 0 or rng.random() < 0.6:
                known.add(published(gateway, bodies[number % 2]))
            else:
                with contextlib.suppress(NoSnapshot):
                    rolled_back(gateway)
            if number > 30 and enough.is_set():
                return

    served: list[str] = []
    with LiveGateway(gateway.policy_path.read_text(), tmp_path, router_weights=SHIPPED_WEIGHTS, learn=False) as other:
        mover = threading.Thread(target=moves)
        mover.start()
        try:
            while len({name for name in served if name.startswith("learned@")}) < 3:
                served += [decided(one)["router"] for one in (gateway, other)]
        finally:
            enough.set()
            mover.join()
        last = head(gateway).current
        for one in (gateway, other):
            one.until(functools.partial(in_force, one, last))
            served.append(decided(one)["router"])
    assert {int(name.partition("+")[2]) for name in served if name.startswith("learned@")} <= known
    assert served[-1] == served[-2]


def test_what_cannot_be_used_or_was_refused_changes_nothing(gateway: LiveGateway) -> None:
    published(gateway, None, status="refused", why="worse")
    gateway.until(lambda: "bursar_router_snapshots_refused 1.0" in gateway.metrics())
    published(gateway, None, status="postponed", trial=Trial(7), unheard=3)
    gateway.until(lambda: "bursar_router_held_out_labels 7.0" in gateway.metrics())
    assert "bursar_router_snapshots_refused 1.0" in gateway.metrics()
    assert "bursar_router_unheard_calls 3.0" in gateway.metrics()
    published(gateway, b"not a belief")
    swaps = "bursar_router_snapshot_swaps_total 1.0"  # the weights alone, at the start
    assert swaps in gateway.metrics()
    number = published(gateway, pack_belief(taught(gateway, "small"), BASE))
    gateway.until(lambda: in_force(gateway, number))
    assert "bursar_router_snapshot_swaps_total 2.0" in gateway.metrics()


def test_who_is_in_quarantine_is_shown_and_passed_over_until_it_is_back(gateway: LiveGateway) -> None:
    belief = taught(gateway, "small")
    down = (Quarantined("small", "chat", 1_000.0, 0.9, 0.4), Quarantined("large", "math", 1_000.0, 0.9, 0.2, "traffic"))
    number = published(gateway, pack_belief(belief, BASE, down))
    gateway.until(lambda: in_force(gateway, number))
    of_small = 'bursar_quarantine_drop{cause="model",model="small",task_type="chat"}'
    of_large = 'bursar_quarantine_drop{cause="traffic",model="large",task_type="math"}'
    assert f"{of_small} 0.4" in gateway.metrics()
    assert f"{of_large} 0.2" in gateway.metrics()
    decisions = [decided(gateway) for _ in range(8)]
    assert {one["task_type"] for one in decisions} == {"chat"}
    assert {one["propensity"] for one in decisions} <= {PROBE_SHARE, 1.0 - PROBE_SHARE}
    passed_over = [one for one in decisions if one["chosen"] != "small"]
    assert passed_over  # all eight are probes once in 4e10
    assert all(IN_QUARANTINE in one["reason"] for one in passed_over)
    back = published(gateway, pack_belief(belief, BASE))
    gateway.until(lambda: in_force(gateway, back))
    assert f"{of_small} 0.0" in gateway.metrics()
    assert f"{of_large} 0.0" in gateway.metrics()
    assert decided(gateway)["chosen"] == "small"


def test_a_policy_edit_keeps_what_was_learned(gateway: LiveGateway) -> None:
    number = published(gateway, pack_belief(taught(gateway, "small"), BASE))
    gateway.until(lambda: in_force(gateway, number))
    text = gateway.policy_path.read_text()
    gateway.edit_policy(text.replace("adequacy: 0.8", "adequacy: 0.75"))
    gateway.until(lambda: "bursar_policy_swaps_total 1.0" in gateway.metrics())
    assert decided(gateway)["router"] == f"learned@{BASE.version}+{number}"


def test_a_gateway_begins_with_what_is_in_force_and_learns_by_itself(tmp_path: Path) -> None:
    """The whole loop, embedded: calls, feedback, a pass aside, a snapshot in force."""
    with ScriptedUpstream() as upstream:
        policy = contract(upstream)
        options = {"router_weights": SHIPPED_WEIGHTS, "learn_every_s": 0.2, "snapshot_labels": 10}
        with LiveGateway(policy, tmp_path, **options) as gateway:
            for number in range(25):
                answer = gateway.chat(
                    model="small", messages=[{"role": "user", "content": f"Hi {number}! How are you?"}]
                )
                said = {"request_id": answer.headers["x-request-id"], "outcome": "success", "source": "verifier"}
                assert gateway.ask("POST", "/v1/feedback", said).status == 200
            gateway.until(lambda: not in_force(gateway, 0), 60.0)
        with LiveGateway(policy, tmp_path, **{**options, "learn": False}) as again:
            assert not in_force(again, 0)
            assert again.gateway.routers["learned"].version.partition("+")[2] not in ("", "0")


def test_with_other_weights_it_begins_anew_and_learns_the_same_calls(tmp_path: Path) -> None:
    """Neither the learner's state nor a snapshot that others' weights made is read; the traces are."""
    known = artifact.read(SHIPPED_WEIGHTS).arrays
    other = artifact.Weights({**known, "ability/drift": known["ability/drift"] * np.float32(1.01)})
    artifact.save(other, tmp_path / "weights")
    with ScriptedUpstream() as upstream:
        policy = contract(upstream)
        options: dict[str, Any] = {"router_weights": SHIPPED_WEIGHTS, "learn_every_s": 0.2, "snapshot_labels": 10}
        with LiveGateway(policy, tmp_path, **options) as gateway:
            for number in range(25):
                messages = [{"role": "user", "content": f"Hi {number}! How are you?"}]
                answer = gateway.chat(model="small", messages=messages)
                said = {"request_id": answer.headers["x-request-id"], "outcome": "success", "source": "verifier"}
                assert gateway.ask("POST", "/v1/feedback", said).status == 200
            gateway.until(lambda: not in_force(gateway, 0), 60.0)
            last = head(gateway).current
        options["router_weights"] = tmp_path / "weights"
        with LiveGateway(policy, tmp_path, **{**options, "learn": False}) as unread:
            assert decided(unread)["router"].startswith("heuristic")
        with LiveGateway(policy, tmp_path, **options) as again:
            again.until(lambda: head(again).current > last, 60.0)
            again.until(lambda: again.gateway.routers["learned"].version.partition("+")[2] not in ("0", str(last)))
            assert again.gateway.routers["learned"].version.startswith(f"{other.version}+")
