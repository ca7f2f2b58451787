"""Events of a Responses stream on the wire, numbered.

Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from typing import Any

import msgspec

_encode = msgspec.json.encode


class Frames:
    """Makes frames; `number` is the next `sequence_number`."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0

    def event(self, kind: str, fields: dict[str, Any]) -> bytes:
        """One event. Values may be `msgspec.Raw` without line ends."""
        data = _encode({"type": kind, "sequence_number": self.number, **fields})
        self.number += 1
        return framed(kind, data)


def framed(kind: str, data: bytes) -> bytes:
    """An event of this kind; `data` must hold no line end."""
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"
