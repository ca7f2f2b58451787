"""Replies to requests that may come again, shared by all gateways, for a while: by an `Idempotency-Key`, and where the
policy has a cache by what they ask.

Who serves a request claims its key first, and keeps its claim alive while it works; what it answered is kept in the
claim's place. A claim whose owner died runs out, and the next request is served anew. Two stores hold them: a SQLite
file beside the embedded ledger (`replays_sqlite`), and Redis (`replays_redis`).
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

import msgspec

LEASE_S = 30.0
"""How long a claim outlives its owner."""
RENEW_S = LEASE_S / 3
KEPT_S = 600.0
MAX_KEPT_BYTES = 8 * 1024 * 1024
"""Of one reply: a larger one is not kept, and a request that comes again is served anew."""
IN_ALL_BYTES = 512 * 1024 * 1024
"""Of all replies in a file; those that would be forgotten first go first."""
IN_REDIS_BYTES = 128 * 1024 * 1024
"""The same in Redis, whose memory is the ledger's: full of replies it would take no more money, and serve nobody."""


class ReplaysUnavailable(Exception):
    """The store does not answer."""


class Claim(Enum):
    """What became of a claim."""

    MINE = "mine"
    BUSY = "busy"
    """Somebody serves it at this moment."""
    OTHER = "other"
    """The key belongs to another request."""


class Origin(msgspec.Struct, array_like=True, frozen=True):
    """The call that a reply was made by, as far as records of those who get it again tell. `task_type`: None for an
    embedding. `cost_nano`: what it cost in all, None where that is not known."""

    request_id: str
    requested_model: str
    model: str
    provider: str
    task_type: str | None
    input_tokens: int
    cost_nano: int | None


class Kept(msgspec.Struct, array_like=True):
    """A reply as it was sent. `origin`: where no call made it there is none."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    origin: Origin | None = None


class SharedReplays(Protocol):
    """Where claims and replies are."""

    async def claim(self, name: str, fingerprint: bytes) -> Claim | Kept:
        """Claim a key for a request with this fingerprint (32 bytes), or learn what became of the one that did.
        Raises ReplaysUnavailable."""

    def keep(self, name: str, kept: Kept | None, keep_s: float = KEPT_S) -> None:
        """End a claim of this process: with its reply, or (None) so that the next request is served. Returns at once;
        what cannot be written is logged, and the claim runs out."""

    async def renew(self) -> None:
        """Keep the claims of this process alive; called every RENEW_S."""

    async def close(self) -> None:
        """Write what is waiting."""


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Kept).decode


def decode(reply: bytes) -> Kept:
    """A reply as it was stored. Raises ReplaysUnavailable where another version stored it: then it is made anew."""
    try:
        return _decode(reply)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ReplaysUnavailable(f"a reply that this version cannot read: {error}") from None
