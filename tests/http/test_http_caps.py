"""Caps over HTTP: where they may be set, that the tightest wins, and that the answer names it."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.http.live import SAY, Answer, LiveGateway, sha256
from tests.upstream import PATIENCE_S, ScriptedUpstream
from tests.upstream_script import Gate, ListPrice, Script, Wait, hidden, text, tool, words

PRICE = ListPrice("0", "1")
"""A tenth of a cent per output token; what is said is five tokens."""
FIVE = "one two three four five"
MOMENT, LATER = "2026-11-30T17:44", "2999-11-30T17:44"
ENDPOINTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "auto", "messages": SAY},
    "/v1/completions": {"model": "auto", "prompt": "Say it."},
    "/v1/responses": {"model": "auto", "input": "Say it.", "stream": True},
    "/v1/messages": {"model": "auto", "messages": SAY, "max_tokens": 9},
    "/v1beta/models/auto:generateContent": {"contents": [{"role": "user", "parts": [{"text": "Say it."}]}]},
    "/v1/embeddings": {"model": "m", "input": "Say it."},
}
"""A request at each place where money is spent."""
SLACK_USD = 0.006
"""Tokens that a loaded machine reads at once from an upstream that writes one a millisecond past its limit."""


def policy(upstream: ScriptedUpstream, more: str = "") -> str:
    return f"""
version: 1
providers: {{p: {{base_url: "{upstream.url}"}}}}
models:
  m: {{provider: p, tier: 1, pricing: {{input_per_1k: 0, output_per_1k: 1}}, budgets: {{max_cost_usd: 0}}}}
  tight: {{provider: p, tier: 2, pricing: {{input_per_1k: 0, output_per_1k: 1}}, budgets: {{max_cost_usd: 0.008}}}}
  dear: {{provider: p, tier: 2, pricing: {{input_per_1k: 0, output_per_1k: 10}}, budgets: {{max_cost_usd: 0.5}}}}
routes: {{auto: {{candidates: [m]}}}}
ledger: {{contention_wait_secs: 0.2}}
{more}"""


@pytest.fixture(scope="module")
def gateway(shared_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    caps = "caps: {request: {max_cost_usd: 0.050}, task: {max_cost_usd: 0.100}}"
    with LiveGateway(policy(shared_upstream, caps), tmp_path_factory.mktemp("caps")) as live:
        yield live


@pytest.fixture(autouse=True)
def says_five_words(upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words(FIVE))


def denied(answer: Answer, scope: str, limit_usd: str) -> None:
    """The contract's denial: shared WIRE.md."""
    assert answer.status == 402
    error = answer.error
    assert (error["type"], error["code"], error["param"]) == ("insufficient_quota", "budget_exceeded", None)
    assert "(billing limit). Do not resend." in error["message"]
    assert not re.search(r"\d|try again|rate limit", error["message"])
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers
    assert (answer.headers["x-bursar-scope"], answer.headers["x-bursar-limit-usd"]) == (scope, limit_usd)


class TestRequestCaps:
    @pytest.mark.parametrize(
        ("body", "header", "limit"),
        [
            (0.0004, None, "0.0004"),
            (None, "0.0005", "0.0005"),
            ("0.0003", "0.0004", "0.0003"),
            (0.0004, "0.0003", "0.0003"),
            (0, None, "0"),
        ],
    )
    def test_the_lesser_of_body_and_header(
        self, gateway: LiveGateway, upstream: ScriptedUpstream, body: object, header: str | None, limit: str
    ) -> None:
        headers = {} if header is None else {"X-Bursar-Max-Cost-Usd": header}
        given: dict[str, Any] = {} if body is None else {"max_cost_usd": body}
        for stream in (False, True):
            denied(gateway.chat(headers, model="m", stream=stream, **given), "request", limit)
        assert not upstream.requests

    @pytest.mark.parametrize(
        "values", [("0.0003", "0.04"), ("0.04", "0.0003"), ("0.04, 0.0003",), ("1", "0.04", "0.0003")]
    )
    def test_of_several_headers_the_tightest_binds(
        self, gateway: LiveGateway, upstream: ScriptedUpstream, values: tuple[str, ...]
    ) -> None:
        """A proxy on the way may add its own to the client's, before it or behind it."""
        body = json.dumps({"model": "m", "messages": SAY}).encode()
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.putrequest("POST", "/v1/chat/completions")
            connection.putheader("Content-Length", str(len(body)))
            for value in values:
                connection.putheader("X-Bursar-Max-Cost-Usd", value)
            connection.endheaders(body)
            response = connection.getresponse()
            denied(Answer(response.status, dict(response.getheaders()), response.read()), "request", "0.0003")
        assert not upstream.requests

    @pytest.mark.parametrize("asked", [None, 0.2])
    def test_the_client_cannot_raise_the_policys(
        self, gateway: LiveGateway, upstream: ScriptedUpstream, asked: float | None
    ) -> None:
        upstream.source = Script.of(words("word " * 200))
        given: dict[str, Any] = {} if asked is None else {"max_cost_usd": asked}
        answer = gateway.chat(model="m", stream=True, max_tokens=100, **given)
        assert upstream.requests[0].body["max_tokens"] == 50
        assert "max_cost_usd" not in upstream.requests[0].body
        assert answer.events[-2]["error"]["code"] == "budget_exceeded"
        assert upstream.bill(PRICE) <= 50_000_000
        assert gateway.decision(answer)["cut"]["scope"] == "request"

    def test_a_cap_clamps_every_field_that_carries_a_limit(
        self, gateway: LiveGateway, upstream: ScriptedUpstream
    ) -> None:
        gateway.chat(model="m", stream=True, max_cost_usd=0.007, max_tokens=30, max_completion_tokens=40)
        gateway.chat(model="m", stream=True, max_cost_usd=0.007)
        gateway.chat(model="m", stream=True, max_cost_usd=0.007, max_tokens=6)
        first, second, third = (request.body for request in upstream.requests)
        assert (first["max_tokens"], first["max_completion_tokens"]) == (7, 7)
        assert (second["max_tokens"], third["max_tokens"]) == (7, 6)

    def test_the_clients_own_limit_is_no_cut(self, gateway: LiveGateway) -> None:
        answer = gateway.chat(model="m", stream=True, max_cost_usd=0.007, max_tokens=3)
        assert answer.events[-2]["choices"][0]["finish_reason"] == "length"
        assert gateway.decision(answer)["outcome"] == "completed"

    def test_free_of_a_cap_it_costs_what_it_costs(self, gateway: LiveGateway) -> None:
        answer = gateway.chat(model="m", max_cost_usd=0.02, max_tokens=20)
        assert (answer.headers["x-bursar-cost-usd"], answer.json["usage"]["cost"]) == ("0.005", 0.005)
        assert answer.headers["x-bursar-remaining-usd"] == "0.015"

    @pytest.mark.parametrize(
        ("asked", "scope", "left"),
        [
            ({}, "request", "0.045"),
            ({"x-bursar-task-max-cost-usd": "0.04"}, "task", "0.035"),
            ({"x-bursar-task-id": "tight", "x-bursar-task-max-cost-usd": "0.03"}, "task", "0.025"),
            ({"x-bursar-task-id": "wide", "x-bursar-max-cost-usd": "0.01"}, "request", "0.005"),
        ],
    )
    @pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
    def test_an_answer_names_the_tightest_cap(
        self, gateway: LiveGateway, path: str, asked: dict[str, str], scope: str, left: str
    ) -> None:
        asked = {name: f"{value}-{path[-4:]}" if name.endswith("id") else value for name, value in asked.items()}
        whole = gateway.chat(asked, path, model="m", max_tokens=5)
        assert (whole.headers["x-bursar-scope"], whole.headers["x-bursar-remaining-usd"]) == (scope, left)
        streamed = gateway.chat(asked, path, model="m", max_tokens=5, stream=True)
        assert streamed.headers["x-bursar-scope"] == scope


class TestCuts:
    def test_a_cut_stream_ends_as_the_contract_says(self, gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
        upstream.source = Script.of(words("w " * 40), obeys_limit=False, delay_s=0.001)
        answer = gateway.chat(model="m", stream=True, max_cost_usd=0.010, stream_options={"include_usage": True})
        *chunks, usage, error, done = answer.events
        assert (answer.status, done) == (200, "[DONE]")
        assert error["error"]["code"] == "budget_exceeded"
        assert not re.search(r"\d", error["error"]["message"])
        assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)
        assert (usage["choices"], usage["usage"]["estimated"]) == ([], True)
        assert 0.01 <= usage["usage"]["cost"] <= 0.01 + SLACK_USD
        upstream.wait_for_end(0)
        record = gateway.decision(answer)
        assert (record["outcome"], record["cost_usd"]) == ("cost_killed", usage["usage"]["cost"])
        assert (record["cut"]["by"], float(record["cut"]["killed_at_usd"])) == ("meter", record["cost_usd"])

    def test_without_usage_asked_a_cut_shows_none(self, gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
        upstream.source = Script.of(words("w " * 40), obeys_limit=False, delay_s=0.001)
        answer = gateway.chat(model="m", stream=True, max_cost_usd=0.010)
        assert not [event for event in answer.events[:-1] if event.get("usage")]

    @pytest.mark.parametrize("obeys_limit", [True, False])
    def test_a_whole_answer_is_cut_too(
        self, gateway: LiveGateway, upstream: ScriptedUpstream, obeys_limit: bool
    ) -> None:
        upstream.source = Script.of(words("w " * 40), obeys_limit=obeys_limit, delay_s=0.001)
        answer = gateway.chat(model="m", max_cost_usd=0.010)
        assert upstream.requests[0].stream
        assert (answer.status, answer.error["code"]) == (402, "budget_exceeded")
        assert answer.headers["x-bursar-scope"] == "request"
        assert answer.headers["x-should-retry"] == "false"
        record = gateway.decision(answer)
        assert record["outcome"] == "cost_killed"
        assert 0.01 <= record["cost_usd"] <= 0.01 + SLACK_USD
        assert float(answer.headers["x-bursar-cost-usd"]) == record["cost_usd"]
        assert (answer.headers["x-bursar-model"], answer.headers["x-bursar-provider"]) == ("m", "p")

    @pytest.mark.parametrize("stream", [True, False])
    def test_the_softer_ending_is_opt_in(self, gateway: LiveGateway, upstream: ScriptedUpstream, stream: bool) -> None:
        upstream.source = Script.of(words("w " * 40), obeys_limit=False, delay_s=0.001)
        answer = gateway.chat({"x-bursar-on-cut": "length"}, model="m", stream=stream, max_cost_usd=0.010)
        assert answer.status == 200
        last = answer.events[-2] if stream else answer.json
        assert last["choices"][0]["finish_reason"] == "length"
        cut = last["bursar"]["cut"]
        assert cut["scope"] == "request"
        assert 0.01 <= cut["killed_at_usd"] <= 0.01 + SLACK_USD

    def test_but_never_inside_a_tool_call(self, gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
        arguments = [tool("x") for _ in range(30)]
        upstream.source = Script.of(tool(id="c1", name="run"), arguments, obeys_limit=False, delay_s=0.001)
        answer = gateway.chat({"x-bursar-on-cut": "length"}, model="m", stream=True, max_cost_usd=0.010)
        assert answer.events[-2]["error"]["code"] == "budget_exceeded"
        assert gateway.decision(answer)["cut"]["in_tool_call"] is True


class TestTasks:
    def test_three_ways_to_name_one(self, gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
        gateway.chat({"x-bursar-task-id": "three"}, model="m", max_tokens=5)
        gateway.chat(model="m", max_tokens=5, metadata={"task_id": "three"})
        gateway.chat(path="/t/three/v1/chat/completions", model="m", max_tokens=5)
        gateway.ask("POST", "/t/three/v1/embeddings", {"model": "m", "input": "x"})
        task = gateway.ask("GET", "/v1/tasks/three").json
        assert (task["id"], task["calls"], task["spent_usd"], task["remaining_usd"]) == ("three", 4, 0.015, 0.085)
        assert "metadata" not in upstream.requests[1].body
        assert gateway.ask("GET", "/t/anything/v1/tasks/three").json["calls"] == 4

    def test_the_header_beats_the_body_and_the_body_the_path(self, gateway: LiveGateway) -> None:
        path = "/t/by-path/v1/chat/completions"
        metadata = {"task_id": "by-body", "other": "kept"}
        first = gateway.chat({"x-bursar-task-id": "by-header"}, path, model="m", metadata=metadata)
        second = gateway.chat(path=path, model="m", metadata=metadata)
        assert first.headers["x-bursar-task-id"] == "by-header"
        assert second.headers["x-bursar-task-id"] == "by-body"

    @pytest.mark.parametrize(
        ("segment", "task"), [("a%20b", "a b"), ("100%2525", "100%25"), ("org%2Frepo", "org/repo"), ("%C3%BC", "ü")]
    )
    def test_a_path_is_decoded_once(self, gateway: LiveGateway, segment: str, task: str) -> None:
        answer = gateway.chat(path=f"/t/{segment}/v1/chat/completions", model="m")
        assert gateway.decision(answer)["task_id"] == task
        assert gateway.ask("GET", f"/v1/tasks/{segment}").json["id"] == task

    def test_other_metadata_goes_upstream(self, gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
        gateway.chat(model="m", metadata={"task_id": "meta", "run": "7"})
        assert upstream.requests[0].body["metadata"] == {"run": "7"}

    def test_the_clients_cap_lowers_and_is_remembered(self, gateway: LiveGateway) -> None:
        task = {"x-bursar-task-id": "lowered"}
        capped = {**task, "x-bursar-task-max-cost-usd": "0.007"}
        assert gateway.chat(capped, model="m", max_tokens=5).status == 200
        shown = gateway.ask("GET", "/v1/tasks/lowered").json
        assert (shown["limit_usd"], shown["remaining_usd"]) == (0.007, 0.002)
        cut = gateway.chat(task, model="m", stream=True)  # says nothing of a cap: the task remembers
        assert cut.events[-2]["error"]["code"] == "budget_exceeded"
        assert cut.text in ("one", "one two")
        shown = gateway.ask("GET", "/v1/tasks/lowered").json
        assert (shown["exhausted"], shown["cost_killed_at_usd"]) == (True, 0.007)
        for stream in (True, False):
            denied(gateway.chat(task, model="m", stream=stream), "task", "0.007")
        raised = gateway.chat({**task, "x-bursar-task-max-cost-usd": "5"}, model="m", max_tokens=5)
        assert raised.status == 200  # its own cap may be raised again, up to the policy's
        assert gateway.ask("GET", "/v1/tasks/lowered").json["limit_usd"] == 0.1

    def test_the_client_cannot_raise_the_policys(self, gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
        upstream.source = Script.of(words("w " * 200))
        generous = {"x-bursar-task-id": "raised", "x-bursar-task-max-cost-usd": "9"}
        for _ in range(2):
            gateway.chat(generous, model="m", stream=True)
        third = gateway.chat(generous, model="m", stream=True)
        denied(third, "task", "0.1")
        assert gateway.ask("GET", "/v1/tasks/raised").json["spent_usd"] <= 0.1

    def test_a_call_without_a_task_is_a_task_of_its_own(self, gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
        upstream.source = Script.of(words("w " * 40), obeys_limit=False, delay_s=0.001)
        answer = gateway.chat({"x-bursar-task-max-cost-usd": "0.012"}, model="m", stream=True)
        record = gateway.decision(answer)
        cost = record["cost_usd"]
        assert record["cut"]["scope"] == "task"
        assert 0.012 <= cost <= 0.012 + SLACK_USD
        shown = gateway.ask("GET", f"/v1/tasks/{record['request_id']}").json
        assert (shown["spent_usd"], shown["limit_usd"], shown["cost_killed_at_usd"]) == (cost, 0.012, cost)

    def test_a_models_budget_bounds_a_tasks_spending_on_it(
        self, gateway: LiveGateway, upstream: ScriptedUpstream
    ) -> None:
        task = {"x-bursar-task-id": "tight-model"}
        assert gateway.chat(task, model="tight", max_tokens=5).headers["x-bursar-scope"] == "model"
        cut = gateway.chat(task, model="tight", stream=True)
        assert (upstream.requests[1].body["max_tokens"], gateway.decision(cut)["cut"]["scope"]) == (3, "model")
        denied(gateway.chat(task, model="tight"), "model", "0.008")
        assert gateway.chat(task, model="m", max_tokens=5).status == 200  # it bounds what is spent on that model

    def test_a_tighter_cap_comes_before_a_models_budget(self, gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
        upstream.source = Script.of(words("w " * 90), obeys_limit=False, delay_s=0.001)
        answer = gateway.chat(model="dear", stream=True)
        assert gateway.decision(answer)["cut"]["scope"] == "request"  # the policy's 0.05 is tighter than 0.5
        assert upstream.requests[0].body["max_tokens"] == 5


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("X-Bursar-Max-Cost", "; did you mean X-Bursar-Max-Cost-Usd?"),
        ("X-Bursar-Taks-Id", "; did you mean X-Bursar-Task-Id?"),
        ("X-Bursar-Zeal", "."),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
def test_a_misspelt_header_is_no_missing_cap(
    gateway: LiveGateway, upstream: ScriptedUpstream, path: str, name: str, meant: str
) -> None:
    answer = gateway.chat({name: "0.0001"}, path, input="x")
    assert answer.status == 400
    assert answer.error["message"] == f"There is no such header{meant}"
    assert answer.error["param"] == name
    assert not upstream.requests


@pytest.mark.parametrize(
    ("caps", "scope", "resets"),
    [
        ("caps: {key: {day: {max_cost_usd: 0.005}}}", "key_day", True),
        ("caps: {key: {hour: {max_cost_usd: 0.005}}}", "key_hour", True),
        ("caps: {key: {month: {max_cost_usd: 0.005}}}", "key_month", True),
        ("caps: {key: {total: {max_cost_usd: 0.005}}}", "key_total", False),
        ("caps: {global: {day: {max_cost_usd: 0.005}}}", "global_day", True),
        ("caps: {global: {month: {max_cost_usd: 0.005}}}", "global_month", True),
        ("caps: {global: {total: {max_cost_usd: 0.005}}}", "global_total", False),
        ("caps: {key: {day: {max_cost_usd: 9}}, global: {total: {max_cost_usd: 0.005}}}", "global_total", False),
    ],
)
def test_windows_of_keys_and_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caps: str, scope: str, resets: bool
) -> None:
    monkeypatch.setattr("app.gateway.owned.moment_at", lambda _: LATER)
    keys = f"keys: [{{name: alice, sha256: {sha256('sk-a')}}}, {{name: bob, sha256: {sha256('sk-b')}}}]"
    alice, bob = {"authorization": "Bearer sk-a"}, {"x-api-key": "sk-b"}
    with (
        ScriptedUpstream(Script.of(words(FIVE))) as upstream,
        LiveGateway(policy(upstream, f"{caps}\n{keys}"), tmp_path) as gateway,
    ):
        assert gateway.chat(alice, model="m", max_tokens=5).headers["x-bursar-remaining-usd"] == "0"
        second = gateway.chat({**alice, "x-bursar-max-cost-usd": "5"}, model="m", max_tokens=5)
        denied(second, scope, "0.005")
        assert (second.headers["x-bursar-spent-usd"], second.headers["x-bursar-remaining-usd"]) == ("0.005", "0")
        assert ("x-bursar-reset" in second.headers) == resets
        assert gateway.chat(bob, model="m", max_tokens=5).status == (402 if scope.startswith("global") else 200)
        assert gateway.decision(second, alice)["denied_scope"] == scope
        assert len(upstream.requests) == (1 if scope.startswith("global") else 2)


@pytest.mark.parametrize("window", ["day", "month", "total"])
def test_the_keys_of_a_team_share_its_windows_and_no_others(tmp_path: Path, window: str) -> None:
    more = f"""
caps: {{key: {{{window}: {{max_cost_usd: 0.005}}}}, team: {{{window}: {{max_cost_usd: 9}}}}}}
teams: {{lab: {{caps: {{{window}: {{max_cost_usd: 0.010}}}}}}, rest: {{}}}}
keys:
  - {{name: alice, sha256: {sha256("sk-a")}, team: lab}}
  - {{name: bob, sha256: {sha256("sk-b")}, team: lab}}
  - {{name: carol, sha256: {sha256("sk-c")}, team: lab}}
  - {{name: dave, sha256: {sha256("sk-d")}, team: rest}}
"""
    alice, bob, carol, dave = ({"authorization": f"Bearer sk-{name}"} for name in "abcd")
    with (
        ScriptedUpstream(Script.of(words(FIVE))) as upstream,
        LiveGateway(policy(upstream, more), tmp_path) as gateway,
    ):
        assert gateway.chat(alice, model="m", max_tokens=5).status == 200
        denied(gateway.chat(alice, model="m", max_tokens=5), f"key_{window}", "0.005")  # its own binds as well
        assert gateway.chat(bob, model="m", max_tokens=5).headers["x-bursar-remaining-usd"] == "0"
        third = gateway.chat(carol, model="m", max_tokens=5)
        denied(third, f"team_{window}", "0.01")
        assert (third.headers["x-bursar-spent-usd"], "x-bursar-reset" in third.headers) == ("0.01", window != "total")
        assert "Team is out of budget" in third.json["error"]["message"]
        other = gateway.chat(dave, model="m", max_tokens=5)
        assert (other.status, gateway.decision(other, dave)["team"]) == (200, "rest")
        assert gateway.decision(third, carol)["denied_scope"] == f"team_{window}"
        assert len(upstream.requests) == 3


def test_a_rate_of_calls_is_a_429_until_the_next_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [MOMENT]
    monkeypatch.setattr("app.gateway.owned.moment_at", lambda _: moments[-1])
    more = f"""
caps: {{key: {{minute: {{max_calls: 2}}}}}}
keys: [{{name: alice, sha256: {sha256("sk-a")}}}, {{name: bob, sha256: {sha256("sk-b")}}}]
"""
    alice, bob = {"authorization": "Bearer sk-a"}, {"authorization": "Bearer sk-b"}
    with (
        ScriptedUpstream(Script.of(words(FIVE))) as upstream,
        LiveGateway(policy(upstream, more), tmp_path) as gateway,
    ):
        assert [gateway.chat(alice, model="auto").status for _ in range(2)] == [200, 200]
        for path, body in ENDPOINTS.items():
            busy = gateway.ask("POST", path, body, alice)
            assert busy.status == 429, path
            assert 1 <= int(busy.headers["retry-after"]) <= 60
            told = {name: busy.headers[f"x-bursar-{name}"] for name in ("scope", "reason", "limit", "used")}
            assert told == {"scope": "key_minute", "reason": "calls", "limit": "2", "used": "2"}
            assert busy.headers["x-bursar-reset"].endswith(":00Z")
            assert "x-should-retry" not in busy.headers
        busy = gateway.chat(alice, model="auto")
        assert (busy.error["code"], busy.error["type"]) == ("rate_limit_exceeded", "rate_limit_exceeded")
        assert not re.search(r"\d", busy.error["message"])
        decision = gateway.decision(busy, alice)
        assert (decision["outcome"], decision["denied_scope"]) == ("denied", "key_minute")
        assert gateway.chat(bob, model="auto").status == 200, "another key has a minute of its own"
        assert len(upstream.requests) == 3
        moments.append("2026-11-30T17:45")
        assert gateway.chat(alice, model="auto").status == 200
        assert 'bursar_denials_total{reason="rate",scope="key_minute"}' in gateway.metrics()


def test_too_many_at_a_time_is_a_429_in_each_dialect(tmp_path: Path) -> None:
    gate = Gate()
    held, at_once = Script.of(words(FIVE), gate=gate), "ledger: {contention_wait_secs: 0}"
    with ScriptedUpstream(held) as upstream:
        rules = policy(upstream, "caps: {global: {max_parallel_requests: 1}}")
        rules = rules.replace("ledger: {contention_wait_secs: 0.2}", at_once)
        with LiveGateway(rules, tmp_path) as gateway:
            gate.release()
            first = gateway.stream(
                "POST", "/v1/chat/completions", {**ENDPOINTS["/v1/chat/completions"], "stream": True}
            )
            for path, body in ENDPOINTS.items():
                busy = gateway.ask("POST", path, body)
                assert (busy.status, busy.headers["retry-after"]) == (429, "1"), path
                assert (busy.headers["x-bursar-scope"], busy.headers["x-bursar-reason"]) == ("global", "parallel")
                assert "x-should-retry" not in busy.headers
                assert not re.search(r"\d", busy.body.decode().replace("429", ""))
            gate.open()
            first.rest()
            assert gateway.chat(model="auto").status == 200
            assert len(upstream.requests) == 2
            rows = {row["scope"]: row for row in gateway.ask("GET", "/v1/budgets").json["data"]}
            assert (rows["global_total"]["max_parallel_requests"], rows["global_total"]["running"]) == (1, 0)


def test_embeddings_that_cost_nothing_and_tell_no_usage_are_tokens_all_the_same(tmp_path: Path) -> None:
    body = Script(body=b'{"object": "list", "data": []}', headers={"content-type": "application/json"})
    with ScriptedUpstream(body) as upstream:
        free = policy(upstream, "caps: {task: {max_tokens: 12}}").replace("{input_per_1k: 0, output_per_1k: 1}", "free")
        with LiveGateway(free, tmp_path) as gateway:
            asked = {"model": "m", "input": "Say it again."}
            answers = [gateway.ask("POST", "/t/one/v1/embeddings", asked) for _ in range(3)]
            assert [answer.status for answer in answers][::2] == [200, 402]
            assert answers[-1].headers["x-bursar-reason"] == "tokens"


def test_a_rate_of_tokens_counts_what_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of agents are long in what they send, and last a minute: counted at their end, they would be counted in one
    that is over."""
    monkeypatch.setattr("app.gateway.owned.moment_at", lambda _: MOMENT)
    gate = Gate()
    with (
        ScriptedUpstream(Script.of([*words("One"), Wait(gate), *words(" two.")], input_tokens=5)) as upstream,
        LiveGateway(policy(upstream, "caps: {global: {minute: {max_tokens: 30}}}"), tmp_path) as gateway,
    ):
        long = [{"role": "user", "content": "word " * 60}]
        first = gateway.stream("POST", "/v1/chat/completions", {"model": "m", "messages": long, "stream": True})
        assert b"One" in first.event() + first.event()
        busy = gateway.chat(model="m")
        assert (busy.status, busy.headers["x-bursar-reason"], busy.headers["x-bursar-limit"]) == (429, "tokens", "30")
        gate.open()
        assert first.rest().body.endswith(b"[DONE]\n\n")
        gateway.until(lambda: gateway.chat(model="m").status == 200)


def test_a_further_attempt_is_of_the_minute_in_which_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one may have taken minutes to fail."""
    with ScriptedUpstream(Script.failure(503)) as upstream:
        monkeypatch.setattr("app.gateway.owned.moment_at", lambda _: f"2026-11-30T17:{44 + len(upstream.requests):02}")
        retried = "routes: {auto: {candidates: [m], retries: {attempts: 2, base_secs: 0.01}}}"
        more = "caps: {global: {minute: {max_calls: 1}}}"
        rules = policy(upstream, more).replace("routes: {auto: {candidates: [m]}}", retried)
        with LiveGateway(rules, tmp_path) as gateway:
            assert gateway.chat(model="auto").status == 502
            assert len(upstream.requests) == 3


def test_a_rate_is_told_where_a_model_was_too_dear_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting helps: the other model can be asked in the next minute."""
    monkeypatch.setattr("app.gateway.owned.moment_at", lambda _: MOMENT)
    with ScriptedUpstream(Script.of(words(FIVE))) as upstream:
        rules = policy(upstream, "caps: {global: {minute: {max_calls: 1}}}")
        rules = rules.replace("candidates: [m]", "candidates: [dear], fallback: [m]")
        capped = {"x-bursar-max-cost-usd": "0.004"}
        with LiveGateway(rules, tmp_path) as gateway:
            asked: dict[str, Any] = {"model": "auto", "max_tokens": 4}
            first = gateway.chat(capped, **asked)
            assert (first.status, first.headers["x-bursar-model"]) == (200, "m")
            busy = gateway.chat(capped, **asked)
            assert (busy.status, busy.headers["x-bursar-scope"]) == (429, "global_minute")


def test_a_rate_of_tokens_lets_what_has_begun_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.gateway.owned.moment_at", lambda _: MOMENT)
    more = "caps: {global: {minute: {max_tokens: 3}}}"
    with (
        ScriptedUpstream(Script.of(words(FIVE))) as upstream,
        LiveGateway(policy(upstream, more), tmp_path) as gateway,
    ):
        whole = gateway.chat(model="auto")
        assert (whole.status, whole.json["choices"][0]["message"]["content"]) == (200, FIVE)
        assert b"max_" not in upstream.requests[0].body, "a rate is no cap on an answer"
        busy = gateway.chat(model="auto")
        assert (busy.status, busy.headers["x-bursar-scope"], busy.headers["x-bursar-reason"]) == (
            429,
            "global_minute",
            "tokens",
        )


def test_a_keys_own_caps_replace_those_for_all_keys(tmp_path: Path) -> None:
    more = f"""
caps: {{key: {{day: {{max_cost_usd: 0.005}}}}}}
keys: [{{name: rich, sha256: {sha256("sk-r")}, caps: {{day: {{max_cost_usd: 0.010}}}}}}]
"""
    key = {"authorization": "Bearer sk-r"}
    with (
        ScriptedUpstream(Script.of(words(FIVE))) as upstream,
        LiveGateway(policy(upstream, more), tmp_path) as gateway,
    ):
        assert [gateway.chat(key, model="m", max_tokens=5).status for _ in range(3)] == [200, 200, 402]


def test_held_money_is_waited_for_and_then_says_so(tmp_path: Path) -> None:
    """Room exists but another call holds it: 429 with a short Retry-After, since waiting helps."""
    gate = Gate()
    with ScriptedUpstream(Script.of(words(FIVE), gate=gate)) as upstream:
        caps = "caps: {task: {max_cost_usd: 0.005}}"
        with LiveGateway(policy(upstream, caps), tmp_path) as gateway:
            task = {"x-bursar-task-id": "held"}
            with ThreadPoolExecutor(1) as pool:
                first = pool.submit(gateway.chat, task, model="m", max_tokens=5)
                upstream.wait_for_requests(1)
                for stream in (True, False):
                    busy = gateway.chat(task, model="m", max_tokens=5, stream=stream)
                    assert (busy.status, busy.error["code"]) == (429, "budget_contended")
                    assert (busy.headers["retry-after"], busy.headers["x-bursar-scope"]) == ("1", "task")
                    assert busy.headers["x-bursar-reserved-usd"] == "0.005"
                gate.open()
                assert first.result().status == 200
            denied(gateway.chat(task, model="m", max_tokens=5), "task", "0.005")
            assert len(upstream.requests) == 1


def test_hidden_reasoning_cannot_pass_a_cap(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(hidden(500), text("so"))
    answer = gateway.chat(model="m", stream=True, max_cost_usd=0.010, stream_options={"include_usage": True})
    assert upstream.bill(PRICE) <= 10_000_000
    assert gateway.decision(answer)["cost_usd"] == 0.01
