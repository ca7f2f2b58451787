"""What requests that failed have cost, for when an SDK sends them again by itself: one cap binds all of its tries.

OpenAI's and Anthropic's SDKs say so in `x-stainless-retry-count`, and send the same bytes. Known to this process only.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict

from app.core.types import ChatRequest

KEPT_S = 120.0
"""Longer than SDKs wait before they try again: they honour a `Retry-After` of a minute at the most."""
MAX_KEPT = 10_000
READ_BYTES = 65_536
"""Of each end of a long member: a digest must not hold up other calls."""


class SentAgain:
    """Dollars by request; those noted first are forgotten first."""

    def __init__(self) -> None:
        self._used: OrderedDict[bytes, tuple[float, int]] = OrderedDict()

    def note(self, name: bytes, nano: int) -> None:
        """A try of this request has failed, and all of its tries together have cost so many nano-dollars."""
        self._used.pop(name, None)
        self._used[name] = (time.monotonic() + KEPT_S, nano)
        if len(self._used) > MAX_KEPT:
            self._used.popitem(last=False)

    def used_nano(self, name: bytes) -> int:
        """What the tries of this request have cost."""
        until_s, nano = self._used.get(name, (0.0, 0))
        return nano if time.monotonic() < until_s else 0


def name_of(request: ChatRequest, key_name: str, task_id: str | None) -> bytes:
    """The same for the same request of the same key in the same task."""
    hashed = hashlib.blake2b(repr((key_name, task_id, request.dialect, request.model)).encode(), digest_size=16)
    for member, value in request.members.items():
        raw = bytes(value)
        hashed.update(b"%b %d " % (member.encode("utf-8", "replace"), len(raw)))
        hashed.update(raw[:READ_BYTES])
        hashed.update(raw[READ_BYTES:][-READ_BYTES:])
    return hashed.digest()
