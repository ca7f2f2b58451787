"""The shared ledger on what production runs: a Cluster of several nodes, and Sentinel, each losing its master."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.core.budget import Balance, Claim, Granted, Settle, Settled
from app.stores import replays
from app.stores.budgets import LedgerUnavailable
from app.stores.budgets_redis import RedisBudgets
from app.stores.replays_redis import RedisReplays
from tests.gateway.live import PRICE, Live, policy
from tests.redis_server import RedisServer, options_of
from tests.stores.ledger_tools import balance, granted, reserve
from tests.stores.test_budgets_redis import answered, eventually, opened
from tests.stores.test_redis_link import one_call
from tests.stores.test_replays import ONE, settled
from tests.tools import ROOT
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, words

SETTINGS = ROOT / "deploy" / "redis"
SLOTS = 16384
TIMEOUT_MS = 500
COST, CALLS = 7, 40


class Cluster:
    """Three masters with a third of the slots each, and one replica of the master that has the ledger's."""

    def __init__(self, masters: list[RedisServer], replica: RedisServer) -> None:
        self.masters = masters
        self.replica = replica

    @property
    def url(self) -> str:
        """Two of the masters, as an operator would name some."""
        return f"redis+cluster://127.0.0.1:{self.masters[0].port},127.0.0.1:{self.masters[1].port}"

    def slot(self, key: str) -> int:
        """The slot of a key, as the server reckons."""
        return int(self.masters[0].command("CLUSTER", "KEYSLOT", key)[1:])

    def owner(self, key: str) -> RedisServer:
        """The master that has a key's slot."""
        return self.masters[self.slot(key) * 3 // SLOTS]


def cluster_state(server: RedisServer, what: bytes) -> bool:
    return what in server.command("CLUSTER", "INFO")


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    shipped = options_of(SETTINGS / "redis.conf", SETTINGS / "cluster.conf")
    options = [*shipped, ("cluster-node-timeout", str(TIMEOUT_MS)), ("repl-diskless-sync-delay", "0")]
    with contextlib.ExitStack() as open_ones:
        *masters, replica = [open_ones.enter_context(RedisServer(*options)) for _ in range(4)]
        found = Cluster(masters, replica)
        for number, master in enumerate(masters):
            first, last = -(-number * SLOTS // 3), -(-(number + 1) * SLOTS // 3) - 1
            assert master.command("CLUSTER", "ADDSLOTSRANGE", str(first), str(last)) == b"+OK\r\n"
            master.command("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        first_at = ("127.0.0.1", str(masters[0].port), str(masters[0].bus_port))
        for server in (*masters[1:], replica):
            server.command("CLUSTER", "MEET", *first_at)
        await eventually(lambda: all(cluster_state(m, b"cluster_state:ok") for m in masters))
        await eventually(lambda: all(cluster_state(s, b"cluster_known_nodes:4") for s in (*masters, replica)))
        name = found.owner("{bursar}").command("CLUSTER", "MYID").split(b"\r\n")[1].decode()
        await eventually(lambda: replica.command("CLUSTER", "REPLICATE", name) == b"+OK\r\n")
        await eventually(lambda: b"master_link_status:up" in replica.command("INFO", "replication"))
        yield found


async def test_a_purse_lives_in_one_slot_and_purses_spread(cluster: Cluster) -> None:
    await one_call(cluster.url)
    owner = cluster.owner("{bursar}")
    for master in cluster.masters:
        keys = master.command("KEYS", "*")
        assert (b"{bursar}:s:task:t" in keys) == (master is owner)
    spread = {cluster.slot(f"{{tenant-{n}}}") * 3 // SLOTS for n in range(20)}
    assert len(spread) == 3
    for n in range(4):
        async with opened(cluster.url, namespace=f"tenant-{n}") as store:
            await granted(store, reserve(store, "c", Claim("task:t", 100), need=10))
            assert await store.apply(Settle("c", 4)) == Settled(4, 6, 96, "task:t")


async def test_a_purse_moves_to_another_node_while_it_is_used(cluster: Cluster) -> None:
    source = cluster.owner("{bursar}")
    target = next(master for master in cluster.masters if master is not source)
    names = {s: s.command("CLUSTER", "MYID").split(b"\r\n")[1].decode() for s in cluster.masters}
    slot = str(cluster.slot("{bursar}"))
    async with opened(cluster.url) as store:
        spending = asyncio.ensure_future(spend(store))
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
        while True:
            keys = re.findall(rb"\{bursar\}[^\r]*", source.command("CLUSTER", "GETKEYSINSLOT", slot, "100"))
            if not keys:
                break
            moved = [key.decode() for key in keys]
            source.command("MIGRATE", "127.0.0.1", str(target.port), "", "0", "2000", "KEYS", *moved)
            await asyncio.sleep(0.02)
        for master in (target, source, *cluster.masters):
            master.command("CLUSTER", "SETSLOT", slot, "NODE", names[target])
        await spending
        assert await balance(store, "task:t") == Balance(CALLS * COST, 0, CALLS, 10**6)
    assert b"{bursar}:s:task:t" in target.command("KEYS", "*")


async def test_a_cluster_that_loses_the_ledgers_master(cluster: Cluster) -> None:
    master = cluster.owner("{bursar}")
    async with opened(cluster.url) as store:
        await granted(store, reserve(store, "kept", Claim("task:u", 100), need=10))
        await spend(store)
        assert master.command("WAIT", "1", "2000") == b":1\r\n"
        master.kill()
        with pytest.raises(LedgerUnavailable):
            await store.apply(Settle("nobody", 1))
        assert await answered(store, Settle("kept", 4), 30) == Settled(4, 6, 96, "task:u")
        await spend(store, first=CALLS)
        assert await balance(store, "task:t") == Balance(2 * CALLS * COST, 0, 2 * CALLS, 10**6)
    assert b"role:master" in cluster.replica.command("INFO", "replication")


async def test_replies_of_a_cluster_make_room_for_newer_ones(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys of those that go are in the index only, and in the slot of all others."""
    replies = [replays.Kept(200, [], bytes([65 + n]) * 1000) for n in range(3)]
    monkeypatch.setattr("app.stores.replays_redis.IN_REDIS_BYTES", 2500)
    stores = [RedisReplays(cluster.url), RedisReplays(cluster.url)]
    try:
        for number, reply in enumerate(replies):
            assert await stores[0].claim(f"k{number}", ONE) is replays.Claim.MINE
            stores[0].keep(f"k{number}", reply)
            assert await settled(stores[1], f"k{number}") == reply
        assert await stores[1].claim("k0", ONE) is replays.Claim.MINE
        assert [await stores[1].claim(f"k{number}", ONE) for number in (1, 2)] == replies[1:]
    finally:
        for store in stores:
            await store.close()


class Watched:
    """A master, its two replicas and three sentinels that agree by two."""

    def __init__(self, master: RedisServer, replicas: list[RedisServer], sentinels: list[RedisServer]) -> None:
        self.master = master
        self.replicas = replicas
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        """As the runbook writes it."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/purse/0"


@pytest.fixture
def watched() -> Iterator[Watched]:
    with contextlib.ExitStack() as open_ones:
        shipped = options_of(SETTINGS / "redis.conf", SETTINGS / "replicated.conf")
        master, *replicas = [open_ones.enter_context(RedisServer(*shipped)) for _ in range(3)]
        for replica in replicas:
            replica.command("REPLICAOF", "127.0.0.1", str(master.port))
        quicker = {"redis-1 6379": f"127.0.0.1 {master.port}", "purse 3000": f"purse {TIMEOUT_MS}", "15000": "3000"}
        watch = options_of(SETTINGS / "sentinel.conf")
        for said, here in quicker.items():
            watch = [(name, value.replace(said, here)) for name, value in watch]
        sentinels = [open_ones.enter_context(RedisServer(*watch, sentinel=True)) for _ in range(3)]
        yield Watched(master, replicas, sentinels)


async def test_sentinel_fails_over_by_itself(watched: Watched, tmp_path: Path) -> None:
    def follows(replica: RedisServer) -> bool:
        return b"master_link_status:up" in replica.command("INFO", "replication")

    await eventually(lambda: all(map(follows, watched.replicas)))

    def knows_all(sentinel: RedisServer) -> bool:
        return b"slaves=2,sentinels=3" in sentinel.command("INFO", "sentinel")

    await eventually(lambda: all(map(knows_all, watched.sentinels)), 20)
    async with opened(watched.url) as store:
        await granted(store, reserve(store, "kept", Claim("task:u", 100), need=10))
        await spend(store)
        assert watched.master.command("WAIT", "2", "2000") == b":2\r\n"
        watched.master.kill()
        assert await answered(store, Settle("kept", 4), 30) == Settled(4, 6, 96, "task:u")
        await spend(store, first=CALLS)
        assert await balance(store, "task:t") == Balance(2 * CALLS * COST, 0, 2 * CALLS, 10**6)
    await whole_gateway(watched.url, tmp_path)


async def test_a_whole_gateway_on_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    await whole_gateway(cluster.url, tmp_path)


async def whole_gateway(url: str, folder: Path) -> None:
    """Money, traces and feedback of one call."""
    with ScriptedUpstream(Script.of(words("One two three."), input_tokens=10)) as upstream:
        async with Live(folder, policy({"a": upstream}, caps={"task": {"max_cost_usd": 1}}), url) as live:
            answer = await live.chat(task="t1", stream=True)
            assert answer.text == "One two three."
            assert (await live.balance("task:t1")).spent_nano == upstream.bill(PRICE)
            assert (await live.attempts(answer))[0]["outcome"] == "completed"
            said = {"request_id": answer.request_id, "outcome": "success", "source": "user"}
            async with live.client.session.post(f"{live.url}/v1/feedback", json=said) as response:
                assert response.status < 300, await response.text()


async def spend(store: RedisBudgets, first: int = 0) -> None:
    """Calls from reserve to settle, each verb asked again until it is answered."""
    for number in range(first, first + CALLS):
        call_id = f"c{number}"
        result = await answered(store, reserve(store, call_id, Claim("task:t", 10**6), need=10), 30)
        assert isinstance(result, Granted)
        assert isinstance(await answered(store, Settle(call_id, COST), 30), Settled)
        await asyncio.sleep(0.002)
