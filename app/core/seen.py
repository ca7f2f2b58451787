"""What the gateway saw of one answer, without its words: flags and hashes, from which weak labels are derived."""

from __future__ import annotations

from typing import Any

import msgspec


class Seen(msgspec.Struct, frozen=True, omit_defaults=True):
    """One finished call; its JSON leaves out what says nothing. Hashes are salted by the gateway: equal within one
    installation, and no way back to a text.

    `began`: how the conversation began, the same for all of its calls; `asked`: what is asked now, the same where the
    same is asked again. `finish`: the first choice's finish reason, "" unknown. `empty`: no text and no tool call.
    `refused`: it refused, in the protocol's way or in its opening words. `shape_ok`: the answer is the JSON that was
    asked for; `arguments_ok`: every tool call names a tool on offer with arguments that fit; None: nothing to check,
    or too long to. `calls`: what tools were called with, "" none. `tool_failed`: the tool result that the request ends
    with says that the tool failed. `rate_nano`: what the model that answered costs, nano-dollars per million tokens
    (three of input to one of output), None unknown.
    """

    began: str
    asked: str
    finish: str = ""
    empty: bool = False
    refused: bool = False
    shape_ok: bool | None = None
    arguments_ok: bool | None = None
    calls: str = ""
    tool_failed: bool = False
    rate_nano: int | None = None

    @classmethod
    def of_json(cls, found: dict[str, Any]) -> Seen:
        """From a record; members of later versions are ignored."""
        return cls(**{name: found[name] for name in cls.__struct_fields__ if name in found})
