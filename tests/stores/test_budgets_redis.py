"""The shared ledger on a real server: the contract, and what only a shared ledger has to stand."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.book import Book
from app.core.budget import Advance, Balance, Claim, Granted, Lost, Op, Reserve, Result, Settle, Settled
from app.core.money import MAX_NANO
from app.stores.budgets import OWNER_LEASE_S, Expired, LedgerUnavailable
from app.stores.budgets_redis import MAX_BATCH, RedisBudgets
from tests.redis_server import RedisServer, shared_server
from tests.stores.cut_contract import cut
from tests.stores.ledger_contract import LedgerContract
from tests.stores.ledger_tools import (
    SHORT_LEASE_S,
    MakeStore,
    advance,
    balance,
    beat_until_expired,
    examples,
    granted,
    reserve,
)
from tests.upstream import PATIENCE_S

serial = itertools.count()


@asynccontextmanager
async def opened(
    url: str, *, namespace: str = "bursar", lease_s: float = OWNER_LEASE_S, timeout_s: float = 1.0, lanes: int = 2
) -> AsyncIterator[RedisBudgets]:
    """A started store, closed on leaving."""
    store = RedisBudgets(url, namespace=namespace, lease_s=lease_s, timeout_s=timeout_s, lanes=lanes)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def server() -> RedisServer:
    """The session's server, emptied."""
    server = shared_server()
    server.flush()
    return server


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server of this test alone, every write on disk before its answer."""
    with RedisServer(("appendonly", "yes"), ("appendfsync", "always")) as server:
        yield server


class TestRedisBudgets(LedgerContract):
    @pytest.fixture
    def make_store(self, server: RedisServer) -> MakeStore:
        return lambda *, lease_s=OWNER_LEASE_S: opened(server.url, lease_s=lease_s)


async def answered(store: RedisBudgets, op: Op, patience_s: float = 10.0) -> Result:
    """The verb's result, asked for again and again while the ledger is away."""
    until = time.monotonic() + patience_s
    while True:
        try:
            return await store.apply(op)
        except LedgerUnavailable:
            assert time.monotonic() < until, "the ledger did not come back"
            await asyncio.sleep(0.01)


async def eventually(condition: Callable[[], bool], patience_s: float = 10.0) -> None:
    """Wait for a server's state, which no event announces."""
    until = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < until
        await asyncio.sleep(0.01)


def calls_of(server: RedisServer, command: str) -> int:
    """How often the server has run a command since CONFIG RESETSTAT."""
    found = re.search(rf"cmdstat_{command}:calls=(\d+)", server.command("INFO", "commandstats").decode())
    return int(found[1]) if found else 0


# Money


large = st.one_of(st.integers(0, 9), st.integers(MAX_NANO // 4 - 9, MAX_NANO // 4), st.integers(0, MAX_NANO // 4))


@st.composite
def large_ops(draw: st.DrawFn, call_ids: tuple[str, ...] = ("c1", "c2")) -> Op:
    """Verbs whose amounts together stay just within 2^53."""
    call_id, kind = draw(st.sampled_from(call_ids)), draw(st.sampled_from(["reserve", "advance", "settle"]))
    if kind == "settle":
        return Settle(call_id, draw(large))
    need, want, share = draw(large), draw(large), draw(st.sampled_from([1, 2, 3, 7, 1000]))
    if kind == "advance":
        return Advance(call_id, draw(large), need, max(need, want), draw(large), share, draw(st.booleans()))
    limit = draw(st.none() | st.integers(MAX_NANO - 9, MAX_NANO) | large)
    claims = (Claim("task:big", limit), Claim("all:total"))
    return Reserve(call_id, "o", claims, need, max(need, want), draw(large), share)


@examples
@given(verbs=st.lists(large_ops(), min_size=1, max_size=20))
async def test_amounts_near_2_to_the_53_are_those_of_the_book(server: RedisServer, verbs: list[Op]) -> None:
    book = Book()
    async with opened(server.url, namespace=f"n{next(serial)}") as store:
        for op in verbs:
            if any(b.spent_nano > MAX_NANO // 2 for b in book.balances.values()):
                break  # beyond this a sum could pass 2^53, where the ledger promises nothing
            assert await store.apply(op) == book.apply(op)
            assert await store.balances(list(book.balances)) == list(book.balances.values())


async def test_an_amount_beyond_the_bound_is_refused(server: RedisServer) -> None:
    async with opened(server.url) as store:
        with pytest.raises(ValueError, match="beyond"):
            store.apply(reserve(store, "c", Claim("task:t"), need=MAX_NANO + 1))
        with pytest.raises(ValueError, match="beyond"):
            store.apply(Settle("c", MAX_NANO + 1))
        with pytest.raises(ValueError, match="beyond"):
            store.apply(advance("c", MAX_NANO + 1))
        assert await store.balances(["task:t"]) == [None]


async def test_one_call_of_the_script_carries_a_tick(server: RedisServer) -> None:
    async with opened(server.url) as store:
        server.command("CONFIG", "RESETSTAT")
        first = [store.apply(reserve(store, str(i), Claim("task:t", 10**9), need=1)) for i in range(100)]
        assert all(isinstance(result, Granted) for result in await asyncio.gather(*first))
        assert calls_of(server, "evalsha") == 1
        many = MAX_BATCH + 1
        await asyncio.gather(*(store.apply(Settle(str(i), 1)) for i in range(many)))
        assert calls_of(server, "evalsha") == 3
        assert await balance(store, "task:t") == Balance(100, 0, 100, 10**9)


async def test_verbs_of_one_call_keep_their_order_over_ticks_and_lanes(server: RedisServer) -> None:
    async with opened(server.url, lanes=4) as store:
        futures = []
        for i in range(50):
            futures.append(store.apply(reserve(store, f"c{i}", Claim("task:t"), need=1)))
            await asyncio.sleep(0)
            futures += [store.apply(advance(f"c{i}", 2)), store.apply(advance(f"c{i}", 3))]
            await asyncio.sleep(0)
            futures.append(store.apply(Settle(f"c{i}", 4)))
        kinds = [type(result) for result in await asyncio.gather(*futures)]
        assert kinds == [Granted, Granted, Granted, Settled] * 50


# Holds of others, and of the dead


async def test_a_hold_may_be_ended_by_a_gateway_that_did_not_make_it(server: RedisServer) -> None:
    async with opened(server.url) as one, opened(server.url) as two:
        await granted(one, reserve(one, "c", Claim("task:t", 100), Claim("key:k:total", 100), need=30))
        mixed = [
            two.apply(reserve(two, "d", Claim("task:t", 100), need=5)),
            two.apply(advance("c", 10, need=20)),
            two.apply(Settle("c", 11, ("task:t",))),
            two.apply(Settle("c", 11)),
        ]
        assert await asyncio.gather(*mixed) == [
            Granted(5, 65, "task:t", step=2),
            Granted(20, 65, "task:t", step=2),
            Settled(11, 19, 84, "task:t"),
            Lost("c"),
        ]
        assert await one.apply(Settle("c", 12)) == Lost("c")


async def test_a_call_id_used_again_with_other_scopes_is_a_new_hold(server: RedisServer) -> None:
    async with opened(server.url) as one, opened(server.url) as two:
        await granted(one, reserve(one, "c", Claim("task:a"), need=1))
        await two.apply(Settle("c", 1))
        await granted(two, reserve(two, "c", Claim("task:b"), Claim("task:c"), need=2))
        assert (await granted(one, reserve(one, "c", Claim("task:a"), need=9))).held_nano == 2
        assert await one.apply(Settle("c", 2)) == Settled(2, 0, None, None)
        spent = [b.spent_nano for b in await one.balances(["task:a", "task:b", "task:c"]) if b]
        assert spent == [1, 2, 2]


async def test_many_beats_at_once_report_each_end_once(server: RedisServer) -> None:
    async with opened(server.url, lease_s=SHORT_LEASE_S) as dead:
        for i in range(700):
            dead.apply(reserve(dead, str(i), Claim("task:t", 10**6), need=10, risk=3))
        await granted(dead, reserve(dead, "last", Claim("task:t", 10**6), need=10, risk=3))
        await asyncio.sleep(SHORT_LEASE_S)
        survivors = [RedisBudgets(server.url) for _ in range(3)]
        await asyncio.gather(*(survivor.start() for survivor in survivors))
        reports = await asyncio.gather(*(survivor.beat() for survivor in survivors))
        ended = [expired.call_id for report in reports for expired in report]
        assert sorted(ended) == sorted([*map(str, range(700)), "last"])
        assert await balance(survivors[0], "task:t") == Balance(3 * 701, 0, 701, 10**6)
        await asyncio.gather(*(survivor.close() for survivor in survivors))


async def test_a_hold_of_an_owner_that_never_registered_is_not_leaked(server: RedisServer) -> None:
    async with opened(server.url, lease_s=SHORT_LEASE_S) as store, opened(server.url) as survivor:
        await granted(store, Reserve("c", "a stranger", (Claim("task:t", 100),), 10, 10, 4))
        (expired,) = await beat_until_expired(survivor, 1)
        assert (expired.owner, expired.charged_nano) == ("a stranger", 4)


async def test_owners_back_from_an_outage_do_not_end_each_others_holds(server: RedisServer) -> None:
    async with opened(server.url, lease_s=SHORT_LEASE_S) as one, opened(server.url, lease_s=SHORT_LEASE_S) as two:
        await granted(one, reserve(one, "1", Claim("task:t", 100), need=10))
        await granted(two, reserve(two, "2", Claim("task:t", 100), need=10))
        async with opened(server.url, lease_s=SHORT_LEASE_S) as dead:
            await granted(dead, reserve(dead, "3", Claim("task:t", 100), need=10, risk=1))
        await asyncio.sleep(1.2 * SHORT_LEASE_S)  # no beats: as if the server had been away
        await granted(one, reserve(one, "4", Claim("task:t", 100), need=10))
        assert await one.beat() == []
        assert await two.beat() == []
        assert await one.beat() == []
        assert await two.apply(Settle("2", 5)) == Settled(5, 5, 65, "task:t")
        ended: list[Expired] = []
        while not ended:
            await asyncio.sleep(SHORT_LEASE_S / 10)
            ended = await one.beat() + await two.beat()
        assert [expired.call_id for expired in ended] == ["3"]
        assert await one.apply(Settle("1", 5)) == Settled(5, 5, 79, "task:t")


async def test_a_closed_store_leaves_nothing_but_its_scopes(server: RedisServer) -> None:
    async with opened(server.url) as store:
        await granted(store, reserve(store, "c", Claim("task:t", 100), need=10))
        await store.apply(Settle("c", 1))
    listed = server.command("KEYS", "*").decode().split("\r\n")
    assert sorted(line for line in listed if "bursar" in line) == ["{bursar}:s:task:t", "{bursar}:tasks"]


# Keys


async def test_the_script_touches_no_key_that_it_was_not_given(server: RedisServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"MONITOR\r\n")
    assert await reader.readline() == b"+OK\r\n"
    async with opened(server.url) as one, opened(server.url, lease_s=SHORT_LEASE_S) as two:
        await granted(one, reserve(one, "c", Claim("task:t", 100), Claim("key:k:day:1"), Claim("all:total"), need=30))
        await granted(two, advance("c", 10))
        await granted(two, reserve(two, "d", Claim("task:u", 100), need=30))
        await two.apply(Settle("c", 10, ("task:t",)))
        await beat_until_expired(one, 1)
        await one.scopes("", 10)
    server.command("ECHO", "the end")
    seen = 0
    keys: set[str] = set()
    while "the end" not in (line := (await asyncio.wait_for(reader.readline(), PATIENCE_S)).decode()):
        words = re.findall(r'"((?:[^"\\]|\\.)*)"', line)
        if " lua]" in line and words[0].upper() != "TIME":
            seen += 1
            assert words[1] in keys, line
        elif words and words[0].upper() in ("EVALSHA", "EVAL"):
            keys = set(words[3 : 3 + int(words[2])])
    assert seen > 30
    writer.close()


async def test_idle_scopes_are_forgotten_and_totals_are_not(server: RedisServer) -> None:
    minute, hour = "key:k:minute:2026-01-02T03:04", "team:k:hour:2026-01-02T03"
    scopes = ("task:t", "key:k:day:2026-01-02", "key:k:total", "task:sly:total", minute, hour)
    async with opened(server.url) as store:
        await granted(store, reserve(store, "c", *map(Claim, scopes), need=1))
        days = [int(server.command("TTL", "{bursar}:s:" + scope)[1:]) / 86400 for scope in scopes]
        spare = 1 + 1 / 24  # no call is longer than a day, and an expiry is renewed by the hour
        assert days == pytest.approx([30 + spare, 400 + spare, -1 / 86400, 30 + spare, *[2 / 24 + spare] * 2], abs=0.01)
        store.task_retention_s = 2 * 86_400
        await granted(store, reserve(store, "d", Claim("task:short"), need=1))
        assert int(server.command("TTL", "{bursar}:s:task:short")[1:]) / 86400 == pytest.approx(2 + spare, abs=0.01)
        server.command("ZADD", "{bursar}:tasks", "1", "task:short")
        for index, scope in (("tasks", scopes[0]), ("windows", scopes[1]), ("totals", scopes[2])):
            server.command("ZADD", "{bursar}:" + index, "1", scope)
        await store.beat()
        assert [name for name, _ in await store.scopes("", 10)] == ["task:sly:total", "key:k:total"]


async def test_a_users_windows_are_forgotten_when_they_are_over_and_the_user_after_a_year(server: RedisServer) -> None:
    user, windows = f"user:k:{'0' * 32}:", ("minute:2026-01-02T03:04", "day:2026-01-02", "month:2026-01", "total")
    async with opened(server.url) as store:
        await granted(store, reserve(store, "c", *(Claim(user + window) for window in windows), need=1))
        ttl_s = [int(server.command("TTL", f"{{bursar}}:s:{user}{window}")[1:]) for window in windows]
        spare = 1 + 1 / 24
        assert [s / 86400 for s in ttl_s] == pytest.approx([2 / 24 + spare, *[40 + spare] * 2, 400 + spare], abs=0.01)
        listed = server.command("KEYS", "*").decode()
        assert not [index for index in ("tasks", "windows", "totals") if f"{{bursar}}:{index}" in listed]


async def test_how_a_call_ended_is_remembered_for_a_day(server: RedisServer) -> None:
    async with opened(server.url) as store:
        await granted(store, reserve(store, "c", Claim("task:t", 100), need=10))
        await store.apply(Settle("c", 1))
        assert server.command("EXISTS", "{bursar}:h:c") == b":0\r\n", "as a rule it is not"
        await store.apply(Settle("owed", 1, claims=(Claim("task:t", 100),)))
        assert int(server.command("TTL", "{bursar}:h:owed")[1:]) == pytest.approx(86_400, abs=PATIENCE_S)


async def test_what_was_cut_is_forgotten_with_its_task_where_nobody_takes_note(server: RedisServer) -> None:
    async with opened(server.url) as store:
        store.task_retention_s = 0
        for scope in ("task:k:old", "task:k:new"):
            await cut(store, scope)
        assert [one.scope for one in await store.cuts(10)] == ["task:k:new"]


async def test_scopes_are_found_behind_pages_of_others(server: RedisServer) -> None:
    async with opened(server.url) as store:
        await granted(store, reserve(store, "old", Claim("task:old", 5), Claim("global:day:1"), need=1))
        await asyncio.gather(
            *(store.apply(reserve(store, str(i), Claim(f"task:new{i}", 5), need=1)) for i in range(1100))
        )
        assert [name for name, _ in await store.scopes("task:o", 10)] == ["task:old"]
        assert len(await store.scopes("task:new", 2000)) == 1100
        assert [name for name, _ in await store.scopes("", 2)] == ["task:new1099", "task:new1098"]
        assert [name for name, _ in await store.scopes("g", 2)] == ["global:day:1"]


async def test_namespaces_keep_apart(server: RedisServer) -> None:
    async with opened(server.url, namespace="a") as one, opened(server.url, namespace="b") as two:
        await granted(one, reserve(one, "c", Claim("task:t", 100), need=10))
        assert await two.balances(["task:t"]) == [None]
        assert await two.apply(Settle("c", 1)) == Lost("c")


# A server that fails


async def test_a_forgotten_script_is_brought_back(server: RedisServer) -> None:
    async with opened(server.url) as store:
        server.command("SCRIPT", "FLUSH")
        await granted(store, reserve(store, "c", Claim("task:t", 100), need=10))
        server.command("SCRIPT", "FLUSH")
        assert await store.apply(Settle("c", 1)) == Settled(1, 9, 99, "task:t")
        server.command("SCRIPT", "FLUSH")
        assert await store.beat() == []


async def test_a_crash_amid_calls_loses_and_doubles_nothing(own_server: RedisServer) -> None:
    calls, cost = 300, 7
    failures = answered = 0
    amid = asyncio.Event()

    async def one_call(store: RedisBudgets, number: int) -> None:
        nonlocal failures, answered
        for step in range(5):
            call_id = f"{number}:{step}"
            ops = (reserve(store, call_id, Claim("task:t", 10**9), need=10), advance(call_id, 3), Settle(call_id, cost))
            for op in ops:
                result: Result | None = None
                while result is None:
                    try:
                        result = await store.apply(op)
                    except LedgerUnavailable:
                        failures += 1
                        await asyncio.sleep(0.01)
                answered += 1
                if answered == 2 * calls:
                    amid.set()
                assert isinstance(result, (Granted, Settled) if type(op) is not Settle else (Settled, Lost))

    async with opened(own_server.url) as one, opened(own_server.url) as two:
        running = asyncio.gather(*(one_call((one, two)[i % 2], i) for i in range(calls)))
        await amid.wait()
        own_server.kill()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(running), 0.1)
        await asyncio.to_thread(own_server.start)
        await asyncio.wait_for(running, PATIENCE_S)
        assert failures > 0
    async with opened(own_server.url) as later:
        assert await balance(later, "task:t") == Balance(calls * 5 * cost, 0, calls * 5, 10**9)


async def test_a_restart_between_calls_costs_no_verb(own_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.stores.redis_link.IDLE_S", 0)
    async with opened(own_server.url) as store:
        await granted(store, reserve(store, "c", Claim("task:t", 100), need=10))
        own_server.stop()
        own_server.start()
        assert await store.apply(Settle("c", 1)) == Settled(1, 9, 99, "task:t")
        assert await store.beat() == []


async def test_a_server_that_is_down_is_said_so_at_once(own_server: RedisServer) -> None:
    async with opened(own_server.url) as store:
        own_server.kill()
        for verb in (reserve(store, "c", Claim("task:t")), Settle("c", 1)):
            with pytest.raises(LedgerUnavailable):
                await asyncio.wait_for(store.apply(verb), 1)
        for question in (store.beat(), store.balances(["task:t"]), store.scopes("task:", 1)):
            with pytest.raises(LedgerUnavailable):
                await asyncio.wait_for(question, 1)


async def test_a_store_started_without_a_server_works_once_there_is_one(own_server: RedisServer) -> None:
    own_server.stop()
    store = RedisBudgets(own_server.url)
    with pytest.raises(LedgerUnavailable):
        await store.start()
    own_server.start()
    await granted(store, reserve(store, "c", Claim("task:t", 100), need=10))
    assert await store.beat() == []
    await store.close()


async def test_a_server_that_hangs_is_given_up_in_time(own_server: RedisServer) -> None:
    wait_s = 0.15
    async with opened(own_server.url, timeout_s=wait_s) as store:
        await granted(store, reserve(store, "c", Claim("task:t", 100), need=10))
        own_server.pause()
        began = time.monotonic()
        verbs = [store.apply(advance("c", 1 + i)) for i in range(3)]
        await asyncio.sleep(wait_s / 3)
        verbs += [store.apply(reserve(store, f"d{i}", Claim("task:t", 100), need=1)) for i in range(3)]
        verbs += [store.apply(advance("c", 9))]
        questions = [asyncio.ensure_future(store.balances(["task:t"])) for _ in range(5)]
        results = await asyncio.gather(*verbs, *questions, return_exceptions=True)
        assert {type(result) for result in results} == {LedgerUnavailable}
        assert time.monotonic() - began < 2 * wait_s + 0.5
        own_server.resume()
        # The connection with the late answers is gone: these are answers to these verbs.
        assert isinstance(await answered(store, Settle("c", 9)), Settled)
        assert await answered(store, Settle("nobody", 1)) == Lost("nobody")


async def test_a_refusal_by_the_server_leaves_no_half_verb(own_server: RedisServer) -> None:
    async with opened(own_server.url) as store:
        await granted(store, reserve(store, "c", Claim("task:t", 100), need=10))
        own_server.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(LedgerUnavailable, match="OutOfMemoryError"):
            await store.apply(advance("c", 5))
        own_server.command("CONFIG", "SET", "maxmemory", "0")
        assert await balance(store, "task:t") == Balance(0, 10, 1, 100, running=1)
        assert await store.apply(Settle("c", 5)) == Settled(5, 5, 95, "task:t")


async def test_closing_while_the_server_hangs_ends_in_time(own_server: RedisServer) -> None:
    store = RedisBudgets(own_server.url, timeout_s=0.1)
    await store.start()
    own_server.pause()
    future = store.apply(reserve(store, "c", Claim("task:t", 100), need=10))
    await asyncio.wait_for(store.close(), 2)
    with pytest.raises(LedgerUnavailable):
        await future


async def test_a_scope_that_has_spent_more_than_is_exact_is_read_all_the_same(server: RedisServer) -> None:
    """More than 2^53 nano-dollars, to the precision of a double."""
    async with opened(server.url) as store:
        for n in range(12):
            await granted(store, reserve(store, f"c{n}", Claim("global:total"), need=0))
            assert isinstance(await store.apply(Settle(f"c{n}", MAX_NANO)), Settled)
        (found,) = await store.balances(["global:total"])
        assert found is not None
        assert found.spent_nano == pytest.approx(12 * MAX_NANO, rel=1e-15)
        assert found.held_nano == 0
