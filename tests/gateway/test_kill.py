"""A gateway killed in mid-call: another one ends its reservations, and forgets no spending."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, PRICE, Client, Killable, Live, policy, until
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Gate, Script, text, words

LEASE_S = 0.6
CAPS = {"task": {"max_cost_usd": 0.1}}
UNRECORDED_TOKENS = 512
"""What a stream may spend between two writes (plan.STEP_TOKENS): the stated risk of a killed process."""


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.main.HEARTBEAT_S", 0.2)


async def kill_in_mid_call(
    folder: Path, upstream: ScriptedUpstream, ledger_url: str | None, deltas: int, **asked: Any
) -> Live:
    """A gateway dies while it serves a call; the survivor, once it has ended what the dead one held."""
    rules = policy({"a": upstream}, caps=CAPS)
    live = Live(folder, rules, ledger_url)
    doomed = Killable(folder, rules, redis_url=ledger_url, namespace=live.namespace, lease_s=LEASE_S)
    async with doomed, aiohttp.ClientSession() as session:
        asking = asyncio.ensure_future(Client(doomed.url, session).chat(task="t1", **asked))
        await until(lambda: upstream.requests and upstream.requests[0].tokens.output == deltas)
        await asyncio.sleep(0.3)  # the running cost is written every quarter of a second
        doomed.kill()
        with contextlib.suppress(aiohttp.ClientError):
            await asking
    await upstream.until(lambda u: u.requests[0].client_gone)
    return live


async def after_the_lease(live: Live) -> int:
    """What was charged for the dead gateway's call."""

    async def ended() -> bool:
        return await live.held() == {}

    await until(ended)
    return (await live.balance("task:t1")).spent_nano


@pytest.mark.parametrize("deltas", [1, 300])
async def test_a_stream(tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None, deltas: int) -> None:
    gate = Gate()
    gate.release(deltas)
    upstream.source = Script.of(words(" ".join(["w" * 6] * 1000)), gate=gate, input_tokens=10)
    async with await kill_in_mid_call(tmp_path, upstream, ledger_url, deltas, stream=True) as live:
        spent = await after_the_lease(live)
        bill = upstream.bill(PRICE)
        assert bill <= spent <= bill + 100 * INPUT_NANO + UNRECORDED_TOKENS * OUTPUT_NANO

        async def counted() -> bool:
            return await live.client.metric("bursar_reservations_expired_total") == 1

        await until(counted)
        upstream.source = Script.of(words("Alive."))
        assert (await live.chat(task="t1", stream=True)).text == "Alive."


async def test_before_the_first_write(tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None) -> None:
    """Killed before anything was written: what the call had set aside is charged."""
    gate = Gate()
    upstream.source = Script.of([text(" w" * 40, tokens=40)] * 10, gate=gate, input_tokens=10)
    gate.release()
    rules = policy({"a": upstream}, caps=CAPS)
    live = Live(tmp_path, rules, ledger_url)
    doomed = Killable(tmp_path, rules, redis_url=ledger_url, namespace=live.namespace, lease_s=LEASE_S)
    async with (
        doomed,
        aiohttp.ClientSession() as session,
        Client(doomed.url, session).open(task="t1", stream=True) as response,
    ):
        await response.content.readany()
        doomed.kill()
    async with live:
        spent = await after_the_lease(live)
        assert upstream.bill(PRICE) <= spent <= 100 * INPUT_NANO + UNRECORDED_TOKENS * OUTPUT_NANO


async def test_a_plain_call(tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None) -> None:
    """Nobody saw what it generated: it is charged all that it had set aside."""
    gate = Gate()
    gate.release(50)
    upstream.source = Script.of(words(" ".join(["w" * 6] * 100)), gate=gate, input_tokens=10)
    async with await kill_in_mid_call(tmp_path, upstream, ledger_url, 50, max_tokens=100) as live:
        spent = await after_the_lease(live)
        assert upstream.bill(PRICE) <= spent
        assert 100 * OUTPUT_NANO <= spent <= 100 * OUTPUT_NANO + 100 * INPUT_NANO


async def test_a_restart_takes_over_at_once(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """The embedded ledger sees that the process is gone, and does not wait for its lease."""
    gate = Gate()
    gate.release(20)
    upstream.source = Script.of(words(" ".join(["w" * 6] * 100)), gate=gate, input_tokens=10)
    async with await kill_in_mid_call(tmp_path, upstream, None, 20, stream=True) as live:
        assert await live.held() == {}
        assert (await live.balance("task:t1")).spent_nano >= upstream.bill(PRICE)
