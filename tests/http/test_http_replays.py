"""The same request again with the same Idempotency-Key: one call, one charge, the same reply."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from app.core.types import Outcome
from app.http.replays import RecordingDownstream, Replays
from app.stores.replays_sqlite import SqliteReplays
from tests.gateway.live import PRICE, PROMPT, Live, policy, until
from tests.redis_server import shared_server
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Gate, Script, words

BOTH = pytest.mark.parametrize("shared", [False, True], ids=["sqlite", "redis"])
SAME = {"Idempotency-Key": "8e03978e"}


@pytest.mark.parametrize("stream", [True, False])
async def test_the_first_reply_is_given_again(tmp_path: Path, upstream: ScriptedUpstream, stream: bool) -> None:
    upstream.source = Script.of(words("One two three."))
    async with Live(tmp_path, policy({"a": upstream})) as live:
        first = await live.chat(headers=SAME, task="t", stream=stream)
        again = await live.chat(headers=SAME, task="t", stream=stream)
        assert (again.status, again.body) == (first.status, first.body)
        assert again.headers["x-bursar-replayed"] == "true"
        assert again.request_id == first.request_id
        assert len(upstream.requests) == 1
        assert (await live.balance("task:t")).spent_nano == upstream.bill(PRICE)
        other = await live.chat(headers={"Idempotency-Key": "another"}, task="t", stream=stream)
        assert "x-bursar-replayed" not in other.headers
        assert len(upstream.requests) == 2


BY_USER: list[Any] = [
    ("/v1/chat/completions", {"model": "a", "messages": PROMPT}, lambda user: {"user": user}),
    ("/v1/responses", {"model": "a", "input": "hi"}, lambda user: {"safety_identifier": user}),
    ("/v1/messages", {"model": "a", "messages": PROMPT, "max_tokens": 9}, lambda u: {"metadata": {"user_id": u}}),
    ("/v1beta/models/a:generateContent", {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}, None),
]


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize(("path", "body", "field"), BY_USER)
async def test_another_end_user_is_another_request(
    tmp_path: Path, upstream: ScriptedUpstream, path: str, body: dict[str, Any], field: Any, counted: bool
) -> None:
    """Nobody is given what was said to somebody else, whether the policy tells users apart or not."""
    upstream.source = Script.of(words("One two three."))
    async with Live(tmp_path, policy({"a": upstream}, caps={"user": {}} if counted else {})) as live:

        async def ask(headers: dict[str, str], fields: dict[str, Any]) -> Any:
            return await live.chat(path=path, **{"model": None, "messages": None, **body, **fields}, headers=headers)

        def named(user: str) -> dict[str, str]:
            return {**SAME, "X-Bursar-User": user}

        first = await ask(named("ann"), {})
        assert first.status == 200
        again = await ask(named("ann"), {})
        assert (again.body, again.headers["x-bursar-replayed"]) == (first.body, "true")
        for headers in (named("bob"), SAME):
            other = await ask(headers, {})
            assert other.status == 400
            assert b"Idempotency-Key was used for another request" in other.body
        if field is not None:
            of_field = {"Idempotency-Key": "of a field"}
            assert (await ask(of_field, field("ann"))).status == 200
            assert (await ask(of_field, field("bob"))).status == 400
            assert (await ask(of_field, field("ann"))).headers["x-bursar-replayed"] == "true"


async def test_one_that_comes_meanwhile_waits(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.source = Script.of(words("One two three."), gate=gate)
    async with Live(tmp_path, policy({"a": upstream})) as live:
        both = [asyncio.ensure_future(live.chat(headers=SAME, stream=True)) for _ in range(2)]
        await upstream.until(lambda u: u.requests)
        gate.open()
        first, again = await asyncio.gather(*both)
        assert first.body == again.body
        assert len(upstream.requests) == 1


async def test_a_key_whose_budget_is_cut_meanwhile(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """What waited for the first one is held to the policy in force when it goes on, and so is all that comes after."""
    gate, secret = Gate(), "sk-alice"

    def spec(usd: float) -> dict[str, Any]:
        key = {"name": "alice", "sha256": hashlib.sha256(secret.encode()).hexdigest()}
        return policy({"a": upstream}, keys=[{**key, "caps": {"day": {"max_cost_usd": usd}}}])

    upstream.source = [Script.of(words("One two."), gate=gate), *[Script.of(words("Three."))] * 3]
    headers = {"authorization": f"Bearer {secret}"}
    async with Live(tmp_path, spec(100)) as live:

        async def first() -> None:
            async with live.client.open(headers={**headers, **SAME}, stream=True) as response:
                await response.read()

        leaves = asyncio.ensure_future(first())
        await upstream.until(lambda u: u.requests)
        waits = asyncio.ensure_future(live.chat(headers={**headers, **SAME}, stream=True))
        assert live.gateway.front is not None
        replies = live.gateway.front._hot["/v1/chat/completions"].replays._replies
        await until(lambda: any(reply.ended._waiters for reply in replies.values()))
        before = live.services.view
        next(tmp_path.glob("policy-*.yaml")).write_text(json.dumps(spec(1e-6)))
        await until(lambda: live.services.view is not before)
        leaves.cancel()
        assert (await waits).status == 402
        assert (await live.chat(headers=headers)).status == 402
        gate.open()


async def test_a_failure_is_tried_again(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = [Script.failure(400, "no"), Script.of(words("Yes."))]
    async with Live(tmp_path, policy({"a": upstream})) as live:
        assert (await live.chat(headers=SAME)).status == 400
        again = await live.chat(headers=SAME)
        assert again.status == 200
        assert "x-bursar-replayed" not in again.headers


async def test_a_cut_stays_a_cut(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words(" ".join(["word"] * 400)), obeys_limit=False, delay_s=0.001)
    async with Live(tmp_path, policy({"a": upstream})) as live:
        first = await live.chat(headers=SAME, stream=True, max_cost_usd=0.0001)
        again = await live.chat(headers=SAME, stream=True, max_cost_usd=0.0001)
        assert first.error_code == again.error_code == "budget_exceeded"
        assert len(upstream.requests) == 1


CUT_IN: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "a", "messages": PROMPT, "stream": True},
    "/v1/responses": {"model": "a", "input": "hi", "stream": True},
    "/v1/messages": {"model": "a", "messages": PROMPT, "max_tokens": 900, "stream": True},
    "/v1beta/models/a:streamGenerateContent?alt=sse": {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
    "/v1beta/models/a:streamGenerateContent": {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
}


@pytest.mark.parametrize("path", CUT_IN)
async def test_a_cut_is_given_again_to_the_byte_and_charged_once(
    tmp_path: Path, upstream: ScriptedUpstream, path: str
) -> None:
    upstream.source = Script.of(words(" ".join(["word"] * 400)), obeys_limit=False, delay_s=0.001)
    headers = {**SAME, "x-bursar-task-id": "t", "x-bursar-max-cost-usd": "0.0001"}
    async with Live(tmp_path, policy({"a": upstream})) as live:
        bodies, spent = [], []
        for _ in range(3):
            async with live.client.session.post(live.url + path, json=CUT_IN[path], headers=headers) as reply:
                bodies.append(await reply.read())
            spent.append((await live.task("t"))["spent_usd"])
        assert b"out of budget" in bodies[0]
        assert (len(set(bodies)), len(set(spent)), len(upstream.requests)) == (1, 1, 1)
        assert (await live.task("t"))["calls"] == 1


async def test_a_key_belongs_to_one_request(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words("One."))
    async with Live(tmp_path, policy({"a": upstream})) as live:
        await live.chat(headers=SAME)
        wrong = await live.chat(headers=SAME, temperature=1)
        assert (wrong.status, wrong.error["param"] if wrong.error else None) == (400, "Idempotency-Key")
        assert (await live.chat(headers={"Idempotency-Key": ""})).status == 400
        assert len(upstream.requests) == 1


@BOTH
@pytest.mark.parametrize("stream", [True, False])
async def test_it_holds_across_gateways_that_share_a_ledger(
    tmp_path: Path, upstream: ScriptedUpstream, shared: bool, stream: bool
) -> None:
    """One request at two gateways at once, and again at a third: one call, one charge."""
    gate = Gate()
    upstream.source = Script.of(words("One two three."), gate=gate)
    rules, namespace = policy({"a": upstream}), f"t{secrets.token_hex(6)}"
    ledger_url = shared_server().url if shared else None
    async with contextlib.AsyncExitStack() as stack:
        one, two, three = [
            await stack.enter_async_context(Live(tmp_path, rules, ledger_url, namespace=namespace)) for _ in range(3)
        ]
        asked = [asyncio.ensure_future(live.chat(headers=SAME, task="t", stream=stream)) for live in (one, two)]
        await upstream.until(lambda u: u.requests)
        gate.open()
        answers = [*await asyncio.gather(*asked), await three.chat(headers=SAME, task="t", stream=stream)]
        assert len({answer.body for answer in answers}) == 1
        assert len({answer.request_id for answer in answers}) == 1
        assert ["x-bursar-replayed" in answer.headers for answer in answers].count(True) == 2
        assert len(upstream.requests) == 1
        assert (await three.balance("task:t")).spent_nano == upstream.bill(PRICE)
        wrong = await three.chat(headers=SAME, task="t", stream=stream, temperature=0.5)
        assert wrong.status == 400


@BOTH
async def test_a_failure_elsewhere_is_tried_again_here(
    tmp_path: Path, upstream: ScriptedUpstream, shared: bool
) -> None:
    answers = iter([Script.failure(400, "no"), Script.of(words("Yes."))])
    upstream.source = lambda _: next(answers)
    rules, namespace = policy({"a": upstream}), f"t{secrets.token_hex(6)}"
    ledger_url = shared_server().url if shared else None
    async with (
        Live(tmp_path, rules, ledger_url, namespace=namespace) as one,
        Live(tmp_path, rules, ledger_url, namespace=namespace) as two,
    ):
        assert (await one.chat(headers=SAME)).status == 400
        assert (await two.chat(headers=SAME)).status == 200


@pytest.mark.parametrize("whole", [True, False])
async def test_half_a_reply_is_not_given_again(whole: bool) -> None:
    """Its client left while the cut was settled, so nobody was told of it, and its end was never sent."""
    replays, sent = Replays(), []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    reply, is_new = await replays.take("-", "k", "/v1/messages", b"{}")
    downstream = RecordingDownstream(send, reply)
    await downstream.start(200, [])
    await downstream.write(b"Once upon")
    if whole:
        await downstream.finish(b" a time")
    reply.end(Outcome.COST_KILLED)
    again, again_is_new = await replays.take("-", "k", "/v1/messages", b"{}")
    assert (is_new, again_is_new, again is reply) == (True, not whole, whole)
    assert len(sent) == 2 + whole


async def test_what_others_answered_takes_no_more_memory_than_what_is_answered_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.http.replays.MAX_ALL_BYTES", 2_000)
    here, elsewhere = (SqliteReplays(tmp_path / "replays.sqlite") for _ in range(2))
    replays, others = Replays(here), Replays(elsewhere)
    for key in "abc":
        reply, _ = await others.take("k", key, "/", b"")
        reply.whole = True
        reply.add(b"x" * 1_000)
        reply.end(Outcome.COMPLETED)
    first, *_, last = [(await replays.take("k", key, "/", b""))[0] for key in "abc"]
    assert (await replays.take("k", "c", "/", b""))[0] is last
    again, is_new = await replays.take("k", "a", "/", b"")
    assert (again is first, is_new, b"".join(again.parts)) == (False, False, b"x" * 1_000), "it is read anew"
    for store in (here, elsewhere):
        await store.close()
