"""Responses that a policy has stored (`stored_responses`), shared by all gateways: what OpenAI calls `store`.

A response is kept with the items of its own request alone; `previous` leads to those before it, so that a conversation
is kept once, however long it grows. Whoever asks names the owner, whose ids mean nothing to others. A response lives
as long as the last one that was made of it. Two stores hold them: a SQLite file beside the embedded ledger
(`responses_sqlite`), and Redis (`responses_redis`).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Protocol

import msgspec

from app.core.stored import StoreRules

FORGET_S = 60.0
"""How often what is over is deleted, where nothing is stored meanwhile."""
_LEVEL = 1
_encode = msgspec.msgpack.Encoder().encode


class ResponsesUnavailable(Exception):
    """The store does not answer."""


class TooMuch(Exception):
    """What was asked for is more than may be."""


class StoredResponse(msgspec.Struct, array_like=True):
    """`input`: the items of its own request, without those of `previous`; `body`: the response object; both JSON."""

    id: str
    previous: str | None
    input: bytes
    body: bytes

    @property
    def size(self) -> int:
        """In bytes, as it is read."""
        return len(self.input) + len(self.body)


class StoredResponses(Protocol):
    """Where they are. Every verb raises ResponsesUnavailable."""

    async def put(
        self, owner: str, response: StoredResponse, items: Sequence[str], of: Sequence[str], rules: StoreRules
    ) -> bool:
        """Store a response, so that everybody finds it when this returns; False: it alone is more than all may be.
        `items`: the ids of what it said; `of`: the responses that it was made of, which live on with it."""

    async def chain(self, owner: str, last: str, most_bytes: int) -> list[StoredResponse]:
        """The response and all that it goes on from, the first one first; none where one is missing. Raises TooMuch."""

    async def holding(self, owner: str, items: Sequence[str], most_bytes: int) -> list[StoredResponse]:
        """The responses that said these items, as far as they are here. Raises TooMuch."""

    async def get(self, owner: str, id_: str) -> StoredResponse | None:
        """One response."""

    async def delete(self, owner: str, id_: str) -> bool:
        """Forget one; False: it is not here."""

    async def forget(self) -> None:
        """Delete what is over; called every FORGET_S, whether the policy stores anything or not."""

    async def close(self) -> None:
        """Write what is waiting."""


def packed(response: StoredResponse) -> bytes:
    """As it is kept. Takes a millisecond for 100 kB: not on an event loop."""
    return zlib.compress(_encode(response), _LEVEL)


def unpacked(data: bytes) -> StoredResponse:
    """What `packed` made."""
    return _decode(zlib.decompress(data))


_decode = msgspec.msgpack.Decoder(StoredResponse).decode
