"""Every way to a server that a URL can name, on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from app.core.budget import Balance, Claim, Settle, Settled
from app.stores.budgets import LedgerUnavailable
from app.stores.redis_link import Script, open_server
from tests.redis_server import RedisServer
from tests.stores.ledger_tools import balance, granted, reserve
from tests.stores.test_budgets_redis import answered, eventually, opened


async def one_call(url: str) -> None:
    """A call from reserve to settle, on two stores, and an expiry."""
    async with opened(url) as store, opened(url) as other:
        await granted(store, reserve(store, "c", Claim("task:t", 100), Claim("all:total"), need=10))
        assert await other.apply(Settle("c", 4)) == Settled(4, 6, 96, "task:t")
        assert await balance(store, "task:t") == Balance(4, 0, 1, 100)
        await granted(other, reserve(other, "d", Claim("task:t", 100), need=10, risk=2))
        await other.close()
        assert [expired.charged_nano for expired in await store.beat()] == [2]
        assert await store.scopes("task:", 5) == [("task:t", Balance(6, 0, 2, 100))]


async def test_a_unix_socket_with_a_password_and_a_database() -> None:
    with RedisServer(("unixsocket", "redis.sock")) as server:
        server.command("CONFIG", "SET", "requirepass", "s3cret")
        socket = server.directory / "redis.sock"
        await one_call(f"unix://{socket}?db=3&password=s3cret")
        await one_call(f"redis://:s3cret@127.0.0.1:{server.port}/2")


async def test_a_cluster() -> None:
    with RedisServer(("cluster-enabled", "yes")) as server:
        assert server.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383") == b"+OK\r\n"
        await eventually(lambda: b"cluster_state:ok" in server.command("CLUSTER", "INFO"))
        url = f"redis+cluster://127.0.0.1:{server.port}"
        await one_call(url)
        async with opened(url) as store:
            server.command("SCRIPT", "FLUSH")
            await granted(store, reserve(store, "again", Claim("task:t", 100), need=1))
            server.kill()
            with pytest.raises(LedgerUnavailable):
                await store.apply(Settle("again", 1))


@pytest.fixture
def pair() -> Iterator[tuple[RedisServer, RedisServer]]:
    """A master and its replica."""
    with RedisServer() as master, RedisServer(("repl-diskless-sync-delay", "0")) as replica:
        master.command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
        replica.command("REPLICAOF", "127.0.0.1", str(master.port))
        yield master, replica


async def test_sentinel_and_a_master_that_is_demoted(pair: tuple[RedisServer, RedisServer]) -> None:
    master, replica = pair
    with RedisServer(("sentinel", f"monitor purse 127.0.0.1 {master.port} 1"), sentinel=True) as sentinel:
        url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/purse/0"
        await eventually(lambda: b"master_link_status:up" in replica.command("INFO", "replication"))
        await one_call(url)
        async with opened(url) as store:
            await granted(store, reserve(store, "kept", Claim("task:u", 100), need=10))
            assert master.command("WAIT", "1", "1000") == b":1\r\n"
            replica.command("REPLICAOF", "NO", "ONE")
            master.command("REPLICAOF", "127.0.0.1", str(replica.port))
            sentinel.command("SENTINEL", "REMOVE", "purse")
            sentinel.command("SENTINEL", "MONITOR", "purse", "127.0.0.1", str(replica.port), "1")
            # The old master refuses to write; the next attempt asks the sentinel again.
            assert await answered(store, Settle("kept", 4)) == Settled(4, 6, 96, "task:u")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hunter2",
        "http://u:hunter2@h/",
        "redis://u:hunter2@h:port",
        "redis+sentinel://u:hunter2@h:1",
        "redis+sentinel://u:hunter2@h:x/purse",
        "redis+sentinel://u:hunter2@/purse",
        "redis+cluster://u:hunter2@",
        "redis+cluster://u:hunter2@h:x",
    ],
)
def test_a_bad_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="not valid") as caught:
        open_server(url, Script("return 1"), 1.0)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "url", ["rediss://u:p@h:1/2", "rediss+sentinel://u:p@[::1]:5,h/s", "rediss+cluster://u:p@h,i:7"]
)
async def test_tls_urls_are_understood(url: str) -> None:
    await open_server(url, Script("return 1"), 1.0).close()


async def test_an_unreachable_host_is_given_up_in_time() -> None:
    with RedisServer() as server:
        server.pause()
        link = open_server(server.url, Script("return 1"), 0.1).link()
        with pytest.raises(LedgerUnavailable):
            await asyncio.wait_for(link.call([], []), 1)
