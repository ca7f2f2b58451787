"""What must be known of passing frames of the same dialect, so that an end made here fits what the client has seen."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.core.events import Event, Said
from app.core.sse import Frame
from app.core.stored import Stored
from app.dialects.openai_chat.chunks import one_line
from app.dialects.openai_chat.render import object_bytes
from app.dialects.openai_responses.compose import Composer, Message
from app.dialects.openai_responses.frames import Frames, framed
from app.dialects.openai_responses.out_item import OutItem
from app.dialects.openai_responses.reply import Reply
from app.dialects.openai_responses.stored import told_object


class _Part(msgspec.Struct):
    type: str = ""


class _Passing(msgspec.Struct):
    type: str = ""
    sequence_number: int | None = None
    output_index: int | None = None
    response: msgspec.Raw = msgspec.Raw()
    item: msgspec.Raw = msgspec.Raw()
    part: _Part | None = None


_passing = msgspec.json.Decoder(_Passing)
_item = msgspec.json.Decoder(OutItem)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Passage:
    """Follows passing frames. The end of a half tool call is kept back: clients would run it. `stored`: the names that
    the response has here."""

    def __init__(self, frames: Frames, reply: Reply, items: Composer, stored: Stored | None) -> None:
        self._stored = stored
        self._frames = frames
        self._reply = reply
        self._items = items
        self._kept: list[bytes] = []

    def kept(self) -> bytes:
        """What was kept back, for an end that is the provider's own."""
        kept, self._kept = self._kept, []
        return b"".join(kept)

    def take(self, frame: Frame, events: Sequence[Event]) -> bytes:
        """A frame on its way: what to send now."""
        if frame.data is None:
            return frame.raw
        number, raw = self._frames.number, frame.raw
        try:
            seen = _passing.decode(frame.data)
            half = self._follow(seen, events)
            if seen.response and self._stored is not None:
                raw = self._as_stored(frame.data, seen.type)
        except msgspec.MsgspecError:
            half = False  # the reader has judged it already; what it lets pass needs no following
        if half or (self._kept and not events):
            self._kept.append(raw)
            self._frames.number = number  # an end made here goes on from what the client has seen
            return b""
        # The model has gone on: the call before was not broken off, it is only no JSON.
        return self.kept() + raw

    def _as_stored(self, data: bytes, kind: str) -> bytes:
        members = _members.decode(data)
        members["response"] = msgspec.Raw(told_object(bytes(members["response"]), self._stored))
        return framed(kind, one_line(object_bytes(members)))

    def _follow(self, seen: _Passing, events: Sequence[Event]) -> bool:
        number = seen.sequence_number
        self._frames.number = (self._frames.number if number is None else number) + 1
        if seen.response:
            self._reply.saw(msgspec.Raw(one_line(bytes(seen.response))))
        elif seen.type == "response.output_item.added":
            item = _item.decode(seen.item)
            self._items.message = Message(item.id or "", seen.output_index or 0) if item.type == "message" else None
        elif seen.type == "response.output_item.done":
            item = _item.decode(seen.item)
            if item.half:
                return True
            self._items.took(seen.output_index, msgspec.Raw(one_line(bytes(seen.item))))
            self._items.message = None if item.type == "message" else self._items.message
        elif (message := self._items.message) is not None:
            self._follow_part(message, seen, events)
        return False

    def _follow_part(self, message: Message, seen: _Passing, events: Sequence[Event]) -> None:
        if seen.type == "response.content_part.added":
            message.refusal, message.texts = (seen.part or _Part()).type == "refusal", []
        elif seen.type == "response.content_part.done" and message.texts is not None:
            message.parts.append(message.part())
            message.texts = None
        elif message.texts is not None:
            message.texts += [event.text for event in events if isinstance(event, Said)]
