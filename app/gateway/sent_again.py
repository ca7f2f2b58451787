"""What requests that failed have cost, for when an SDK sends them again by itself: one cap binds all of its tries.

OpenAI's and Anthropic's SDKs say so in `x-stainless-retry-count`, and send the same bytes. Known to this process only.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping

from app.core.types import ChatRequest

KEPT_S = 120.0
"""Longer than SDKs wait before they try again: they honour a `Retry-After` of a minute at the most."""
MAX_KEPT = 10_000
READ_BYTES = 65_536
"""Of each end of a long member: a digest must not hold up other calls."""
MAX_TRIES = 32
"""Tries after these are taken as one."""

Spent = Mapping[str, int]
"""Nano-dollars by the models that were asked."""


class SentAgain:
    """Dollars by request and try; those noted first are forgotten first.

    Clients that ask for several samples send the same bytes at once: that each try goes by the one before it, and not
    by all that failed, keeps them apart.
    """

    def __init__(self) -> None:
        self._spent: OrderedDict[tuple[bytes, int], tuple[float, Spent]] = OrderedDict()

    @property
    def any(self) -> bool:
        """Whether something is noted."""
        return bool(self._spent)

    def note(self, name: bytes, tries: int, spent: Spent) -> None:
        """This request has failed after so many tries before; with them this was spent on it."""
        self._spent.pop((name, tries), None)
        if spent:
            self._spent[name, tries] = (time.monotonic() + KEPT_S, spent)
        if len(self._spent) > MAX_KEPT:
            self._spent.popitem(last=False)

    def spent(self, name: bytes, tries: int) -> Spent:
        """What was spent on so many tries of this request, as far as the latest of them that is known."""
        for before in reversed(range(tries)):
            until_s, spent = self._spent.get((name, before), (0.0, {}))
            if time.monotonic() < until_s:
                return spent
        return {}


def tries_of(retry_count: str) -> int:
    """How many tries there were before, as an SDK counts them; 1 where it is no number."""
    count = int(retry_count) if retry_count.isascii() and retry_count.isdigit() else 1
    return min(count, MAX_TRIES)


def name_of(request: ChatRequest, key_name: str, task_id: str | None) -> bytes:
    """The same for the same request of the same key in the same task."""
    hashed = hashlib.blake2b(repr((key_name, task_id, request.dialect, request.model)).encode(), digest_size=16)
    for member, value in request.members.items():
        raw = memoryview(value)
        hashed.update(b"%b %d " % (member.encode("utf-8", "replace"), len(raw)))
        hashed.update(raw[:READ_BYTES])
        hashed.update(raw[READ_BYTES:][-READ_BYTES:])
    return hashed.digest()
