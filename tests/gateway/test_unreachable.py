"""Why a provider could not be reached: said in the decision record and the log, without a host or anything secret."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import pytest

from app.core.health import FAILURES_TO_OPEN
from app.core.policy import Provider
from app.gateway.upstream import NotConnected
from app.gateway.upstream_aiohttp import AiohttpUpstreams
from app.stores.causes import unreachable
from tests.gateway.live import Live, policy
from tests.gateway.pool.exchanges import PATH, WHOLE, serving
from tests.gateway.pool.raw_server import Peer, RawServer, saying
from tests.upstream import ScriptedUpstream

REFUSED = os.strerror(errno.ECONNREFUSED)


@contextmanager
def unheard() -> Iterator[int]:
    """A port on which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@asynccontextmanager
async def trouble(kind: str) -> AsyncIterator[str]:
    """The base URL of a provider that cannot be reached in this way."""
    if kind == "refused":
        with unheard() as port:
            yield f"http://127.0.0.1:{port}/v1"
    elif kind == "a stranger's certificate":
        async with RawServer(saying(b""), tls=serving()) as server:
            yield f"https://127.0.0.1:{server.port}/v1"
    elif kind == "no TLS":
        async with RawServer(plain) as server:
            yield f"https://127.0.0.1:{server.port}/v1"
    else:
        yield "http://nowhere.invalid/v1"


async def plain(peer: Peer) -> None:
    """What a server without TLS says to a greeting of TLS."""
    await peer.say(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
    await peer.gone()


async def stern(peer: Peer) -> None:
    """What a proxy says to who should have given a password."""
    await peer.say(b"HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n")
    await peer.gone()


CAUSES = {
    "refused": REFUSED,
    "name": "its name does not resolve",
    "no TLS": "no TLS is spoken there",
    "a stranger's certificate": "its certificate is not trusted: self-signed certificate",
}


@pytest.mark.parametrize("kind", CAUSES)
async def test_the_record_says_why(kind: str, tmp_path: Path, upstream: ScriptedUpstream) -> None:
    spec = policy({"a": upstream})
    async with trouble(kind) as url:
        spec["providers"]["a"]["base_url"] = url
        async with Live(tmp_path, spec) as live:
            answer = await live.chat(model="a")
            assert (answer.status, answer.error_code) == (502, "upstream_error")
            assert {attempt["cause"] for attempt in await live.attempts(answer)} == {CAUSES[kind]}
            for _ in range(FAILURES_TO_OPEN):
                await live.chat(model="a")
            breaker = live.services.health.of("a")
            assert breaker.why == f"The provider cannot be reached. ({CAUSES[kind]})"


@pytest.mark.parametrize("kind", CAUSES)
async def test_it_is_the_same_where_the_environment_names_a_proxy(kind: str) -> None:
    upstreams = AiohttpUpstreams()
    async with trouble(kind) as url:
        with pytest.raises(NotConnected) as raised:
            await upstreams.open(Provider("x", "openai_chat", url), PATH, WHOLE)
    await upstreams.close()
    assert str(raised.value) == CAUSES[kind]


async def test_a_proxy_is_told_from_the_provider() -> None:
    with unheard() as port:
        upstreams = AiohttpUpstreams({"https": f"http://127.0.0.1:{port}"})
        with pytest.raises(NotConnected) as raised:
            await upstreams.open(Provider("x", "openai_chat", "https://provider.invalid/v1"), PATH, WHOLE)
        await upstreams.close()
    assert str(raised.value) == f"the proxy: {REFUSED}"
    async with RawServer(stern) as proxy:
        upstreams = AiohttpUpstreams({"https": f"http://127.0.0.1:{proxy.port}"})
        with pytest.raises(NotConnected) as raised:
            await upstreams.open(Provider("x", "openai_chat", "https://provider.invalid/v1"), PATH, WHOLE)
        await upstreams.close()
    assert str(raised.value) == "the proxy answered 407"


def test_what_names_a_host_is_put_in_other_words() -> None:
    mismatch = ssl.SSLCertVerificationError(1, "x")
    mismatch.verify_code, mismatch.verify_message = 62, "Hostname mismatch, certificate is not valid for 'secret.host'."
    assert unreachable(mismatch) == "its certificate is for another name"
    several = OSError(
        "Multiple exceptions: [Errno 111] Connect call failed ('::1', 1), [Errno 111] Connect call failed"
    )
    assert unreachable(several) == os.strerror(111)
    assert unreachable(TimeoutError()) == "connecting took too long"
    assert unreachable(ConnectionResetError()) == "the connection was lost"
    assert unreachable(ValueError("https://user:secret@host/")) == ""
    assert unreachable(aiohttp.ClientError()) == ""
