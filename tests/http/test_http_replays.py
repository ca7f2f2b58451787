"""The same request again with the same Idempotency-Key: one call, one charge, the same reply."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.gateway.live import PRICE, Live, policy
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Gate, Script, words

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


async def test_a_key_belongs_to_one_request(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words("One."))
    async with Live(tmp_path, policy({"a": upstream})) as live:
        await live.chat(headers=SAME)
        wrong = await live.chat(headers=SAME, temperature=1)
        assert (wrong.status, wrong.error["param"] if wrong.error else None) == (400, "Idempotency-Key")
        assert (await live.chat(headers={"Idempotency-Key": ""})).status == 400
        assert len(upstream.requests) == 1
