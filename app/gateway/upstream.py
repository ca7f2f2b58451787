"""Connections to providers, behind a seam of four verbs (open, read, release, close), and the proxies on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Protocol

from app.core.policy import Provider

MAX_REPLY_BYTES = 64 * 1024 * 1024
READ_BUFFER_BYTES = 64 * 1024
"""How much of a stream waits here for a slow client before the provider is made to wait."""


Take = Callable[[bytes], bool]
"""Is given what one read brought, b"" at the end; True: go on."""
NO_HEADERS: Mapping[str, str] = {}
_KEY_HEADERS = {"anthropic": "x-api-key", "gemini": "x-goog-api-key"}


def key_header(provider: Provider) -> tuple[str, str] | None:
    """The header in which this provider wants its key; None where it has none."""
    if provider.api_key is None:
        return None
    name = _KEY_HEADERS.get(provider.dialect)
    return (name, provider.api_key.value) if name else ("Authorization", f"Bearer {provider.api_key.value}")


class NotConnected(Exception):
    """No connection was made, or it was lost before the provider can have read the request. Its text says why, as
    `stores/causes` does."""


class ConnectionBroken(Exception):
    """The connection died after the request was (or may have been) sent. Its text says how, and quotes nothing."""


class Reply(Protocol):
    """An upstream's answer, its head received."""

    status: int
    headers: Mapping[str, str]

    async def read(self) -> bytes:
        """The next bytes as they come; b"" at the end. Raises ConnectionBroken."""

    async def pour(self, take: Take) -> None:
        """Hand on read after read until `take` wants no more, maybe in the connection's own callback: no task is woken
        for a read. At the end `take` must not want more. Raises ConnectionBroken, and what `take` raises."""

    def buffered(self) -> bytes:
        """What has arrived and was not read yet; never waits."""

    async def read_all(self) -> bytes:
        """The whole rest of the body. Raises ConnectionBroken."""

    def release(self) -> None:
        """Finished with: the connection may serve again."""

    def close(self) -> None:
        """Cancel: the connection is closed at once, so that the provider stops."""


async def all_reads(reply: Reply) -> bytes:
    """`Reply.read_all`. Closes a reply that is larger than MAX_REPLY_BYTES and raises ConnectionBroken."""
    parts, size = [], 0
    while data := await reply.read():
        parts.append(data)
        size += len(data)
        if size > MAX_REPLY_BYTES:
            reply.close()
            raise ConnectionBroken("the reply is larger than the gateway accepts")
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def pour_reads(reply: Reply, take: Take) -> None:
    """`Reply.pour` for replies that have no quicker way."""
    while take(await reply.read()):
        pass


class Upstreams(Protocol):
    """What opens replies."""

    async def open(self, provider: Provider, path: str, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Reply:
        """POST a JSON body, with headers beside the provider's own (whose names win). Raises NotConnected or
        ConnectionBroken; the caller owns every deadline."""

    async def close(self) -> None:
        """Close all connections."""


def proxies_of(env: Mapping[str, str]) -> dict[str, str]:
    """The proxy URL per scheme that an environment names, and under "no" the hosts that need none.

    HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY in any case (lower case wins, as with curl); empty without any.
    """
    named = {name.lower(): env[name] for name in sorted(env) if env[name]}
    proxies = {}
    for scheme in ("http", "https"):
        if proxy := named.get(f"{scheme}_proxy") or named.get("all_proxy"):
            proxies[scheme] = proxy if "://" in proxy else f"http://{proxy}"
    if proxies and "no_proxy" in named:
        proxies["no"] = named["no_proxy"]
    return proxies


def proxy_for(proxies: Mapping[str, str], scheme: str, host: str, port: int | None = None) -> str | None:
    """The proxy for a host; None if it needs none, as this machine never does.

    NO_PROXY lists hosts (each with its subdomains), addresses and networks (10.0.0.0/8), maybe with a port; or `*`.
    """
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return None
    for listed in proxies.get("no", "").lower().split(","):
        name, only = _port_apart(listed.strip())
        if name == "*" or (only in (None, port) and _covers(name, host, address)):
            return None
    return proxies.get(scheme)


def _covers(name: str, host: str, address: IPv4Address | IPv6Address | None) -> bool:
    """Whether an entry of NO_PROXY, its port apart, is of this host."""
    if address is None:
        domain = name.lstrip("*").lstrip(".")
        return bool(domain) and (host == domain or host.endswith("." + domain))
    try:
        return address in ip_network(name, strict=False)
    except ValueError:
        return False


def _port_apart(listed: str) -> tuple[str, int | None]:
    """`name`, `name:80`, `::1` or `[::1]:80` in its two parts."""
    name, colon, port = listed.rpartition(":")
    if colon and port.isascii() and port.isdigit() and (name.endswith("]") or ":" not in name):
        return name.strip("[]"), int(port)
    return listed.strip("[]"), None


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
