"""While calls are under way an operator edits the policy, at each gateway at another moment: caps go down and up, keys
come, go and move between teams; and tasks are amended. Money adds up all the same, caps bind, and in the end it is the
last policy that does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.core.budget import Balance
from app.core.money import nano_from_usd
from app.stores.traces import Record
from tests.gateway.live import Answer, Client, Killable, Live, policy, until
from tests.gateway.odd_times import odd_times
from tests.gateway.test_worlds import (
    DEAREST_NANO,
    KILLS,
    LATE_TOKENS,
    LEASE_S,
    MOMENT,
    SHUT_DOWN,
    STATUSES,
    TASKS,
    ask_one,
    check_money,
    check_reply,
    keep_records,
    nothing_held,
)
from tests.gateway.worlds import ATTEMPTS, OTHER_TEAM, TEAM, TEAMS, WINDOWS, Ask, Edit, World, edits, make
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, words

SEEDS = range(12)
MOMENTS = {"hour": MOMENT[:13], "day": MOMENT[:10], "month": MOMENT[:7]}
Rules = dict[str, Any]
OVER = {(429, f"{owner}_{window}") for owner in ("global", "key", "team") for window in MOMENTS}


def place(owner: str, window: str) -> str:
    """The ledger's name for a window of an owner at the moment of these worlds."""
    return f"{owner}:{window}:{MOMENTS[window]}" if window in MOMENTS else f"{owner}:{window}"


async def edit(live: Live, rules: Rules, wait_s: float) -> None:
    """Write the policy and have it read, as its watcher does."""
    await asyncio.sleep(wait_s)
    policies, before = live.gateway.policies, live.gateway.policies.current.version
    Path(live.gateway.settings.policy).write_text(json.dumps(rules))
    await policies.reload()
    assert policies.current.version != before or rules == live.policy
    live.policy = rules


async def amend(live: Live, planned: Edit) -> None:
    """Change a task's limits or its state, where the key may: a client's own lowers, and thaws nothing."""
    headers = {"authorization": f"Bearer {planned.key}"}
    url = f"{live.url}/v1/tasks/{planned.task}"
    async with live.client.session.patch(url, json=planned.changes, headers=headers) as response:
        assert response.status in (200, 401, 403, 404), await response.text()


async def edit_all(lives: list[Live], versions: list[tuple[Edit, Rules]]) -> None:
    """All edits, in their order at each gateway."""
    began_s = asyncio.get_running_loop().time()

    async def edit_one(number: int) -> None:
        for planned, rules in versions:
            due_s = began_s + planned.at_s + (planned.lag_s if number else 0)
            await edit(lives[number], rules, max(due_s - asyncio.get_running_loop().time(), 0))
            if number == 0 and planned.changes:
                await amend(lives[0], planned)

    await asyncio.gather(*(edit_one(number) for number in range(len(lives))))


def owners_of(rules: Rules, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Whose caps bind a call of this key, with their windows: as the policy's reference says."""
    yield "global", rules["caps"].get("global", {})
    if key in TEAMS:
        (spec,) = (spec for spec in rules["keys"] if spec["name"] == key)
        yield f"key:{key}", rules["caps"].get("key", {})
        if (team := spec.get("team")) is not None:
            yield f"team:{team}", rules["teams"][team].get("caps") or rules["caps"].get("team", {})


def caps_of(versions: list[Rules]) -> dict[str, list[float | None]]:
    """What caps each window of everybody, the keys and the teams had, in each version; None: none."""
    owners = {"global": [rules["caps"].get("global", {}) for rules in versions]}
    owners |= {f"key:{key}": [rules["caps"].get("key", {}) for rules in versions] for key in TEAMS}
    for team in (TEAM, OTHER_TEAM):
        owners[f"team:{team}"] = [rules.get("teams", {}).get(team, {}).get("caps", {}) for rules in versions]
    return {
        place(owner, window): [spec.get(window, {}).get("max_cost_usd") for spec in specs]
        for owner, specs in owners.items()
        for window in WINDOWS
    }


async def check_ledger(live: Live, world: World, versions: list[Rules], records: list[Record]) -> None:
    """The ledger and the records tell the same of everybody, each team, key, user and task, and no cap is passed that
    every version has."""
    balances = await live.balances()
    scopes: dict[str, list[Record]] = {}
    for record in records:
        key, team, task, user = record["key"], record["team"], record["task_id"], record.get("user")
        names = [
            "global:total",
            *([f"key:{key}:total"] if key in TEAMS else []),
            *([f"team:{team}:total"] if team else []),
        ]
        names += [f"task:{key}:{task}"] if task else []
        names += [f"user:{key}:{user}:total"] if user else []
        for name in names:
            scopes.setdefault(name, []).append(record)
    users = [name for name in scopes if name.startswith("user:")]
    found = await live.services.ledger.budgets.balances(users)
    balances |= {scope: balance for scope, balance in zip(users, found, strict=True) if balance is not None}
    assert not [scope for scope, balance in balances.items() if balance.running], "none is left"
    for scope in {*scopes, *(name for name in balances if name.endswith(":total"))}:
        charged = sum(nano_from_usd(record["cost_usd"]) for record in scopes.get(scope, ()))
        assert charged == (balances[scope].spent_nano if scope in balances else 0), scope
    check_caps(balances, world, versions, len(records))


def check_caps(balances: Mapping[str, Balance], world: World, versions: list[Rules], calls: int) -> None:
    """No cap is passed that every version has, by more than what comes too late."""
    if not all(script.obeys_limit for asked in world.answered.values() for _, _, script in asked):
        return
    late_nano = LATE_TOKENS * DEAREST_NANO * calls
    for scope, limits in caps_of(versions).items():
        usual = [limit for limit in limits if limit is not None]
        if len(usual) == len(limits) and scope in balances:
            assert balances[scope].spent_nano <= nano_from_usd(max(usual)) + late_nano, scope


async def check_the_last_binds(lives: list[Live], world: World, rules: Rules) -> None:
    """A call that begins now is denied where a cap of the last policy is used up, and nowhere else."""
    balances = await lives[0].balances()
    key = rules["keys"][0]["name"] if "keys" in rules else "-"
    if any("minute" in spec or "max_parallel_requests" in spec for spec in rules["caps"].values()):
        return
    scopes = {
        place(owner, window): windows[window]["max_cost_usd"]
        for owner, windows in owners_of(rules, key)
        for window in WINDOWS
        if window in windows
    }
    left = [
        nano_from_usd(usd) - (balances[scope].spent_nano if scope in balances else 0) for scope, usd in scopes.items()
    ]
    if "request" in rules["caps"]:
        left.append(nano_from_usd(rules["caps"]["request"]["max_cost_usd"]))
    for number, live in enumerate(lives):
        world.scripts["last-word-"] = [Script.of(words("ok"))] * 4
        answer = await live.chat(
            model="auto",
            messages=[{"role": "user", "content": "last-word-"}],
            task=f"new-{number}",
            stream=True,
            headers={"authorization": f"Bearer {key}"},
        )
        if any(nano <= 0 for nano in left):  # a window of these worlds' moment is over by the real clock: 429
            assert answer.status == 402 or (answer.status, answer.headers["x-bursar-scope"]) in OVER, (scopes, left)
        task_usd = rules["caps"].get("task", {}).get("max_cost_usd", 1)
        budgets = [spec["budgets"]["max_cost_usd"] or 1 for spec in rules["models"].values()]
        if all(nano >= 400_000 for nano in left) and min(task_usd, *budgets) >= 0.0005:
            assert answer.status != 402, (scopes, left, answer.body)
        await live.idle()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("odd", [False, True], ids=["", "odd times"])
@pytest.mark.parametrize("gateways", [1, 2])
async def test_a_random_world_under_edits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, ledger_url: str | None, odd: bool, gateways: int
) -> None:
    monkeypatch.setattr("app.gateway.owned.moment_at", lambda _: MOMENT)
    world = make(seed)

    with ScriptedUpstream(partial(world.answer, "a")) as a, ScriptedUpstream(partial(world.answer, "b")) as b:
        async with contextlib.AsyncExitStack() as stack:
            providers, shared = {"a": a, "b": b}, f"world{secrets.token_hex(6)}"
            rules = policy(providers, **world.policy)
            planned = [(one, policy(providers, **one.policy)) for one in edits(seed, world)]
            lives = [
                await stack.enter_async_context(Live(tmp_path, rules, ledger_url, namespace=shared))
                for _ in range(gateways)
            ]
            records = keep_records(lives)
            if odd:
                for number, each in enumerate(lives):
                    odd_times(each, seed + number)
            asking = [ask_one(lives[number % gateways].client, ask) for number, ask in enumerate(world.asks)]
            *answers, _ = await asyncio.gather(*asking, edit_all(lives, planned))
            for each in lives:
                await each.idle()
            versions = [rules, *(edited for _, edited in planned)]
            await check_ledger(lives[0], world, versions, records)
            check_replies(world, answers, records, odd=odd)
            if not odd:
                await check_the_last_binds(lives, world, versions[-1])


@pytest.mark.parametrize("seed", KILLS)
async def test_a_gateway_is_killed_while_the_policy_is_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, ledger_url: str | None
) -> None:
    """Every other call is its own. It leaks no hold, what it spent is charged, and no cap is passed that every version
    has by more than what may be under way."""
    monkeypatch.setattr("app.main.HEARTBEAT_S", LEASE_S / 4)
    world, rng = make(seed), random.Random(f"kill under edits in {seed}")

    async def ask_doomed(client: Client, ask: Ask) -> None:
        with contextlib.suppress(aiohttp.ClientError):
            await ask_one(client, ask)

    with ScriptedUpstream(partial(world.answer, "a")) as a, ScriptedUpstream(partial(world.answer, "b")) as b:
        providers = {"a": a, "b": b}
        rules = policy(providers, **world.policy)
        planned = [(one, policy(providers, **one.policy)) for one in edits(seed, world)]
        async with Live(tmp_path, rules, ledger_url) as live:
            doomed = Killable(tmp_path, rules, redis_url=ledger_url, namespace=live.namespace, lease_s=LEASE_S)

            async def edit_the_doomed() -> None:
                for one, edited in planned:
                    await asyncio.sleep(one.at_s)
                    doomed.policy_path.write_text(json.dumps(edited))

            async with doomed:
                records, client = keep_records([live]), Client(doomed.url, live.client.session)
                asking = [
                    asyncio.ensure_future(ask_one(live.client, ask) if n % 2 else ask_doomed(client, ask))
                    for n, ask in enumerate(world.asks)
                ]
                editing = [asyncio.ensure_future(edit_all([live], planned)), asyncio.ensure_future(edit_the_doomed())]
                await asyncio.sleep(rng.uniform(0.01, 0.5))
                doomed.kill()
                await asyncio.gather(*asking, *editing)
                await live.idle()
                await until(lambda: nothing_held(live))
            balances, versions = await live.balances(), [rules, *(edited for _, edited in planned)]
            for scope in {"global:total", *(f"task:{key}:{task}" for key in ("-", *TEAMS) for task in TASKS)}:
                told = [r for r in records if scope in ("global:total", f"task:{r['key']}:{r['task_id']}")]
                charged = sum(nano_from_usd(record["cost_usd"]) for record in told)
                assert charged <= (balances[scope].spent_nano if scope in balances else 0), scope
            check_caps(balances, world, versions, ATTEMPTS * len(world.asks))


def check_replies(world: World, answers: list[Answer | None], records: list[Record], *, odd: bool) -> None:
    """What clients get: whatever a policy says by then, a reply of their protocol; a key that is gone is a 401."""
    by_id = {record["request_id"]: record for record in records}
    for name, spec in world.policy["models"].items():
        spec["also_at"] = [other for other in world.policy["models"] if other != name]  # at one time or another

    def asked_and_told() -> Iterator[tuple[Ask, Answer]]:
        return ((ask, answer) for ask, answer in zip(world.asks, answers, strict=True) if answer is not None)

    for ask, answer in asked_and_told():
        record = by_id.get(answer.headers.get("x-bursar-request-id", ""))
        if answer.status == 401 and "authorization" in ask.headers:
            continue
        assert answer.status in STATUSES
        check_reply(ask, answer, record)
        if record is not None and "x-bursar-cache" not in answer.headers:
            assert record["outcome"] != "gateway_error" or (odd and record["error"] in SHUT_DOWN)
            check_money(world, ask, record)
