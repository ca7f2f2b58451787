"""A streamed Gemini reply for a client: server-sent events, or without `alt=sse` one JSON array.

The stream holds nothing but chunks: comments break Gemini's clients, and they know an error by its JSON standing bare,
without `data:`, in a piece of its own (shared WIRE.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.core.errors import BursarError
from app.core.events import Begin, Event, Extra, Failed, Finished
from app.core.sse import Frame, sse_event
from app.core.types import ChatRequest
from app.dialects.base import Counts
from app.dialects.gemini.candidates import Candidate, candidate_bytes
from app.dialects.gemini.errors import error_body
from app.dialects.gemini.proof import ORIGIN
from app.dialects.gemini.usage import usage_members
from app.dialects.gemini.values import one_line
from app.dialects.gemini.whole import has_usage, is_refusal, tail_of, with_cost_in

_EMPTY_TEXT = b'{"text":""}'


class GeminiWriter:
    """Writes one reply; see `base.Writer`."""

    def __init__(self, request: ChatRequest) -> None:
        self._array = request.array
        self._choices = request.choices
        self._begin = Begin(model=request.model)
        self._candidates: dict[int, Candidate] = {}
        self._tail = tail_of(self._begin)
        self._opened = False
        self._feedback: bytes | None = None

    def write(self, events: Sequence[Event]) -> bytes:
        """One chunk with all that these events say."""
        for event in events:
            self._take(event)
        return self._chunk(self._ready())

    def passed(self, frame: Frame, events: Sequence[Event]) -> bytes:
        """The frame as it came; comments do not pass, which the upstream might send."""
        for event in events:
            if isinstance(event, Begin):
                self._remember(event)
        data = _chunk_in(frame)
        if not data:
            return b""
        if self._array or b"\n:" in frame.raw or frame.raw.startswith(b":"):
            return self._framed(one_line(data))
        self._opened = True
        return frame.raw

    def complete(self, finished: Sequence[Event], counts: Counts, held: Sequence[Frame]) -> bytes:
        """The reasons for the end, and usage with the cost; `held` frames go on with it in the last that has usage."""
        chunks = [data for data in map(_chunk_in, held) if data]
        if chunks:
            last = max((place for place, data in enumerate(chunks) if has_usage(data)), default=len(chunks) - 1)
            chunks[last] = with_cost_in(chunks[last], counts)
            return b"".join([self._framed(one_line(data)) for data in chunks]) + self._closed()
        candidates = []
        if self._feedback is not None:
            self._tail += b',"promptFeedback":%b' % self._feedback
            finished = [] if is_refusal(self._feedback) else finished
        for end in finished:
            if not isinstance(end, Finished):
                continue
            candidate = self._candidate(end.choice)
            candidate.finish()
            parts = candidate.drain() or [_EMPTY_TEXT]
            candidates.append(candidate_bytes(end.choice, parts, candidate.reason(end.reason), candidate.members))
        return self._chunk(candidates, counts) + self._closed()

    def cut(self, error: BursarError, counts: Counts) -> bytes:
        """The error that clients do not retry. Half a call, which may be waiting here, goes nowhere."""
        return self._failed(error)

    def cut_softly(self, cut: bytes, counts: Counts) -> bytes:
        """MAX_TOKENS for every candidate, and what happened under `bursar`."""
        ends = [candidate_bytes(index, [_EMPTY_TEXT], "MAX_TOKENS", {}) for index in range(self._choices)]
        self._tail += b',"bursar":{"cut":%b}' % one_line(cut)
        return self._chunk(ends, counts) + self._closed()

    def broken(self, error: BursarError) -> bytes:
        """An error of the upstream's, whose status makes clients try again."""
        return self._failed(error)

    def _failed(self, error: BursarError) -> bytes:
        body = one_line(error_body(error))
        return self._framed(body) + self._closed() if self._array else body

    def _take(self, event: Event) -> None:
        if isinstance(event, Begin):
            self._remember(event)
        elif isinstance(event, Extra) and event.name == "promptFeedback":
            if event.origin == ORIGIN:
                self._feedback = one_line(event.raw)
        elif not isinstance(event, Failed):
            self._candidate(getattr(event, "choice", 0)).take(event)

    def _remember(self, begin: Begin) -> None:
        self._begin = Begin(begin.id or self._begin.id, begin.model or self._begin.model)
        self._tail = tail_of(self._begin)

    def _candidate(self, choice: int) -> Candidate:
        return self._candidates.setdefault(choice, Candidate())

    def _ready(self) -> list[bytes]:
        drained = [(index, candidate.drain()) for index, candidate in sorted(self._candidates.items())]
        return [candidate_bytes(index, parts, None, {}) for index, parts in drained if parts]

    def _chunk(self, candidates: list[bytes], counts: Counts | None = None) -> bytes:
        if not candidates and counts is None:
            return b""
        said = b'"candidates":[%b]' % b",".join(candidates) if candidates else b""
        used = b'"usageMetadata":%b' % msgspec.json.encode(usage_members(counts)) if counts is not None else b""
        return self._framed(b"{%b%b}" % (b",".join([part for part in (said, used) if part]), self._tail))

    def _framed(self, data: bytes) -> bytes:
        opened, self._opened = self._opened, True
        if not self._array:
            return sse_event(data)
        return (b",\r\n" if opened else b"[") + data

    def _closed(self) -> bytes:
        return b"" if not self._array else b"]" if self._opened else b"[]"


def _chunk_in(frame: Frame) -> bytes:
    """The JSON of a chunk; b"" of a comment, and of the `[DONE]` that some gateways on the way end a stream with."""
    data = (frame.data or b"").strip()
    return b"" if data == b"[DONE]" else data
