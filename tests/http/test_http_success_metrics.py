"""`GET /v1/success-metrics`: from served calls and feedback to the ten measures, on the page and as gauges."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.aside import Aside
from app.core.errors import TracesDown
from app.core.policy import MEASURES
from app.learner.measures import LEAST
from app.measuring import Measuring
from tests.http.live import Answer, LiveGateway, contract, sha256
from tests.upstream import PATIENCE_S, ScriptedUpstream

KEYS = "\n".join(
    f'  - {{name: {name}, sha256: "{sha256(name)}"{more}}}' for name, more in (("alice", ""), ("boss", ", admin: true"))
)
TASKS = LEAST + 4


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """Alice's tasks through the route: every sixth one a false success. And a call of the boss that nobody judged."""
    folder: Path = tmp_path_factory.mktemp("success")
    with ScriptedUpstream() as upstream:
        policy = contract(upstream).split("keys: []")[0] + f"keys:\n{KEYS}\ntargets: {{task_success_rate: 0.5}}\n"
        with LiveGateway(policy, folder) as live:
            for n in range(TASKS):
                named = {**bearer("alice"), "x-bursar-task-id": f"job-{n}"}
                assert live.chat(named, model="auto").status == 200
                outcome = "success" if n % 6 else "false_done"
                body = {"task_id": f"job-{n}", "outcome": outcome, "source": "verifier"}
                assert live.ask("POST", "/v1/feedback", body, bearer("alice")).status == 200
            assert live.chat(bearer("boss"), model="auto").status == 200
            yield live


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def get(gateway: LiveGateway, query: str = "", key: str = "boss") -> Answer:
    return gateway.ask("GET", f"/v1/success-metrics?{query}", headers=bearer(key))


def shown(gateway: LiveGateway, query: str = "", key: str = "boss") -> dict[str, Any]:
    answer = get(gateway, query, key)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json
    return found


def test_all_ten_with_what_they_stand_on(gateway: LiveGateway) -> None:
    found = shown(gateway)
    everything = found["all"]
    assert (found["by"], everything["runs"], everything["told"]) == ("task_type", TASKS + 1, TASKS)
    measures = everything["measures"]
    assert tuple(measures) == MEASURES
    rate = (TASKS - 4) / TASKS
    assert measures["task_success_rate"]["value"] == pytest.approx(rate)
    assert measures["task_success_rate"]["target"] == 0.5
    assert measures["task_success_rate"]["status"] == "met"
    assert measures["false_done_rate"]["value"] == pytest.approx(1 - rate)
    assert measures["verifier_pass_rate"]["value"] == pytest.approx(rate)
    assert measures["unsafe_cheap_miss_rate"]["status"] == "missed"  # `small` was asked, `large` stood beside it
    assert measures["cost_per_successful_task"]["value"] > 0
    assert measures["latency_per_task"]["value"] > 0
    assert measures["tool_call_efficiency"] == {
        "unit": "share", "value": None, "low": None, "high": None, "numerator": 0, "denominator": 0, "target": None,
        "status": "not enough data",
    }  # fmt: skip
    (row,) = found["data"]
    assert row["task_type"]


def test_windows_and_groups(gateway: LiveGateway) -> None:
    assert shown(gateway, "since=2100-01-01")["all"]["runs"] == 0
    assert [row["key"] for row in shown(gateway, "by=key")["data"]] == ["alice", "boss"]


def test_a_key_sees_its_own(gateway: LiveGateway) -> None:
    assert shown(gateway, key="alice")["all"]["runs"] == TASKS
    assert get(gateway, "key=boss", "alice").status == 403
    assert get(gateway, key="nobody").status == 401


@pytest.mark.parametrize("query", ["by=colour", "since=yesterday"])
def test_bad_questions_name_what_is_wrong(gateway: LiveGateway, query: str) -> None:
    answer = get(gateway, query)
    assert (answer.status, answer.error["param"]) == (400, query.partition("=")[0])


def test_the_gauges(gateway: LiveGateway) -> None:
    services = gateway.gateway.services
    assert services is not None
    measuring = Measuring(services, Aside(gateway.gateway.settings))
    gateway.run(measuring.measure(), 120.0)
    page = gateway.metrics()
    (kind,) = measuring.shown
    for task_type in ("all", kind):
        line = f'bursar_success_metric{{measure="false_done_rate",task_type="{task_type}",window="24h"}} '
        assert float(page.split(line)[1].split("\n")[0]) == pytest.approx(4 / TASKS)
    line = f'bursar_success_metric{{measure="tool_call_efficiency",task_type="{kind}",window="7d"}} '
    assert math.isnan(float(page.split(line)[1].split("\n")[0]))
    missed = 'bursar_success_metric_missed{measure="unsafe_cheap_miss_rate",task_type="all",window="7d"} 1.0'
    assert missed in page
    assert 'bursar_success_metric_target{measure="task_success_rate"} 0.5' in page


class Counting:
    """Stands in for commands aside: what was asked, and an event at the n-th question."""

    def __init__(self, n: int) -> None:
        self.n, self.asked, self.done = n, 0, asyncio.Event()

    async def ask(self, *arguments: str) -> bytes:
        self.asked += 1
        if self.asked == self.n:
            self.done.set()
        raise TracesDown("not now")


async def test_one_worker_of_a_machine_measures_and_goes_on_after_a_failure(
    gateway: LiveGateway, tmp_path: Path
) -> None:
    services = gateway.gateway.services
    assert services is not None
    one, other = Counting(3), Counting(3)
    tasks = [asyncio.ensure_future(Measuring(services, aside).keep(tmp_path, every_s=0.005)) for aside in (one, other)]
    waits = [asyncio.ensure_future(aside.done.wait()) for aside in (one, other)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE_S)
    for task in (*tasks, *waits):
        task.cancel()
    assert sorted((one.asked == 0, other.asked == 0)) == [False, True]
    assert max(one.asked, other.asked) >= 3
