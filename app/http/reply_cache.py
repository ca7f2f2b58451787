"""The cache that a policy may ask for: a request that is the same byte for byte, from the same key, under the same
policy, gets the reply that came before, and costs nothing.

Only whole answers are kept, and only in the store that gateways share (`stores/replays.py`). Nobody waits for a
request that is under way: it is served beside.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping

import structlog

from app.core.money import usd_float
from app.core.types import Outcome
from app.gateway.services import Services
from app.http.asgi import Head
from app.http.replays import Reply
from app.stores.replays import Claim, Kept, ReplaysUnavailable, SharedReplays

log = structlog.get_logger()

CACHED: Head = [(b"x-bursar-cache", b"hit"), (b"x-bursar-cost-usd", b"0")]
_SPEAKING = ("anthropic-beta", "anthropic-version", "openai-beta", "x-bursar-on-cut")
"""Headers that are part of what is asked."""
_WHOLE = frozenset({Outcome.COMPLETED})


class ReplyCache:
    """One per process, over one store."""

    def __init__(self, services: Services, shared: SharedReplays) -> None:
        self._services = services
        self._shared = shared

    async def find(self, whose: str, headers: Mapping[str, str], path: str, body: bytes) -> tuple[Reply, bool] | None:
        """The reply that came before, and False; a new one to be recorded and `end`ed, and True; or None: this request
        is none of the cache's business."""
        policy = self._services.view.policy
        if policy.cache_s is None or _wants_anew(headers.get("cache-control", "")):
            return None
        spoken = [f"{name}:{headers[name]}" for name in _SPEAKING if name in headers]
        asked = "\0".join([policy.version, path, *spoken, ""]).encode() + body
        fingerprint = hashlib.sha256(asked).digest()
        name = f"{whose}:{fingerprint.hex()}"
        try:
            found = await self._shared.claim(name, fingerprint)
        except ReplaysUnavailable as error:
            log.warning("the cache of replies does not answer: all are served anew", error=str(error))
            return None
        reply = Reply(fingerprint, time.monotonic(), self._shared, outcomes=_WHOLE, keep_s=policy.cache_s)
        if isinstance(found, Kept):
            reply.fill(found)
            self._services.metrics.cache_hits.inc()
            self._services.metrics.cache_saved.inc(usd_float(found.cost_nano or 0))
            return reply, False
        if found is not Claim.MINE:
            return None
        reply.claim = name
        return reply, True


def _wants_anew(cache_control: str) -> bool:
    """https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1: both mean here that the cache is left alone."""
    return "no-cache" in cache_control or "no-store" in cache_control
