"""The whole loop on a live gateway and its learner: spend falls, success holds. Synthetic: success rates are made up.

`tests/bench/learning.py` is the same with more traffic, cheap models that are not good at everything, and a plot.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.http import feedback
from app.settings import SHIPPED_WEIGHTS
from tests.bench.learning import ADEQUACY, MODELS, POLICY, requests
from tests.http.live import LiveGateway
from tests.http.test_http_snapshots import head
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, words

RATES = {"house-small": 0.92, "house-mid": 0.94, "house-large": 0.97}
"""Hidden from the gateway, which does not know these names; their tiers make it think less of the cheap ones."""
ROUND, ROUNDS = 40, 4


@pytest.fixture(autouse=True)
def no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast machine's verifier says more in a second than a key may."""
    monkeypatch.setattr(feedback, "BURST", 1e6)


def test_as_it_learns_spend_falls_and_success_holds(tmp_path: Path) -> None:
    texts = iter(requests(ROUND * (ROUNDS + 3), 0))
    with ScriptedUpstream(Script.of(words("word " * 60))) as upstream:
        options = {"router_weights": SHIPPED_WEIGHTS, "learn_every_s": 0.1, "snapshot_labels": 20}
        with LiveGateway(policy(upstream), tmp_path, **options) as gateway:
            first_usd, first_good = traffic(gateway, texts)
            for _ in range(ROUNDS):
                before = head(gateway).moves
                traffic(gateway, texts)
                gateway.until(partial(is_past, gateway, before))
            gateway.until(lambda: snapshot(gateway) == head(gateway).current > 0)
            last = [traffic(gateway, texts) for _ in range(2)]
    assert first_good >= ADEQUACY * ROUND
    assert sum(usd for usd, _ in last) < 0.5 * 2 * first_usd
    assert sum(good for _, good in last) >= ADEQUACY * 2 * ROUND


def is_past(gateway: LiveGateway, moves: int) -> bool:
    """Whether the learner has published, refused or put off another snapshot since."""
    return head(gateway).moves > moves


def test_a_route_keeps_to_its_baseline_until_outcomes_show_a_better_one(tmp_path: Path) -> None:
    texts = iter(requests(10_000, 1))
    with ScriptedUpstream(Script.of(words("word " * 60))) as upstream:
        options = {"router_weights": SHIPPED_WEIGHTS, "learn_every_s": 0.1, "snapshot_labels": 20}
        rules = ", baseline: house-large, explore: {share: 0.5, max_usd_per_day: 100}"
        with LiveGateway(policy(upstream, rules), tmp_path, **options) as gateway:
            for _ in range(20):
                before = head(gateway).moves
                traffic(gateway, texts)
                gateway.until(partial(is_past, gateway, before))
                if any(call["model"] != "house-large" for call in calls_of(gateway) if not call["explored"]):
                    break
            every = calls_of(gateway)
    held, left = (
        [call for call in every if not call["explored"] and (call["model"] == "house-large") is kept]
        for kept in (True, False)
    )
    assert all(call["reason"].startswith("house-large, the baseline: ") for call in held)
    assert any(call["reason"].endswith("no other is better with a probability of 0.95") for call in held)
    assert all(call["model"] == "house-large" for call in every[:20] if not call["explored"])
    assert left, "never left, in 800 calls"
    assert all("better than house-large, the baseline, with a probability of 0.95" in call["reason"] for call in left)


def calls_of(gateway: LiveGateway) -> list[dict[str, Any]]:
    """What was decided, in order: model, reason, router, and whether it was drawn."""
    found = []
    for path in sorted((gateway.data_dir / "traces").glob("*.jsonl")):
        whole, _, _ = path.read_text().rpartition("\n")
        found += [json.loads(line) for line in whole.splitlines()]
    found.sort(key=lambda record: record["created_s"])
    asked = ("reason", "router", "explored")
    return [{"model": one["model"], **{name: one["decision"][name] for name in asked}} for one in found]


def policy(upstream: ScriptedUpstream, rules: str = "") -> str:
    models = "\n".join(
        f"  {model}: {{provider: up, tier: {tier}, pricing: {{input_per_1k: {given}, output_per_1k: {out}}}}}"
        for model, (tier, given, out) in MODELS.items()
    )
    return POLICY.format(url=upstream.url, models=models, names=", ".join(MODELS), adequacy=ADEQUACY, explore=rules)


def traffic(gateway: LiveGateway, texts: Iterator[tuple[str, str]]) -> tuple[float, int]:
    """A round of calls, each with what came of it; dollars, and how many were good."""
    usd, good = 0.0, 0
    for _ in range(ROUND):
        _, text = next(texts)
        answer = gateway.chat(model="auto", messages=[{"role": "user", "content": text}], max_tokens=150)
        is_good = random.Random(text).random() < RATES[answer.headers["x-bursar-model"]]
        usd, good = usd + float(answer.headers["x-bursar-cost-usd"]), good + is_good
        outcome = "success" if is_good else "failure"
        word = {"request_id": answer.headers["x-request-id"], "outcome": outcome, "source": "verifier"}
        assert gateway.ask("POST", "/v1/feedback", word).status == 200
    return usd, good


def snapshot(gateway: LiveGateway) -> int:
    """The number of the snapshot in force."""
    (line,) = [line for line in gateway.metrics().splitlines() if line.startswith("bursar_router_snapshot ")]
    return int(float(line.split()[1]))


STEPS, TASKS = 6, 25
OF_TASKS = {"house-small": 0.5, "house-mid": 0.96, "house-large": 0.97}


def test_a_model_that_fails_at_every_second_task_of_many_calls_is_left(tmp_path: Path) -> None:
    """An agent's feedback comes for whole tasks: each of its calls completed, and yet every second task failed. Of the
    models that it did not choose the router knows nothing, so that it would leave the choice to the heuristic."""
    dice, number = random.Random(0), 0
    with ScriptedUpstream(Script.of(words("word " * 60))) as upstream:
        options = {"router_weights": SHIPPED_WEIGHTS, "learn_every_s": 0.1, "snapshot_labels": 20}
        # Their tiers say that the cheap ones are adequate.
        trusting = policy(upstream).replace("tier: 2", "tier: 3").replace("tier: 1", "tier: 3")
        with LiveGateway(trusting, tmp_path, **options) as gateway:
            first = last = [task(gateway, number + n, dice) for n in range(TASKS)]
            while last.count("house-small") >= TASKS // 4 and number < 10 * TASKS:
                number, before = number + TASKS, head(gateway).moves
                last = [task(gateway, number + n, dice) for n in range(TASKS)]
                gateway.until(partial(is_past, gateway, before))
    assert first.count("house-small") > TASKS // 2
    assert last.count("house-small") < TASKS // 4


def task(gateway: LiveGateway, number: int, dice: random.Random) -> str:
    """One task of chat, and a verifier's word on it; the model that began it."""
    headers, models = {"x-bursar-task-id": f"task-{number}"}, []
    messages = [{"role": "user", "content": f"Hi! How are you today, number {number}?"}]
    for _ in range(STEPS):
        answer = gateway.chat(headers, model="auto", messages=messages, max_tokens=150)
        models.append(answer.headers["x-bursar-model"])
        messages += [{"role": "assistant", "content": "Fine."}, {"role": "user", "content": "And how is the weather?"}]
    outcome = "success" if dice.random() < OF_TASKS[models[0]] else "failure"
    word = {"task_id": f"task-{number}", "outcome": outcome, "source": "verifier"}
    assert gateway.ask("POST", "/v1/feedback", word).status == 200
    return models[0]
