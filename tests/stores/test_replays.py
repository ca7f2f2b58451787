"""Claims and replies over both stores: one owner at a time, across processes, and none for ever."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from redis.asyncio import Redis

from app.stores import replays, replays_redis, replays_sqlite
from app.stores.replays import Claim, Kept, Origin, ReplaysUnavailable, SharedReplays
from app.stores.replays_redis import RedisReplays
from app.stores.replays_sqlite import SqliteReplays
from tests.redis_server import RedisServer, shared_server
from tests.upstream import PATIENCE_S

ONE, OTHER = b"1" * 32, b"2" * 32
REPLY = Kept(200, [(b"content-type", b"text/event-stream"), (b"x-odd", b"\xff\x00")], b"data: \xf0\x9f\x98\x80\n\n")

Make = Callable[[], SharedReplays]


@pytest.fixture(params=["sqlite", "redis"])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Make]:
    """Gateways that share one store."""
    made: list[SharedReplays] = []
    namespace = f"t{secrets.token_hex(6)}"

    def one() -> SharedReplays:
        store: Any
        if request.param == "sqlite":
            store = SqliteReplays(tmp_path / "data" / "replays.sqlite")
        else:
            store = RedisReplays(shared_server().url, namespace=namespace)
        made.append(store)
        return made[-1]

    yield one
    for store in made:
        await store.close()


async def settled(store: SharedReplays, name: str) -> Claim | Kept:
    """What the key is once its owner's word has arrived."""
    async with asyncio.timeout(PATIENCE_S):
        while (found := await store.claim(name, ONE)) is Claim.BUSY:
            await asyncio.sleep(0.01)
    return found


async def test_one_serves_and_all_others_get_its_reply(make: Make) -> None:
    a, b = make(), make()
    assert await a.claim("k", ONE) is Claim.MINE
    assert await b.claim("k", ONE) is Claim.BUSY
    assert await b.claim("k", OTHER) is Claim.OTHER
    assert await b.claim("another", ONE) is Claim.MINE
    a.keep("k", REPLY)
    assert await settled(b, "k") == REPLY
    assert await settled(a, "k") == REPLY
    assert await b.claim("k", OTHER) is Claim.OTHER


async def test_of_many_at_once_one_gets_it(make: Make) -> None:
    stores = [make() for _ in range(6)]
    found = await asyncio.gather(*(store.claim("k", ONE) for store in stores for _ in range(3)))
    assert sorted(map(str, found)) == sorted(map(str, [Claim.MINE, *[Claim.BUSY] * 17]))


async def test_a_failure_lets_the_next_one_serve(make: Make) -> None:
    a, b = make(), make()
    assert await a.claim("k", ONE) is Claim.MINE
    a.keep("k", None)
    assert await settled(b, "k") is Claim.MINE


async def test_a_dead_owners_claim_runs_out_and_a_living_ones_does_not(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (replays, replays_sqlite, replays_redis):
        monkeypatch.setattr(module, "LEASE_S", 1.5)
    alive, dead, other = make(), make(), make()
    assert await alive.claim("a", ONE) is Claim.MINE
    assert await dead.claim("d", ONE) is Claim.MINE
    async with asyncio.timeout(PATIENCE_S):
        while await other.claim("d", ONE) is not Claim.MINE:
            await alive.renew()
            await asyncio.sleep(0.02)
    assert await other.claim("a", ONE) is Claim.BUSY
    dead.keep("d", REPLY)  # it was only slow: the claim is another's now
    assert await dead.claim("d", ONE) is Claim.BUSY
    other.keep("d", None)
    assert await settled(alive, "d") is Claim.MINE


async def test_replies_are_forgotten_each_in_its_time(make: Make) -> None:
    a = make()
    for name, keep_s in (("k", 0.05), ("long", 3600)):
        assert await a.claim(name, ONE) is Claim.MINE
        a.keep(name, REPLY, keep_s)
    async with asyncio.timeout(PATIENCE_S):
        while await a.claim("k", OTHER) is not Claim.MINE:
            await asyncio.sleep(0.02)
    assert await settled(a, "long") == REPLY


async def test_whose_reply_it_was_is_kept_with_it(make: Make) -> None:
    a, b = make(), make()
    told = msgspec.structs.replace(REPLY, origin=Origin("req_1", "auto", "a", "p", "code", 900, 12_345))
    assert await a.claim("k", ONE) is Claim.MINE
    a.keep("k", told)
    assert await settled(b, "k") == told


async def test_what_another_version_kept_is_served_anew(make: Make) -> None:
    a, b = make(), make()
    assert await a.claim("k", ONE) is Claim.MINE
    a.keep("k", msgspec.structs.replace(REPLY, origin=cast(Any, 5)))
    with pytest.raises(ReplaysUnavailable, match="this version cannot read"):
        await settled(b, "k")


async def test_a_file_of_replies_stays_within_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays_sqlite, "IN_ALL_BYTES", 100_000)
    store, reply = SqliteReplays(tmp_path / "replays.sqlite"), Kept(200, [], b"x" * 1_000)
    assert await store.claim("at work", ONE) is Claim.MINE
    for number in range(200):
        assert await store.claim(str(number), ONE) is Claim.MINE
        store.keep(str(number), reply, 3600 + number)
    assert await settled(store, "199") == reply
    assert await store.claim("0", ONE) is Claim.MINE, "the oldest are gone"
    assert await store.claim("at work", ONE) is Claim.BUSY, "and no claim"
    with contextlib.closing(sqlite3.connect(tmp_path / "replays.sqlite")) as db:
        assert db.execute("SELECT SUM(LENGTH(reply)) FROM replays").fetchone()[0] > 50_000
    await store.close()
    assert (tmp_path / "replays.sqlite").stat().st_size < 120_000


async def test_what_is_over_is_found_without_a_look_at_all_there_is(tmp_path: Path) -> None:
    """Of 500 MB of replies that would take a tenth of a second at each call, in which nobody else can ask."""
    path = tmp_path / "replays.sqlite"
    store = SqliteReplays(path)
    assert await store.claim("k", ONE) is Claim.MINE
    store.keep("k", REPLY)
    assert await settled(store, "k") == REPLY
    await store.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        for statement in (replays_sqlite.LET_GO, replays_sqlite.MAKE_ROOM):
            values = (0,) * statement.count("?")
            plan = [row[-1] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
            assert all("INDEX" in step for step in plan if step.startswith(("SCAN", "SEARCH"))), plan


async def test_redis_keeps_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory is the ledger's. Those that would be forgotten first go first, no claim does, and what is over counts
    no more."""
    monkeypatch.setattr(replays_redis, "IN_REDIS_BYTES", 10_000)
    namespace, server = f"t{secrets.token_hex(6)}", shared_server()
    store, reply = RedisReplays(server.url, namespace=namespace), Kept(200, [], b"x" * 1_000)

    redis = Redis.from_url(server.url)
    try:
        assert await store.claim("at work", ONE) is Claim.MINE
        for number in range(30):
            assert await store.claim(str(number), ONE) is Claim.MINE
            store.keep(str(number), reply, 3600 + number)
            assert await settled(store, str(number)) == reply
        found = [await redis.strlen(key) async for key in redis.scan_iter(f"{{{namespace}}}:*", _type="string")]
        assert 8_000 < sum(size for size in found if size > 1_000) <= 10_000
        assert await settled(store, "29") == reply
        assert await store.claim("at work", ONE) is Claim.BUSY
        assert await store.claim("0", ONE) is Claim.MINE
        for number in range(20):
            assert await store.claim(f"short {number}", ONE) is Claim.MINE
            store.keep(f"short {number}", reply, 0.001)
            while await store.claim(f"short {number}", OTHER) is not Claim.MINE:
                await asyncio.sleep(0.001)
        assert await settled(store, "22") == reply, "what is over is no more in the way"
        assert 7_000 < int(await redis.get(f"{{{namespace}}}:replay:bytes") or 0) <= 10_000
    finally:
        await redis.aclose()
        await store.close()


async def test_what_redis_itself_forgot_is_counted_once() -> None:
    """As a server does that makes room by itself: the count must not grow until nothing may be kept."""
    namespace, server = f"t{secrets.token_hex(6)}", shared_server()
    store, reply = RedisReplays(server.url, namespace=namespace), Kept(200, [], b"x" * 1_000)
    redis = Redis.from_url(server.url)
    try:
        for _ in range(3):
            assert await store.claim("a", ONE) is Claim.MINE
            store.keep("a", reply)
            assert await settled(store, "a") == reply
            counted = int(await redis.get(f"{{{namespace}}}:replay:bytes") or 0)
            (key,) = [key async for key in redis.scan_iter(f"{{{namespace}}}:*", _type="string") if b"bytes" not in key]
            assert counted == await redis.strlen(key)
            await redis.delete(key)
    finally:
        await redis.aclose()
        await store.close()


async def test_who_never_asks_pays_nothing(tmp_path: Path) -> None:
    store = SqliteReplays(tmp_path / "data" / "replays.sqlite")
    await store.renew()
    await store.close()
    assert not (tmp_path / "data").exists()


async def test_a_store_that_is_away_says_so(tmp_path: Path) -> None:
    (tmp_path / "in the way").write_text("")
    store = SqliteReplays(tmp_path / "in the way" / "replays.sqlite")
    with pytest.raises(ReplaysUnavailable):
        await store.claim("k", ONE)
    await store.close()
    with RedisServer() as server:
        shared = RedisReplays(server.url)
        server.kill()
        with pytest.raises(ReplaysUnavailable):
            await shared.claim("k", ONE)
        await shared.close()
