"""The issue's policy in force: what `model` may be, where a call then goes, and what the answer says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.http.live import SAY, LiveGateway, contract
from tests.upstream import ScriptedUpstream
from tests.upstream_script import ListPrice, Script, words

LARGE = ListPrice("0.015", "0.075")


def test_the_contract_lists_its_routes_and_models(gateway: LiveGateway) -> None:
    listed = gateway.ask("GET", "/v1/models").json
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["auto", "small", "small-b", "large"]
    assert all(set(model) >= {"id", "object", "created", "owned_by"} for model in listed["data"])
    large = gateway.ask("GET", "/v1/models/large").json
    assert large == listed["data"][3]
    assert (large["owned_by"], large["bursar"]["tier"], large["bursar"]["max_cost_usd"]) == ("b", 4, 0.3)
    assert large["bursar"]["price_usd_per_1k"] == {"input": 0.015, "output": 0.075, "source": "policy"}
    assert gateway.ask("GET", "/v1/models/auto").json == listed["data"][0]


@pytest.mark.parametrize(
    ("model", "name", "provider", "sent", "route"),
    [
        ("auto", "small", "a", "small-v1", "auto"),
        ("tier:1", "small", "a", "small-v1", "tier:1"),
        ("tier:4", "large", "b", "large-v1", "tier:4"),
        ("small-b", "small-b", "b", "small-v1", None),
        ("large", "large", "b", "large-v1", None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_route_a_tier_or_a_model(
    gateway: LiveGateway,
    upstream: ScriptedUpstream,
    model: str,
    name: str,
    provider: str,
    sent: str,
    route: str | None,
    stream: bool,
) -> None:
    answer = gateway.chat(model=model, stream=stream, max_tokens=50)
    assert answer.status == 200
    assert (answer.headers["x-bursar-model"], answer.headers["x-bursar-provider"]) == (name, provider)
    assert answer.headers["x-bursar-requested-model"] == model
    assert [request.model for request in upstream.requests] == [sent]
    assert upstream.requests[0].headers.get("authorization") == ("Bearer none" if provider == "a" else None)
    record = gateway.decision(answer)
    assert (record["decision"]["route"], record["requested_model"], record["model"]) == (route, model, name)


def test_whatever_may_be_asked_for_can_be_looked_up(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream:
        aliases = 'aliases: {"claude-*": auto, "gpt-5*": "tier:4", large: small}\n'
        with LiveGateway(contract(upstream) + aliases, tmp_path) as gateway:
            found = {name: gateway.ask("GET", f"/v1/models/{name}").json for name in ("tier:1", "claude-x", "gpt-5.4")}
            assert {name: said["id"] for name, said in found.items()} == {name: name for name in found}
            assert found["tier:1"]["bursar"]["candidates"] == ["small", "small-b"]
            assert found["claude-x"]["bursar"]["candidates"] == ["small", "small-b", "large"]
            assert found["gpt-5.4"]["bursar"]["candidates"] == ["large"]
            assert gateway.ask("GET", "/v1/models/large").json["owned_by"] == "b"
            assert gateway.ask("GET", "/v1beta/models/claude-x").json["name"] == "models/claude-x"
            for nobody in ("tier:9", "gpt-4", "tier:"):
                assert gateway.ask("GET", f"/v1/models/{nobody}").status == 404


def test_any_model_of_a_provider_that_says_so(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream:
        policy = f"""
version: 1
providers:
  open: {{base_url: "{upstream.url}", any_model: true, free: true}}
  priced: {{base_url: "{upstream.url}", any_model: true}}
  closed: {{base_url: "{upstream.url}"}}
models: {{known: {{provider: closed, pricing: {{input_per_1k: 0.1, output_per_1k: 0.1}}}}}}
routes: {{fallback-home: {{candidates: [known]}}}}
"""
        with LiveGateway(policy, tmp_path) as gateway:
            answer = gateway.chat(model="open/vendor/some-model:q4")
            assert (answer.status, upstream.requests[-1].model) == (200, "vendor/some-model:q4")
            assert answer.headers["x-bursar-model"] == "open/vendor/some-model:q4"
            assert gateway.ask("GET", "/v1/models/open/vendor/some-model:q4").json["owned_by"] == "open"
            catalogued = gateway.chat(model="priced/gpt-4o-mini")
            assert (catalogued.status, upstream.requests[-1].model) == (200, "gpt-4o-mini")
            assert float(catalogued.headers["x-bursar-cost-usd"]) > 0
            unpriced = gateway.chat({"x-bursar-max-cost-usd": "1"}, model="priced/not-in-any-catalogue")
            assert (unpriced.status, unpriced.error["code"]) == (400, "unpriced_model")
            for model in ("closed/other", "open/", "/x", "nobody/x"):
                assert gateway.chat(model=model).status == 404
            gateway.edit_policy(policy + "unknown_model: fallback-home\n")
            gateway.until(lambda: gateway.chat(model="gpt-9").status == 200)
            home = gateway.chat(model="gpt-9")
            assert (home.headers["x-bursar-model"], upstream.requests[-1].model) == ("known", "known")
            record = gateway.decision(home)
            assert (record["requested_model"], record["decision"]["route"]) == ("gpt-9", "fallback-home")


def test_costs_and_what_is_left_are_shown(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    answer = gateway.chat({"x-bursar-task-id": "shown"}, model="large", max_tokens=50)
    usd = upstream.bill(LARGE) / 1e9
    assert float(answer.headers["x-bursar-cost-usd"]) == answer.json["usage"]["cost"] == usd
    assert answer.headers["x-bursar-task-id"] == "shown"
    left = float(answer.headers["x-bursar-remaining-usd"])
    task = gateway.ask("GET", "/v1/tasks/shown").json
    assert (task["spent_usd"], task["reserved_usd"], task["limit_usd"], task["calls"]) == (usd, 0.0, 1.0, 1)
    assert task["models"]["large"]["limit_usd"] == 0.3
    assert left == pytest.approx(0.3 - usd)  # the model's budget for the task is the tightest
    assert answer.headers["x-bursar-scope"] == "model"
    assert gateway.decision(answer)["cost_usd"] == usd


def test_usage_is_streamed_to_those_who_ask(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words("one two three"), usage="always")
    asked = gateway.chat(model="large", stream=True, stream_options={"include_usage": True}, max_tokens=50)
    *chunks, usage, done = asked.events
    assert done == "[DONE]"
    assert asked.text == "one two three"
    assert usage["choices"] == []
    assert usage["usage"]["cost"] == upstream.requests[0].tokens.bill(LARGE) / 1e9
    assert usage["usage"]["completion_tokens"] == 3
    assert all(chunk["usage"] is None for chunk in chunks if "usage" in chunk)
    assert all(chunk["id"] == usage["id"] and chunk["model"] == "large-v1" for chunk in chunks)

    silent = gateway.chat(model="large", stream=True, max_tokens=50)
    assert silent.events[-1] == "[DONE]"
    assert [event for event in silent.events[:-1] if event.get("usage") or not event["choices"]] == []
    assert upstream.requests[1].body["stream_options"] == {"include_usage": True}  # we ask in any case
    assert gateway.decision(silent)["cost_usd"] == upstream.requests[1].tokens.bill(LARGE) / 1e9


def test_streams_are_marked_as_streams(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    headers = gateway.chat(stream=True).headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-cache", "no")
    assert "x-bursar-cost-usd" not in headers


def test_a_stream_that_is_an_array_is_marked_as_json(gateway: LiveGateway) -> None:
    body = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
    answer = gateway.ask("POST", "/v1beta/models/small:streamGenerateContent", body)
    assert answer.headers["content-type"] == "application/json; charset=UTF-8"
    assert (answer.headers["cache-control"], "x-bursar-cost-usd" in answer.headers) == ("no-cache", False)
    assert [event["candidates"][0]["content"]["role"] for event in answer.json if "candidates" in event]


def test_embeddings_are_passed_on_and_priced(gateway: LiveGateway, upstream: ScriptedUpstream) -> None:
    for given, count in [("one text", 1), (["one", "two"], 2), ([1, 2, 3], None), ([[1, 2], [3]], 2)]:
        body = {"model": "small", "input": given, "dimensions": 8, "x-unknown": {"kept": 1}}
        answer = gateway.ask("POST", "/v1/embeddings", {**body, "max_cost_usd": 0.5})
        assert answer.status == 200
        assert upstream.requests[-1].body == {**body, "model": "small-v1"}
        assert count is None or len(answer.json["data"]) == count
        cost = upstream.requests[-1].tokens.bill(ListPrice("0.0001", "0.0004")) / 1e9
        assert answer.json["usage"]["cost"] == float(answer.headers["x-bursar-cost-usd"]) == cost
        assert gateway.decision(answer)["usage"]["input_tokens"] == upstream.requests[-1].tokens.input
    packed = gateway.ask("POST", "/v1/embeddings", {"model": "small", "input": "x", "encoding_format": "base64"})
    assert isinstance(packed.json["data"][0]["embedding"], str)


def test_the_contract_loads_with_its_key_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "sk-of-provider-a")
    with ScriptedUpstream() as a, ScriptedUpstream() as b, LiveGateway(contract(a, b), tmp_path) as gateway:
        a.source = Script.failure(500)
        answer = gateway.chat(model="auto", messages=SAY)
        assert (answer.status, answer.headers["x-bursar-model"]) == (200, "small-b")
        assert a.requests[0].headers["authorization"] == "Bearer sk-of-provider-a"
        assert "authorization" not in b.requests[0].headers
        record = gateway.decision(answer)
        assert [attempt["outcome"] for attempt in record["attempts"]][-1] == "completed"
        assert {attempt["outcome"] for attempt in record["attempts"][:-1]} == {"api_error"}
