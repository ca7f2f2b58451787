"""The task over HTTP: shown, listed, raised, frozen, closed, hung below another, by those who may."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.http.live import Answer, LiveGateway, sha256
from tests.upstream import PATIENCE_S, ScriptedUpstream
from tests.upstream_script import Script, words

MINE, THEIRS, ADMIN = ({"authorization": f"Bearer sk-{name}"} for name in ("mine", "theirs", "admin"))


def policy(upstream: ScriptedUpstream, keys: str = "[]") -> str:
    return f"""
version: 1
providers: {{p: {{base_url: "{upstream.url}"}}}}
models: {{m: {{provider: p, tier: 1, pricing: {{input_per_1k: 0, output_per_1k: 1}}, budgets: {{max_cost_usd: 0}}}}}}
caps: {{task: {{max_cost_usd: 0.022, max_calls: 50, max_seconds: 3600}}}}
ledger: {{contention_wait_secs: 0.2}}
keys: {keys}
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(Script.of(words("one two three four five"))) as live:
        yield live


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with LiveGateway(policy(upstream), tmp_path_factory.mktemp("open")) as live:
        yield live


@pytest.fixture(scope="module")
def keyed(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """The same with keys: mine, theirs, and an admin's."""
    named = [f"{{name: {n}, sha256: {sha256(f'sk-{n}')}, admin: {str(n == 'admin').lower()}}}" for n in
             ("mine", "theirs", "admin")]  # fmt: skip
    with LiveGateway(policy(upstream, f"[{', '.join(named)}]"), tmp_path_factory.mktemp("keyed")) as live:
        yield live


def ask(gateway: LiveGateway, task: str, headers: Mapping[str, str] | None = None) -> Answer:
    """One call of a task, which costs half a cent."""
    return gateway.chat({"x-bursar-task-id": task, **(headers or {})}, model="m")


def change(gateway: LiveGateway, task: str, by: Mapping[str, str] | None = None, /, **body: Any) -> Answer:
    return gateway.ask("PATCH", f"/v1/tasks/{task}", body, by)


def test_how_fast_a_task_went_across_its_calls(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    for _ in range(2):
        ask(gateway, "fast", {"user-agent": "codex_cli_rs/1"})
    speed = gateway.ask("GET", "/v1/tasks/fast").json["speed"]
    assert 0 < speed["time_to_first_token_ms"] <= speed["time_to_first_attempt_ms"] < speed["duration_ms"]
    assert (speed["time_to_success_ms"], speed["passed"], speed["judged"], speed["turns"]) == (-1, True, False, 2)
    assert (speed["harness"], speed["model"], speed["outcome"], speed["whole"]) == ("codex", "m", "completed", True)
    assert speed["tokens_per_sec"] > 0
    said = {"task_id": "fast", "outcome": "success", "source": "verifier"}
    assert gateway.ask("POST", "/v1/feedback", said).status == 200
    judged = gateway.ask("GET", "/v1/tasks/fast").json["speed"]
    assert judged["time_to_success_ms"] > speed["duration_ms"]
    assert (judged["passed"], judged["judged"]) == (True, True)
    assert "speed" not in gateway.ask("GET", "/v1/tasks/fast?speed=false").json
    assert gateway.ask("GET", "/v1/tasks/fast?speed=no").status == 400


def test_a_task_without_calls_has_no_speed_and_a_lone_call_its_own(gateway: LiveGateway) -> None:
    change(gateway, "unbegun", max_cost_usd=1)
    assert gateway.ask("GET", "/v1/tasks/unbegun").json["speed"] is None
    lone = gateway.chat(model="m").headers["x-bursar-request-id"]
    speed = gateway.ask("GET", f"/v1/tasks/{lone}").json["speed"]
    assert (speed["turns"], speed["passed"]) == (1, True)


def test_all_that_is_known_of_a_task(gateway: LiveGateway) -> None:
    ask(gateway, "known", {"x-bursar-task-max-cost-usd": "0.015"})
    found = gateway.ask("GET", "/v1/tasks/known?speed=false").json
    assert found.pop("began_at") < found.pop("as_of")
    assert found == {
        "id": "known", "object": "task", "key": "-", "spent_usd": 0.005, "reserved_usd": 0.0, "limit_usd": 0.015,
        "remaining_usd": 0.01, "calls": 1, "running": 0, "tokens": found["tokens"], "cost_killed_at_usd": None,
        "exhausted": False, "state": "open", "parent": None, "root": None, "children": [],
        "limits": {
            "max_cost_usd": {"binding": 0.015, "policy": 0.022, "client": 0.015},
            "max_calls": {"binding": 50, "policy": 50},
            "max_seconds": {"binding": 3600.0, "policy": 3600.0},
        },
        "models": {"m": found["models"]["m"]},
    }  # fmt: skip
    assert found["tokens"] > 5


def test_a_task_that_was_cut_is_raised_and_goes_on(gateway: LiveGateway) -> None:
    assert [ask(gateway, "cut").status for _ in range(5)] == [200, 200, 200, 200, 402]
    for _ in range(2):
        raised = change(gateway, "cut", max_cost_usd=0.033, max_calls=7, max_parallel_requests=3)
        assert raised.status == 200
        assert raised.json["limits"]["max_cost_usd"] == {"binding": 0.033, "amended": 0.033}
        assert raised.json["limits"]["max_calls"] == {"binding": 7, "policy": 50, "amended": 7}
        assert raised.json["limits"]["max_parallel_requests"] == {"binding": 3, "amended": 3}
    assert [ask(gateway, "cut").status for _ in range(3)] == [200, 200, 402]
    assert gateway.ask("GET", "/v1/tasks/cut").json["spent_usd"] == pytest.approx(0.033, abs=0.003)


def test_a_task_has_limits_before_it_begins(gateway: LiveGateway) -> None:
    made = change(gateway, "later", max_cost_usd=0.0055)
    assert (made.json["calls"], made.json["began_at"], made.json["limit_usd"]) == (0, None, 0.0055)
    assert [ask(gateway, "later").status for _ in range(2)] == [200, 402]


def test_frozen_thawed_and_closed(gateway: LiveGateway) -> None:
    ask(gateway, "ice")
    for name, body in (("frozen", {"frozen": True}), ("closed", {"closed": True}), ("frozen", {"state": "frozen"})):
        assert change(gateway, "ice", **body).json["state"] == name
        no = ask(gateway, "ice")
        assert (no.status, no.error["code"], no.headers["x-bursar-reason"]) == (402, "budget_exceeded", name)
        assert gateway.decision(no)["outcome"] == "denied"
    assert [task["id"] for task in gateway.ask("GET", "/v1/tasks?state=frozen").json["data"]] == ["ice"]
    assert change(gateway, "ice", frozen=False).json["state"] == "open"
    assert change(gateway, "ice", state="closed").json["state"] == "closed"
    assert change(gateway, "ice", state="open").json["state"] == "open"
    assert ask(gateway, "ice").status == 200


def test_a_tree_is_made_by_hand(gateway: LiveGateway) -> None:
    assert change(gateway, "root", max_calls=2).status == 200
    for task in ("left", "right"):
        assert change(gateway, task, parent="root").json["parent"] == "root"
        assert ask(gateway, task).status == 200
    assert ask(gateway, "left").status == 402
    root = gateway.ask("GET", "/v1/tasks/root").json
    assert (root["children"], root["calls"], root["spent_usd"]) == (["left", "right"], 2, 0.01)
    for task, parent in (("left", "other"), ("root", "left"), ("root", "other"), ("x", "x")):
        refused = change(gateway, task, parent=parent)
        assert (refused.status, refused.error["param"]) == (400, "parent")


def test_the_list_has_the_latest_first_and_no_models(gateway: LiveGateway) -> None:
    for task in ("first", "second"):
        ask(gateway, task)
    assert [task["id"] for task in gateway.ask("GET", "/v1/tasks?limit=2").json["data"]] == ["second", "first"]
    for query in ("limit=0", "limit=9999", "limit=" + "9" * 5_000, "limit=x", "state=lost"):
        assert gateway.ask("GET", f"/v1/tasks?{query}").status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", {"max_cost": 1}, {"max_cost_usd": "1"}, {"max_cost_usd": -1}, {"max_cost_usd": 1e30},
        {"max_calls": 1.5}, {"max_calls": -1}, {"max_tokens": 10**30}, {"max_seconds": -0.1},
        {"max_parallel_requests": 0}, {"frozen": "yes"}, {"state": "thawed"}, {"state": "open", "frozen": False},
        {"parent": "a|b"}, {"parent": ""},
    ],
)  # fmt: skip
def test_a_change_that_is_none(gateway: LiveGateway, body: object) -> None:
    refused = gateway.ask("PATCH", "/v1/tasks/wrong", body)
    assert refused.status == 400
    assert refused.error["type"] == "invalid_request_error"
    assert gateway.ask("GET", "/v1/tasks/wrong").status == 404


def test_other_verbs_are_refused(gateway: LiveGateway) -> None:
    refused = gateway.ask("DELETE", "/v1/tasks/known")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD, PATCH, OPTIONS")


@pytest.mark.parametrize(
    ("name", "value"),
    [("calls", "-1"), ("calls", "1.5"), ("calls", "٣"), ("tokens", "9" * 20), ("seconds", "soon"), ("seconds", "nan")],
)
def test_headers_that_are_no_caps(gateway: LiveGateway, name: str, value: str) -> None:
    refused = gateway.chat({f"x-bursar-task-max-{name}": value.encode().decode("latin-1")}, model="m")
    assert (refused.status, refused.error["param"]) == (400, f"X-Bursar-Task-Max-{name.title()}")


class TestKeys:
    def test_a_task_of_another_key_is_not_there(self, keyed: LiveGateway) -> None:
        ask(keyed, "mine", MINE)
        for path in ("/v1/tasks/mine?key=mine", "/v1/tasks?key=mine"):
            assert keyed.ask("GET", path, headers=THEIRS).status == 404
        assert change(keyed, "mine?key=mine", THEIRS, frozen=True).status == 404
        assert keyed.ask("GET", "/v1/tasks", headers=THEIRS).json["data"] == []
        assert keyed.ask("GET", "/v1/tasks/mine?key=mine", headers=ADMIN).json["key"] == "mine"
        assert keyed.ask("PATCH", "/v1/tasks/mine", {}).status == 401

    def test_its_own_key_may_tighten_freeze_and_close_but_not_raise(self, keyed: LiveGateway) -> None:
        lowered = change(keyed, "low", MINE, max_cost_usd=0.01, max_calls=5, max_tokens=1000)
        assert lowered.status == 200
        assert lowered.json["limits"]["max_cost_usd"] == {"binding": 0.01, "policy": 0.022, "client": 0.01}
        for body in ({"max_cost_usd": 0.011}, {"max_calls": 6}, {"max_seconds": 3601}):
            assert change(keyed, "low", MINE, **body).status == 403
        assert change(keyed, "low", MINE, frozen=True).json["state"] == "frozen"
        assert change(keyed, "low", MINE, frozen=False).status == 403
        assert change(keyed, "low?key=mine", ADMIN, frozen=False, max_cost_usd=0.05).json["limit_usd"] == 0.05
        assert ask(keyed, "low", MINE).status == 200
        assert change(keyed, "low", MINE, closed=True).json["state"] == "closed"
        assert ask(keyed, "low", MINE).status == 402


def test_idle_days_reach_the_ledger(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with LiveGateway(policy(upstream), tmp_path) as gateway:
        services = gateway.gateway.services
        assert services is not None
        assert services.ledger.budgets.task_retention_s == 30 * 86_400
        gateway.edit_policy(gateway.policy_path.read_text().replace("max_calls: 50", "max_calls: 50, idle_days: 2"))
        gateway.until(lambda: services.ledger.budgets.task_retention_s == 2 * 86_400)


def test_a_change_is_not_kept_further_than_it_may_go(gateway: LiveGateway) -> None:
    """It was read to its end, whatever came, before it was found too large."""
    head = f"PATCH /v1/tasks/t HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: {10**12}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE_S) as client:
        client.sendall(head.encode())
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")
