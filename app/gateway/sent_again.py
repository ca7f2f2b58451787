"""What requests that failed have cost, for when an SDK sends them again by itself: one cap binds all of its tries.

OpenAI's and Anthropic's SDKs say so in `x-stainless-retry-count`, and send the same bytes; to whichever worker or
gateway they come (`stores/task_memory`). Nothing is asked or noted of a first try that does not fail.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping

import msgspec
import structlog

from app.core.types import ChatRequest
from app.stores.task_memory import MemoryUnavailable, TaskMemory

log = structlog.get_logger()

KEPT_S = 120.0
"""Longer than SDKs wait before they try again: they honour a `Retry-After` of a minute at the most."""
MAX_KEPT = 10_000
READ_BYTES = 65_536
"""Of each end of a long member: a digest must not hold up other calls."""
MAX_TRIES = 32
"""Tries after these are taken as one."""

Spent = Mapping[str, int]
"""Nano-dollars by the models that were asked."""
NOTHING: Spent = {}
_spent = msgspec.json.Decoder(dict[str, int])


class SentAgain:
    """Dollars by request and try; of those known here, those noted first are forgotten first.

    Clients that ask for several samples send the same bytes at once: that each try goes by the one before it, and not
    by all that failed, keeps them apart.
    """

    def __init__(self, memory: TaskMemory) -> None:
        self._memory = memory
        self._known: OrderedDict[bytes, tuple[float, Spent]] = OrderedDict()

    @property
    def any(self) -> bool:
        """Whether something is known here."""
        return bool(self._known)

    async def note(self, name: bytes, tries: int, spent: Spent) -> None:
        """This request has failed after so many tries before; with them this was spent on it. All others know when this
        returns. That nothing was spent is told only where another call like it was known."""
        at = _try(name, tries)
        before = self._known.pop(at, None)
        if spent:
            self._known[at] = (time.monotonic() + KEPT_S, spent)
        elif before is None:
            return
        if len(self._known) > MAX_KEPT:
            self._known.popitem(last=False)
        try:
            await self._memory.note(at, msgspec.json.encode(spent).decode(), KEPT_S)
        except MemoryUnavailable as error:
            log.warning("what a failed request has cost is known to this process only", error=str(error))

    async def spent(self, name: bytes, tries: int) -> Spent:
        """What was spent on so many tries of this request, as far as the latest of them that is known."""
        names = [_try(name, before) for before in reversed(range(tries))]
        if (known := self._here(names[:1])) is not None:
            return known
        try:
            found = await self._memory.word(*names)
        except MemoryUnavailable as error:
            log.warning("what a request has cost before is known to this process only", error=str(error))
            found = None
        return (self._here(names) or NOTHING) if found is None else _spent.decode(found)

    def _here(self, names: list[bytes]) -> Spent | None:
        now_s = time.monotonic()
        for name in names:
            until_s, spent = self._known.get(name, (0.0, NOTHING))
            if now_s < until_s:
                return spent
        return None


def tries_of(retry_count: str) -> int:
    """How many tries there were before, as an SDK counts them; 1 where it is no number."""
    # Python reads no number of more than 4,300 digits; of one so large the first tell enough.
    count = int(retry_count[:9]) if retry_count.isascii() and retry_count.isdigit() else 1
    return min(count, MAX_TRIES)


def name_of(request: ChatRequest, owner: str, task_id: str | None) -> bytes:
    """The same, in every process, for the same request of the same owner (a key, or one of its users) and task."""
    hashed = hashlib.blake2b(repr((owner, task_id, request.dialect, request.model)).encode(), digest_size=16)
    for member, value in request.members.items():
        raw = memoryview(value)
        hashed.update(b"%b %d " % (member.encode("utf-8", "replace"), len(raw)))
        hashed.update(raw[:READ_BYTES])
        hashed.update(raw[READ_BYTES:][-READ_BYTES:])
    return hashed.digest()


def _try(name: bytes, tries: int) -> bytes:
    return hashlib.blake2b(b"%d " % tries + name, digest_size=16, person=b"sent again").digest()
