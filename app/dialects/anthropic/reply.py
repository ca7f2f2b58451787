"""What a streamed and a whole reply to a Messages client have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from app.core.events import Event, Finished
from app.core.types import ChatRequest
from app.dialects.anthropic.read import REASONS

_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_OWN = frozenset((*REASONS, "pause_turn"))


def message_id(given: str, request: ChatRequest) -> str:
    """The provider's id for the reply; where it gave none, one that follows from the request."""
    if given:
        return given
    return "msg_" + hashlib.sha256(bytes(request.members["messages"])).hexdigest()[:24]


def stop_of(finished: Sequence[Event], *, called: bool, refused: bool) -> tuple[str, str | None]:
    """`stop_reason` and `stop_sequence`. A provider that says `stop` after calling tools means the tools, one that says
    tools and calls none means the end; a word that Messages does not have is an ordinary end."""
    first = next((end for end in finished if isinstance(end, Finished) and not end.choice), Finished("stop"))
    if first.stop_sequence is not None and first.reason == "stop":
        return "stop_sequence", first.stop_sequence
    reason = _STOPS.get(first.reason) or (first.reason if first.reason in _OWN else "end_turn")
    if called and reason == "end_turn":
        reason = "tool_use"
    elif not called and reason in ("end_turn", "tool_use"):
        reason = "refusal" if refused else "end_turn"
    return reason, None
