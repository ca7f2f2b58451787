"""OpenAI's text completions, reply side: what the meter must know of a chunk, or of a whole reply.

A chunk is Chat's, with `text` in the place of `delta`; usage is Chat's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from app.core.heard import Heard
from app.core.raw import ABSENT, NO_ERROR, UNREADABLE
from app.core.tokens import pieces
from app.core.types import StreamEvent
from app.dialects.base import BadEvent
from app.dialects.openai_chat.decode import UsageShape, usage_of
from app.dialects.server_tools import served_tier


class _Choice(msgspec.Struct):
    index: int | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: UsageShape | None = None
    error: msgspec.Raw = ABSENT
    service_tier: Any = None


_chunk = msgspec.json.Decoder(_Chunk)
_lax_chunk = msgspec.json.Decoder(_Chunk, strict=False)
"""For servers that write counts as text."""


class TextReader:
    """Reads one reply. `echoed`: how many characters of each choice repeat the prompt, which is no output."""

    def __init__(self, echoed: Sequence[int] = ()) -> None:
        self._echoed = list(echoed)

    def read(self, data: bytes, heard: Heard | None = None) -> StreamEvent:
        """One chunk, or one whole completion; `heard` is told what it says. Raises BadEvent."""
        try:
            chunk = _chunk.decode(data)
        except UNREADABLE:
            try:
                chunk = _lax_chunk.decode(data)
            except UNREADABLE as error:
                raise BadEvent(str(error)) from None
        event = StreamEvent(has_choices=bool(chunk.choices))
        if chunk.error and bytes(chunk.error) not in NO_ERROR:
            event.error = bytes(chunk.error)
        for choice in chunk.choices or ():
            self._take(choice, event, heard)
        if chunk.usage is not None:
            event.usage, event.served = usage_of(chunk.usage), served_tier(chunk.service_tier)
        return event

    def _take(self, choice: _Choice, event: StreamEvent, heard: Heard | None) -> None:
        index, text = choice.index or 0, choice.text or ""
        if choice.finish_reason:
            event.finished = {**event.finished, index: choice.finish_reason}
        if text and 0 <= index < len(self._echoed) and (left := self._echoed[index]):
            self._echoed[index] = max(left - len(text), 0)
            text = text[left:]
        event.pieces += pieces(text)
        if heard is not None and not index:
            heard.finish = choice.finish_reason or heard.finish
            if text and heard.open:
                heard.say(text)
