"""The seam of `upstream` filled by aiohttp's client: for environments where providers are behind a proxy."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from app.core.policy import Provider
from app.gateway.upstream import (
    NO_HEADERS,
    READ_BUFFER_BYTES,
    ConnectionBroken,
    NotConnected,
    Take,
    all_reads,
    key_header,
    pour_reads,
    proxy_for,
)
from app.stores.causes import unreachable


class AiohttpReply:
    """A reply of aiohttp's client."""

    __slots__ = ("_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes:
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionBroken(_broken(error)) from error

    async def pour(self, take: Take) -> None:
        await pour_reads(self, take)

    def buffered(self) -> bytes:
        try:
            return self._response.content.read_nowait()
        except (aiohttp.ClientError, OSError, RuntimeError):
            return b""

    async def read_all(self) -> bytes:
        return await all_reads(self)

    def release(self) -> None:
        self._response.release()

    def close(self) -> None:
        self._response.close()


def _unreachable(error: aiohttp.ClientError) -> str:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered {error.status}"
    if isinstance(error, aiohttp.InvalidURL):
        return "it cannot be asked: its base_url is not valid"
    why = unreachable(error)
    return f"the proxy: {why}" if isinstance(error, aiohttp.ClientProxyConnectionError) else why


def _broken(error: Exception) -> str:
    # The text of an answer that cannot be read holds the URL, and may quote the answer.
    malformed = isinstance(error, aiohttp.ClientResponseError)
    return "the provider's reply is malformed" if malformed else f"the connection was lost: {error}"


class AiohttpUpstreams:
    """One client session for all providers. Deadlines are the call's: its watcher stops it.

    `proxies` is what `proxies_of` found. Not aiohttp's own trust_env: that ignores ALL_PROXY, and takes a .netrc
    entry for the provider's host for a second Authorization, which it then refuses to send.
    """

    def __init__(self, proxies: Mapping[str, str] | None = None) -> None:
        self._proxies = dict(proxies or {})
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60, ttl_dns_cache=300)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
            read_bufsize=READ_BUFFER_BYTES,
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
        )
        self._targets: dict[tuple[int, str], tuple[Provider, URL, CIMultiDict[str], str | None]] = {}

    async def open(
        self, provider: Provider, path: str, body: bytes, headers: Mapping[str, str] = NO_HEADERS
    ) -> AiohttpReply:
        url, own, proxy = self._target(provider, path)
        sent = own if not headers else CIMultiDict({**headers, **own})
        try:
            return AiohttpReply(
                await self._session.post(url, data=body, headers=sent, proxy=proxy, allow_redirects=False)
            )
        except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError, aiohttp.InvalidURL) as error:
            raise NotConnected(_unreachable(error)) from error
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
            raise ConnectionBroken(_broken(error)) from error

    def _target(self, provider: Provider, path: str) -> tuple[URL, CIMultiDict[str], str | None]:
        known = self._targets.get((id(provider), path))
        if known is not None and known[0] is provider:
            return known[1:]
        headers: CIMultiDict[str] = CIMultiDict(
            {
                "Content-Type": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": "bursar",
                **provider.headers,
            }
        )
        if (key := key_header(provider)) is not None:
            headers[key[0]] = key[1]
        url = URL(provider.url(path), encoded=True)
        if len(self._targets) > 256:  # old policies' providers
            self._targets.clear()
        proxy = proxy_for(self._proxies, url.scheme, url.raw_host or "", url.port)
        self._targets[(id(provider), path)] = (provider, url, headers, proxy)
        return url, headers, proxy

    async def close(self) -> None:
        await self._session.close()
