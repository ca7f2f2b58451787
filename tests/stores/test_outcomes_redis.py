"""Feedback in Redis: the contract, what is shared, and what is forgotten."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from app.stores import outcomes
from app.stores.outcomes import Outcomes, OutcomesUnavailable
from app.stores.outcomes_redis import RedisOutcomes
from tests.redis_server import RedisServer, shared_server
from tests.stores.outcomes_contract import WORD, OutcomesContract

numbers = itertools.count()


class TestRedis(OutcomesContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Outcomes]:
        store = RedisOutcomes(shared_server().url, namespace=f"outcomes-{next(numbers)}")
        await store.start()
        yield store
        await store.close()


async def test_gateways_share_words_and_namespaces_do_not() -> None:
    url = shared_server().url
    one, other, stranger = (RedisOutcomes(url, namespace=name) for name in ("o-shared", "o-shared", "o-other"))
    await one.put(WORD)
    assert await other.about([WORD.thing]) == [WORD]
    assert await stranger.about([WORD.thing]) == []
    for store in (one, other, stranger):
        await store.close()


async def test_a_talkative_keys_own_words_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "MAX_WORDS", 3)
    store = RedisOutcomes(shared_server().url, namespace="o-bounded")
    await store.put(replace(WORD, thing="req_bob", by="bob"))
    for number in range(6):
        await store.put(replace(WORD, thing=f"req_{number}"))
    assert [word.thing for _, word in await store.since(0, 100)] == ["req_bob", "req_3", "req_4", "req_5"]
    assert await store.about(["req_0"]) == []
    await store.close()


async def test_words_expire_and_readers_pass_over_them() -> None:
    server = shared_server()
    store = RedisOutcomes(server.url, namespace="o-expiring")
    await store.put(WORD, repeat_key="k", digest=b"1")
    await store.put(replace(WORD, thing="req_2"))
    left_s = int(server.command("TTL", "{o-expiring}:outcome:req_1")[1:])
    assert 0 < left_s <= outcomes.KEEP_DAYS * 86_400
    server.command("DEL", "{o-expiring}:outcome:req_1")
    assert [word.thing for _, word in await store.since(0, 100)] == ["req_2"]
    await store.close()


async def test_a_server_that_is_away_is_told_and_comes_back() -> None:
    with RedisServer() as server:
        store = RedisOutcomes(server.url)
        server.kill()
        with pytest.raises(OutcomesUnavailable):
            await store.put(WORD)
        server.start()
        await store.put(WORD)
        assert await store.about([WORD.thing]) == [WORD]
        await store.close()
