"""A call's arguments: JSON text elsewhere, an object in Gemini."""

from __future__ import annotations

import msgspec

from app.core.raw import UNREADABLE

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_EMPTY = msgspec.Raw(b"{}")


def arguments_object(text: str) -> msgspec.Raw | None:
    """The arguments as they came if they are a whole JSON object (nothing at all is the empty one), else None."""
    if not text.strip():
        return _EMPTY
    try:
        raw = text.encode()
        _object.decode(raw)
    except UNREADABLE:
        return None
    return msgspec.Raw(raw)
