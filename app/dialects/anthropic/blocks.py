"""Content blocks of a Messages request, read into canonical parts.

Source: https://platform.claude.com/docs/en/api/messages/create (`messages`, `content`)
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.conversation import Media, Part, Text, ToolCall, ToolResult
from app.core.errors import BadRequest
from app.core.raw import ABSENT, UNREADABLE
from app.dialects.anthropic.proof import CALL_ORIGIN, thinking_of
from app.dialects.anthropic.table import DROPPED_BLOCKS, REFUSED_BLOCKS


class Source(msgspec.Struct):
    """Where an image or a document is: in the request, at a URL, or in the provider's files."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: msgspec.Raw = ABSENT


class Block(msgspec.Struct):
    """Any content block: members of all types that are understood."""

    type: str
    text: str | None = None
    source: msgspec.Raw = ABSENT
    title: str | None = None
    context: str | None = None
    citations: Any = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = ABSENT
    tool_use_id: str | None = None
    content: msgspec.Raw = ABSENT
    is_error: bool | None = None
    cache_control: Any = None


_source = msgspec.json.Decoder(Source)
_string = msgspec.json.Decoder(str)
_content = msgspec.json.Decoder(str | list[Block] | None)


class BlockReader:
    """Reads the blocks of one request; remembers the names of its tool calls, and what was left out."""

    def __init__(self) -> None:
        self.dropped: list[str] = []
        self._names: dict[str, str] = {}
        self._call_proof: str | None = None

    def drop(self, name: str) -> None:
        """Note once that something of this name is left out."""
        if name not in self.dropped:
            self.dropped.append(name)

    def parts(self, content: str | list[Block], where: str) -> list[Part]:
        """The parts of one turn. Raises BadRequest naming the block that cannot be carried or is wrong."""
        if isinstance(content, str):
            return [Text(content)]
        parts: list[Part] = []
        for place, block in enumerate(content):
            parts += self._part(block, f"{where}[{place}]")
        return parts

    def _part(self, block: Block, where: str) -> list[Part]:
        if block.citations:
            self.drop("citations")
        cache = block.cache_control is not None
        match block.type:
            case "text":
                return [Text(_needed(block.text, f"{where}.text"), cache)]
            case "image":
                return [self._media(block, "image", where, cache)]
            case "document":
                return self._document(block, where, cache)
            case "search_result":
                return [_search_result(block, where, cache)]
            case "thinking" | "redacted_thinking":
                return self._thinking(block)
            case "tool_use":
                return [self._call(block, where)]
            case "tool_result":
                return [self._result(block, where, cache)]
            case "compaction":
                return self._compaction(block, where)
        if block.type in DROPPED_BLOCKS:
            self.drop(block.type)
            return []
        why = REFUSED_BLOCKS.get(block.type, "it is not known")
        param = f"{where}.type"
        message = f"The parameter {param} is wrong: this kind of block cannot go to another provider, {why}."
        raise BadRequest(message, param=param)

    def _media(self, block: Block, kind: str, where: str, cache: bool) -> Media:
        source = _source_of(block, where)
        found = Media("image" if kind == "image" else "file", source.media_type, name=block.title, cache=cache)
        if source.type == "base64":
            found.data = _needed(source.data, f"{where}.source.data")
        elif source.type == "url":
            found.url = _needed(source.url, f"{where}.source.url")
        else:
            raise _at_the_provider(where)
        return found

    def _document(self, block: Block, where: str, cache: bool) -> list[Part]:
        source = _source_of(block, where)
        if source.type in ("base64", "url"):
            media = self._media(block, "file", where, cache)
            media.media_type = media.media_type or "application/pdf"
            return [Text(block.context), media] if block.context else [media]
        if source.type == "text":
            heads = [head for head in (block.title, block.context) if head]
            return [Text("\n".join([*heads, _needed(source.data, f"{where}.source.data")]), cache)]
        if source.type == "content":
            return self.parts(_content_of(source.content, f"{where}.source.content") or "", f"{where}.source.content")
        raise _at_the_provider(where)

    def _thinking(self, block: Block) -> list[Part]:
        found = thinking_of(block.thinking or "", block.signature, block.data)
        if found.origin == CALL_ORIGIN:
            self._call_proof = found.encrypted
            return []
        return [found] if found.text or found.signature or found.encrypted else []

    def _call(self, block: Block, where: str) -> ToolCall:
        call_id, name = _needed(block.id, f"{where}.id"), _needed(block.name, f"{where}.name")
        self._names[call_id] = name
        proof, self._call_proof = self._call_proof, None
        return ToolCall(call_id, name, bytes(block.input).decode() if block.input else "{}", signature=proof)

    def _result(self, block: Block, where: str, cache: bool) -> ToolResult:
        call_id = _needed(block.tool_use_id, f"{where}.tool_use_id")
        content = _content_of(block.content, f"{where}.content")
        parts = self.parts(content, f"{where}.content") if content else []
        kept = [part for part in parts if isinstance(part, Text | Media)]
        return ToolResult(call_id, kept, bool(block.is_error), self._names.get(call_id), cache)

    def _compaction(self, block: Block, where: str) -> list[Part]:
        """The provider's summary of older turns stands in their place."""
        content = _content_of(block.content, f"{where}.content")
        return self.parts(content, f"{where}.content") if content else []


def _content_of(content: msgspec.Raw, where: str) -> str | list[Block] | None:
    if not content:
        return None
    try:
        found: str | list[Block] | None = _content.decode(content)
    except UNREADABLE:
        raise BadRequest(f"The parameter {where} must be text or a list of blocks.", param=where) from None
    return found


def _source_of(block: Block, where: str) -> Source:
    try:
        found: Source = _source.decode(block.source)
    except UNREADABLE:
        raise BadRequest(f"The parameter {where}.source is wrong.", param=f"{where}.source") from None
    return found


def _search_result(block: Block, where: str, cache: bool) -> Text:
    """A search result is text with a title and a source."""
    content = _content_of(block.content, f"{where}.content")
    texts = [content] if isinstance(content, str) else [part.text or "" for part in content or ()]
    try:
        source = _string.decode(block.source) if block.source else ""
    except msgspec.MsgspecError:
        raise BadRequest(f"The parameter {where}.source must be text.", param=f"{where}.source") from None
    return Text("\n".join(line for line in (block.title, source, *texts) if line), cache)


def _needed(value: str | None, where: str) -> str:
    if value is None:
        raise BadRequest(f"The parameter {where} is required.", param=where)
    return value


def _at_the_provider(where: str) -> BadRequest:
    param = f"{where}.source"
    message = f"The parameter {param} is wrong: a file that is stored at one provider cannot go to another."
    return BadRequest(message, param=param)
