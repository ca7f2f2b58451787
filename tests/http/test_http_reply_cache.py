"""The policy's cache: what was asked before, byte for byte, by the same key, is answered again for nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from app.gateway import call
from tests.gateway.live import PRICE, Answer, Live, policy, until
from tests.gateway.test_keepalive import COMMENT, asked_in, begun
from tests.gateway.test_landing import landing, spend
from tests.redis_server import shared_server
from tests.upstream import ScriptedUpstream
from tests.upstream_script import HANG, Gate, Script, Wait, words

CACHE = {"ttl_secs": 3600}
SAID = "One two three."


async def again(live: Live, **asked: Any) -> Answer:
    """The reply of the cache. A client hears the end of a call before the gateway is done with it; that is waited for,
    and where another gateway keeps the reply, it is looked for until it is there."""
    await live.idle()
    for _ in range(200):
        answer = await live.chat(**asked)
        if "x-bursar-cache" in answer.headers:
            return answer
    raise AssertionError("it is not kept")


@pytest.mark.parametrize("stream", [True, False])
async def test_the_same_again_costs_nothing(tmp_path: Path, upstream: ScriptedUpstream, stream: bool) -> None:
    upstream.source = Script.of(words(SAID))
    async with Live(tmp_path, policy({"a": upstream}, cache=CACHE)) as live:
        first = await live.chat(task="t", stream=stream)
        assert "x-bursar-cache" not in first.headers
        second = await again(live, task="u", stream=stream)
        assert (second.status, second.body) == (first.status, first.body)
        assert (second.headers["x-bursar-cache"], second.headers["x-bursar-cost-usd"]) == ("hit", "0")
        assert second.headers["content-type"] == first.headers["content-type"]
        assert second.headers["x-bursar-cache-from"] == first.request_id
        assert len(upstream.requests) == 1
        balances = await live.balances()
        assert balances["global:total"].spent_nano == upstream.bill(PRICE)
        assert "task:-:u" not in balances
        assert await live.client.metric("bursar_cache_hits_total") == 1
        assert await live.client.metric("bursar_cache_saved_usd_total") == pytest.approx(upstream.bill(PRICE) / 1e9)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_hit_is_a_call_of_its_own_on_record(tmp_path: Path, upstream: ScriptedUpstream, stream: bool) -> None:
    """Of whoever asked, in their task, for nothing; what it saved stands beside."""
    upstream.source = Script.of(words(SAID))
    async with Live(tmp_path, policy({"a": upstream}, cache=CACHE)) as live:
        first = await live.chat(model="auto", task="t", stream=stream)
        second = await again(live, model="auto", task="u", stream=stream)
        assert second.request_id == second.headers["x-request-id"] != first.request_id
        before, hit = [await live.client.decision(answer.request_id) for answer in (first, second)]
        assert "cached" not in before
        assert hit["cached"] == {
            "request_id": first.request_id,
            "model": "a",
            "provider": "a",
            "task_type": before["decision"]["task_type"],
            "input_tokens": before["usage"]["input_tokens"],
            "saved_usd": before["cost_usd"],
        }
        told = {name: hit[name] for name in ("task_id", "outcome", "cost_usd", "provenance", "model", "usage")}
        assert told == {
            "task_id": "u",
            "outcome": "completed",
            "cost_usd": 0.0,
            "provenance": "metered",
            "model": None,
            "usage": {},
        }
        assert (hit["requested_model"], hit["stream"], hit["attempts"]) == ("auto", stream, [])
        assert hit["created_s"] > before["created_s"]
        assert hit["timings"]["duration_ms"] > 0


async def test_the_task_of_a_hit_is_the_one_that_its_request_names(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """In its body, too; and a name that is none is refused as ever."""
    upstream.source = Script.of(words(SAID))
    named = {"metadata": {"task_id": "in-the-body"}}
    async with Live(tmp_path, policy({"a": upstream}, cache=CACHE)) as live:
        first = await live.chat(**named)
        assert (await live.client.decision(first.request_id))["task_id"] == "in-the-body"
        hit = await live.client.decision((await again(live, **named)).request_id)
        assert (hit["cached"]["request_id"], hit["task_id"]) == (first.request_id, "in-the-body")
        assert (await live.chat(task="x" * 2_000, **named)).status == 400


async def test_a_reply_to_the_same_idempotency_key_is_the_same_call(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words(SAID))
    async with Live(tmp_path, policy({"a": upstream}, cache=CACHE)) as live:
        answers = [await live.chat(headers={"Idempotency-Key": "k"}) for _ in range(2)]
        assert "x-bursar-replayed" in answers[1].headers
        assert answers[0].request_id == answers[1].request_id
        assert "cached" not in await live.client.decision(answers[1].request_id)


async def test_what_differs_is_asked(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words(SAID))
    secret = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("alice", "bob")}
    keys = [{"name": name, "sha256": digest} for name, digest in secret.items()]
    rules = policy({"a": upstream}, cache=CACHE, keys=keys)
    alice, bob = ({"authorization": f"Bearer {name}"} for name in secret)
    async with Live(tmp_path, rules) as live:
        await live.chat(headers=alice)
        await again(live, headers=alice)
        for other in (
            {"headers": bob},
            {"headers": alice, "temperature": 0.5},
            {"headers": {**alice, "Cache-Control": "No-Cache"}},
            {"headers": {**alice, "Cache-Control": "max-age=0, no-store"}},
            {"headers": {**alice, "OpenAI-Beta": "assistants=v2"}},
            {"headers": {**alice, "X-Bursar-Max-Cost-Usd": "0.5"}},
            {"headers": {**alice, "X-Bursar-On-Cut": "error"}},
            {"headers": {**alice, "Idempotency-Key": "k"}},
        ):
            before = len(upstream.requests)
            assert "x-bursar-cache" not in (await live.chat(**other)).headers
            assert len(upstream.requests) == before + 1, other
        version = live.services.view.policy.version
        live.gateway.settings.policy.write_text(json.dumps({**rules, "on_cut": "length"}))
        await until(lambda: live.services.view.policy.version != version)
        assert "x-bursar-cache" not in (await live.chat(headers=alice)).headers, "another policy might answer otherwise"


async def test_without_a_cache_in_the_policy_nothing_is_kept(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words(SAID))
    async with Live(tmp_path, policy({"a": upstream})) as live:
        for _ in range(3):
            assert "x-bursar-cache" not in (await live.chat()).headers
        assert len(upstream.requests) == 3
    assert not list(tmp_path.rglob("cache.sqlite"))


async def test_only_whole_answers_are_kept(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """Not a cut, not an error, not what a client left."""
    upstream.source = Script.of(words(" ".join(["word"] * 200)))
    async with Live(tmp_path, policy({"a": upstream}, cache=CACHE)) as live:
        for _ in range(3):
            assert (await live.chat(max_cost_usd=0.0001, stream=True)).status == 200
        assert len(upstream.requests) == 3
        upstream.source = Script.failure(500)
        for _ in range(2):
            assert (await live.chat(n=1)).status == 502
        upstream.source = Script.of([*words("One"), HANG])
        async with live.client.open(stream=True, max_tokens=77) as response:
            await response.content.readany()
        await live.idle()
        upstream.source = Script.of(words(SAID))
        assert "x-bursar-cache" not in (await live.chat(stream=True, max_tokens=77)).headers


@pytest.mark.parametrize("shared", [False, True], ids=["sqlite", "redis"])
async def test_gateways_that_share_a_ledger_share_it(tmp_path: Path, upstream: ScriptedUpstream, shared: bool) -> None:
    upstream.source = Script.of(words(SAID))
    rules, namespace = policy({"a": upstream}, cache=CACHE), f"t{secrets.token_hex(6)}"
    url = shared_server().url if shared else None
    async with contextlib.AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(Live(tmp_path, rules, url, namespace=namespace)) for _ in range(2)]
        first = await one.chat()
        await one.idle()
        second = await again(two)
        assert (second.body, second.headers["x-bursar-cache-from"]) == (first.body, first.request_id)


async def test_an_answer_that_takes_longer_than_a_claim_lasts_is_kept(
    tmp_path: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These are the dearest ones."""
    monkeypatch.setattr("app.http.replays.RENEW_S", 0.02)
    gate = Gate()
    upstream.source = Script.of(words(SAID), opening=[Wait(gate)])

    def until_s() -> float:
        with contextlib.closing(sqlite3.connect(tmp_path / "data" / "cache.sqlite")) as db:
            return float(db.execute("SELECT MAX(until_s) FROM replays").fetchone()[0])

    async with Live(tmp_path, policy({"a": upstream}, cache=CACHE)) as live:
        first = asyncio.create_task(live.chat())
        await upstream.until(lambda u: len(u.requests) == 1)
        at_first = until_s()
        await until(lambda: until_s() > at_first)
        gate.open()
        assert (await again(live)).body == (await first).body


async def test_while_its_store_is_down_all_is_asked(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words(SAID))
    async with Live(tmp_path, policy({"a": upstream}, cache=CACHE)) as live:
        (tmp_path / "data" / "cache.sqlite").mkdir()
        for _ in range(2):
            assert (await live.chat()).status == 200
        assert len(upstream.requests) == 2


async def test_a_stream_of_gemini_is_given_again_in_its_own_form(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """Events with `alt=sse`, one array without it: the body and the path are the same."""
    upstream.source = Script.of(words(SAID))
    asked: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    array = "/v1beta/models/a:streamGenerateContent"
    async with Live(tmp_path, policy({"a": upstream}, cache=CACHE)) as live:
        for path, kind in ((array, "application/json"), (f"{array}?alt=sse", "text/event-stream")):
            first = await live.chat(path=path, messages=None, **asked)
            assert first.headers["content-type"].startswith(kind)
            assert (await again(live, path=path, messages=None, **asked)).body == first.body
        assert len(upstream.requests) == 2


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("dialect", ["openai_chat", "openai_responses", "anthropic"])
async def test_every_dialect_is_given_its_own_reply_again(
    tmp_path: Path, upstream: ScriptedUpstream, dialect: str, stream: bool
) -> None:
    upstream.source = Script.of(words(SAID))
    asked = {**asked_in(dialect), "stream": stream}
    if dialect == "openai_responses":
        asked.pop("max_tokens")
    async with Live(tmp_path, policy({"a": upstream}, cache=CACHE)) as live:
        first = await live.chat(**{"messages": None, **asked})
        second = await again(live, **{"messages": None, **asked})
        assert (second.status, second.body) == (200, first.body)
        assert second.headers["content-type"] == first.headers["content-type"]
        assert SAID.split(maxsplit=1)[0].encode() in first.body
        assert len(upstream.requests) == 1


async def test_an_unknown_header_is_refused_all_the_same(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words(SAID))
    async with Live(tmp_path, policy({"a": upstream}, cache=CACHE)) as live:
        await live.chat()
        await again(live)
        assert (await live.chat(headers={"X-Bursar-Max-Cost": "0.5"})).status == 400


async def test_what_was_said_of_the_first_call_alone_is_not_said_again(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    """What it left of a cap and of the provider's rate, its task, and its client's own name for it."""
    upstream.source = Script.of(words(SAID), headers={"x-ratelimit-remaining-requests": "7"})
    caps = {"task": {"max_cost_usd": 1}}
    async with Live(tmp_path, policy({"a": upstream}, cache=CACHE, caps=caps)) as live:
        first = await live.chat(task="t", headers={"X-Request-Id": "one"})
        passing = {
            "x-bursar-task-id",
            "x-bursar-remaining-usd",
            "x-bursar-scope",
            "x-ratelimit-remaining-requests",
        }
        assert passing < first.headers.keys()
        second = await again(live, task="u", headers={"X-Request-Id": "two"})
        assert passing.isdisjoint(second.headers)
        assert second.headers["x-client-request-id"] == "two"
        assert "x-client-request-id" not in (await live.chat(task="u")).headers
        assert len(upstream.requests) == 1


async def test_an_answer_that_money_has_shaped_is_not_kept(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """A landing task's is short, and one that has no money left for the better model asks another: tasks that have
    money are to get what the request asks for."""
    async with Live(tmp_path, {**landing(upstream, note=True), "cache": CACHE}) as live:
        await spend(live, upstream, 600)
        upstream.source = Script.of(words(SAID))
        for _ in range(3):
            answer = await live.chat(task="t")
            assert (answer.status, "x-bursar-cache" in answer.headers) == (200, False)
            assert "x-bursar-landing" in answer.headers
        assert "x-bursar-landing" not in (await live.chat(task="other")).headers


async def test_nor_one_of_a_model_that_was_asked_for_want_of_money(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words(SAID))
    dear = {"budgets": {"max_cost_usd": 0.000001}}
    async with Live(tmp_path, policy({"a": upstream, "b": upstream}, models={"a": dear}, cache=CACHE)) as live:
        for _ in range(3):
            answer = await live.chat(model="auto", task="t")
            assert (answer.headers["x-bursar-model"], "x-bursar-cache" in answer.headers) == ("b", False)


async def test_counts_are_not_kept(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """They cost nothing, and an estimate is for want of something better."""
    async with Live(tmp_path, policy({"a": upstream}, cache=CACHE)) as live:
        for _ in range(3):
            answer = await live.chat(path="/v1/messages/count_tokens")
            assert (answer.status, "x-bursar-cache" in answer.headers) == (200, False)
    assert not list(tmp_path.rglob("cache.sqlite"))


@pytest.mark.parametrize("more", [{}, {"headers": {"Idempotency-Key": "k"}}], ids=["cache", "idempotency"])
async def test_clients_of_streams_that_are_kept_hear_that_it_lives(
    tmp_path: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    monkeypatch.setattr(call, "KEEPALIVE_S", 0.15)
    gate = Gate()
    upstream.source = Script.of(words(SAID), opening=[Wait(gate)])
    asked = asked_in("openai_chat")
    async with Live(tmp_path, policy({"a": upstream}, cache=CACHE)) as live:
        _, said, reading = await begun(live, **asked, **more)
        await until(lambda: said.count(COMMENT) >= 2)
        gate.open()
        await reading
        await live.idle()
        mark = "x-bursar-replayed" if more else "x-bursar-cache"
        for _ in range(200):
            response, second, reading = await begun(live, **asked, **more)
            await reading
            if mark in response.headers:
                break
        assert mark in response.headers
        assert second.replace(COMMENT, b"") == said.replace(COMMENT, b"")
        assert b"One" in second
        assert len(upstream.requests) == 1
