"""A provider's count of input tokens, as Messages and Responses tell it."""

from __future__ import annotations

import msgspec

from app.core.raw import UNREADABLE


class _Counted(msgspec.Struct):
    input_tokens: int


_counted = msgspec.json.Decoder(_Counted)


def counted(body: bytes) -> int | None:
    """What a provider counted; None where its reply says something else."""
    try:
        return _counted.decode(body).input_tokens
    except UNREADABLE:
        return None
