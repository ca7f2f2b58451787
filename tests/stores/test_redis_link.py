"""Every way to a server that a URL can name, on real servers."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from app.core.budget import Balance, Claim, Settle, Settled
from app.stores import redis_link
from app.stores.budgets import LedgerUnavailable
from app.stores.redis_link import Arg, Desk, Script, open_server
from app.stores.task_memory import MemoryUnavailable
from tests.redis_server import RedisServer
from tests.stores.ledger_tools import balance, granted, reserve
from tests.stores.test_budgets_redis import answered, eventually, opened
from tests.upstream import PATIENCE_S


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
        "redis://:hunter2/@h:1/0",
        "redis://u:hunter2@h:1?socket_timeuot=1",
        "redis://u:hunter2@h:1?ssl_cert_reqs=none",
        "rediss://u:hunter2@h:1?ssl_cert_reqs=sometimes",
        "redis+sentinel://u:hunter2@h:1/purse?sentinel_pasword=x",
        "redis+sentinel://u:hunter2@h:1/purse?ssl_ca_certs=ca.pem",
        "rediss+cluster://u:hunter2@h:1?ssl_ca_cert=ca.pem",
        "redis+cluster://u:hunter2@h:1?db=1",
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


async def test_sentinels_and_clusters_may_have_certificates_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    for name in ("RedisCluster", "Sentinel", "SentinelConnectionPool"):
        kind = getattr(redis_link, name)

        def making(*a: Any, kind: Any = kind, **options: Any) -> Any:
            made.append(options)
            return kind(*a, **options)

        monkeypatch.setattr(redis_link, name, making)
    said = "ssl_ca_certs=%2Fetc%2Fca.pem&ssl_check_hostname=False"
    await open_server(f"rediss+cluster://u:p@h:1?{said}", Script("return 1"), 1.0).close()
    await open_server(f"rediss+sentinel://h:1/s?{said}&sentinel_password=q", Script("return 1"), 1.0).close()
    assert len(made) == 3
    for options in (made[0], made[1]["sentinel_kwargs"], made[2]):
        assert (options["ssl"], options["ssl_ca_certs"], options["ssl_check_hostname"]) == (True, "/etc/ca.pem", False)
    assert made[1]["sentinel_kwargs"]["password"] == "q"
    assert not made[2].keys() & {"sentinel_password", "sentinel_username"}


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://:hunter2@127.0.0.1:{port}", "ConnectionError: Connection refused"),
        ("redis+cluster://:hunter2@127.0.0.1:{port}", "RedisClusterException: Connection refused"),
        ("redis+sentinel://:hunter2@127.0.0.1:{port}/purse", "MasterNotFoundError: no sentinel answers, or none knows"),
        ("redis://:hunter2@nowhere.invalid:{port}", "ConnectionError: its name does not resolve"),
    ],
)
async def test_it_says_why_there_is_no_answer(url: str, why: str) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        server = open_server(url.format(port=unheard.getsockname()[1]), Script("return 1"), 5.0)
        with pytest.raises(LedgerUnavailable, match=re.escape(f"({why}")) as caught:
            await server.link().call(["k"], [])
        await server.close()
    assert "hunter2" not in str(caught.value)


async def test_a_wrong_password_is_named() -> None:
    with RedisServer() as server:
        server.command("CONFIG", "SET", "requirepass", "s3cret")
        for url in (f"redis://127.0.0.1:{server.port}", f"redis://:hunter2@127.0.0.1:{server.port}"):
            link = open_server(url, Script("return 1"), 5.0).link()
            with pytest.raises(LedgerUnavailable, match=r"\(Authentication\w*Error\)"):
                await link.call([], [])


async def test_an_unreachable_host_is_given_up_in_time() -> None:
    with RedisServer() as server:
        server.pause()
        link = open_server(server.url, Script("return 1"), 0.1).link()
        with pytest.raises(LedgerUnavailable):
            await asyncio.wait_for(link.call([], []), 1)


class Hung:
    """A server that takes calls, and says nothing."""

    timeout_s = 0.01

    def link(self) -> Hung:
        return self

    async def call(self, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        await asyncio.Event().wait()

    async def close(self) -> None:
        pass


async def test_who_waits_in_line_is_given_up_too() -> None:
    """Behind a Redis that hangs, each of many would have waited for all before it: the tenth for twenty seconds."""
    desk = Desk(Hung(), "the store of things", MemoryUnavailable)
    async with asyncio.timeout(PATIENCE_S):
        found = await asyncio.gather(*(desk.ask(["key"], ["verb"]) for _ in range(10)), return_exceptions=True)
    assert {type(error) for error in found} == {MemoryUnavailable}
    assert {str(error) for error in found} == {
        "the store of things on Redis did not answer (TimeoutError: it took too long)"
    }
