"""Canonical events as a reply's candidates: of one chunk of a stream, or of the whole reply.

A function call's part holds whole arguments, so a call waits until its end, or until it is clear that it has one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from app.core.events import CallBegins, CallEnds, CallPiece, Event, Extra, Said, Thought
from app.dialects.gemini.arguments import arguments_object
from app.dialects.gemini.proof import ORIGIN, shown_signature
from app.dialects.gemini.values import one_line
from app.dialects.openai_chat.render import object_bytes

Part = dict[str, Any]
_encode = msgspec.json.encode
_REASONS = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
_OWN_REASONS = frozenset(
    (
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "MALFORMED_RESPONSE",
        "IMAGE_OTHER",
        "NO_IMAGE",
    )
)


@dataclass(slots=True)
class _OpenCall:
    begins: CallBegins
    pieces: list[str] = field(default_factory=list)

    def part(self) -> Part | None:
        """The call as a part, None while its arguments are no whole object."""
        text = "".join(self.pieces)
        arguments: Any = {"input": text} if self.begins.custom else arguments_object(text)
        if arguments is None:
            return None
        if isinstance(arguments, msgspec.Raw):
            arguments = msgspec.Raw(one_line(bytes(arguments)))
        call = {"id": self.begins.id, "name": self.begins.name, "args": arguments}
        shown: Part = {"functionCall": call}
        if self.begins.signature is not None:
            shown["thoughtSignature"] = self.begins.signature
        return shown


class Candidate:
    """One choice. `take` its events, `drain` the parts that are ready; `broken`: a call ended half-way."""

    def __init__(self) -> None:
        self.broken = False
        self.members: dict[str, msgspec.Raw] = {}
        self._parts: list[Part | bytes] = []
        self._calls: dict[int, _OpenCall] = {}

    def take(self, event: Event) -> None:
        """One event of this choice; what says nothing is passed over."""
        if isinstance(event, Said):
            if self._calls:
                self._end_whole_calls()
            if event.text:
                self._add({"text": event.text})
        elif isinstance(event, Thought):
            signature = shown_signature(event.origin, event.signature, event.encrypted, event.id)
            if event.text or signature is not None:
                part: Part = {"text": event.text, "thought": True}
                self._add(part if signature is None else part | {"thoughtSignature": signature})
        elif isinstance(event, CallBegins):
            self._end_whole_calls()
            self._calls[event.index] = _OpenCall(event)
        elif isinstance(event, CallPiece):
            if event.index in self._calls:
                self._calls[event.index].pieces.append(event.text)
        elif isinstance(event, CallEnds):
            self._end_call(event.index)
        elif isinstance(event, Extra) and event.origin == ORIGIN:
            raw = one_line(event.raw)
            if event.name == "part":
                self._parts.append(raw)
            else:
                self.members[event.name] = msgspec.Raw(raw)

    def drain(self) -> list[bytes]:
        """The parts that are ready, once."""
        parts, self._parts = self._parts, []
        return [part if isinstance(part, bytes) else _encode(part) for part in parts]

    def finish(self) -> None:
        """No more will come: calls whose dialect does not say so are whole now, or `broken`."""
        for index in list(self._calls):
            self._end_call(index)

    def reason(self, canonical: str) -> str:
        """Gemini's word for a finish reason; a call that is no object ends as a model's malformed one does."""
        if self.broken and canonical != "length":
            return "MALFORMED_FUNCTION_CALL"
        known = canonical.upper()
        return _REASONS.get(canonical, known if known in _OWN_REASONS else "OTHER")

    def _add(self, part: Part) -> None:
        last = self._parts[-1] if self._parts else b""
        # Pieces of one text or thought; a signature stands at the end of what it signs.
        if (
            isinstance(last, dict)
            and "text" in last
            and "thoughtSignature" not in last
            and last.get("thought") == part.get("thought")
        ):
            self._parts[-1] = part | {"text": last["text"] + part["text"]}
        else:
            self._parts.append(part)

    def _end_call(self, index: int) -> None:
        call = self._calls.pop(index, None)
        if call is None:
            return
        part = call.part()
        if part is None:
            self.broken = True
        else:
            self._parts.append(part)

    def _end_whole_calls(self) -> None:
        """Something else begins. Calls may come in turns, so only those are ended whose arguments can grow no more."""
        for index, call in list(self._calls.items()):
            if not call.begins.custom and any(call.pieces) and call.part() is not None:
                self._end_call(index)


def candidate_bytes(index: int, parts: list[bytes], reason: str | None, more: dict[str, msgspec.Raw]) -> bytes:
    """One candidate as JSON, its members in the order in which Gemini sends them."""
    ends = b',"finishReason":"%b"' % reason.encode() if reason is not None else b""
    rest = b"," + object_bytes(more)[1:-1] if more else b""
    return b'{"content":{"parts":[%b],"role":"model"}%b,"index":%d%b}' % (b",".join(parts), ends, index, rest)
