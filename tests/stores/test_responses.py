"""Stored responses over both stores: found by their owner alone, for their time, in their room, by every process."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from app.core.stored import StoreRules
from app.stores import responses_sqlite
from app.stores.responses import ResponsesUnavailable, StoredResponse, StoredResponses, TooMuch
from app.stores.responses_redis import RedisResponses
from app.stores.responses_sqlite import SqliteResponses
from tests.gateway.live import until
from tests.redis_server import RedisServer, shared_server
from tests.upstream import PATIENCE_S

RULES = StoreRules(3600.0, 64 * 1024 * 1024)
MOST = 1_000_000

Make = Callable[[], StoredResponses]


@pytest.fixture(params=["sqlite", "redis"])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Make]:
    """Gateways that share one store."""
    made: list[StoredResponses] = []
    namespace = f"t {secrets.token_hex(6)}"

    def one() -> StoredResponses:
        store: Any
        if request.param == "sqlite":
            store = SqliteResponses(tmp_path / "data" / "responses.sqlite")
        else:
            store = RedisResponses(shared_server().url, namespace=namespace)
        made.append(store)
        return made[-1]

    yield one
    for store in made:
        await store.close()


def response(id_: str, previous: str | None = None, body: bytes = b"{}") -> StoredResponse:
    """One, asked with its own name."""
    return StoredResponse(id_, previous, b'["' + id_.encode() + b'"]', body)


def noise(size: int) -> bytes:
    """Bytes that do not become fewer."""
    return secrets.token_bytes(size)


async def ids_in(store: StoredResponses, last: str, owner: str = "k") -> list[str]:
    return [one.id for one in await store.chain(owner, last, MOST)]


async def test_everybody_finds_it_when_it_is_stored(make: Make) -> None:
    a, b = make(), make()
    one = response("r1", body=b'{"x":"\xf0\x9f\x98\x80"}')
    assert await a.get("k", "r1") is None
    assert await a.put("k", one, ["m1", "m2"], [], RULES)
    assert await b.get("k", "r1") == one
    assert await b.chain("k", "r1", MOST) == [one]
    assert await b.holding("k", ["m2", "m1", "nothing"], MOST) == [one]


async def test_a_conversation_is_a_chain_and_is_whole_or_nothing(make: Make) -> None:
    a, b = make(), make()
    before: list[str] = []
    for number in range(40):
        one = response(f"r{number}", before[-1] if before else None)
        assert await a.put("k", one, [], before, RULES)
        before.append(one.id)
    assert await ids_in(b, "r39") == before
    assert await ids_in(b, "r7") == before[:8]
    assert await b.delete("k", "r20")
    assert await ids_in(a, "r39") == []
    assert await ids_in(a, "r19") == before[:20]
    assert not await a.delete("k", "r20")


async def test_an_owners_ids_mean_nothing_to_others(make: Make) -> None:
    a = make()
    assert await a.put("k", response("r1"), ["m1"], [], RULES)
    assert await a.put("other", response("r2", "r1"), [], [], RULES)
    assert await a.get("other", "r1") is None
    assert await a.holding("other", ["m1"], MOST) == []
    assert await ids_in(a, "r2", "other") == [], "what it goes on from is another's"
    assert not await a.delete("other", "r1")
    assert await a.put("other", response("r1", body=b"theirs"), ["m1"], [], RULES)
    mine, theirs = await a.get("k", "r1"), await a.get("other", "r1")
    assert mine is not None
    assert theirs is not None
    assert (mine.body, theirs.body) == (b"{}", b"theirs")


async def test_what_is_deleted_is_found_by_none_of_its_names(make: Make) -> None:
    a = make()
    assert await a.put("k", response("r1"), ["m1", "m2"], [], RULES)
    assert await a.put("k", response("r2"), ["m2"], [], RULES)
    assert await a.delete("k", "r1")
    assert await a.get("k", "r1") is None
    assert [one.id for one in await a.holding("k", ["m1", "m2"], MOST)] == ["r2"]


async def test_each_is_forgotten_in_its_time_and_lives_as_long_as_what_was_made_of_it(make: Make) -> None:
    a, brief = make(), StoreRules(1.0, RULES.max_bytes)
    for name in ("gone", "kept"):
        assert await a.put("k", response(name), [f"m-{name}"], [], brief)
    assert await a.put("k", response("next", "kept"), [], ["kept"], RULES)
    async with asyncio.timeout(PATIENCE_S):
        while await a.get("k", "gone") is not None:
            await asyncio.sleep(0.02)
    assert await ids_in(a, "gone") == []
    assert await a.holding("k", ["m-gone"], MOST) == []
    assert await ids_in(a, "next") == ["kept", "next"]
    assert [one.id for one in await a.holding("k", ["m-kept"], MOST)] == ["kept"]


async def test_no_more_is_read_than_may_be(make: Make) -> None:
    a = make()
    assert await a.put("k", response("r1", body=noise(600)), ["m1"], [], RULES)
    assert await a.put("k", response("r2", "r1", noise(600)), ["m2"], ["r1"], RULES)
    assert len(await a.chain("k", "r2", 1_300)) == 2
    with pytest.raises(TooMuch):
        await a.chain("k", "r2", 1_200)
    with pytest.raises(TooMuch):
        await a.holding("k", ["m1", "m2"], 1_200)
    bomb = response("r3", body=b" " * 5_000_000)
    assert await a.put("k", bomb, [], [], RULES), "it is small as it is kept"
    with pytest.raises(TooMuch):
        await a.chain("k", "r3", 4_000_000)


async def test_they_stay_within_their_room(make: Make) -> None:
    a, rules = make(), StoreRules(3600.0, 300_000)
    assert not await a.put("k", response("huge", body=noise(300_001)), [], [], rules)
    assert await a.get("k", "huge") is None
    for number in range(60):
        of = [f"r{number - 20}"] if number == 20 else []
        assert await a.put("k", response(f"r{number}", body=noise(20_000)), [f"m{number}"], of, rules)
    found = [number for number in range(60) if await a.get("k", f"r{number}") is not None]
    assert 8 <= len(found) <= 15
    assert found == list(range(60 - len(found), 60)), "the oldest made room"
    assert await a.holding("k", ["m0"], MOST) == []


async def test_one_that_goes_on_keeps_what_it_is_made_of(make: Make) -> None:
    a, rules = make(), StoreRules(3600.0, 300_000)
    assert await a.put("k", response("first", body=noise(20_000)), [], [], rules)
    last = "first"
    for number in range(30):
        assert await a.put("k", response(f"r{number}", body=noise(20_000)), [], [], rules)
        if number % 3 == 0:
            name = f"next{number}"
            assert await a.put("k", response(name, last), [], [one.id for one in await a.chain("k", last, MOST)], rules)
            last = name
    assert (await ids_in(a, last))[0] == "first"


async def test_a_shorter_time_holds_for_what_is_there(make: Make) -> None:
    """Or what was to stay longer would take all the room, and what comes now would be the first to go."""
    a = make()
    for number in range(10):
        long = StoreRules(3600.0, 300_000)
        assert await a.put("k", response(f"long{number}", body=noise(30_000)), [f"m{number}"], [], long)
    short = StoreRules(60.0, 300_000)
    for number in range(20):
        assert await a.put("k", response(f"r{number}", body=noise(30_000)), [], [], short)
        assert await a.get("k", f"r{number}") is not None
    assert await a.get("k", "r16") is not None, "not only the last one"
    brief = StoreRules(0.3, 300_000)
    assert await a.put("k", response("brief"), [], [], brief)
    await until(lambda: _is_gone(a, "r19"))


async def _is_gone(store: StoredResponses, id_: str) -> bool:
    return await store.get("k", id_) is None


async def test_nobody_waits_long_however_many_are_in_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "responses.sqlite"
    store = SqliteResponses(path)
    assert await store.put("k", response("r0"), [], [], RULES)
    monkeypatch.setattr(responses_sqlite, "WAIT_S", 0.05)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        puts = [store.put("k", response(f"r{number}"), [], [], RULES) for number in range(1, 9)]
        found = await asyncio.gather(*puts, return_exceptions=True)
        assert [type(one) for one in found] == [ResponsesUnavailable] * 8
        other.execute("ROLLBACK")
    monkeypatch.setattr(responses_sqlite, "WAIT_S", 30.0)
    assert await ids_in(store, "r0") == ["r0"]
    assert [await store.get("k", f"r{number}") for number in range(2, 9)] == [None] * 7, "given up is not done later"
    await store.close()


async def test_what_it_said_is_found_as_long_as_it_is(make: Make) -> None:
    a, brief = make(), StoreRules(1.0, RULES.max_bytes)
    assert await a.put("k", response("r1"), ["m1", "m2"], [], brief)
    assert await a.put("k", response("gone"), [], [], brief)
    assert await a.put("k", response("r2", "r1"), ["m3"], ["r1"], RULES)
    await until(lambda: _is_gone(a, "gone"))
    assert [one.id for one in await a.holding("k", ["m1", "m2"], MOST)] == ["r1"]


async def test_stored_again_it_is_there_once(make: Make) -> None:
    a = make()
    for body in (b"1", b"2"):
        assert await a.put("k", response("r1", body=body), ["m1"], [], RULES)
    found = await a.get("k", "r1")
    assert found is not None
    assert found.body == b"2"
    assert [one.body for one in await a.holding("k", ["m1"], MOST)] == [b"2"]
    assert await a.delete("k", "r1")
    assert not await a.delete("k", "r1")


async def test_redis_counts_what_is_there(tmp_path: Path) -> None:
    namespace, server = f"t{secrets.token_hex(6)}", shared_server()
    store = RedisResponses(server.url, namespace=namespace)
    redis = Redis.from_url(server.url)
    prefix = f"{{{namespace}}}:responses:"
    try:
        for number in range(10):
            assert await store.put("k", response(f"r{number}", body=noise(1_000)), [f"m{number}"], [], RULES)
        assert await store.put("k", response("r0", body=noise(500)), ["m0"], ["r1"], RULES)
        keys = [key async for key in redis.scan_iter(f"{prefix}response:*")]
        sizes = [int(await redis.hget(key, "size") or 0) for key in keys]
        assert len(keys) == 10
        for number in range(9):
            assert await store.delete("k", f"r{number}")
        assert not [key async for key in redis.scan_iter(f"{prefix}item:*") if await redis.ttl(key) < 0]
        assert await redis.zcard(f"{prefix}index") == 1
        left = int(await redis.get(f"{prefix}bytes") or 0)
        assert left in sizes
        assert all([await redis.ttl(key) > 0 async for key in redis.scan_iter(f"{prefix}*")]), "nothing is for ever"
    finally:
        await redis.aclose()
        await store.close()


async def test_a_file_is_its_owners_alone_and_what_is_deleted_is_not_in_it(tmp_path: Path) -> None:
    path = tmp_path / "data" / "responses.sqlite"
    store = SqliteResponses(path)
    await store.forget()
    assert not path.exists(), "nothing is opened before something is stored"
    assert await store.put("k", response("r1"), ["item-of-r1"], [], RULES)
    assert path.stat().st_mode & 0o077 == 0
    assert holds(path, b"item-of-r1")
    assert await store.delete("k", "r1")
    await store.forget()
    assert not holds(path, b"item-of-r1")
    with contextlib.closing(sqlite3.connect(path)) as db:
        found_in = {
            table: db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in ("responses", "items")
        }
    assert found_in == {"responses": 0, "items": 0}
    await store.close()


def holds(path: Path, what: bytes) -> bool:
    """Whether the file, or what is beside it, holds these bytes."""
    return any(what in file.read_bytes() for file in path.parent.iterdir())


async def test_nothing_is_found_by_a_look_at_all_there_is(tmp_path: Path) -> None:
    path = tmp_path / "responses.sqlite"
    store = SqliteResponses(path)
    assert await store.put("k", response("r1"), ["m1"], [], RULES)
    await store.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        for name in ("FIND", "HOLDER", "LET_GO", "NOT_LONGER", "MAKE_ROOM"):
            statement = getattr(responses_sqlite, name)
            plan = [row[-1] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", (0,) * statement.count("?"))]
            found = [step for step in plan if step.startswith(("SCAN", "SEARCH"))]
            assert all("INDEX" in step or "PRIMARY KEY" in step for step in found), plan


async def test_a_store_that_is_down_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResponsesUnavailable):
        await SqliteResponses(tmp_path / "file" / "responses.sqlite").get("k", "r1")
    with RedisServer() as server:
        store = RedisResponses(server.url)
        assert await store.put("k", response("r1"), [], [], RULES)
        server.kill()
        with pytest.raises(ResponsesUnavailable):
            await store.get("k", "r1")
        await store.close()
