"""Frames of a Messages stream that go on as they came: the little that must be known of them, or added."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.core.raw import UNREADABLE
from app.core.sse import Frame
from app.dialects.anthropic.usage import priced
from app.dialects.base import Counts
from app.dialects.openai_chat.chunks import one_line
from app.dialects.openai_chat.render import object_bytes

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_DELTA, _STOP = b'"message_delta"', b'"message_stop"'


class _Place(msgspec.Struct):
    type: str | None = None
    index: int | None = None


_place = msgspec.json.Decoder(_Place)


def open_block(data: bytes) -> int | None:
    """The index of the block that a `content_block_...` event leaves open, None where it ends it."""
    place = _place.decode(data)
    return None if place.type == "content_block_stop" else place.index or 0


def ended(held: Sequence[Frame], counts: Counts, message_stop: bytes) -> bytes:
    """The end of a stream as it came, with the cost in the usage of its last `message_delta`; `message_stop` is added
    where the provider left it out."""
    kinds = [_kind(frame) for frame in held]
    last = max((place for place, kind in enumerate(kinds) if kind == _DELTA), default=-1)
    out = [_with_cost(frame, counts) if place == last else frame.raw for place, frame in enumerate(held)]
    if _STOP not in kinds:
        out.append(message_stop)
    return b"".join(out)


def _kind(frame: Frame) -> bytes:
    if frame.data is None:
        return b""
    try:
        return bytes(_members.decode(frame.data).get("type", b""))
    except UNREADABLE:
        return b""


def _with_cost(frame: Frame, counts: Counts) -> bytes:
    members = _members.decode(one_line(frame.data or b""))
    members["usage"] = priced(members.get("usage"), counts)
    return b"event: message_delta\ndata: " + object_bytes(members) + b"\n\n"
