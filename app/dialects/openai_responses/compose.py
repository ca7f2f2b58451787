"""Output items, composed of canonical events: the frames that tell of them and what they come to.

Text and thinking make one item at a time. Calls may be open side by side until their provider ends them, or the reply
ends; a call of which only half is there never gets its `output_item.done`, which clients take as the word to run it.
Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.events import CallBegins, Said, Thought
from app.dialects.openai_responses import proofs
from app.dialects.openai_responses.calls import OpenCall
from app.dialects.openai_responses.frames import Frames
from app.dialects.openai_responses.names import Named
from app.dialects.openai_responses.reply import item_bytes


class Message:
    """A message that is being said: its parts so far, the last one open where `texts` is not None."""

    def __init__(self, item_id: str, place: int) -> None:
        self.id = item_id
        self.place = place
        self.parts: list[dict[str, Any]] = []
        self.refusal = False
        self.texts: list[str] | None = None

    def item(self, status: str, *, with_parts: bool = True) -> dict[str, Any]:
        """The item; with the open part's text."""
        parts = [*self.parts, *([self.part()] if self.texts is not None else [])] if with_parts else []
        return {"id": self.id, "type": "message", "status": status, "role": "assistant", "content": parts}

    def part(self) -> dict[str, Any]:
        """The open part."""
        text = "".join(self.texts or ())
        if self.refusal:
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    @property
    def _where(self) -> dict[str, Any]:
        return {"item_id": self.id, "output_index": self.place, "content_index": len(self.parts)}

    def open_part(self, frames: Frames, refusal: bool) -> bytes:
        """Begin a part of text, or of a refusal."""
        self.refusal, self.texts = refusal, []
        return frames.event("response.content_part.added", {**self._where, "part": self.part()})

    def say(self, frames: Frames, text: str) -> bytes:
        """A piece of the open part."""
        assert self.texts is not None
        self.texts.append(text)
        if self.refusal:
            return frames.event("response.refusal.delta", {**self._where, "delta": text})
        return frames.event("response.output_text.delta", {**self._where, "delta": text, "logprobs": []})

    def close_part(self, frames: Frames) -> bytes:
        """End the open part, if one is."""
        if self.texts is None:
            return b""
        part, text = self.part(), "".join(self.texts)
        if self.refusal:
            out = frames.event("response.refusal.done", {**self._where, "refusal": text})
        else:
            out = frames.event("response.output_text.done", {**self._where, "text": text, "logprobs": []})
        out += frames.event("response.content_part.done", {**self._where, "part": part})
        self.parts.append(part)
        self.texts = None
        return out


class _Reasoning:
    def __init__(self, item_id: str, place: int) -> None:
        self.id = item_id
        self.place = place
        self.texts: list[str] = []
        self.origin = ""
        self.signature = ""
        self.encrypted = ""

    def item(self) -> dict[str, Any]:
        text = "".join(self.texts)
        made: dict[str, Any] = {
            "id": self.id,
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": text}] if text else [],
        }
        proof = proofs.sealed(self.origin, self.signature, self.encrypted)
        return made if not proof else made | {"encrypted_content": proof}

    @property
    def where(self) -> dict[str, Any]:
        return {"item_id": self.id, "output_index": self.place, "summary_index": 0}


class Composer:
    """The items of one reply; every verb gives the frames to send."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._done: dict[int, msgspec.Raw] = {}
        self._places = 0
        self.message: Message | None = None
        self._reasoning: _Reasoning | None = None
        self._calls: dict[int, OpenCall] = {}

    def took(self, place: int | None, item: msgspec.Raw) -> None:
        """A whole item that passed as it came."""
        self._done[len(self._done) if place is None else place] = item

    def output(self, *, message: bool = False, calls: bool = False) -> list[msgspec.Raw]:
        """The items in order: those that are whole, and on demand what there is of the open message and calls."""
        found = dict(self._done)
        if message and self.message is not None:
            found[self.message.place] = item_bytes(self.message.item("incomplete"))
        if calls:
            found |= {call.place: item_bytes(call.item("incomplete")) for call in self._calls.values()}
        return [found[place] for place in sorted(found)]

    def _place(self) -> int:
        place, self._places = self._places, self._places + 1
        return place

    def _added(self, place: int, item: dict[str, Any]) -> bytes:
        return self._frames.event("response.output_item.added", {"output_index": place, "item": item})

    def _finish(self, place: int, item: dict[str, Any]) -> bytes:
        raw = self._done[place] = item_bytes(item)
        return self._frames.event("response.output_item.done", {"output_index": place, "item": raw})

    def say(self, said: Said, base: str) -> bytes:
        """A piece of text or of a refusal."""
        if not said.text:
            return b""
        out = self._close_reasoning()
        if self.message is None:
            place = self._place()
            self.message = Message(f"msg_{base}_{place}", place)
            out += self._added(place, self.message.item("in_progress", with_parts=False))
        message = self.message
        if message.texts is not None and message.refusal != said.refusal:
            out += message.close_part(self._frames)
        if message.texts is None:
            out += message.open_part(self._frames, said.refusal)
        return out + message.say(self._frames, said.text)

    def think(self, thought: Thought, base: str) -> bytes:
        """A piece of thinking, or its proof."""
        out = b""
        if thought.text or thought.signature or thought.encrypted:
            out += self._open_reasoning(thought, base)
        reasoning = self._reasoning
        if reasoning is None:
            return out
        reasoning.origin = thought.origin or reasoning.origin
        reasoning.signature += thought.signature or ""
        reasoning.encrypted += thought.encrypted or ""
        if thought.text:
            if not reasoning.texts:
                part = {"type": "summary_text", "text": ""}
                out += self._frames.event("response.reasoning_summary_part.added", {**reasoning.where, "part": part})
            reasoning.texts.append(thought.text)
            delta = {**reasoning.where, "delta": thought.text}
            out += self._frames.event("response.reasoning_summary_text.delta", delta)
        return out + self._close_reasoning() if thought.ends else out

    def _open_reasoning(self, thought: Thought, base: str) -> bytes:
        if self._reasoning is not None:
            return b""
        out = self.close_message()
        place = self._place()
        # A proof is bound to the id of its item: with another one its own provider refuses it.
        known = thought.id if thought.origin == proofs.ORIGIN else None
        self._reasoning = _Reasoning(known or f"rs_{base}_{place}", place)
        return out + self._added(place, {"id": self._reasoning.id, "type": "reasoning", "summary": []})

    def _close_reasoning(self) -> bytes:
        reasoning, self._reasoning = self._reasoning, None
        if reasoning is None:
            return b""
        out = b""
        if reasoning.texts:
            text = "".join(reasoning.texts)
            part = {"type": "summary_text", "text": text}
            out += self._frames.event("response.reasoning_summary_text.done", {**reasoning.where, "text": text})
            out += self._frames.event("response.reasoning_summary_part.done", {**reasoning.where, "part": part})
        return out + self._finish(reasoning.place, reasoning.item())

    def begin_call(self, begins: CallBegins, named: Named | None, base: str) -> bytes:
        """A call begins, under the name that the client knows."""
        out = self._close_reasoning() + self.close_message()
        if begins.signature:
            place = self._place()
            item = {"id": f"rs_{base}_{place}", "type": "reasoning", "summary": []}
            signed = item | {"encrypted_content": proofs.sealed_call(begins.signature)}
            out += self._added(place, item) + self._finish(place, signed)
        place = self._place()
        call = self._calls[begins.index] = OpenCall(begins, named, base, place)
        return out + self._added(place, call.item("in_progress"))

    def piece(self, index: int, text: str) -> bytes:
        """A piece of an open call's arguments."""
        call = self._calls.get(index)
        return call.feed(self._frames, text) if call is not None and text else b""

    def end_call(self, index: int) -> bytes:
        """A call is whole."""
        call = self._calls.pop(index, None)
        return b"" if call is None else call.close(self._frames) + self._finish(call.place, call.item("completed"))

    def close_message(self, status: str = "completed") -> bytes:
        """The open message, if there is one, ends."""
        message, self.message = self.message, None
        if message is None:
            return b""
        return message.close_part(self._frames) + self._finish(message.place, message.item(status))

    def close(self, status: str, *, limited: bool) -> bytes:
        """The reply ends: so do the items. `limited`: at its output limit, which may have broken off a call."""
        out = self._close_reasoning() + self.close_message(status)
        for index in list(self._calls):
            if not limited or self._calls[index].whole:
                out += self.end_call(index)
        return out
