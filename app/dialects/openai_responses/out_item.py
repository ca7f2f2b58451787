"""An item of a response's `output`, as far as its kind and its completeness go."""

from __future__ import annotations

from typing import Any

import msgspec

from app.core.raw import is_whole

CALLS = frozenset(("function_call", "custom_tool_call"))


class OutItem(msgspec.Struct):
    """See above."""

    type: str = ""
    id: str | None = None
    status: str | None = None
    arguments: Any = None

    @property
    def half(self) -> bool:
        """A tool call that its provider broke off; llama.cpp calls such a one completed."""
        if self.type not in CALLS:
            return False
        if self.status == "incomplete":
            return True
        arguments = self.arguments
        return self.type == "function_call" and isinstance(arguments, str) and not is_whole(arguments or "{}")
