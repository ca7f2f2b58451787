"""What the pool's tests say to a provider, and how they wait."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

from app.core.policy import Provider
from app.gateway.pool import PooledUpstreams
from tests.upstream import PATIENCE_S, ScriptedUpstream

PATH = "/chat/completions"
STREAM = b'{"model":"m","stream":true,"messages":[]}'
WHOLE = b'{"model":"m","messages":[]}'
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
TLS = Path(__file__).parent / "tls"
"""A certificate for localhost and 127.0.0.1, its own authority, valid until 2126, and its key: for tests only."""


def trusting() -> ssl.SSLContext:
    """A client's context that trusts the tests' certificate."""
    return ssl.create_default_context(cafile=TLS / "cert.pem")


def serving() -> ssl.SSLContext:
    """A server's context with the tests' certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    return context


def provider_of(upstream: ScriptedUpstream) -> Provider:
    """The provider that a scripted upstream is."""
    return Provider("scripted", "openai_chat", upstream.url)


async def exchange(pool: PooledUpstreams, provider: Provider, body: bytes = WHOLE) -> tuple[int, bytes]:
    """Ask, and read the whole answer: status and body."""
    reply = await pool.open(provider, PATH, body)
    data = await reply.read_all()
    reply.release()
    return reply.status, data


async def until(condition: Callable[[], object]) -> None:
    """Wait, in the running loop, for what has no event of its own."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)
