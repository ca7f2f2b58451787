"""The reply to a request to count tokens (https://platform.claude.com/docs/en/api/messages/count_tokens)."""

from __future__ import annotations

import msgspec

from app.core.raw import UNREADABLE


class _Counted(msgspec.Struct):
    input_tokens: int


_counted = msgspec.json.Decoder(_Counted)


def count_reply(tokens: int) -> bytes:
    """How many input tokens a request has."""
    return b'{"input_tokens":%d}' % tokens


def counted(body: bytes) -> int | None:
    """What a provider counted; None where its reply says something else."""
    try:
        return _counted.decode(body).input_tokens
    except UNREADABLE:
        return None
