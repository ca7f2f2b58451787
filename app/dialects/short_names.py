"""Names of tools that another dialect's providers do not take, and the way back.

Claude Code names an MCP server's tools `mcp__plugin_PLUGIN_SERVER__TOOL`, which may be 128 characters; OpenAI refuses a
request with one of more than 64 (https://github.com/packit/ai-workflows/pull/619). Such a tool travels under a name
that follows from its own, in every turn the same, and its calls come back under its own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Final

from app.core.conversation import Conversation, ToolCall, ToolResult
from app.core.events import CallBegins, Event
from app.core.sse import Frame
from app.dialects.base import Reader

_TAKEN: Final = {
    "openai_chat": re.compile(r"[A-Za-z0-9_-]{1,64}"),
    "openai_responses": re.compile(r"[A-Za-z0-9_-]{1,64}"),
    "gemini": re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}"),
    "anthropic": re.compile(r"[A-Za-z0-9_-]{1,128}"),
}
"""https://platform.openai.com/docs/api-reference/chat/create (`tools`), https://ai.google.dev/api/caching#FunctionDeclaration
and https://platform.claude.com/docs/en/agents-and-tools/tool-use/implement-tool-use."""
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9_-]")
_KEPT_CHARS, _HASH_CHARS = 55, 8


def shortened(talk: Conversation, dialect: str) -> dict[str, str]:
    """Give every tool of the conversation a name that providers of this dialect take; the names that were changed, with
    those that the client knows."""
    taken = _TAKEN[dialect]
    changed = {name: _short(name) for name in _names(talk) if taken.fullmatch(name) is None}
    if not changed:
        return {}
    for tool in talk.tools:
        tool.name = changed.get(tool.name, tool.name)
    if talk.tool_named is not None:
        talk.tool_named = changed.get(talk.tool_named, talk.tool_named)
    for message in talk.messages:
        for part in message.parts:
            if isinstance(part, ToolCall | ToolResult) and part.name is not None:
                part.name = changed.get(part.name, part.name)
    return {short: name for name, short in changed.items()}


def _names(talk: Conversation) -> Iterator[str]:
    yield from (tool.name for tool in talk.tools if tool.name)
    parts = (part for message in talk.messages for part in message.parts)
    yield from (part.name for part in parts if isinstance(part, ToolCall) and part.name)


def _short(name: str) -> str:
    plain = _FOREIGN.sub("_", name)
    plain = plain if plain[:1].isalpha() else f"t_{plain}"
    return f"{plain[:_KEPT_CHARS]}_{hashlib.sha256(name.encode()).hexdigest()[:_HASH_CHARS]}"


class RenamingReader:
    """Reads as another reader does, and tells calls under the names that the client knows."""

    def __init__(self, reader: Reader, names: Mapping[str, str]) -> None:
        self.marks_end = reader.marks_end
        self._reader = reader
        self._names = names

    @property
    def served(self) -> str | None:
        """See `base.Reader`."""
        return self._reader.served

    def read(self, frame: Frame) -> list[Event]:
        """See `base.Reader`."""
        return self._renamed(self._reader.read(frame))

    def whole(self, body: bytes) -> list[Event]:
        """See `base.Reader`."""
        return self._renamed(self._reader.whole(body))

    def _renamed(self, events: list[Event]) -> list[Event]:
        for event in events:
            if isinstance(event, CallBegins):
                event.name = self._names.get(event.name, event.name)
        return events
