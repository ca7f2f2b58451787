"""Who is asking: a key known by its hash, or anyone on loopback where the policy sets no keys."""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from app.core.errors import Forbidden, Unauthorized
from app.core.policy import Key, Policy

CHALLENGE = {"www-authenticate": "Bearer"}
MAX_SITE_CHARS = 1024
"""Longer than any two host names; answers for shorter ones are remembered."""
_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
MAX_KNOWN, MAX_KNOWN_CHARS = 4096, 256
"""Header values that named a key and are remembered, so that they are not hashed for every request: so many, and none
that is longer."""


class KeyRing:
    """The keys of one policy, by hash; those that have come, by what their header said."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._known: dict[str, Key] = {}

    def authenticate(self, headers: Mapping[str, str], *, judging: bool = False) -> Key | None:
        """The key of this request; None where the policy sets no keys. Raises Unauthorized; and Forbidden, for a key
        that judges too, unless it is `judging`."""
        if self.policy.open_access:
            _refuse_other_sites(headers)
            return None
        for name in _HEADERS:
            value = headers.get(name)
            if value and (key := self._known.get(value) or self._find(value)) is not None:
                if key.expires_s is not None and time.time() >= key.expires_s:
                    raise Unauthorized("This key has expired.", headers=CHALLENGE)
                if key.judges and not judging:
                    raise Forbidden("This key may give feedback (POST /v1/feedback), and nothing else.")
                return key
        raise Unauthorized("The API key is missing, or this gateway does not know it.", headers=CHALLENGE)

    def _find(self, value: str) -> Key | None:
        secret = value[7:].strip() if value[:7].lower() == "bearer " else value.strip()
        key = self.policy.keys.get(hashlib.sha256(secret.encode()).hexdigest())
        if key is not None and len(value) <= MAX_KNOWN_CHARS:  # one key can be written with any number of spaces
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[value] = key
        return key


def _refuse_other_sites(headers: Mapping[str, str]) -> None:
    """Without keys, a web page in the operator's browser must not be able to spend (DNS rebinding, simple POSTs)."""
    host, origin = headers.get("host", ""), headers.get("origin")
    if len(host) + len(origin or "") > MAX_SITE_CHARS or not _is_local_site(host, origin):
        raise Forbidden("Without keys this gateway answers local clients only: no web sites, no other host names.")


@functools.lru_cache(maxsize=256)
def _is_local_site(host: str, origin: str | None) -> bool:
    """An address is a good host, since only a name can be rebound; an origin must be this machine's own.

    The origin `null` (a sandboxed frame, a file) may be anybody's page.
    """
    try:
        asked = urlsplit(f"//{host}").hostname
        site = "localhost" if origin is None else urlsplit(origin).hostname
    except ValueError:
        return False
    return (asked is None or _is_localhost(asked) or _address(asked) is not None) and is_loopback(site or "")


def is_loopback(host: str) -> bool:
    """True when a server bound to `host` is reachable from this machine only."""
    address = _address(host)
    return _is_localhost(host) or (address is not None and address.is_loopback)


def _is_localhost(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
