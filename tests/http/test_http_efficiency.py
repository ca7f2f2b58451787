"""`GET /v1/efficiency`: from served calls and feedback to the block, and who may see whose."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.core.test_efficiency import FIELDS
from tests.http.live import Answer, LiveGateway, contract, sha256
from tests.upstream import ScriptedUpstream

KEYS = "\n".join(
    f'  - {{name: {name}, sha256: "{sha256(name)}"{more}}}'
    for name, more in (("alice", ""), ("bob", ""), ("boss", ", admin: true"))
)
CODEX = {"user-agent": "codex_cli_rs/0.1"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """Alice's three passed tasks of two calls each, Bob's failed one and his lone call."""
    folder: Path = tmp_path_factory.mktemp("efficiency")
    with ScriptedUpstream() as upstream:
        policy = contract(upstream).split("keys: []")[0] + f"keys:\n{KEYS}\n"
        with LiveGateway(policy, folder) as live:
            for n in range(3):
                for _ in range(2):
                    ask(live, "alice", f"job-{n}", **CODEX)
                say(live, "alice", f"job-{n}", "success")
            ask(live, "bob", "gone")
            say(live, "bob", "gone", "failure")
            ask(live, "bob")
            yield live


def ask(gateway: LiveGateway, key: str, task: str | None = None, **headers: str) -> None:
    named = {} if task is None else {"x-bursar-task-id": task}
    assert gateway.chat({"authorization": f"Bearer {key}", **named, **headers}, model="small").status == 200


def say(gateway: LiveGateway, key: str, task: str, outcome: str) -> None:
    body = {"task_id": task, "outcome": outcome, "source": "verifier"}
    assert gateway.ask("POST", "/v1/feedback", body, {"authorization": f"Bearer {key}"}).status == 200


def get(gateway: LiveGateway, query: str = "", key: str = "boss") -> Answer:
    return gateway.ask("GET", f"/v1/efficiency?{query}", headers={"authorization": f"Bearer {key}"})


def shown(gateway: LiveGateway, query: str = "", key: str = "boss") -> dict[str, Any]:
    answer = get(gateway, query, key)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json
    return found


def test_by_model_the_block_and_what_it_stands_on(gateway: LiveGateway) -> None:
    found = shown(gateway)
    (row,) = found["data"]
    assert (found["by"], row["model"], row["runs"], row["passed"], row["judged"]) == ("model", "small", 5, 4, 4)
    block = row["efficiency"]
    assert list(block) == FIELDS
    assert row["success_rate"] == 0.8
    assert block["median_turns_to_success"] == 2.0
    assert block["median_time_to_success_ms"] > 0 < block["median_time_to_first_attempt_ms"]
    assert block["median_tokens_per_sec"] > 0 < block["p90_cost_per_success"]
    score = 0.8 / (1 + block["median_time_to_success_ms"] / 60_000)
    assert block["speed_efficiency_score"] == pytest.approx(score)
    assert found["all"]["efficiency"] == block


def test_by_harness_task_type_and_several(gateway: LiveGateway) -> None:
    rows = {row["harness"]: row for row in shown(gateway, "by=harness")["data"]}
    assert {name: row["passed"] for name, row in rows.items()} == {"codex": 3, "unknown": 1}
    assert all(list(row["efficiency"]) == FIELDS for row in rows.values())
    assert [row["task_type"] for row in shown(gateway, "by=task_type")["data"]]
    assert {(row["model"], row["key"]) for row in shown(gateway, "by=model,key")["data"]} == {
        ("small", "alice"),
        ("small", "bob"),
    }


def test_only_what_was_judged_and_only_since(gateway: LiveGateway) -> None:
    assert shown(gateway, "judged=true")["all"]["runs"] == 4
    empty = shown(gateway, "since=2100-01-01")
    assert empty["data"] == []
    assert list(empty["all"]["efficiency"]) == FIELDS
    assert not any(empty["all"]["efficiency"].values())
    assert shown(gateway, "since=24h")["all"]["runs"] == shown(gateway, "since=all")["all"]["runs"] == 5


def test_a_key_sees_its_own(gateway: LiveGateway) -> None:
    assert shown(gateway, key="alice")["all"]["runs"] == 3
    assert shown(gateway, "key=bob")["all"]["runs"] == 2
    assert get(gateway, "key=bob", "alice").status == 403
    assert get(gateway, key="nobody").status == 401


@pytest.mark.parametrize("query", ["by=colour", "by=", "since=yesterday", "judged=perhaps", "by=model;x"])
def test_bad_questions_name_what_is_wrong(gateway: LiveGateway, query: str) -> None:
    answer = get(gateway, query)
    assert (answer.status, answer.error["param"]) == (400, query.partition("=")[0])
