"""Responses that are stored here (OpenAI's `store`): how long, in how much room, and what requests do with them."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class StoreRules:
    """What the policy says of stored responses: each is kept for `ttl_s` after it was made or last gone on from, all of
    them in `max_bytes`."""

    ttl_s: float
    max_bytes: int


class Stored(msgspec.Struct, frozen=True):
    """Of a request whose conversation is here. `reply_id`: under which its response is to be stored, None: it is not;
    `previous_id`: the stored response that it goes on from, whose items are in the request by now."""

    reply_id: str | None = None
    previous_id: str | None = None
