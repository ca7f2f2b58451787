"""Many calls under one cap at once: the cap holds, and is used.

The bound on overshoot, stated: for each call under way when the cap is reached, one event and what its provider
generates before it hears of the cut (a round trip to the ledger and one to the provider).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.stores import budgets_redis
from app.stores.budgets_redis import RedisBudgets
from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, PRICE, Answer, Client, Killable, Live, policy, usd
from tests.upstream import PATIENCE_S, ScriptedUpstream
from tests.upstream_script import Script, words

CALLS = 200
WORDS = 40
INPUT_TOKENS = 20
DELAY_S = 0.02
DEMAND_NANO = CALLS * (INPUT_TOKENS * INPUT_NANO + WORDS * OUTPUT_NANO)
CAP_NANO = DEMAND_NANO * 2 // 5
BOUND_TOKENS = 5
"""Per call under way: one event, and four more while a gateway's other process is slow to cut."""
CAPS = {"task": {"max_cost_usd": usd(CAP_NANO)}}
TEXT = words(" ".join("w" * 5 for _ in range(WORDS)))
PACED = Script.of(TEXT, delay_s=DELAY_S, input_tokens=INPUT_TOKENS)
SLOWLY = Script.of(TEXT, delay_s=4 * DELAY_S, input_tokens=INPUT_TOKENS)
"""For a gateway in another process, which the provider does not wait for: what comes while it is busy is little."""


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may leave 200 calls without an answer of Redis for more than a second: no outage."""
    monkeypatch.setattr(budgets_redis, "RedisBudgets", partial(RedisBudgets, timeout_s=PATIENCE_S))


async def ask_all(clients: Sequence[Client], stream: bool | None, **asked: Any) -> list[Answer]:
    """All calls at once, over all gateways; half of them streams where `stream` is None."""

    async def ask(n: int) -> Answer:
        streams = n % 4 < 2 if stream is None else stream
        return await clients[n % len(clients)].chat(task="t1", stream=streams, **asked)

    return await asyncio.gather(*(ask(n) for n in range(CALLS)))


async def check(live: Live, upstream: ScriptedUpstream, answers: list[Answer]) -> None:
    """The cap held and was used, the books agree with the provider's, and nobody was told a lie."""
    for answer in answers:
        served = answer.status == 200 and answer.error is None
        assert served or (answer.status, answer.error_code) in {
            (200, "budget_exceeded"), (402, "budget_exceeded"), (429, "budget_contended"),
        }  # fmt: skip
    await live.idle()
    balance = await live.balance("task:t1")
    bill = upstream.bill(PRICE)
    assert balance.held_nano == 0
    assert balance.calls == len(upstream.requests)
    assert 0.9 * CAP_NANO <= balance.spent_nano <= CAP_NANO + len(upstream.requests) * BOUND_TOKENS * OUTPUT_NANO
    # A word may be on its way when its stream is cut.
    assert bill <= balance.spent_nano + len(upstream.requests) * BOUND_TOKENS * OUTPUT_NANO
    task = await live.task("t1")
    assert task["spent_usd"] == usd(balance.spent_nano)
    assert task["reserved_usd"] == 0
    assert (await live.chat(task="t1", messages=[{"role": "user", "content": "again " * 5000}])).status == 402


@pytest.mark.parametrize(
    ("stream", "asked"),
    [(True, {}), (False, {}), (None, {"max_tokens": WORDS})],
    ids=["streams", "whole", "mixed, limited"],
)
async def test_a_cap_holds_and_is_used_by_many_calls_at_once(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None, stream: bool | None, asked: dict[str, int]
) -> None:
    upstream.source = PACED
    async with Live(tmp_path, policy({"a": upstream}, caps=CAPS), ledger_url) as live:
        await check(live, upstream, await ask_all([live.client], stream, **asked))


async def test_two_gateway_processes_share_one_purse(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None
) -> None:
    upstream.source = SLOWLY
    rules = policy({"a": upstream}, caps=CAPS)
    async with (
        Live(tmp_path, rules, ledger_url) as live,
        Killable(tmp_path, rules, redis_url=ledger_url, namespace=live.namespace, lease_s=10) as other,
    ):
        clients = [live.client, Client(other.url, live.client.session)]
        first = [asyncio.ensure_future(client.chat(task="t1", stream=True)) for client in clients]
        await upstream.until(lambda u: len(u.requests) == len(clients))  # else one may have it all
        answers = [*await ask_all(clients, None), *await asyncio.gather(*first)]
        await check(live, upstream, answers)


async def test_a_cap_that_suffices_cuts_nobody(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None
) -> None:
    """Reservations are not spending: calls that fit together are all served, whatever each holds."""
    upstream.source = PACED
    caps = {"task": {"max_cost_usd": usd(DEMAND_NANO * 3 // 2)}}
    async with Live(tmp_path, policy({"a": upstream}, caps=caps), ledger_url) as live:
        answers = await ask_all([live.client], None)
        assert [a.status for a in answers] == [200] * CALLS
        assert [a.error for a in answers if a.error is not None] == []
        assert (await live.balance("task:t1")).spent_nano == upstream.bill(PRICE)
