"""The pool's way to a provider: addresses, TLS, deadlines, what may be sent, and proxies."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

import pytest

from app.core.policy import Deadlines, Provider
from app.gateway import upstream as upstream_module
from app.gateway.pool import PooledUpstreams, make_upstreams
from app.gateway.upstream import ConnectionBroken, NotConnected
from app.gateway.upstream_aiohttp import AiohttpUpstreams
from tests.gateway.pool.exchanges import OK, PATH, WHOLE, exchange, serving, until
from tests.gateway.pool.raw_server import Peer, RawServer, saying
from tests.upstream import PATIENCE_S


async def test_connecting_fails(pool: PooledUpstreams) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        refused = Provider("x", "openai_chat", f"http://127.0.0.1:{unheard.getsockname()[1]}/v1")
        with pytest.raises(NotConnected):
            await pool.open(refused, PATH, WHOLE)
    with pytest.raises(NotConnected):
        await pool.open(Provider("x", "openai_chat", "http://nowhere.invalid/v1"), PATH, WHOLE)


async def test_connecting_has_a_deadline_of_its_own(pool: PooledUpstreams) -> None:
    with socket.socket() as silent:  # takes the TCP connection, never answers the TLS handshake
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        slow = Provider(
            "x",
            "openai_chat",
            f"https://127.0.0.1:{silent.getsockname()[1]}/v1",
            deadlines=Deadlines(connect_s=0.05),
        )
        with pytest.raises(NotConnected, match="too long"):
            await pool.open(slow, PATH, WHOLE)
        opening = asyncio.create_task(pool.open(replace(slow, deadlines=Deadlines()), PATH, WHOLE))
        await asyncio.sleep(0.02)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("http://127.0.0.1/v1", {"X-A": "1\r\nX-B: 2"}),
        ("http://127.0.0.1/v1", {"X-A": "1\n"}),
        ("http://127.0.0.1/v1", {"X A": "1"}),
        ("http://127.0.0.1/v1", {"X-A": "€"}),
        ("http://127.0.0.1/v1", {"Content-Length": "1"}),
        ("http://127.0.0.1/v1", {"transfer-encoding": "chunked"}),
        ("http://127.0.0.1/v 1", {}),
        ("http://127.0.0.1/vé", {}),
        ("http://127.0.0.1:99999/v1", {}),
        ("ftp://127.0.0.1/v1", {}),
        ("http:///v1", {}),
    ],
)
async def test_what_cannot_be_put_into_a_request_is_not_sent(
    pool: PooledUpstreams, url: str, headers: dict[str, str]
) -> None:
    with pytest.raises(NotConnected, match="cannot be asked"):
        await pool.open(Provider("x", "openai_chat", url, headers=headers), PATH, WHOLE)


async def test_ipv6_literals(pool: PooledUpstreams) -> None:
    heads: list[bytes] = []

    async def answer(peer: Peer) -> None:
        heads.append((await peer.request())[0])
        await peer.say(OK)
        await peer.gone()

    try:
        async with RawServer(answer, host="::1") as server:
            assert await exchange(pool, server.provider()) == (200, b"ok")
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert f"\r\nHost: [::1]:{server.port}\r\n".encode() in heads[0]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_tls(pool: PooledUpstreams, host: str) -> None:
    large = b"x" * 1_000_000
    reply = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(large), large)
    async with RawServer(saying(OK, reply), tls=serving()) as server:
        provider = server.provider(host=host)
        assert await exchange(pool, provider) == (200, b"ok")
        assert await exchange(pool, provider, large) == (200, large)
        assert server.connections == 1


async def test_a_provider_that_hangs_up_under_tls(pool: PooledUpstreams) -> None:
    async def answer(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok")

    async with RawServer(answer, tls=serving()) as server:
        reply = await pool.open(server.provider(), PATH, WHOLE)
        assert await reply.read() == b"ok"
        with pytest.raises(ConnectionBroken):
            await reply.read()
        await until(lambda: not pool._everyone)


async def test_close_stops_the_provider_at_once_under_tls(pool: PooledUpstreams) -> None:
    gone = asyncio.Event()

    async def answer(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\n\r\nsome")
        await peer.gone()
        gone.set()

    async with RawServer(answer, tls=serving()) as server:
        reply = await pool.open(server.provider(), PATH, WHOLE)
        assert await reply.read() == b"some"
        reply.close()
        await asyncio.wait_for(gone.wait(), PATIENCE_S)


async def test_certificates_are_verified(pool: PooledUpstreams) -> None:
    async with RawServer(saying(OK), tls=serving()) as server:
        stranger = PooledUpstreams()
        with pytest.raises(NotConnected, match=r"(?i)certificate"):
            await stranger.open(server.provider(), PATH, WHOLE)
        await stranger.close()
        misnamed = replace(server.provider(), base_url=f"https://127.0.0.2:{server.port}/v1")
        with pytest.raises(NotConnected):
            await pool.open(misnamed, PATH, WHOLE)


async def test_a_proxy_in_the_environment_is_used() -> None:
    heads: list[bytes] = []

    async def answer(peer: Peer) -> None:
        heads.append((await peer.request())[0])
        await peer.say(OK)
        await peer.gone()

    async with RawServer(answer) as proxy:
        upstreams = make_upstreams({"all_proxy": f"127.0.0.1:{proxy.port}"})
        assert isinstance(upstreams, AiohttpUpstreams)
        reply = await upstreams.open(Provider("x", "openai_chat", "http://provider.invalid/v1"), PATH, WHOLE)
        assert await reply.read_all() == b"ok"
        await upstreams.close()
    assert heads[0].startswith(b"POST http://provider.invalid/v1/chat/completions HTTP/1.1\r\n")


async def test_without_a_proxy_the_pool_is_used() -> None:
    upstreams = make_upstreams({"HTTPS_PROXY": "", "PATH": "/bin", "NO_PROXY": "*"})
    assert isinstance(upstreams, PooledUpstreams)
    await upstreams.close()


def test_proxies_of_an_environment() -> None:
    env = {"HTTP_PROXY": "http://upper", "http_proxy": "lower:3128", "ALL_PROXY": "http://all", "No_Proxy": ".a.b, c"}
    proxies = upstream_module.proxies_of(env)
    assert proxies == {"http": "http://lower:3128", "https": "http://all", "no": ".a.b, c"}
    hosts = {"x.a.b": None, "a.b": None, "c": None, "ca.b": "http://all", "cc": "http://all"}
    assert {host: upstream_module.proxy_for(proxies, "https", host) for host in hosts} == hosts
    assert upstream_module.proxy_for({"http": "http://p", "no": "*"}, "http", "any") is None


@pytest.mark.parametrize(
    "listed", ["10.0.0.0/8", "10.1.2.3", "10.1.2.3:8000", "10.1.2.9/24", "fd00::/8", "[fd00::7]:8000", "fd00::7"]
)
def test_addresses_and_networks_need_no_proxy(listed: str) -> None:
    proxies, host = {"http": "http://p", "no": f"else, {listed}"}, "fd00::7" if "fd" in listed else "10.1.2.3"
    assert upstream_module.proxy_for(proxies, "http", host, 8000) is None
    assert upstream_module.proxy_for(proxies, "http", "11.1.2.3", 8000) == "http://p"
    elsewhere = None if ":8000" not in listed else "http://p"
    assert upstream_module.proxy_for(proxies, "http", host, 80) == elsewhere


@pytest.mark.parametrize("listed", ["svc.local", ".svc.local", "*.svc.local", "vllm.svc.local:8000"])
def test_names_need_no_proxy(listed: str) -> None:
    proxies = {"http": "http://p", "no": f"10.0.0.0/8,{listed}"}
    assert upstream_module.proxy_for(proxies, "http", "vllm.svc.local", 8000) is None
    assert upstream_module.proxy_for(proxies, "http", "other.local", 8000) == "http://p"
    assert upstream_module.proxy_for({"http": "http://p", "no": ",, :80, /8,[]"}, "http", "10.0.0.1", 80) == "http://p"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_this_machine_is_behind_no_proxy(host: str) -> None:
    assert upstream_module.proxy_for({"http": "http://p"}, "http", host, 8000) is None
