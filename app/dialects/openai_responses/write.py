"""One streamed reply for a client of Responses: begins, pieces, and one of four ends (shared WIRE.md)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.core.errors import BursarError, ContextTooLong, UpstreamRejected, UpstreamTooLong
from app.core.events import Begin, CallBegins, CallEnds, CallPiece, Event, Finished, Said, Thought
from app.core.sse import Frame
from app.core.stored import Stored
from app.core.types import ChatRequest
from app.dialects.base import Counts
from app.dialects.openai_chat.chunks import one_line
from app.dialects.openai_chat.errors import error_object as sdk_error
from app.dialects.openai_chat.render import object_bytes
from app.dialects.openai_responses.compose import Composer
from app.dialects.openai_responses.errors import error_object
from app.dialects.openai_responses.frames import Frames, framed
from app.dialects.openai_responses.names import ToolNames
from app.dialects.openai_responses.pass_on import Passage
from app.dialects.openai_responses.reply import Reply
from app.dialects.openai_responses.stored import told_as
from app.dialects.openai_responses.usage import usage_bytes, with_cost

CUT_CODE = "invalid_prompt"
"""codex takes it as final and shows our message; it retries every other code it does not know (measured)."""
BROKEN_CODE = "server_error"
REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str)


class ResponsesWriter:
    """State of one stream toward a client."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._frames = Frames()
        self._reply = Reply(request)
        self._items = Composer(self._frames)
        self._passage = Passage(self._frames, self._reply, self._items, request.stored)
        self._names: ToolNames | None = None
        self._begun = False

    def write(self, events: Sequence[Event]) -> bytes:
        """Events as bytes for the client."""
        return b"".join([self._write(event) for event in events])

    def passed(self, frame: Frame, events: Sequence[Event]) -> bytes:
        """A frame of the same dialect on its way to the client, as it came; the end of half a tool call waits."""
        self._begun = True
        return self._passage.take(frame, events)

    def complete(self, finished: Sequence[Event], counts: Counts, held: Sequence[Frame]) -> bytes:
        """The ordinary end, incomplete where the output limit or a filter made it."""
        if held:
            stored = self._request.stored
            return self._passage.kept() + b"".join([_with_cost(frame, counts, stored) for frame in held])
        reason = _reason(finished)
        out = self._begin() + self._items.close("incomplete" if reason else "completed", limited=reason is not None)
        return out + self._last(reason, counts, None)

    def cut(self, error: BursarError, counts: Counts) -> bytes:
        """The cap is reached: the reply has failed, in a way that nobody retries."""
        return self._fail(CUT_CODE, error, usage_bytes(counts))

    def cut_softly(self, cut: bytes, counts: Counts) -> bytes:
        """The opt-in end for people's chat pages: as if the output limit had been reached."""
        out = self._begin() + self._items.close("incomplete", limited=True)
        return out + self._last(REASONS["length"], counts, cut)

    def broken(self, error: BursarError) -> bytes:
        """The upstream died: the reply has failed, and clients may retry it, but not where it refused. A prompt that
        is too long has OpenAI's own code: by it codex knows that it has to compact the conversation."""
        if isinstance(error, UpstreamTooLong):
            return self._fail(ContextTooLong.code, error, None)
        if isinstance(error, UpstreamRejected):
            return self._fail(CUT_CODE, error, None)
        return self._fail(BROKEN_CODE, error, None)

    def whole(
        self, finished: Sequence[Event], counts: Counts, cut: bytes | None, own: msgspec.Raw | None = None
    ) -> msgspec.Raw:
        """The response object of a reply that is not streamed, of what was written; `own`: the provider's, as far as it
        said one."""
        usage = None
        if own is not None:
            self._reply.saw(own)
            usage = _members.decode(own).get("usage")
        reason = REASONS["length"] if cut is not None else _reason(finished)
        self._items.close("incomplete" if reason else "completed", limited=reason is not None)
        return self._object(reason, counts, cut, usage)

    def _write(self, event: Event) -> bytes:
        if isinstance(event, Begin):
            self._reply.begin(event.id, event.model, event.created)
            return self._begin()
        items, base, out = self._items, self._reply.base, self._begin()
        if isinstance(event, Said):
            return out + items.say(event, base)
        if isinstance(event, Thought):
            return out + items.think(event, base)
        if isinstance(event, CallBegins):
            if self._names is None:
                self._names = ToolNames(self._request)
            return out + items.begin_call(event, self._names.named(event.name), base)
        if isinstance(event, CallPiece):
            return out + items.piece(event.index, event.text)
        return out + items.end_call(event.index) if isinstance(event, CallEnds) else out

    def _begin(self) -> bytes:
        """The first two events, once."""
        if self._begun:
            return b""
        self._begun = True
        response = self._reply.bytes("in_progress", output=[])
        kinds = ("response.created", "response.in_progress")
        return b"".join([self._frames.event(kind, {"response": response}) for kind in kinds])

    def _object(
        self, reason: str | None, counts: Counts, cut: bytes | None, usage: msgspec.Raw | None = None
    ) -> msgspec.Raw:
        # Half a call is told of where the client's own limit broke it off, as OpenAI does, and never where a cut did.
        return self._reply.bytes(
            "incomplete" if reason else "completed",
            output=self._items.output(calls=cut is None),
            usage=with_cost(usage, counts) if counts.exact else usage_bytes(counts),
            reason=reason,
            cut=cut,
        )

    def _last(self, reason: str | None, counts: Counts, cut: bytes | None) -> bytes:
        response = self._object(reason, counts, cut)
        return self._frames.event("response.incomplete" if reason else "response.completed", {"response": response})

    def _fail(self, code: str, error: BursarError, usage: msgspec.Raw | None) -> bytes:
        out = self._begin()
        told = error_object(error.body) if isinstance(error, UpstreamRejected) else None
        response = self._reply.bytes(
            "failed",
            output=self._items.output(message=True),
            usage=usage,
            error={"code": code, "message": error.message if told is None else told[0]},
        )
        # Pydantic AI, LangChain.js and others read on past this event, and take half an answer for whole or call half a
        # tool. OpenAI's SDKs below them raise what they find under `error` of any event (as OpenAI sends it, too).
        raised = msgspec.Raw(one_line(sdk_error(error)))
        return out + self._frames.event("response.failed", {"response": response, "error": raised})


def _reason(finished: Sequence[Event]) -> str | None:
    found = [REASONS.get(event.reason) for event in finished if isinstance(event, Finished)]
    return next((reason for reason in found if reason is not None), None)


def _with_cost(frame: Frame, counts: Counts, stored: Stored | None) -> bytes:
    """A held frame as it came, but for the last one's usage, and for what is `stored`."""
    try:
        members = _members.decode(frame.data or b"")
        response = told_as(_members.decode(members["response"]), stored)
        kind = _string.decode(members["type"])
    except (msgspec.MsgspecError, KeyError):
        return frame.raw
    response["usage"] = with_cost(response.get("usage"), counts)
    members["response"] = msgspec.Raw(object_bytes(response))
    return framed(kind, one_line(object_bytes(members)))
