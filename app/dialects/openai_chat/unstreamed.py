"""A whole completion in the place of a stream: some servers ignore `stream`, and answer as one JSON object."""

from __future__ import annotations

import msgspec

from app.core.mend import readable
from app.core.raw import UNREADABLE
from app.core.sse import sse_event
from app.dialects.base import BadEvent
from app.dialects.openai_chat.render import object_bytes

_Members = dict[str, msgspec.Raw]
_members = msgspec.json.Decoder(_Members)
_choices = msgspec.json.Decoder(list[_Members])
_NONE = msgspec.Raw(b"[]")
_calls = msgspec.json.Decoder(list[_Members] | None)


def as_stream(body: bytes, kind: bytes = b"chat.completion.chunk") -> bytes:
    """The stream that would have said the same: one chunk, in which `message` is `delta`, and `[DONE]`.

    `kind`: what a chunk is called. An error becomes an event as it stands. Raises BadEvent for anything else.
    """
    try:
        members = _members.decode(body)
        choices = [object_bytes(_as_delta(choice)) for choice in _choices.decode(members.get("choices", _NONE))]
    except UNREADABLE as error:
        if (mended := readable(body)) is not None:
            return as_stream(mended, kind)
        raise BadEvent(str(error)) from None
    if choices:
        members["choices"] = msgspec.Raw(b"[" + b",".join(choices) + b"]")
        members["object"] = msgspec.Raw(b'"%b"' % kind)
    elif "error" not in members:
        raise BadEvent("neither a completion nor an error")
    return sse_event(object_bytes(members).replace(b"\n", b" ").replace(b"\r", b" ")) + sse_event(b"[DONE]")


def _as_delta(choice: _Members) -> _Members:
    if "message" not in choice:
        return choice
    delta = _members.decode(choice["message"])
    calls = _calls.decode(delta["tool_calls"]) if "tool_calls" in delta else None
    if calls:
        placed = [object_bytes({"index": msgspec.Raw(b"%d" % place), **call}) for place, call in enumerate(calls)]
        delta["tool_calls"] = msgspec.Raw(b"[" + b",".join(placed) + b"]")
    return {("delta" if name == "message" else name): value for name, value in choice.items()} | {
        "delta": msgspec.Raw(object_bytes(delta))
    }
