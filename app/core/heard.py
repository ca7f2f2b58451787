"""What is kept of an answer while it passes, so that its end can be judged: an opening, or all of it where the client
wants JSON, and its tool calls; bounded, and gone with the call."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from fnmatch import fnmatchcase

from app.core.events import CallBegins, CallPiece, Event, Finished, Said

OPENING_CHARS = 240
MOST_CHARS = 64 * 1024
WRITING_TOOLS = (
    "write",
    "edit",
    "patch",
    "replace",
    "multi_edit",
    "multiedit",
    "notebook_edit",
    "notebookedit",
    "apply_*",
    "search_replace",
    "str_replace*",
    "insert_*",
    "create_file",
    "delete_file",
    "edit_file",
    "write_to_file",
    "*__write_file",
    "*__edit_file",
    "*__create_*file",
    "write_file",
)
"""Names of tools that change files, as patterns without regard to case: Claude Code (Write, Edit, MultiEdit,
NotebookEdit), codex (apply_patch), gemini-cli (write_file, replace), opencode and pi (write, edit, patch), Anthropic's
and Cline's editors, MCP's file systems. Shells are not among them: agents read with those at least as often."""


@functools.lru_cache(maxsize=4096)
def writes(tool: str, patterns: tuple[str, ...]) -> bool:
    """True for a tool that changes something, by its name."""
    name = tool.lower()
    return any(fnmatchcase(name, pattern) for pattern in patterns)


class Heard:
    """The first choice of one reply. `text_chars`, `call_chars`: how much of its text and of its calls' arguments is
    kept. `open`: more is wanted. `attempted`: it has said something, or called a tool that writes (`writing`:
    patterns of their names, in small letters)."""

    __slots__ = (
        "_call_room",
        "_calls",
        "_text_room",
        "_texts",
        "_writing",
        "attempted",
        "finish",
        "open",
        "refused",
        "said",
    )

    def __init__(
        self,
        text_chars: int = OPENING_CHARS,
        call_chars: int = 0,
        writing: tuple[str, ...] = WRITING_TOOLS,
    ) -> None:
        self._text_room, self._call_room = text_chars, call_chars
        self._texts: list[str] = []
        self._calls: list[tuple[int, str, list[str]]] = []
        self.finish = ""
        self._writing = writing
        self.attempted = self.refused = self.said = False
        self.open = True

    @property
    def text(self) -> str:
        """The text that was kept."""
        return "".join(self._texts)

    @property
    def all_text(self) -> bool:
        """True where nothing of the text is missing."""
        return self._text_room >= 0

    @property
    def calls(self) -> list[tuple[str, str]] | None:
        """Names and arguments of the tool calls; None where they were too long to keep."""
        return [(name, "".join(parts)) for _, name, parts in self._calls] if self._call_room >= 0 else None

    def say(self, text: str) -> None:
        """A piece of text."""
        self.said = True
        if not self.attempted:
            self.attempted = bool(text) and not text.isspace()
        if self._text_room >= 0:
            self._text_room -= len(text)
            self._texts.append(text)
            self.open = self._text_room >= 0 or self._call_room > 0

    def call(self, index: int | None, name: str) -> None:
        """A tool call begins. Without an index a name begins the next one."""
        self.begin_call(name)
        if self._call_room > 0:
            self._calls.append((len(self._calls) if index is None else index, name, []))

    def begin_call(self, name: str) -> None:
        """A tool call begins of which no more is kept."""
        self.said = True
        if not self.attempted:
            self.attempted = writes(name, self._writing)

    def argue(self, index: int | None, text: str) -> None:
        """A piece of a call's arguments; without an index the last one's."""
        if self._call_room < 0 or not text:
            return
        found = next((c for c in reversed(self._calls) if index is None or c[0] == index), None)
        if found is not None:
            self._call_room -= len(text)
            found[2].append(text)

    def take(self, events: Iterable[Event]) -> None:
        """Canonical events, in order."""
        for event in events:
            if isinstance(event, Said) and not event.choice:
                self.refused = self.refused or event.refusal
                self.say(event.text)
            elif isinstance(event, CallBegins) and not event.choice:
                self.call(event.index, event.name)
            elif isinstance(event, CallPiece) and not event.choice:
                self.argue(event.index, event.text)
            elif isinstance(event, Finished) and not event.choice:
                self.finish = event.reason
