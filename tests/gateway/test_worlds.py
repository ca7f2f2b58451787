"""Whatever providers and clients do at once: money adds up, caps bind, every reply is one of its protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.core.budget import Balance, Op, Reserve, Result
from app.core.money import nano_from_usd
from app.core.terms import PLAIN
from app.stores.budgets import LedgerUnavailable
from app.stores.traces import Make, Record
from tests.gateway.live import Answer, Client, Killable, Live, policy, read, until
from tests.gateway.odd_times import odd_times
from tests.gateway.worlds import ATTEMPTS, TEAM, TEAMS, Ask, World, going_on, make
from tests.upstream import ScriptedUpstream

SEEDS = range(24)
KILLS = range(8)
LEASE_S = 0.6
LATE_TOKENS = 6
"""What may come from a provider between the last event that fits and the moment when it hears of the cut."""
STATUSES = {200, 400, 402, 404, 429, 502, 503, 504}
DEAREST_NANO = 18_000
TASKS = ("t1", "t2")
MOMENT = "2026-11-30T17:44"
SHUT_DOWN = (None, "the gateway was shut down")


async def ask_one(client: Client, ask: Ask) -> Answer | None:
    """The reply; None where the client has left before its end."""
    await asyncio.sleep(ask.delay_s)
    posting = client.session.post(client.url + ask.path, json=ask.body, headers=ask.headers)
    if ask.leave_bytes is None:
        async with posting as response:
            return await read(response)
    if ask.leave_bytes == 0:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.03), posting:
                pass
        return None
    with contextlib.suppress(aiohttp.ClientError):
        async with posting as response:
            got = 0
            async for part in response.content.iter_any():
                got += len(part)
                if got >= ask.leave_bytes:
                    response.close()
                    break
    return None


def events_of(answer: Answer) -> list[Any]:
    """The data of each event of a stream, whatever ends its lines; `[DONE]` stays text."""
    text = answer.body.decode().replace("\r\n", "\n").replace("\r", "\n")
    blocks = [
        [line[5:].removeprefix(" ") for line in b.split("\n") if line.startswith("data:")] for b in text.split("\n\n")
    ]
    return [data if (data := "\n".join(lines)) == "[DONE]" else json.loads(data) for lines in blocks if lines]


def check_chat(ask: Ask, events: list[Any]) -> None:
    """An error, or a finish for each choice and [DONE]; nothing after either."""
    chunks = [event for event in events if event != "[DONE]"]
    errors = [chunk for chunk in chunks if "error" in chunk]
    assert len(errors) <= 1
    assert errors or events[-1] == "[DONE]"
    assert events.count("[DONE]") <= 1
    finished: set[int] = set()
    for choice in (choice for chunk in chunks for choice in chunk.get("choices", ())):
        said = choice.get("delta") or {}
        assert choice["index"] not in finished or not (said.get("content") or said.get("tool_calls"))
        if choice.get("finish_reason") is not None:
            assert choice["index"] not in finished
            finished.add(choice["index"])
    has_usage = any(chunk.get("usage") for chunk in chunks)
    assert has_usage or errors or not ask.wants_usage
    assert ask.wants_usage or not has_usage


def check_messages(_: Ask, events: list[Any]) -> None:
    """From message_start to message_stop, or an error; each block is closed."""
    kinds = [event["type"] for event in events]
    assert kinds[-1] in ("message_stop", "error")
    assert kinds.count("message_stop") + kinds.count("error") == 1
    assert kinds[0] in ("message_start", "error")
    assert "error" in kinds or kinds.count("content_block_start") == kinds.count("content_block_stop")


def check_responses(_: Ask, events: list[Any]) -> None:
    """Numbered from 0, and ended once."""
    kinds = [event["type"] for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert kinds[-1] in ("response.completed", "response.failed", "response.incomplete", "error")
    if kinds[-1] == "response.completed":
        assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done")


def check_gemini(_: Ask, events: list[Any]) -> None:
    """Answers, and at most one error, which is last."""
    assert events
    assert all("candidates" in event or "usageMetadata" in event for event in events[:-1])


def check_text(ask: Ask, events: list[Any]) -> None:
    """As chat, but for where the text stands."""
    chunks = [event for event in events if event != "[DONE]" and "error" not in event]
    assert {chunk["object"] for chunk in chunks} <= {"text_completion"}
    assert all("text" in choice and "delta" not in choice for chunk in chunks for choice in chunk["choices"])
    check_chat(ask, events)


CHECKS: dict[str, Callable[[Ask, list[Any]], None]] = {
    "chat": check_chat,
    "text": check_text,
    "messages": check_messages,
    "responses": check_responses,
    "gemini": check_gemini,
}


def check_reply(ask: Ask, answer: Answer, record: Record | None) -> None:
    """What its client gets."""
    assert not answer.broken
    assert answer.status in STATUSES
    in_events = ask.as_events and answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream" if in_events else "application/json")
    if in_events:
        CHECKS[ask.dialect](ask, events_of(answer))
        return
    body = answer.json
    if ask.stream and answer.status == 200:
        CHECKS[ask.dialect](ask, body)
    elif answer.status != 200:
        assert "error" in (body[0] if isinstance(body, list) else body)
        if answer.headers.get("x-bursar-reason") == "parallel":
            assert (answer.status, answer.headers["retry-after"]) == (429, "1")
            assert answer.headers["x-bursar-scope"] in ("task", "key", "global")
        elif answer.headers.get("x-bursar-scope", "").endswith("minute"):
            assert (answer.status, answer.headers["x-bursar-reason"] in ("calls", "tokens")) == (429, True)
            assert 1 <= int(answer.headers["retry-after"]) <= 60
    elif record is not None:
        hit = "x-bursar-cache" in answer.headers
        assert float(answer.headers["x-bursar-cost-usd"]) == (0 if hit else pytest.approx(record["cost_usd"]))


def check_hit(ask: Ask, answer: Answer, record: Record, firsts: dict[str, Answer]) -> None:
    """A reply of the cache: the one that its first call gave, which was whole, of the same key, shaped by no cap."""
    assert ask.headers.get("cache-control") is None
    assert (record["outcome"], record["denials"], record["landing"]) == ("completed", [], None)
    assert record["key"] == ask.headers.get("authorization", "Bearer -").removeprefix("Bearer ")
    assert "x-bursar-remaining-usd" not in answer.headers
    if (first := firsts.get(record["request_id"])) is not None:
        assert (answer.status, answer.body) == (first.status, first.body)
        assert answer.headers["content-type"] == first.headers["content-type"]


def check_money(world: World, ask: Ask, record: Record) -> None:
    """What a call is charged: the provider's own bill where that is known, and what its client allowed at the most."""
    asked = world.answered.get(ask.mark, [])
    charged_nano = nano_from_usd(record["cost_usd"])
    exact = all(attempt["provenance"] == "metered" for attempt in record["attempts"])
    if record["outcome"] == "completed" and exact and len(asked) == 1 and asked[0][2].usage != "missing":
        (provider, request, _) = asked[0]
        (attempt,) = record["attempts"]
        assert provider in (attempt["model"], *world.policy["models"][attempt["model"]].get("also_at", ()))
        assert attempt["provider"] == provider
        assert charged_nano == request.tokens.bill(world.price(attempt["model"], request.tokens.input))
    if ask.cap_usd is not None and all(script.obeys_limit for _, _, script in asked):
        assert charged_nano <= nano_from_usd(ask.cap_usd) + LATE_TOKENS * DEAREST_NANO


async def check_ledger(live: Live, world: World, records: list[Record]) -> None:
    """The ledger and the records tell the same of everybody, each team, key, user and task; a team's and a user's cap
    binds."""
    balances = await live.balances()
    by_scope = {"global:total": records}
    for key in ("-", *TEAMS):
        of_key = [r for r in records if r["key"] == key]
        by_scope |= {f"task:{key}:{task}": [r for r in of_key if r["task_id"] == task] for task in TASKS}
        if key in TEAMS:
            by_scope[f"key:{key}:total"] = of_key
    users: dict[str, list[Record]] = {}
    for record in records:
        if "user" in record:
            users.setdefault(f"user:{record['key']}:{record['user']}:total", []).append(record)
    by_scope |= users
    found = await live.services.ledger.budgets.balances([*users])
    balances |= {scope: balance for scope, balance in zip(users, found, strict=True) if balance is not None}
    of_team = by_scope[f"team:{TEAM}:total"] = [r for r in records if r["team"] == TEAM]
    assert of_team == [r for r in records if TEAMS.get(r["key"]) == TEAM]
    assert not [scope for scope, balance in balances.items() if balance.running], "none is left"
    for scope, told in by_scope.items():
        charged = sum(nano_from_usd(record["cost_usd"]) for record in told)
        assert charged == (balances[scope].spent_nano if scope in balances else 0), scope
    if all(script.obeys_limit for asked in world.answered.values() for _, _, script in asked):
        of_lab = world.policy.get("teams", {}).get(TEAM, {}).get("caps", {})
        bound = [(cap, of_team) for cap in of_lab.values()]
        bound += [(cap, of_user) for cap in world.policy["caps"].get("user", {}).values() for of_user in users.values()]
        for cap, told in bound:
            late_nano = LATE_TOKENS * DEAREST_NANO * len(told)
            spent_nano = sum(nano_from_usd(record["cost_usd"]) for record in told)
            assert spent_nano <= nano_from_usd(cap["max_cost_usd"]) + late_nano


async def check_rates(live: Live, world: World, records: list[Record]) -> None:
    """No key has begun more calls in its minute than it may."""
    rate = world.policy["caps"].get("key", {}).get("minute", {})
    for key in TEAMS if rate else ():
        (found,) = await live.services.ledger.budgets.balances([f"key:{key}:minute:{MOMENT}"])
        minute = found or Balance()
        began = sum(len(record["attempts"]) for record in records if record["key"] == key)
        assert minute.held_nano == 0
        assert began <= minute.calls <= rate.get("max_calls", began + len(world.asks))


def watch_at_a_time(live: Live) -> set[asyncio.Task[None]]:
    """Whenever money is set aside, look whether no more calls run at a time than may."""
    looks, book = set[asyncio.Task[None]](), live.services.ledger.budgets
    apply = book.apply

    async def look(op: Reserve, written: asyncio.Future[Result]) -> None:
        with contextlib.suppress(LedgerUnavailable):
            await asyncio.wait({written})
            for balance in await book.balances([claim.scope for claim in op.claims]):
                most = None if balance is None else (balance.terms or PLAIN).max_parallel
                assert balance is None or most is None or balance.running <= most

    def applied(op: Op) -> asyncio.Future[Result]:
        written = apply(op)
        if type(op) is Reserve:
            looks.add(asyncio.ensure_future(look(op, written)))
        return written

    book.apply = applied  # type: ignore[method-assign]
    return looks


def stored_id(ask: Ask, answer: Answer | None) -> str | None:
    """The id of a whole response that is stored here."""
    if answer is None or answer.status != 200 or not ask.body.get("store"):
        return None
    response = events_of(answer)[-1].get("response", {}) if ask.as_events else answer.json
    kept = response.get("status") == "completed" and str(response["id"]).startswith("resp_bursar_")
    return response["id"] if kept else None


def keep_records(lives: Sequence[Live]) -> list[Record]:
    """The records of all calls from now on."""
    records: list[Record] = []

    def keep_of(live: Live) -> None:
        append = live.services.traces.append

        def keep(request_id: str, make: Make) -> None:
            records.append(make())
            append(request_id, make)

        live.services.traces.append = keep  # type: ignore[method-assign]

    for live in lives:
        keep_of(live)
    return records


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("odd", [False, True], ids=["", "odd times"])
@pytest.mark.parametrize("gateways", [1, 2])
async def test_a_random_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, ledger_url: str | None, odd: bool, gateways: int
) -> None:
    monkeypatch.setattr("app.gateway.owned.moment_at", lambda _: MOMENT)
    world = make(seed)

    with ScriptedUpstream(partial(world.answer, "a")) as a, ScriptedUpstream(partial(world.answer, "b")) as b:
        async with contextlib.AsyncExitStack() as stack:
            rules, shared = policy({"a": a, "b": b}, **world.policy), f"world{secrets.token_hex(6)}"
            lives = [
                await stack.enter_async_context(Live(tmp_path, rules, ledger_url, namespace=shared))
                for _ in range(gateways)
            ]
            live, records = lives[0], keep_records(lives)
            bounded = any("max_parallel_requests" in cap for cap in world.policy["caps"].values())
            looks = []
            for number, each in enumerate(lives):
                if odd:
                    odd_times(each, seed + number)
                if bounded:
                    looks.append(watch_at_a_time(each))
            answers = await asyncio.gather(
                *(ask_one(lives[number % gateways].client, ask) for number, ask in enumerate(world.asks))
            )
            turns = [
                going_on(ask, id_) for ask, a in zip(world.asks, answers, strict=True) if (id_ := stored_id(ask, a))
            ]
            asks = [*world.asks, *turns]
            answers += await asyncio.gather(
                *(ask_one(lives[(number + 1) % gateways].client, ask) for number, ask in enumerate(turns))
            )
            if not odd:  # else storing may have been stopped, too
                assert not [a for a in answers if a is not None and b"previous_response_not_found" in a.body]
            for each in lives:
                await each.idle()
            await asyncio.gather(*(look for of_one in looks for look in of_one))
            await check_ledger(live, world, records)
            await check_rates(live, world, records)
            by_id = {record["request_id"]: record for record in records}
            firsts = {a.headers["x-bursar-request-id"]: a for a in answers if a and "x-bursar-cache" not in a.headers}
            for ask, answer in zip(asks, answers, strict=True):
                if answer is None:
                    continue
                record = by_id.get(answer.headers.get("x-bursar-request-id", ""))
                check_reply(ask, answer, record)
                if "x-bursar-cache" in answer.headers:
                    assert record is not None
                    check_hit(ask, answer, record, firsts)
                    continue
                if record is not None:
                    assert record["outcome"] != "gateway_error" or (odd and record["error"] in SHUT_DOWN)
                    check_money(world, ask, record)


@pytest.mark.parametrize("seed", KILLS)
async def test_a_gateway_is_killed_in_a_random_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, ledger_url: str | None
) -> None:
    """Every other call is its own. It leaks no hold, and what it spent is charged: each scope has no less than what
    the other one's records tell of, and passes no limit by more than what may be under way."""
    monkeypatch.setattr("app.main.HEARTBEAT_S", LEASE_S / 4)
    world, rng = make(seed), random.Random(f"kill in {seed}")

    async def ask_doomed(client: Client, ask: Ask) -> None:
        with contextlib.suppress(aiohttp.ClientError):
            await ask_one(client, ask)

    with ScriptedUpstream(partial(world.answer, "a")) as a, ScriptedUpstream(partial(world.answer, "b")) as b:
        rules = policy({"a": a, "b": b}, **world.policy)
        async with Live(tmp_path, rules, ledger_url) as live:
            doomed = Killable(tmp_path, rules, redis_url=ledger_url, namespace=live.namespace, lease_s=LEASE_S)
            async with doomed:
                records, client = keep_records([live]), Client(doomed.url, live.client.session)
                asking = [
                    asyncio.ensure_future(ask_one(live.client, ask) if n % 2 else ask_doomed(client, ask))
                    for n, ask in enumerate(world.asks)
                ]
                await asyncio.sleep(rng.uniform(0.01, 0.5))
                doomed.kill()
                await asyncio.gather(*asking)
                await live.idle()
                await until(lambda: nothing_held(live))
            check_survivor(await live.balances(), world, records)


async def nothing_held(live: Live) -> bool:
    """Whether no call has a hold any more."""
    return not any(balance.held_nano or balance.running for balance in (await live.balances()).values())


def check_survivor(balances: dict[str, Balance], world: World, records: list[Record]) -> None:
    """What the dead gateway has spent is there beside what the living one tells of."""
    scopes = {"global:total": records}
    for key in ("-", *TEAMS):
        for task in TASKS:
            scopes[f"task:{key}:{task}"] = [r for r in records if (r["key"], r["task_id"]) == (key, task)]
    for scope, told in scopes.items():
        charged = sum(nano_from_usd(record["cost_usd"]) for record in told)
        assert charged <= (balances[scope].spent_nano if scope in balances else 0), scope
    if all(script.obeys_limit for asked in world.answered.values() for _, _, script in asked):
        late_nano = LATE_TOKENS * DEAREST_NANO * ATTEMPTS * len(world.asks)
        for scope, balance in balances.items():
            limit = balance.effective_limit_nano
            assert limit is None or balance.spent_nano <= limit + late_nano, scope
