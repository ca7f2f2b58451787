"""A whole reply to a Messages client: made of events, or a provider's own with its cost added.

Source: https://platform.claude.com/docs/en/api/messages/create (`Message`)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from app.core.events import Begin, CallBegins, CallPiece, Event, Extra, Finished, Said, Thought
from app.core.types import ChatRequest
from app.dialects.anthropic.proof import CALL_ORIGIN, ORIGIN, shown_proof
from app.dialects.anthropic.read_blocks import BLOCK, CITATION, is_metered_only, is_whole
from app.dialects.anthropic.reply import message_id, stop_of
from app.dialects.anthropic.usage import priced, usage_bytes
from app.dialects.base import Counts
from app.dialects.openai_chat.render import object_bytes

_encode = msgspec.json.encode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_optional = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_NO_INPUT = msgspec.Raw(b"{}")


@dataclass(slots=True)
class _Gathered:
    """The blocks of a reply as they grow; a call's arguments are kept as text until the end."""

    begin: Begin = field(default_factory=Begin)
    blocks: list[dict[str, Any] | msgspec.Raw] = field(default_factory=list)
    arguments: dict[int, list[str]] = field(default_factory=dict)
    members: dict[str, msgspec.Raw] = field(default_factory=dict)
    open: str | None = None
    refused: bool = False

    def add(self, kind: str, **members: Any) -> dict[str, Any]:
        """The block that goes on, or a new one."""
        last = self.blocks[-1] if self.blocks else None
        if self.open == kind and isinstance(last, dict):
            return last
        block = {"type": kind, **members}
        self.blocks.append(block)
        self.open = kind
        return block


def whole_message(
    request: ChatRequest, events: Sequence[Event], counts: Counts, cut: bytes | None, told: Sequence[bytes] = ()
) -> bytes:
    """The message that these events say. Of a call that broke off nothing is shown: clients run what they see."""
    found = _Gathered()
    for event in events:
        if isinstance(event, Begin):
            found.begin = event
        elif isinstance(event, Said | Thought | CallBegins | CallPiece) and not event.choice:
            _gather(found, event)
        elif isinstance(event, Extra) and event.origin == ORIGIN:
            _gather_extra(found, event)
    content = [block for block in (_finished_block(found, block) for block in found.blocks) if block is not None]
    called = any(isinstance(block, dict) and block["type"] == "tool_use" for block in content)
    ends = events if cut is None else [Finished("length")]
    reason, sequence = stop_of(ends, called=called, refused=found.refused)
    own, usage = _own(told)
    message: dict[str, object] = {
        **own,
        "id": message_id(found.begin.id, request),
        "type": "message",
        "role": "assistant",
        "model": found.begin.model or request.model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": priced(usage, counts) if counts.exact else msgspec.Raw(usage_bytes(counts)),
        **found.members,
    }
    if cut is not None:
        message["bursar"] = {"cut": msgspec.Raw(cut)}
    return _encode(message)


def with_cost(body: bytes, counts: Counts) -> bytes:
    """A provider's whole message with `usage.cost` in dollars (null: unknown); every other value keeps its bytes."""
    members = _members.decode(body)
    members["usage"] = priced(members.get("usage"), counts)
    return object_bytes(members)


def _own(told: Sequence[bytes]) -> tuple[dict[str, msgspec.Raw], msgspec.Raw | None]:
    """What `message_start` and `message_delta` say of the message, and its usage: the later one's, with what only the
    first one said."""
    message: dict[str, msgspec.Raw] = {}
    usage: dict[str, msgspec.Raw] = {}
    for data in told:
        event = _members.decode(data)
        parts = [_optional.decode(event[name]) or {} for name in ("message", "delta") if name in event]
        beside = {name: value for name, value in event.items() if name not in ("type", "message", "delta")}
        for part in (*parts, beside):
            message |= part
            counted = (_optional.decode(part["usage"]) or {}).items() if "usage" in part else ()
            usage |= {name: value for name, value in counted if bytes(value) != b"null" or name not in usage}
    return message, msgspec.Raw(object_bytes(usage)) if usage else None


def _gather(found: _Gathered, event: Said | Thought | CallBegins | CallPiece) -> None:
    match event:
        case Said():
            if event.text:
                found.add("text", text="")["text"] += event.text
                found.refused = found.refused or event.refusal
        case Thought():
            _gather_thought(found, event)
        case CallBegins():
            if proof := shown_proof(event.signature, CALL_ORIGIN):
                found.blocks.append({"type": "redacted_thinking", "data": proof})
            found.blocks.append({"type": "tool_use", "id": event.id, "name": event.name, "input": event.index})
            found.arguments[event.index] = []
            found.open = None
        case CallPiece():
            found.arguments.setdefault(event.index, []).append(event.text)


def _gather_extra(found: _Gathered, extra: Extra) -> None:
    if extra.name == BLOCK:
        found.blocks.append(msgspec.Raw(extra.raw))
        found.open = None
    elif extra.name != CITATION:
        found.members[extra.name] = msgspec.Raw(extra.raw)
    elif found.open == "text":
        found.add("text").setdefault("citations", []).append(msgspec.Raw(extra.raw))


def _gather_thought(found: _Gathered, thought: Thought) -> None:
    if is_metered_only(thought):
        return
    proof, data = shown_proof(thought.signature, thought.origin), shown_proof(thought.encrypted, thought.origin)
    if thought.text or proof:
        block = found.add("thinking", thinking="", signature="")
        if thought.text and block["signature"]:
            found.open = None
            block = found.add("thinking", thinking="", signature="")
        block["thinking"] += thought.text
        block["signature"] = proof or block["signature"]
    if data:
        found.blocks.append({"type": "redacted_thinking", "data": data})
        found.open = None
    if thought.ends:
        found.open = None


def _finished_block(found: _Gathered, block: dict[str, Any] | msgspec.Raw) -> dict[str, Any] | msgspec.Raw | None:
    if isinstance(block, msgspec.Raw) or block["type"] != "tool_use":
        return block
    arguments = "".join(found.arguments[block["input"]])
    if not is_whole(arguments):
        return None
    return {**block, "input": msgspec.Raw(arguments.encode()) if arguments.strip() else _NO_INPUT}
