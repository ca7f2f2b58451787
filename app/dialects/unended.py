"""How a choice ends whose provider marks the end of its stream (`[DONE]`, `message_stop`) and gives no finish reason,
as some servers do (forks of llama.cpp, older vLLM). Pure.

The mark says that nothing more comes, so a text ends as any other. A call of a tool must be there beyond doubt, for
clients run what they take for whole (shared WIRE.md, trap 1): its arguments are one JSON object, which nothing could
go on. No arguments at all are no proof, for they might have been to come; nor is free text.
"""

from __future__ import annotations

from collections.abc import Iterable

from app.core.raw import is_whole

HALF_A_CALL = "the stream was marked as ended within a call of a tool"


def reason_of(arguments: Iterable[str], *, limited: bool) -> str | None:
    """The finish reason of a choice that called tools with these arguments; None where it ended within a call.
    `limited`: its output is as long as it may be."""
    given = list(arguments)
    if not all(map(is_object, given)):
        return None
    return "tool_calls" if given else "length" if limited else "stop"


def is_object(text: str) -> bool:
    """True for one whole JSON object."""
    return text.lstrip().startswith("{") and is_whole(text)
