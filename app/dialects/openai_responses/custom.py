"""Custom tools, which take free text, where a dialect knows only functions: `{"input": TEXT}` there and back.

Models write control characters bare into strings, which is no JSON; `strict=False` reads it all the same.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from app.core.conversation import Tool

_SCHEMA = msgspec.Raw(
    b'{"type":"object","properties":{"input":{"type":"string","description":"The tool\'s whole input."}},'
    b'"required":["input"],"additionalProperties":false}'
)
_OPENING = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_END = re.compile(r'"\s*\}?\s*$')
_SAFE = re.compile(
    r'(?:[^"\\]|\\["\\/bfnrt]|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}'
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*"
)
"""What of a JSON string can be decoded already: no escape, and no pair of surrogates, is cut in two."""


def as_function(name: str, description: str | None, grammar: msgspec.Raw | None) -> Tool:
    """A custom tool as a function of one string; its grammar is told in the description."""
    told = description or ""
    if grammar is not None:
        told = f"{told}\n\nThe input must have this format: {bytes(grammar).decode()}".strip()
    return Tool(name, told or None, _SCHEMA)


def as_arguments(text: str) -> str:
    """A custom call's input as such a function's arguments."""
    return msgspec.json.encode({"input": text}).decode()


def input_of(arguments: str) -> str:
    """The free text in a whole call's arguments, however the model has put it."""
    try:
        value: Any = json.loads(arguments, strict=False)
    except (ValueError, RecursionError):
        return arguments
    if isinstance(value, dict):
        value = next(iter(value.values())) if len(value) == 1 else value.get("input")
    # Half a pair of surrogates is no text: it becomes a question mark.
    return value.encode(errors="replace").decode() if isinstance(value, str) else arguments


class InputText:
    """The free text of a call whose `arguments` come in pieces, as far as it is certain."""

    def __init__(self) -> None:
        self.arguments = ""
        self._at = 0
        self._told: list[str] = []
        self._over = False

    def feed(self, piece: str) -> str:
        """What can be told of the input now."""
        self.arguments += piece
        if self._over:
            return ""
        if not self._at:
            opening = _OPENING.match(self.arguments)
            if opening is None:
                return ""
            self._at = opening.end()
        safe = _SAFE.match(self.arguments, self._at)
        end = safe.end() if safe else self._at
        self._over = self.arguments[end : end + 1] == '"'
        return self._tell(self.arguments[self._at : end], end)

    def _tell(self, escaped: str, end: int) -> str:
        text: str = json.loads(f'"{escaped}"', strict=False)
        self._at = end
        self._told.append(text)
        return text

    def close(self) -> tuple[str, str]:
        """The rest of the input, and the whole of it."""
        told = "".join(self._told)
        whole = input_of(self.arguments)
        if not whole.startswith(told):
            # Not JSON to its end: what is left is told as it stands.
            whole = told + _END.sub("", self.arguments[self._at :])
        return whole[len(told) :], whole
