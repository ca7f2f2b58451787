"""The topology of docker-compose.yml under 500 mixed calls, while one gateway is killed and the other drained."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import re
import signal
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from app.core.budget import Balance
from app.stores.budgets_redis import RedisBudgets
from tests.gateway.live import until
from tests.http.test_http_metrics import total
from tests.stack.processes import fetch
from tests.stack.receiver import Receiver, Told
from tests.stack.streams import (
    HANGS,
    INPUT_NANO,
    OUTPUT_NANO,
    PRICE,
    Caller,
    Ended,
    cap_nano,
    number_of,
    script_for,
    task_of,
)
from tests.stack.topology import Stack, missing
from tests.tools import alertmanager
from tests.upstream import ScriptedUpstream

CALLS = 500
AT_ONCE = 60
KILL_AT, WAIT_AT, DRAIN_AT = 80, 250, 280
"""After how many calls one gateway is killed; calls wait for it to be back; the other one is drained."""
BOUND_TOKENS = 15
"""Where a stream is cut or left: one event, and what comes in the half second that a busy machine may take."""
UNSETTLED_S = 1.0
"""How long before a kill a call may have ended and still not be settled, on a busy machine."""
HURRY = 240
"""By how much less alerts wait than as they are shipped: a quarter of a second for a minute."""
UNRECORDED_TOKENS = 512
"""What a dead gateway's streams are charged at most beyond what they spent (docs/money.md)."""


needs_alertmanager = pytest.mark.skipif(alertmanager() is None, reason="no Alertmanager here")


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(script_for) as live:
        yield live


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


@pytest.fixture(scope="module")
def stack(upstream: ScriptedUpstream, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if lacking := missing():
        pytest.skip(f"not here: {', '.join(lacking)}")
    folder = tmp_path_factory.mktemp("stack")
    policy = folder / "policy.yaml"
    policy.write_text(f"""
version: 1
providers: {{p: {{base_url: "{upstream.url}"}}}}
models: {{m: {{provider: p, pricing: {{input_per_1k: 0.001, output_per_1k: 0.01}}, budgets: {{max_cost_usd: 0}}}}}}
caps: {{task: {{max_cost_usd: 1}}, global: {{total: {{max_cost_usd: 100}}}}}}
""")
    settings = {
        "BURSAR_DRAIN_NOTICE_S": "3",
        "BURSAR_DRAIN_S": "60",
        "BURSAR_TRACES_COMPACT": "0",
    }
    live = Stack(folder, policy, settings, scrape_s=1, receiver=receiver.url, hurry=HURRY)
    try:
        live.start()
        yield live
    finally:
        live.close()


@pytest.fixture(scope="module")
def ended(stack: Stack) -> list[Ended]:
    """All calls, made while the gateways come and go; those that the killed one had not settled are `broken`."""
    return asyncio.run(trouble(stack))


async def trouble(stack: Stack) -> list[Ended]:
    begun, back, killed_s = 0, asyncio.Event(), 0.0
    numbers = iter(range(CALLS))

    async def client(caller: Caller) -> list[Ended]:
        nonlocal begun
        found = []
        for number in numbers:
            begun += 1
            if number >= WAIT_AT:
                await back.wait()
            found.append(await caller.call(number))
        return found

    async def troubles() -> None:
        nonlocal killed_s
        first, second = (stack.program(f"gateway-{n}") for n in (1, 2))
        await until(lambda: begun >= KILL_AT and serves_someone(stack, "gateway-1"), 60)
        killed_s = time.monotonic()
        first.signal(signal.SIGKILL)
        first.wait()
        stack.tend()
        await asyncio.to_thread(first.wait_until_ready)
        await until(lambda: serves(stack, "gateway-1"), 60)
        back.set()
        await until(lambda: begun >= DRAIN_AT, 60)
        second.signal(signal.SIGTERM)

    await until(lambda: serves(stack, "gateway-1") and serves(stack, "gateway-2"), 60)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, asyncio.TaskGroup() as group:
        caller = Caller(stack.url, session)
        group.create_task(troubles())
        clients = [group.create_task(client(caller)) for _ in range(AT_ONCE)]
    found = [one for task in clients for one in task.result()]
    for one in found:
        # Its client had all of it, or had left, and the kill came before that was in the ledger.
        if one.gateway == "gateway-1" and killed_s - UNSETTLED_S < one.at_s < killed_s + UNSETTLED_S:
            one.how = "broken"
    return found


def watched(stack: Stack, gateway: str) -> dict[str, str]:
    """What the balancer tells of a gateway."""
    names, *rows = csv.reader(fetch(f"http://127.0.0.1:{stack.watch_port}/;csv").decode().splitlines())
    return next(dict(zip(names, row, strict=True)) for row in rows if row[:2] == ["gateways", gateway])


def serves(stack: Stack, gateway: str) -> bool:
    """Whether the balancer gives it calls."""
    return watched(stack, gateway)["status"] == "UP"


def serves_someone(stack: Stack, gateway: str) -> bool:
    """Whether calls of the balancer's are under way there, several so that some still are a moment later."""
    return int(watched(stack, gateway)["scur"]) >= 5


async def balances(stack: Stack) -> dict[str, Balance]:
    """Every scope of the ledger once nothing is held, which a dead gateway's lease delays."""
    store = RedisBudgets(stack.redis.url)  # not started: it would end a dead gateway's holds, and no gateway would tell
    try:

        async def settled() -> dict[str, Balance]:
            found = dict(await store.scopes("", 10_000))
            return {} if any(balance.held_nano for balance in found.values()) else found

        found: dict[str, Balance] = await until(settled, 60)
    finally:
        await store.close()
    return found


def ask_prometheus(stack: Stack, path: str, **query: str) -> Any:
    return json.loads(fetch(f"{stack.prometheus_url}/api/v1/{path}?{urllib.parse.urlencode(query)}"))["data"]


async def test_calls_end_as_they_should(stack: Stack, ended: list[Ended]) -> None:
    hows = Counter(one.how for one in ended)
    assert sum(hows.values()) == CALLS
    # Who was killed with a gateway is broken, and nobody else: what was drained, and what came meanwhile, is served.
    assert 1 <= hows["broken"] <= 2 * AT_ONCE
    assert {one.gateway for one in ended if one.how == "broken"} <= {"gateway-1", None}
    assert {(one.kind, one.how) for one in ended if one.how in ("cut", "left")} == {("cut", "cut"), ("leaves", "left")}
    by_gateway = Counter(one.gateway for one in ended if one.how == "whole")
    assert by_gateway["gateway-1"] > 100
    assert by_gateway["gateway-2"] > 50
    assert stack.program("gateway-2").wait() == 0
    learner = stack.program("learner")
    assert learner.code is None, learner.log.read_text()[-2000:]


async def test_spending_is_exact_and_nothing_stays_reserved(
    stack: Stack, upstream: ScriptedUpstream, ended: list[Ended]
) -> None:
    found = await balances(stack)
    assert stack.redis.command("KEYS", "{bursar}:o:*") == b"*0\r\n", "no owner has a hold"
    kept = re.findall(rb"(\{bursar\}:h:\S+)\r\n", stack.redis.command("KEYS", "{bursar}:h:*"))
    for key in map(bytes.decode, kept):  # calls of killed gateways, whose end is remembered for a day
        assert stack.redis.command("HMGET", key, "owner", "held") == b"*2\r\n$-1\r\n$-1\r\n"
        assert stack.redis.command("HGET", key, "end").endswith((b"expired\r\n", b"settled\r\n"))
        assert 0 < int(stack.redis.command("TTL", key)[1:]) <= 86_400
    bills: Counter[int] = Counter()
    for request in upstream.requests:
        bills[number_of(request)] += request.tokens.bill(PRICE)
    shared = [one for one in ended if one.kind == "shared"]
    for one in ended:
        if one.kind == "shared":
            continue
        balance, bill = found.get(f"task:-:{task_of(one.number)}"), bills[one.number]
        spent = 0 if balance is None else balance.spent_nano
        if one.how == "whole":
            assert spent == bill, one
        elif one.how in ("cut", "left"):
            assert abs(spent - bill) <= BOUND_TOKENS * OUTPUT_NANO + 100 * INPUT_NANO, (one, spent, bill)
            assert one.how == "left" or spent <= cap_nano() + BOUND_TOKENS * OUTPUT_NANO, (one, spent)
        else:
            short = BOUND_TOKENS * OUTPUT_NANO if one.kind in ("cut", "leaves") else 0
            assert bill - short <= spent <= bill + UNRECORDED_TOKENS * OUTPUT_NANO + 100 * INPUT_NANO, (
                one,
                spent,
                bill,
            )
    purse = found["task:-:shared"].spent_nano
    together = sum(bills[one.number] for one in shared)
    unsure = sum(one.how == "broken" for one in shared)
    assert together <= purse <= together + unsure * (UNRECORDED_TOKENS * OUTPUT_NANO + 100 * INPUT_NANO)
    tasks = {f"task:-:{task_of(one.number)}" for one in ended}
    assert found["global:total"].spent_nano == sum(found[task].spent_nano for task in tasks if task in found)


async def test_prometheus_saw_it_all_and_its_rules_work(stack: Stack, ended: list[Ended]) -> None:
    await balances(stack)
    groups = ask_prometheus(stack, "rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= 18

    def evaluated() -> bool:
        groups = ask_prometheus(stack, "rules")["groups"]
        return all(rule["health"] == "ok" for group in groups for rule in group["rules"])

    await until(evaluated, 60)
    states = {
        row["metric"]["instance"]: row["value"][1] for row in ask_prometheus(stack, "query", query="up")["result"]
    }
    assert states[f"127.0.0.1:{stack.gateway_ports[0]}"] == "1"
    assert states[f"127.0.0.1:{stack.gateway_ports[1]}"] == "0"
    instance = f"127.0.0.1:{stack.gateway_ports[0]}"
    own = total(fetch(f"http://{instance}/metrics").decode(), "bursar_requests_total", outcome="completed")
    assert own > 100
    query = f'sum(bursar_requests_total{{outcome="completed",instance="{instance}"}})'

    def scraped() -> bool:
        found = ask_prometheus(stack, "query", query=query)["result"]
        return bool(found) and float(found[0]["value"][1]) == own

    await until(scraped, 60)


@needs_alertmanager
async def test_an_alert_reaches_whoever_is_to_hear_of_it(stack: Stack, receiver: Receiver, ended: list[Ended]) -> None:
    """The killed gateway's holds ring."""
    await until(lambda: receiver.of("BursarGatewayDied", "firing"), 60)
    told = receiver.of("BursarGatewayDied", "firing")[0]
    assert told.receiver == "people"
    assert told.alert["labels"] == {"alertname": "BursarGatewayDied", "severity": "warning"}
    assert told.alert["annotations"]["runbook"] == "deploy/runbook.md#bursargatewaydied"
    assert "calls under way" in told.alert["annotations"]["summary"]


async def test_a_client_that_leaves_before_the_first_event_is_heard_of(
    stack: Stack, upstream: ScriptedUpstream, ended: list[Ended]
) -> None:
    asked = len(upstream.requests)
    async with aiohttp.ClientSession() as session:
        waiting = asyncio.ensure_future(Caller(stack.url, session).call(HANGS))
        await upstream.until(lambda u: len(u.requests) > asked)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
    await upstream.until(lambda u: u.requests[asked].client_gone)


async def test_metrics_stay_inside(stack: Stack, ended: list[Ended]) -> None:
    async with aiohttp.ClientSession() as session:
        for path, status in (("/metrics", 404), ("/readyz", 200)):
            async with session.get(stack.url + path) as response:
                assert response.status == status


@needs_alertmanager
async def test_an_alert_is_called_off(stack: Stack, receiver: Receiver, ended: list[Ended]) -> None:
    """The drained gateway is down, until somebody starts it again."""
    instance = f"127.0.0.1:{stack.gateway_ports[1]}"
    labels = {"alertname": "BursarDown", "severity": "critical", "job": "bursar", "instance": instance}

    def told(status: str) -> list[Told]:
        return [told for told in receiver.of("BursarDown", status) if told.alert["labels"] == labels]

    await until(lambda: told("firing"), 60)
    assert told("firing")[0].receiver == "at-once"
    annotations = told("firing")[0].alert["annotations"]
    assert annotations["runbook"] == "deploy/runbook.md#bursardown"
    assert instance in annotations["summary"]
    assert not told("resolved")
    stack.tend()
    await until(lambda: told("resolved"), 60)
    assert told("resolved")[0].receiver == "at-once"
