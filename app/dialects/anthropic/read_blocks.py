"""Content blocks of a reply as canonical events, streamed or whole.

Every frame of a block gives at least one event, be it an empty piece: a relay holds frames by their events, and a
block must not lose its beginning. What only this dialect has (the provider's own tools and their results, citations)
goes on as `Extra`; what such a tool is asked is output too, so it is metered as a thought that has an `id`, which
thoughts of Messages have not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from app.core.events import CallBegins, CallEnds, CallPiece, Event, Extra, HandedOver, Ran, Said, Thought
from app.core.raw import ABSENT, UNREADABLE
from app.dialects.anthropic.proof import ORIGIN
from app.dialects.openai_chat.render import object_bytes
from app.dialects.server_tools import CODE, MESSAGES_CALLS

BLOCK, CITATION = "content_block", "citation"
CONTAINER, MANAGEMENT = "container", "context_management"
"""The names of our `Extra`s: blocks, citations, and members of the message that are told at its end."""
_NULL = msgspec.Raw(b"null")
_EMPTY = frozenset(("", "{}", "null"))
_THOUGHTS = ("thinking", "redacted_thinking")


class Block(msgspec.Struct):
    """A block of a whole reply, or the beginning of one in a stream."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = ABSENT
    citations: msgspec.Raw = ABSENT


class Delta(msgspec.Struct):
    """What a `content_block_delta` or a `message_delta` adds."""

    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    citation: msgspec.Raw = ABSENT
    content: msgspec.Raw = ABSENT
    encrypted_content: msgspec.Raw = ABSENT
    stop_reason: str | None = None
    stop_sequence: str | None = None
    container: msgspec.Raw = ABSENT


@dataclass(slots=True)
class _Open:
    """A block that has begun. `call`: its place among the calls; `given`: arguments that came with its beginning."""

    kind: str
    raw: msgspec.Raw
    call: int | None = None
    given: str = ""
    pieces: list[str] = field(default_factory=list)
    later: dict[str, msgspec.Raw] = field(default_factory=dict)


_block = msgspec.json.Decoder(Block)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_raws = msgspec.json.Decoder(list[msgspec.Raw] | None)
_string = msgspec.json.Decoder(str | None)


class BlocksReader:
    """The blocks of one reply; each is named by its index from its beginning to its stop."""

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}
        self._called = 0
        self._bare_call: int | None = None
        self._ran_code = False

    def start(self, index: int, raw: msgspec.Raw) -> list[Event]:
        """A block begins; raises what msgspec raises where it is none."""
        block = _block.decode(raw) if raw and bytes(raw) != b"null" else Block()
        found = self._open[index] = _Open(block.type, raw)
        events = self.bare_end()
        match block.type:
            case "text":
                events.append(Said(block.text or ""))
                cited = _raws.decode(block.citations) if block.citations else None
                events += [Extra(CITATION, bytes(citation), ORIGIN) for citation in cited or ()]
            case "thinking":
                events.append(Thought(block.thinking or "", block.signature or None, origin=ORIGIN))
            case "redacted_thinking":
                events.append(Thought(encrypted=block.data or None, origin=ORIGIN))
            case "tool_use":
                found.call = self._called
                self._called += 1
                given = bytes(block.input).decode() if block.input else ""
                found.given = "" if given in _EMPTY else given
                events.append(CallBegins(found.call, block.id or f"toolu_{found.call}", block.name or ""))
            case "fallback":
                events += [HandedOver(), _metered("", block.type)]
            case _:
                tool = MESSAGES_CALLS.get(block.name or "") if block.type == "server_tool_use" else None
                if tool is not None and not (tool == CODE and self._ran_code):
                    events.append(Ran(tool))
                self._ran_code = self._ran_code or tool == CODE
                given = bytes(block.input).decode() if block.input else ""
                events.append(_metered("" if given in _EMPTY else given, block.type))
        return events

    def delta(self, index: int, delta: Delta) -> list[Event]:
        """A piece of a block; a frame that says nothing gives an empty one."""
        found = self._open.get(index)
        match delta.type:
            case "text_delta":
                return [Said(delta.text or "")]
            case "thinking_delta":
                return [Thought(delta.thinking or "", origin=ORIGIN)]
            case "signature_delta":
                return [Thought(signature=delta.signature or None, origin=ORIGIN)]
            case "citations_delta" if delta.citation:
                return [Extra(CITATION, bytes(delta.citation), ORIGIN)]
            case "input_json_delta" if found is not None:
                piece = delta.partial_json or ""
                found.pieces.append(piece)
                return [_metered(piece, found.kind) if found.call is None else CallPiece(found.call, piece)]
            case "compaction_delta" if found is not None:
                found.later["content"] = delta.content or _NULL
                found.later["encrypted_content"] = delta.encrypted_content or _NULL
                return [_metered(_string.decode(delta.content) or "" if delta.content else "", found.kind)]
        return [Said("")] if found is None or found.kind == "text" else [_metered("", found.kind)]

    def stop(self, index: int) -> list[Event]:
        """A block ends, which does not say that a call in it is whole: one that `max_tokens` broke off ends alike."""
        found = self._open.pop(index, None)
        if found is None or found.kind in ("text", ""):
            return [Said("")]
        if found.kind in _THOUGHTS:
            return [Thought(ends=True, origin=ORIGIN)]
        if found.call is None:
            return [Extra(BLOCK, _whole(found), ORIGIN)]
        arguments = "".join(found.pieces)
        if arguments:
            return [CallEnds(found.call)] if is_whole(arguments) else [CallPiece(found.call, "")]
        if found.given:
            return [CallPiece(found.call, found.given), CallEnds(found.call)]
        self._bare_call = found.call
        return [CallPiece(found.call, "")]

    def bare_end(self) -> list[Event]:
        """The end of a call that came without arguments: what follows it shows that it was not broken off."""
        call, self._bare_call = self._bare_call, None
        return [] if call is None else [CallPiece(call, "{}"), CallEnds(call)]


def is_whole(arguments: str) -> bool:
    """True where a call's arguments are all there."""
    if not arguments:
        return True
    try:
        msgspec.json.decode(arguments)
    except UNREADABLE:
        return False
    return True


def is_metered_only(thought: Thought) -> bool:
    """True for what a provider's tool was asked: no client sees it as a thought."""
    return thought.origin == ORIGIN and thought.id is not None


def _metered(text: str, kind: str) -> Thought:
    return Thought(text, origin=ORIGIN, id=kind)


def _whole(found: _Open) -> bytes:
    """The block as it would stand in a whole reply."""
    asked = "".join(found.pieces)
    later = {**found.later, **({"input": msgspec.Raw(asked.encode())} if asked and is_whole(asked) else {})}
    return object_bytes({**_members.decode(found.raw), **later}) if later else bytes(found.raw)
