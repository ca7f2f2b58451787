"""What only Redis can do to records: be shared, be away, and forget."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from app.stores import traces_redis
from app.stores.budgets import LedgerUnavailable
from app.stores.traces import KEEP_DAYS
from app.stores.traces_redis import BATCH, RedisTraces
from tests.redis_server import RedisServer, shared_server
from tests.upstream import PATIENCE_S


def record(number: int) -> dict[str, Any]:
    return {"request_id": f"req_{number}", "key": "k"}


async def until_written(store: RedisTraces) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while len(store._waiting):
            await asyncio.sleep(0.01)


async def test_gateways_see_each_others_records_and_namespaces_do_not() -> None:
    url = shared_server().url
    one, other = RedisTraces(url, namespace="shared-traces"), RedisTraces(url, namespace="shared-traces")
    stranger = RedisTraces(url, namespace="other-traces")
    for store in (one, other, stranger):
        await store.start()
    one.append("req_1", partial(record, 1))
    assert await other.get("req_1") == record(1)  # within one flush
    assert await stranger.get("req_1") is None
    for store in (one, other, stranger):
        await store.close()


async def test_records_expire() -> None:
    server = shared_server()
    store = RedisTraces(server.url, namespace="expiring-traces")
    await store.start()
    store.append("req_1", partial(record, 1))
    await store.close()
    reply = server.command("TTL", "{expiring-traces}:trace:req_1")
    assert 0 < int(reply[1:]) <= KEEP_DAYS * 86_400


async def test_what_waits_is_written_when_redis_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces_redis, "AGAIN_S", 0.02)
    with RedisServer() as server:
        store = RedisTraces(server.url)
        await store.start()
        server.kill()
        store.append("req_1", partial(record, 1))
        assert await store.get("req_1") == record(1)
        with pytest.raises(LedgerUnavailable):
            await store.get("req_0")
        server.start()
        await until_written(store)
        assert await store.get("req_1") == record(1)
        await store.close()


async def test_while_redis_is_away_records_are_made_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces_redis, "AGAIN_S", 30.0)
    with RedisServer() as server:
        store = RedisTraces(server.url)
        await store.start()
        server.kill()
        for number in range(3 * BATCH):
            store.append(f"req_{number}", partial(record, number))
        async with asyncio.timeout(PATIENCE_S):
            while len(store._waiting.lines) < 3 * BATCH:
                await asyncio.sleep(0.01)
        await store.close()


async def test_closing_while_redis_is_away_does_not_hang_and_says_what_is_lost(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    lost = list[int]()
    monkeypatch.setattr(traces_redis, "AGAIN_S", 30.0)
    with RedisServer() as server:
        store = RedisTraces(server.url, lost=lost.append)
        await store.start()
        server.kill()
        store.append("req_1", partial(record, 1))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(6):
            await store.close()
        await store.close()
    assert lost == [1]
    assert "could not be written before the end" in "".join(capfd.readouterr())
