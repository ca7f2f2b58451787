"""`GET /v1/decisions/{id}`: why this route, why this cut; complete however the call ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.http.live import SAY, LiveGateway
from tests.upstream import ScriptedUpstream
from tests.upstream_script import END, HANG, Gate, Script, text, words

MEMBERS = {
    "request_id", "created_s", "key", "team", "task_id", "parent_id", "harness", "requested_model", "stream",
    "outcome", "error", "model", "provider", "cost_usd", "provenance", "usage", "cut", "seen", "denied_scope",
    "cost_killed_at_usd", "task_step", "landing",
    "denials", "decision", "caps", "caps_now", "attempts", "timings", "versions", "client",
}  # fmt: skip


@pytest.fixture
def gateway(upstream: ScriptedUpstream, tmp_path: Path) -> Iterator[LiveGateway]:
    policy = f"""
version: 1
providers:
  a: {{base_url: "{upstream.url}"}}
  b: {{base_url: "{upstream.url}"}}
  own: {{base_url: "{upstream.url}", bills: false}}
models:
  small: {{provider: a, tier: 1, pricing: {{input_per_1k: 0, output_per_1k: 1}}, budgets: {{max_cost_usd: 0.5}}}}
  large: {{provider: b, tier: 4, pricing: {{input_per_1k: 0, output_per_1k: 2}}, budgets: {{max_cost_usd: 0.5}}}}
  mine: {{provider: own, tier: 1, pricing: {{input_per_1k: 0, output_per_1k: 1}}, budgets: {{max_cost_usd: 0.5}}}}
routes:
  auto: {{candidates: [small, large], adequacy: 0.1, fallback: [large], retries: {{attempts: 0}}}}
  no-way-back: {{candidates: [small, large], adequacy: 0.1, retries: {{attempts: 0}}}}
caps: {{task: {{max_cost_usd: 0.1}}, global: {{day: {{max_cost_usd: 10}}}}}}
"""
    upstream.source = Script.of(words("one two three four five"))
    with LiveGateway(policy, tmp_path) as live:
        yield live


TASK = {"x-bursar-task-id": "job", "x-request-id": "from-the-client", "x-stainless-retry-count": "1"}


@pytest.mark.parametrize("stream", [True, False])
def test_whose_id_is_whose(gateway: LiveGateway, upstream: ScriptedUpstream, stream: bool) -> None:
    upstream.source = Script.of(words("one"), headers={"x-request-id": "the-providers"})
    answer = gateway.chat(TASK, model="small", stream=stream)
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["x-client-request-id"] == "from-the-client"
    assert answer.headers["x-bursar-upstream-id"] == "the-providers"
    assert gateway.decision(answer)["attempts"][0]["upstream_id"] == "the-providers"
    upstream.source = Script.of(words("one"), headers={"x-request-id": "caf\u00e9" * 100})
    odd = gateway.chat(model="small", stream=stream)
    assert odd.status == 200
    assert "x-bursar-upstream-id" not in odd.headers
    assert "x-client-request-id" not in odd.headers


@pytest.mark.parametrize("stream", [False, True])
def test_what_rate_limits_leave_is_passed_on(gateway: LiveGateway, upstream: ScriptedUpstream, stream: bool) -> None:
    told = {"x-ratelimit-remaining-requests": "41", "anthropic-ratelimit-tokens-remaining": "7"}
    odd = {"x-ratelimit-odd": "caf\u00e9", "x-other": "kept to itself"}
    upstream.source = Script.of(words("one"), headers=told | odd)
    answer = gateway.chat(model="small", stream=stream)
    assert {name: answer.headers.get(name) for name in told} == told
    assert not answer.headers.keys() & odd.keys()


def test_a_completed_call(gateway: LiveGateway) -> None:
    record = gateway.decision(gateway.chat(TASK, model="auto", stream=True, max_tokens=20))
    assert set(record) == MEMBERS
    assert (record["outcome"], record["requested_model"], record["model"], record["provider"]) == (
        "completed", "auto", "small", "a",
    )  # fmt: skip
    assert (record["task_id"], record["key"], record["stream"]) == ("job", "-", True)
    assert (record["cost_usd"], record["provenance"]) == (0.005, "metered")
    assert record["client"] == {"request_id": "from-the-client", "retry_count": "1", "traceparent": None}
    decision = record["decision"]
    assert (decision["route"], decision["chosen"], decision["order"]) == ("auto", "small", ["small", "large"])
    assert (decision["reason"], decision["adequacy"], decision["propensity"]) == (
        "cheapest with P(success) at or above adequacy", 0.1, 1.0,
    )  # fmt: skip
    for candidate, verdict, price in zip(decision["candidates"], ("chosen", "fallback"), (1, 2), strict=True):
        assert (candidate["verdict"], candidate["price_usd_per_1k"]["output"]) == (verdict, price)
        assert 0 < candidate["p_success"] < 1
        assert candidate["expected_output_tokens"] > 0
        assert candidate["expected_cost_usd"] > 0
    assert record["versions"] == {
        "policy": gateway.gateway.policies.current.version,
        "prices": gateway.gateway.book.current.version,
        "router": decision["router"],
    }
    assert record["timings"]["duration_ms"] >= record["timings"]["ttft_ms"] >= 0


def test_the_budget_as_it_stood(gateway: LiveGateway) -> None:
    gateway.chat(TASK, model="small", max_tokens=20)
    record = gateway.decision(gateway.chat(TASK, model="small", max_tokens=20))
    limits = {(cap["scope"], cap.get("name")): cap["limit_usd"] for cap in record["caps"]}
    assert limits[("task", "task:-:job")] == 0.1
    assert limits[("model", "task:-:job|model:small")] == 0.5
    assert next(limit for (scope, _), limit in limits.items() if scope == "global") == 10
    budget = record["attempts"][0]["budget"]
    # Then 0.005 was spent and 0.02, the worst case of this call, held; the call spent 0.005 of that.
    assert budget == {
        "scope": "task:-:job", "held_usd": 0.02, "remaining_usd": 0.075, "refunded_usd": 0.015,
        "remaining_after_usd": 0.09,
    }  # fmt: skip
    gateway.chat(TASK, model="small", max_tokens=20)
    shown = gateway.ask("GET", f"/v1/decisions/{record['request_id']}").json["caps_now"]["task:-:job"]
    assert (shown["spent_usd"], shown["reserved_usd"], shown["remaining_usd"], shown["calls"]) == (0.015, 0.0, 0.085, 3)


def test_a_cut_call(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words("w " * 300), obeys_limit=False, delay_s=0.001)
    record = gateway.decision(gateway.chat(TASK, model="small", stream=True))
    assert set(record) == MEMBERS
    assert (record["outcome"], record["provenance"]) == ("cost_killed", "estimated")
    cut = record["cut"]
    assert (cut["scope"], cut["by"], cut["in_tool_call"]) == ("task", "meter", False)
    assert float(cut["killed_at_usd"]) == record["cost_usd"] >= 0.1
    assert record["caps_now"]["task:-:job"]["exhausted"]
    assert record["attempts"][0]["clamp_tokens"] == 100


def test_a_denied_call(gateway: LiveGateway) -> None:
    record = gateway.decision(gateway.chat({**TASK, "x-bursar-task-max-cost-usd": "0.0001"}, model="auto"))
    assert set(record) == MEMBERS
    assert (record["outcome"], record["denied_scope"], record["attempts"]) == ("denied", "task", [])
    assert (record["cost_usd"], record["model"]) == (0.0, None)
    assert record["decision"]["chosen"] == "small"
    assert [denial["model"] for denial in record["denials"]] == ["small", "large"]
    assert record["denials"][0] == {
        "model": "small", "reason": "budget", "scope": "task", "limit_usd": "0.0001", "spent_usd": "0",
        "reserved_usd": "0",
        "remaining_usd": "0.0001",
    }  # fmt: skip


def test_a_candidate_passed_over_for_its_budget(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    """The route's choice has used up its budget for this task: the record says so, and who served."""
    gateway.edit_policy(
        gateway.policy_path.read_text().replace("budgets: {max_cost_usd: 0.5}", "budgets: {max_cost_usd: 0.005}", 1)
    )
    gateway.until(lambda: gateway.gateway.policies.current.models["small"].budget.max_cost_nano == 5_000_000)
    for _ in range(2):
        answer = gateway.chat(TASK, model="no-way-back", max_tokens=5)
    record = gateway.decision(answer)
    assert (answer.headers["x-bursar-model"], record["outcome"]) == ("large", "completed")
    assert [(denial["model"], denial["scope"]) for denial in record["denials"]] == [("small", "model")]
    assert record["denied_scope"] is None
    assert record["decision"]["chosen"] == "small"


def test_a_fallback(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    upstream.source = {"small": Script.failure(503), "large": Script.of(text("there"))}
    record = gateway.decision(gateway.chat(model="auto", stream=True, max_tokens=20))
    assert set(record) == MEMBERS
    assert (record["outcome"], record["model"]) == ("completed", "large")
    first, second = record["attempts"]
    assert (first["model"], first["outcome"], first["status"], first["cost_usd"]) == ("small", "api_error", 503, 0.0)
    assert first["error"] == "The provider failed to serve the request."
    assert (second["model"], second["outcome"], second["status"]) == ("large", "completed", 200)


@pytest.mark.parametrize(
    ("script", "status", "outcome", "provenance"),
    [
        (Script.failure(500), 502, "api_error", "metered"),
        (Script.failure(429), 429, "rate_limit", "metered"),
        (Script.failure(401), 502, "quota", "metered"),
        (Script.failure(400), 400, "bad_request", "metered"),
        (Script.of(END), 502, "api_error", "estimated"),
    ],
)
def test_an_error(
    gateway: LiveGateway, upstream: ScriptedUpstream, script: Script, status: int, outcome: str, provenance: str
) -> None:
    upstream.source = script
    answer = gateway.chat(model="auto", stream=True)
    record = gateway.decision(answer)
    assert set(record) == MEMBERS
    assert (answer.status, record["outcome"], record["provenance"]) == (status, outcome, provenance)
    assert record["error"]
    assert len(record["attempts"]) == (1 if status == 400 else 2)


def test_a_stream_that_broke(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words("one two"), END)
    record = gateway.decision(gateway.chat(model="small", stream=True))
    assert (record["outcome"], record["cost_usd"], record["provenance"]) == ("api_error", 0.002, "estimated")
    assert record["error"] == "the stream ended before it was finished"


def test_a_client_that_left(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words("one two"), HANG)
    stream = gateway.stream("POST", "/t/left/v1/chat/completions", {"model": "small", "messages": SAY, "stream": True})
    while "two" not in str(stream.event()):  # else a busy gateway may have read, and charged, one word only
        pass
    stream.leave()
    upstream.wait_for_disconnect(0)
    path = f"/v1/decisions/{stream.headers['x-request-id']}"
    gateway.until(lambda: gateway.ask("GET", path).status == 200)
    record = gateway.ask("GET", path).json
    assert (record["outcome"], record["cost_usd"]) == ("client_gone", 0.002)
    assert gateway.ask("GET", "/v1/tasks/left").json["spent_usd"] == 0.002


def test_a_task_under_way_shows_what_is_reserved(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words("one two three"), gate=(gate := Gate()))
    gate.release()
    body = {"model": "small", "messages": SAY, "stream": True, "max_tokens": 50}
    stream = gateway.stream("POST", "/t/running/v1/chat/completions", body)
    shown = gateway.ask("GET", "/v1/tasks/running").json
    assert shown["calls"] == 1
    assert shown["reserved_usd"] > 0
    assert shown["spent_usd"] + shown["reserved_usd"] + shown["remaining_usd"] == pytest.approx(0.1)
    gateway.until(lambda: gateway.ask("GET", "/v1/tasks/running").json["spent_usd"] == 0.001)  # within 250 ms
    gate.open()
    assert stream.rest().text.endswith("three")
    done = gateway.ask("GET", "/v1/tasks/running").json
    assert (done["spent_usd"], done["reserved_usd"]) == (0.003, 0.0)


def test_a_refused_request_that_never_became_a_call_is_not_on_record(gateway: LiveGateway) -> None:
    answer = gateway.chat(model="")
    assert answer.status == 400
    assert gateway.ask("GET", f"/v1/decisions/{answer.headers['x-request-id']}").status == 404


def test_an_unknown_model_is_on_record(gateway: LiveGateway) -> None:
    record: dict[str, Any] = gateway.decision(gateway.chat(TASK, model="nothing"))
    assert (record["outcome"], record["decision"], record["attempts"]) == ("bad_request", None, [])
    assert json.dumps(record["caps"]) == "[]"


@pytest.mark.parametrize("stream", [False, True])
def test_what_nobody_bills_is_told_and_capped_by_the_list(
    gateway: LiveGateway, upstream: ScriptedUpstream, stream: bool
) -> None:
    answer = gateway.chat(model="mine", stream=stream)
    record = gateway.decision(answer)
    assert (record["cost_usd"], record["provenance"]) == (0.005, "list_price")
    assert [attempt["provenance"] for attempt in record["attempts"]] == ["list_price"]
    upstream.source = Script.of(words("w " * 300))
    cut = gateway.decision(gateway.chat(model="mine", stream=True))
    assert (cut["outcome"], cut["provenance"]) == ("cost_killed", "list_price")
    upstream.source = Script.failure(400)
    assert gateway.decision(gateway.chat(model="mine", stream=stream))["provenance"] == "metered"  # it cost nothing
