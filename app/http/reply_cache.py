"""The cache that a policy may ask for: a request that is the same byte for byte, from the same key, under the same
policy, gets the reply that came before, and costs nothing.

Only whole answers are kept that no lack of money has shaped, and only in the store that gateways share
(`stores/replays.py`). Nobody waits for a request that is under way: it is served beside.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from typing import Final

import structlog

from app.core.money import usd_float
from app.gateway.services import Services
from app.http.asgi import Head
from app.http.replays import Reply
from app.stores.replays import Claim, Kept, ReplaysUnavailable, SharedReplays

log = structlog.get_logger()

CACHED: Head = [(b"x-bursar-cache", b"hit"), (b"x-bursar-cost-usd", b"0")]
FROM: Final = b"x-bursar-cache-from"
"""Names the call that made the reply."""
_SPEAKING = frozenset(("anthropic-beta", "anthropic-version", "openai-beta"))
_WHOSE = frozenset(("x-bursar-task-id", "x-bursar-parent-task-id", "x-bursar-tags"))
_PASSING = (
    b"x-request-id",
    b"request-id",
    b"x-bursar-request-id",
    b"x-bursar-task-id",
    b"x-bursar-remaining-usd",
    b"x-bursar-scope",
    b"x-client-request-id",
    b"x-ratelimit-",
    b"anthropic-ratelimit-",
)
"""Headers of a reply that are of its first call alone, by how they begin."""


class ReplyCache:
    """One per process, over one store."""

    def __init__(self, services: Services, shared: SharedReplays) -> None:
        self._services = services
        self._shared = shared

    async def find(self, whose: str, headers: Mapping[str, str], path: str, body: bytes) -> tuple[Reply, bool] | None:
        """The reply that came before, and False; a new one to be recorded and `end`ed, and True; or None: this request
        is none of the cache's business."""
        policy, began_s = self._services.view.policy, time.monotonic()
        if policy.cache_s is None or _wants_anew(headers.get("cache-control", "").lower()):
            return None
        asked = "\0".join([policy.version, path, *sorted(_spoken(headers)), ""]).encode() + body
        fingerprint = hashlib.sha256(asked).digest()
        name = f"{whose}:{fingerprint.hex()}"
        try:
            found = await self._shared.claim(name, fingerprint)
        except ReplaysUnavailable as error:
            log.warning("the cache of replies does not answer: all are served anew", error=str(error))
            return None
        reply = Reply(fingerprint, began_s, self._shared, for_all=True, keep_s=policy.cache_s)
        if isinstance(found, Kept):
            reply.fill(found)
            reply.headers = [header for header in reply.headers if not header[0].startswith(_PASSING)]
            if name := headers.get("x-request-id", "")[:200]:
                reply.headers.append((b"x-client-request-id", name.encode("latin-1")))
            self._services.metrics.cache_hits.inc()
            if found.origin is not None:
                self._services.metrics.cache_saved.inc(usd_float(found.origin.cost_nano or 0))
            return reply, False
        if found is not Claim.MINE:
            return None
        reply.claim = name
        return reply, True


def _spoken(headers: Mapping[str, str]) -> Iterator[str]:
    """The headers that are part of what is asked: the caps among them, for a cheaper model may answer under one."""
    for name, value in headers.items():
        if name in _SPEAKING or (name.startswith("x-bursar-") and name not in _WHOSE):
            yield f"{name}:{value}"


def _wants_anew(cache_control: str) -> bool:
    """https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1: both mean here that the cache is left alone."""
    return "no-cache" in cache_control or "no-store" in cache_control
