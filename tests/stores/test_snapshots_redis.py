"""Snapshots in Redis: the contract, and who shares them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest

from app.stores.snapshots import Head, Snapshots, SnapshotsUnavailable
from app.stores.snapshots_redis import RedisSnapshots
from tests.redis_server import RedisServer, shared_server
from tests.stores.snapshots_contract import SnapshotsContract, published

numbers = itertools.count()


class TestRedis(SnapshotsContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Snapshots]:
        store = RedisSnapshots(shared_server().url, namespace=f"snapshots-{next(numbers)}")
        await store.start()
        yield store
        await store.close()


async def test_learners_share_snapshots_and_namespaces_do_not() -> None:
    url = shared_server().url
    one, other, stranger = (RedisSnapshots(url, namespace=name) for name in ("s-shared", "s-shared", "s-other"))
    (made,) = await published(one, 1)
    assert await other.told() == [made]
    assert await stranger.head() == Head()
    assert await one.lead("one", 60)
    assert not await other.lead("other", 60)
    assert await stranger.lead("stranger", 60)
    assert await one.salt() == await other.salt() != await stranger.salt()
    for store in (one, other, stranger):
        await store.close()


async def test_a_server_that_is_gone_is_told() -> None:
    server = RedisServer()
    server.start()
    store = RedisSnapshots(server.url)
    await published(store, 1)
    server.kill()
    with pytest.raises(SnapshotsUnavailable):
        await store.head()
    await store.close()
    server.close()
