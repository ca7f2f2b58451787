"""Words over both stores: told while somebody watches, heard by all others, gone with who said them."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.settings import Settings
from app.stores import words as module
from app.stores import words_redis
from app.stores.opening import make_words
from app.stores.words import FileWords, Words
from app.stores.words_redis import RedisWords
from tests.redis_server import RedisServer, shared_server
from tests.upstream import PATIENCE_S

Make = Callable[[], Words]


@pytest.fixture(params=["files", "redis"])
async def make(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    """Processes that meet in one store."""
    made: list[Words] = []
    namespace = f"t{secrets.token_hex(6)}"

    def one() -> Words:
        if request.param == "files":  # a process is known by its number
            with monkeypatch.context() as patched:
                patched.setattr(os, "getpid", lambda: 1000 + len(made))
                made.append(FileWords(tmp_path))
        else:
            made.append(RedisWords(shared_server().url, namespace=namespace))
        return made[-1]

    yield one
    for words in made:
        await words.close()


async def test_nobody_watches_until_somebody_has_heard(make: Make) -> None:
    a, b = make(), make()
    assert (await a.watched(), await b.watched()) == (False, False)
    assert await a.heard() == []
    assert (await a.watched(), await b.watched()) == (True, True)


async def test_who_only_hears_does_not_watch(make: Make) -> None:
    a, b = make(), make()
    await b.tell(b"of b")
    assert await a.heard(watching=False) == [b"of b"]
    assert (await a.watched(), await b.watched()) == (False, False)


async def test_words_about_another_thing_are_not_heard(tmp_path: Path) -> None:
    namespace, url = f"t{secrets.token_hex(6)}", shared_server().url
    for one, other in (
        (FileWords(tmp_path), FileWords(tmp_path, "circuits")),
        (RedisWords(url, namespace=namespace), RedisWords(url, namespace=namespace, about="circuits")),
    ):
        await one.tell(b"of this")
        await other.tell(b"of that")
        assert (await one.heard(), await other.heard()) == ([], [])
        await one.close()
        await other.close()


async def test_all_others_are_heard_each_by_its_latest_word(make: Make) -> None:
    a, b, c = make(), make(), make()
    odd = bytes(range(256)) * 40
    await a.tell(b"of a")
    await b.tell(b"old")
    await b.tell(odd)
    assert await a.heard() == [odd]
    assert await b.heard() == [b"of a"]
    assert sorted(await c.heard()) == sorted([b"of a", odd])


async def test_old_words_and_viewers_are_forgotten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(words_redis, "_FRESH_MS", 30)
    namespace = f"t{secrets.token_hex(6)}"
    a, b = (RedisWords(shared_server().url, namespace=namespace) for _ in range(2))
    try:
        await a.tell(b"of a")
        async with asyncio.timeout(PATIENCE_S):
            while await b.heard():
                await asyncio.sleep(0.005)
            while await a.watched():
                await asyncio.sleep(0.005)
    finally:
        await a.close()
        await b.close()


async def test_old_files_are_forgotten(tmp_path: Path) -> None:
    words = FileWords(tmp_path)
    fresh, gone = tmp_path / "words-1.json", tmp_path / "words-2.json"
    for file in (fresh, gone):
        file.write_bytes(b"word")
    await words.heard()
    old = time.time() - module.FRESH_S - 1
    for file in (gone, tmp_path / "words-watched"):
        os.utime(file, (old, old))
    assert not await words.watched()
    assert await words.heard() == [b"word"]
    assert not gone.exists()


async def test_a_stale_word_goes_while_fresh_ones_stay() -> None:
    """The whole hash expires only when nobody tells: one process that is gone must not be heard with the others."""
    namespace = f"t{secrets.token_hex(6)}"
    a, b, c = (RedisWords(shared_server().url, namespace=namespace) for _ in range(3))
    try:
        await a.tell(b"of a")
        async with asyncio.timeout(PATIENCE_S):
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(words_redis, "_FRESH_MS", 200)
                while b"of a" in await c.heard():
                    await b.tell(b"of b")
        assert await c.heard() == [b"of b"]
    finally:
        for words in (a, b, c):
            await words.close()


async def test_a_store_that_is_down_has_no_words() -> None:
    with RedisServer() as server:
        words = RedisWords(server.url)
        await words.tell(b"word")
        assert not await words.watched()
        server.kill()
        assert await words.heard() == []
        assert not await words.watched()
        await words.tell(b"word")
        await words.close()


async def test_who_meets_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert make_words(Settings()) is None
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    assert isinstance(make_words(Settings()), FileWords)
    shared = make_words(Settings(redis_url=SecretStr(shared_server().url)))
    assert isinstance(shared, RedisWords)
    await shared.close()
