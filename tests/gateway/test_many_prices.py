"""Many calls of one task at once, at models whose prices lie a hundredfold apart, by clients of all dialects: the cap
holds, and is used, however short their patience is beside the calls before them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.stores import budgets_redis
from app.stores.budgets_redis import RedisBudgets
from tests.gateway.live import Answer, Client, Killable, Live, policy, read, until, usd
from tests.upstream import PATIENCE_S, ScriptedUpstream
from tests.upstream_script import Gate, ListPrice, Script, words

CALLS, WORDS, INPUT_TOKENS = 200, 40, 20
PRICES = {"cheap": ListPrice("0.001", "0.002"), "dear": ListPrice("0.1", "0.2")}
DEAR_INPUT_NANO, DEAR_OUTPUT_NANO = 100_000, 200_000
BOUND_TOKENS = 5
"""As in test_concurrency, of each call's own price."""
AT_MOST = 400
"""The longest answer that clients allow: ten times what comes."""
ONE_NANO = INPUT_TOKENS * DEAR_INPUT_NANO + WORDS * DEAR_OUTPUT_NANO
CAP_NANO = CALLS // 2 * (ONE_NANO + ONE_NANO // 100) * 2 // 5
TEXT = words(" ".join("w" * 5 for _ in range(WORDS)))
SAID = "Tell me a story."


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets_redis, "RedisBudgets", partial(RedisBudgets, timeout_s=PATIENCE_S))


def rules_of(cheap: ScriptedUpstream, dear: ScriptedUpstream, **fields: Any) -> dict[str, Any]:
    models = {
        name: {"pricing": {"input_per_1k": float(price.input_per_1k), "output_per_1k": float(price.output_per_1k)}}
        for name, price in PRICES.items()
    }
    caps = {"task": {"max_cost_usd": usd(CAP_NANO)}}
    return policy({"cheap": cheap, "dear": dear}, caps=caps, models=models, **fields)


def asked(n: int) -> tuple[str, dict[str, Any]]:
    """Path and body of the nth call: every other one at the dear model, half of them streams, dialects in turn."""
    model, stream, dialect = "cheap" if n % 2 else "dear", n // 2 % 2 == 0, n // 4 % 4
    turns, gemini = [{"role": "user", "content": SAID}], {"contents": [{"parts": [{"text": SAID}]}]}
    if dialect == 0:
        body = {"messages": turns, "max_tokens": AT_MOST}
        return "/v1/chat/completions", {"model": model, "stream": stream, **body}
    if dialect == 1:
        return "/v1/messages", {"model": model, "stream": stream, "messages": turns, "max_tokens": AT_MOST}
    if dialect == 2:
        body = {"input": SAID, "store": False, "max_output_tokens": AT_MOST}
        return "/v1/responses", {"model": model, "stream": stream, **body}
    verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
    return f"/v1beta/models/{model}:{verb}", {**gemini, "generationConfig": {"maxOutputTokens": AT_MOST}}


async def ask_all(clients: Sequence[Client]) -> list[Answer]:
    async def ask(n: int) -> Answer:
        client, (path, body) = clients[n // 2 % len(clients)], asked(n)
        posting = client.session.post(client.url + path, json=body, headers={"x-bursar-task-id": "t1"})
        async with posting as response:
            return await read(response)

    return await asyncio.gather(*(ask(n) for n in range(CALLS)))


@pytest.mark.parametrize("gateways", [1, 2])
async def test_a_cap_is_used_by_calls_longer_than_others_wait(
    tmp_path: Path, ledger_url: str | None, gateways: int
) -> None:
    script = Script.of(TEXT, delay_s=0.03, input_tokens=INPUT_TOKENS)
    async with AsyncExitStack() as stack:
        cheap, dear = (stack.enter_context(ScriptedUpstream(script)) for _ in PRICES)
        rules = rules_of(cheap, dear, ledger={"contention_wait_secs": 0.2})
        live = await stack.enter_async_context(Live(tmp_path, rules, ledger_url))
        clients = [live.client]
        if gateways == 2:
            other = Killable(tmp_path, rules, redis_url=ledger_url, namespace=live.namespace, lease_s=10)
            await stack.enter_async_context(other)
            clients.append(Client(other.url, live.client.session))
        answers = await ask_all(clients)
        assert {answer.status for answer in answers} <= {200, 400, 402, 429}  # 400: a cap, to clients of Anthropic's
        assert all(answer.status != 200 or not answer.broken for answer in answers)
        await live.idle()
        balance, bill = await live.balance("task:t1"), cheap.bill(PRICES["cheap"]) + dear.bill(PRICES["dear"])
        bound_nano = BOUND_TOKENS * DEAR_OUTPUT_NANO * (len(dear.requests) + len(cheap.requests) // 100)
        assert balance.held_nano == 0
        assert 0.9 * CAP_NANO <= balance.spent_nano <= CAP_NANO + bound_nano
        assert bill <= balance.spent_nano + bound_nano


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_a_whole_reply_keeps_from_others_no_more_than_it_uses(
    tmp_path: Path, ledger_url: str | None, path: str
) -> None:
    """It may cost nearly all that the task has, and costs a twentieth. It comes first; nobody after it waits."""
    gate = Gate()
    script = Script.of(TEXT, gate=gate, input_tokens=INPUT_TOKENS)
    with ScriptedUpstream(script) as cheap, ScriptedUpstream(script) as dear:
        rules = rules_of(cheap, dear, ledger={"contention_wait_secs": 0})
        async with Live(tmp_path, rules, ledger_url) as live:
            most = CAP_NANO * 9 // 10 // DEAR_OUTPUT_NANO
            asking = [asyncio.ensure_future(live.chat(path=path, model="dear", task="t1", max_tokens=most))]
            await until(lambda: len(dear.requests) == 1)
            asking += [asyncio.ensure_future(live.chat(model="dear", task="t1", stream=True)) for _ in range(20)]
            await until(lambda: len(dear.requests) + sum(one.done() for one in asking) == len(asking))
            gate.open()
            answers = await asyncio.gather(*asking)
            assert [(answer.status, answer.error) for answer in answers] == [(200, None)] * len(asking)
            assert (await live.balance("task:t1")).spent_nano == dear.bill(PRICES["dear"])


async def test_a_reply_that_is_a_small_part_of_what_is_left_comes_whole(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None
) -> None:
    upstream.source = Script.of(words("One two three."))
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_cost_usd": 0.01}}), ledger_url) as live:
        for most in (50, 4000):
            assert (await live.chat(task="t1", max_tokens=most)).status == 200
    assert [request.stream for request in upstream.requests] == [False, True]
