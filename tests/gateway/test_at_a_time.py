"""How many requests run at a time: for a task, a key, a team and everybody, over all gateways, and none is left."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.core.budget import Balance
from tests.gateway.live import Answer, Client, Killable, Live, policy, until
from tests.stores.ledger_tools import watch
from tests.upstream import ScriptedUpstream
from tests.upstream_script import HANG, RESET, Gate, Script, words

TEXT = words("one two three")
AT_ONCE = {"ledger": {"contention_wait_secs": 0}}
"""Nobody waits for a place."""


def key(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(f"sk-{name}".encode()).hexdigest(), **fields}


@contextmanager
def held(upstream: ScriptedUpstream, script: Script | None = None) -> Iterator[Gate]:
    """Its replies wait for the gate, which opens at the end."""
    gate = Gate()
    upstream.source = script or Script.of(TEXT, gate=gate)
    try:
        yield gate
    finally:
        gate.open()


def assert_too_many(answer: Answer, scope: str, limit: int) -> None:
    """Come again in a moment."""
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    assert "x-should-retry" not in answer.headers
    told = {name: answer.headers[f"x-bursar-{name}"] for name in ("scope", "reason", "limit", "used")}
    assert told == {"scope": scope, "reason": "parallel", "limit": str(limit), "used": str(limit)}
    assert answer.error is not None
    assert (answer.error["type"], answer.error["code"]) == ("rate_limit_exceeded", "too_many_parallel_requests")
    assert "x-bursar-remaining-usd" not in answer.headers


@pytest.mark.parametrize("stream", [True, False])
async def test_a_task_has_so_many_calls_at_a_time(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None, stream: bool
) -> None:
    rules = policy({"a": upstream}, caps={"task": {"max_parallel_requests": 2}}, **AT_ONCE)
    with held(upstream) as gate:
        async with Live(tmp_path, rules, ledger_url) as live:
            asking = [asyncio.ensure_future(live.chat(task="t", stream=stream)) for _ in range(2)]
            await upstream.until(lambda u: len(u.requests) == 2)
            no = await live.chat(task="t", stream=stream)
            assert_too_many(no, "task", 2)
            task = await live.task("t")
            assert (task["running"], task["limits"]["max_parallel_requests"]) == (2, {"binding": 2, "policy": 2})
            record = await live.client.decision(no.request_id)
            assert (record["outcome"], record["denied_scope"]) == ("denied", "task")
            (denial,) = record["denials"]
            told = {name: denial[name] for name in ("reason", "scope", "limit", "used")}
            assert told == {"reason": "parallel", "scope": "task", "limit": "2", "used": "2"}
            async with live.client.session.get(f"{live.url}/metrics") as metrics:
                assert 'bursar_denials_total{reason="parallel",scope="task"}' in await metrics.text()
            other = asyncio.ensure_future(live.chat(task="other"))
            await upstream.until(lambda u: len(u.requests) == 3)
            gate.open()
            assert [answer.status for answer in await asyncio.gather(*asking, other)] == [200] * 3
            assert (await live.chat(task="t", stream=stream)).status == 200
            await live.idle()
            assert (await live.task("t"))["running"] == 0


async def test_a_family_counts_for_its_root(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    rules = policy({"a": upstream}, caps={"task": {"max_parallel_requests": 2}}, **AT_ONCE)
    with held(upstream):
        async with Live(tmp_path, rules) as live:
            below = {"x-bursar-parent-task-id": "root"}
            asking = [asyncio.ensure_future(live.chat(task=f"t{n}", headers=below)) for n in range(2)]
            await upstream.until(lambda u: len(u.requests) == 2)
            assert_too_many(await live.chat(task="t2", headers=below), "task", 2)
            assert_too_many(await live.chat(task="root"), "task", 2)
            assert (await live.task("root"))["running"] == 2
            upstream.source.gate.open()  # type: ignore[union-attr]
            await asyncio.gather(*asking)


async def test_keys_teams_and_everybody(tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None) -> None:
    rules = policy(
        {"a": upstream},
        caps={"key": {"max_parallel_requests": 1}, "global": {"max_parallel_requests": 3}},
        teams={"lab": {"caps": {"max_parallel_requests": 2}}},
        keys=[key("ann", team="lab"), key("bob", team="lab"), key("cat", team="lab"), key("dan"), key("eve"),
              key("ops", admin=True, caps={})],
        **AT_ONCE,
    )  # fmt: skip

    def of(name: str) -> dict[str, str]:
        return {"authorization": f"Bearer sk-{name}"}

    with held(upstream) as gate:
        async with Live(tmp_path, rules, ledger_url) as live:
            asking = [asyncio.ensure_future(live.chat(headers=of(name))) for name in ("ann", "bob", "dan")]
            await upstream.until(lambda u: len(u.requests) == 3)
            assert_too_many(await live.chat(headers=of("ann")), "key", 1)
            assert_too_many(await live.chat(headers=of("cat")), "team", 2)
            assert_too_many(await live.chat(headers=of("eve")), "global", 3)
            rows = (await live.client.get("/v1/budgets?key=ann", **of("ops")))["data"]
            shown = {row["scope"]: (row.get("max_parallel_requests"), row["running"]) for row in rows}
            assert shown["key_total"] == (1, 1)
            assert shown["team_total"] == (2, 2)
            assert shown["global_total"] == (3, 3)
            gate.open()
            await asyncio.gather(*asking)
            assert (await live.chat(headers=of("eve"))).status == 200


@pytest.mark.parametrize("stream", [True, False])
async def test_a_further_one_waits_for_its_turn(tmp_path: Path, upstream: ScriptedUpstream, stream: bool) -> None:
    rules = policy({"a": upstream}, caps={"global": {"max_parallel_requests": 1}})
    with held(upstream) as gate:
        async with Live(tmp_path, rules) as live:
            first = asyncio.ensure_future(live.chat(stream=True))
            await upstream.until(lambda u: len(u.requests) == 1)
            second = asyncio.ensure_future(live.chat(stream=stream, max_tokens=50))

            async def counted() -> bool:
                return len(live.services.calls) == 2

            await until(counted)
            gate.open()
            assert [(await first).status, (await second).status] == [200, 200]
            sent = upstream.requests[1]
            assert sent.body.get("stream", False) is stream, "a plain call that waited for its turn is as plain"


async def test_a_crowd_runs_by_turns(tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None) -> None:
    """A runaway agent with 60 sub-agents."""
    caps, seen = {"task": {"max_parallel_requests": 5}}, list[Balance]()
    upstream.source = Script.of(TEXT, delay_s=0.001)
    rules = policy({"a": upstream}, caps=caps, ledger={"contention_wait_secs": 60})
    async with Live(tmp_path, rules, ledger_url) as live:
        watcher = asyncio.ensure_future(watch(live.services.ledger.budgets, "task:-:t", seen))
        answers = await asyncio.gather(*(live.chat(task="t", stream=n % 2 == 0) for n in range(60)))
        watcher.cancel()
        assert {answer.status for answer in answers} == {200}
        await live.idle()
        after = await live.balance("task:t")
        assert (after.running, after.calls, after.held_nano) == (0, 60, 0)
        assert max(balance.running for balance in seen) == 5


async def test_whoever_leaves_or_fails_gives_back_its_place(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None
) -> None:
    caps = {"task": {"max_parallel_requests": 1, "max_cost_usd": 0.01}}
    with ScriptedUpstream(Script.of([*TEXT[:1], RESET])) as bad:
        rules = policy({"a": bad, "b": upstream}, caps=caps, **AT_ONCE)
        async with Live(tmp_path, rules, ledger_url) as live:
            bad.source = Script(status=503)
            answer = await live.chat(task="t", model="auto")
            assert (answer.status, answer.headers["x-bursar-model"]) == (200, "b"), "a fallback takes its own place"
            upstream.source = Script.of([*TEXT, HANG])
            async with live.client.open(task="t", model="b", stream=True) as response:
                await response.content.readany()
                response.close()
            await live.idle()
            upstream.source = Script.of(words(" ".join(["w"] * 20_000)), obeys_limit=False)
            cut = await live.chat(task="t", model="b", stream=True)
            assert cut.error_code == "budget_exceeded"
            assert (await live.chat(task="t", model="b")).status == 402
            await live.idle()
            assert {b.running for b in (await live.balances()).values()} == {0}


async def test_a_killed_gateway_gives_back_its_places(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.main.HEARTBEAT_S", 0.2)
    rules = policy({"a": upstream}, caps={"task": {"max_parallel_requests": 1}}, **AT_ONCE)
    live = Live(tmp_path, rules, ledger_url)
    with held(upstream) as gate:
        doomed = Killable(tmp_path, rules, redis_url=ledger_url, namespace=live.namespace, lease_s=0.6)
        async with doomed, aiohttp.ClientSession() as session:
            client = Client(doomed.url, session)
            asking = asyncio.ensure_future(client.chat(task="t", stream=True))
            await upstream.until(lambda u: len(u.requests) == 1)
            assert_too_many(await client.chat(task="t"), "task", 1)
            doomed.kill()
            await asyncio.wait({asking})
            asking.exception()
        gate.open()
        async with live:

            async def free() -> bool:
                return (await live.balance("task:t")).running == 0

            await until(free)
            assert (await live.chat(task="t")).status == 200


async def test_a_client_sets_its_own_and_can_only_lower(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    rules = policy({"a": upstream}, caps={"task": {"max_parallel_requests": 2}}, **AT_ONCE)
    name = "x-bursar-task-max-parallel-requests"
    with held(upstream):
        async with Live(tmp_path, rules) as live:
            for wrong in ("0", "-1", "many", "1.5", "9999999"):
                answer = await live.chat(task="t", headers={name: wrong})
                assert (answer.status, answer.error and answer.error["param"]) == (400, name.title())
            asking = asyncio.ensure_future(live.chat(task="t", headers={name: "1"}))
            await upstream.until(lambda u: len(u.requests) == 1)
            assert_too_many(await live.chat(task="t"), "task", 1)
            assert_too_many(await live.chat(task="t", headers={name: "1"}), "task", 1)
            asking_too = asyncio.ensure_future(live.chat(task="t", headers={name: "9"}))
            await upstream.until(lambda u: len(u.requests) == 2)
            assert_too_many(await live.chat(task="t"), "task", 2)
            upstream.source.gate.open()  # type: ignore[union-attr]
            await asyncio.gather(asking, asking_too)
