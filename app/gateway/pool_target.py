"""What is the same for every request to one path of one provider: where it goes, and its head."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from app.core.policy import Provider
from app.gateway.pool_origin import Origin
from app.gateway.upstream import key_header

# Sources: https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2 (token) and #section-5.5 (field-value).
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(r"[\x21-\x7e]+")
_FRAMING = frozenset({"connection", "content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade"})


@dataclass(frozen=True, slots=True)
class Target:
    """`head` is a request's head up to the value of Content-Length. `provider` is held so that its id stays its own."""

    provider: Provider
    origin: Origin
    head: bytes

    def __repr__(self) -> str:
        return f"Target({self.provider.name!r})"


def build_target(provider: Provider, path: str, origins: dict[tuple[str, int, bool], Origin]) -> Target:
    """The target of a path, at an origin that is found in `origins` or added. Raises ValueError."""
    url = urlsplit(provider.url(path))
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("its base_url must be an http:// or https:// URL with a host")
    tls = url.scheme == "https"
    default_port = 443 if tls else 80
    host, port = _ascii_host(url.hostname), url.port or default_port
    asked = (url.path or "/") + (f"?{url.query}" if url.query else "")
    if not _TARGET.fullmatch(asked):
        raise ValueError("its base_url's path must be percent-encoded")
    named = f"[{host}]" if ":" in host else host
    headers = _headers(provider, named if port == default_port else f"{named}:{port}")
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    head = f"POST {asked} HTTP/1.1\r\n{lines}Content-Length: ".encode("latin-1")
    origin = origins.setdefault((host, port, tls), Origin(host, port, tls=tls))
    return Target(provider, origin, head)


def _ascii_host(host: str) -> str:
    if ":" in host:
        return str(ipaddress.IPv6Address(host))
    return host if host.isascii() else host.encode("idna").decode()


def _headers(provider: Provider, host: str) -> list[tuple[str, str]]:
    """The provider's own headers replace the gateway's, but for its key and the message's framing."""
    headers = {
        "host": ("Host", host),
        "user-agent": ("User-Agent", "bursar"),
        "accept": ("Accept", "*/*"),
        "accept-encoding": ("Accept-Encoding", "identity"),
        "content-type": ("Content-Type", "application/json"),
    }
    for name, value in provider.headers.items():
        if name.lower() in _FRAMING:
            raise ValueError(f"the header {name!r} is the connection's own and cannot be set")
        headers[name.lower()] = (name, value)
    if (key := key_header(provider)) is not None:
        headers[key[0].lower()] = key
    for name, value in headers.values():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a header")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"the value of its header {name!r} has characters that a header cannot hold")
    return list(headers.values())


def with_headers(head: bytes, headers: Mapping[str, str]) -> bytes:
    """A target's head with one request's own headers; what the head has already stays, and what no header can be is
    left out."""
    lowered, lines = head.lower(), []
    for name, value in headers.items():
        known = f"\r\n{name.lower()}:".encode("latin-1", "replace") in lowered
        if not known and name.lower() not in _FRAMING and _NAME.fullmatch(name) and _VALUE.fullmatch(value):
            lines.append(f"{name}: {value}\r\n")
    start = head.removesuffix(b"Content-Length: ")
    return start + "".join(lines).encode("latin-1") + b"Content-Length: "
