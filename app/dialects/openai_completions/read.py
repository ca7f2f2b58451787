"""OpenAI's text completions, reply side: what the meter must know of a chunk, or of a whole reply.

A chunk is Chat's, with `text` in the place of `delta`; usage is Chat's.
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.heard import Heard
from app.core.raw import ABSENT, NO_ERROR, UNREADABLE
from app.core.tokens import pieces
from app.core.types import StreamEvent
from app.dialects.base import BadEvent
from app.dialects.openai_chat.decode import UsageShape, usage_of
from app.dialects.openai_completions.parse import Echo
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
    """Reads one reply. `echo`: what of it repeats the prompt, which is no output."""

    def __init__(self, echo: Echo) -> None:
        self._left = list(echo.lengths)
        self._in_tokens = echo.in_tokens

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
        said = pieces(text)
        if text and 0 <= index < len(self._left) and (left := self._left[index]):
            if self._in_tokens:  # whose text nobody knows here: about as many pieces
                self._left[index], said = max(left - said, 0), max(said - left, 0)
                text = text if said else ""
            else:
                self._left[index], text = max(left - len(text), 0), text[left:]
                said = pieces(text)
        event.pieces += said
        if heard is not None and not index:
            heard.finish = choice.finish_reason or heard.finish
            if text and heard.open:
                heard.say(text)
