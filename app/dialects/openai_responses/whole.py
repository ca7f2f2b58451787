"""A reply that is not streamed."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.core.events import Done, Event, Failed, Finished, Used
from app.core.stored import Stored
from app.core.types import ChatRequest
from app.dialects.base import Counts
from app.dialects.openai_chat.render import object_bytes
from app.dialects.openai_responses import usage
from app.dialects.openai_responses.stored import told_as
from app.dialects.openai_responses.write import ResponsesWriter

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def whole(
    request: ChatRequest, events: Sequence[Event], counts: Counts, cut: bytes | None, told: Sequence[bytes] = ()
) -> bytes:
    """The response object of these events. An upstream of the same dialect has said it itself at the end of its
    stream; that one holds what no event does, such as annotations and what its own tools did."""
    finished = [event for event in events if isinstance(event, Finished)]
    said = next((event.reply for event in finished if event.reply is not None), None)
    if said is not None and cut is None:
        return with_cost(said, counts, request.stored)
    writer = ResponsesWriter(request)
    writer.write([event for event in events if not isinstance(event, Finished | Used | Done | Failed)])
    return bytes(writer.whole(finished, counts, cut, _own(told)))


def _own(told: Sequence[bytes]) -> msgspec.Raw | None:
    """The last response object of a stream."""
    found = [members["response"] for members in map(_members.decode, told) if "response" in members]
    return found[-1] if found else None


def with_cost(body: bytes, counts: Counts, stored: Stored | None = None) -> bytes:
    """An upstream's response object with `usage.cost` in dollars (null: unknown), as it is `stored`; every other value
    keeps its bytes."""
    members = told_as(_members.decode(body), stored)
    members["usage"] = usage.with_cost(members.get("usage"), counts)
    return object_bytes(members)
