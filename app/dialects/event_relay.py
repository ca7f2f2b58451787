"""The stream of one attempt for every pair of dialects but chat to chat, without I/O: frames in, client bytes out.

It keeps the rules of chat's own relay (`openai_chat/relay.py`). Held back are: everything before the first real event
(so that a fallback is still possible); every end, with all that follows it (the call settles first); and under a
clamp of ours the end of a tool call, until it is known that the call is whole.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from app.core.errors import BursarError, UpstreamError
from app.core.events import (
    Begin,
    CallBegins,
    CallEnds,
    CallPiece,
    Done,
    Event,
    Extra,
    Failed,
    Finished,
    HandedOver,
    Ran,
    Said,
    Thought,
    Used,
)
from app.core.heard import Heard
from app.core.mend import readable
from app.core.meter import Meter, stopped_near
from app.core.money import Usage
from app.core.raw import is_whole
from app.core.sse import Frame
from app.core.tokens import pieces
from app.core.types import ChatRequest
from app.dialects.base import BadEvent, Counts, Dialect, Reader, Writer
from app.dialects.registry import GEMINI
from app.dialects.unended import HALF_A_CALL, reason_of

_OURS = (Finished, Used, Done, Ran, HandedOver)
"""What is not written as it comes: ends wait for the settlement, the provider's own tools are the meter's business."""
_TOLD = (Begin, Used, Finished)
"""What comes with members of the reply that no event holds."""
_CALL = CallBegins | CallPiece | CallEnds
_TEXT = Said | Thought


class _Item(NamedTuple):
    """One frame on its way to the client, and what of it the client sees as it comes; the running cost with it.
    `last`: no choice is without an end after it."""

    frame: Frame
    events: list[Event]
    pieces: int
    ends: bool
    last: bool
    running_nano: int


class EventRelay:
    """State of one stream; the flags and ends are `ChatRelay`'s. `same`: both sides speak one dialect, so frames pass
    as they came. `folds`: nothing is sent; `folded` gives the reply at the end. `unstreamed`: the upstream answered
    with one whole reply, which comes as the only frame."""

    def __init__(
        self,
        meter: Meter,
        client: Dialect,
        reader: Reader,
        request: ChatRequest,
        *,
        same: bool,
        clamp_tokens: int | None,
        folds: bool,
        created_s: int = 0,
    ) -> None:
        self.meter = meter
        self.allowance_nano: int | None = None
        self.kill_nano: int | None = None
        self.left_nano: int | None = None
        self.opened = self.blocked = self.done = False
        self.broken: str | None = None
        self.failed: Failed | None = None
        self.heard: Heard | None = None
        self.unstreamed = False
        self._client = client
        self._reader = reader
        self._request = request
        self._created_s = created_s
        self._writer: Writer = client.writer(request)
        self._same = same
        self._clamp = clamp_tokens
        self._folded: list[Event] | None = [] if folds else None
        self._told: list[bytes] = []
        self._finished: dict[int, Finished] = {}
        self._preamble: list[_Item] = []
        self._pending: list[_Item] = []
        self._ending: list[_Item] = []
        self._held: list[_Item] = []
        self._calls: dict[tuple[int, int], list[str]] = {}  # half of a call shows who ended it, and whether it has
        self._customs: set[tuple[int, int]] = set()
        self._ended_calls: set[tuple[int, int]] = set()
        self._said: set[tuple[int, int]] = set()
        self._begun: set[int] = set()

    @property
    def ended(self) -> bool:
        """Every choice has its finish reason."""
        return len(self._finished) >= self._request.choices

    @property
    def error(self) -> bytes | None:
        """What the provider said of an error in its stream, in chat's words."""
        if self.failed is None:
            return None
        return msgspec.json.encode({"message": self.failed.message, "type": self.failed.kind or "server_error"})

    @property
    def in_tool(self) -> bool:
        """The client has a part of a tool call, and not yet its end."""
        return bool(self._said)

    @property
    def whole(self) -> bool:
        """No choice is without an end that has begun. Some providers answer with fewer than were asked for: whoever has
        a mark for the end of a stream gives it then."""
        if self._reader.marks_end:
            return self.ended
        return bool(self._finished) and self._begun <= self._finished.keys()

    @property
    def came(self) -> int:
        """How many choices have an end."""
        return len(self._finished)

    @property
    def hollow(self) -> bool:
        """It is over, and nothing was said."""
        return self.done and not self._finished and not self.meter.pieces

    @property
    def clamped(self) -> bool:
        """Our clamp, not the model and not the client's own limit, ended a choice."""
        if not self._finished or self._clamp is None or not stopped_near(self.meter, self._clamp):
            return False
        if any(finished.reason == "length" for finished in self._finished.values()):
            return True
        if self.meter.exact and self.meter.output_tokens >= self._clamp:
            return True  # llama.cpp's Responses call every end complete
        given = ("".join(parts) for call, parts in self._calls.items() if call not in self._customs)
        return not all(is_whole(text) for text in given if text)

    def feed(self, frames: list[Frame]) -> bytes:
        """Take the frames of one read; the bytes to send on now."""
        out: list[bytes] = []
        for frame in frames:
            if self.done or self.broken is not None:
                break
            try:
                events = self._events(frame)
            except BadEvent:
                mended = None if frame.data is None else readable(frame.data)
                if mended is None:
                    self.broken = "an event is not of the provider's dialect"
                    break
                out.append(self.feed([Frame(frame.raw.replace(frame.data or b"", mended), mended)]))
                continue
            if events or (self._same and frame.data is not None):
                self._take(frame, events, out)  # one that says nothing here may say something to the client
            elif self._same and self.opened and not self.blocked and self._folded is None and not self._held:
                out.append(self._writer.passed(frame, events))
        return b"".join(out)

    def resume(self) -> bytes:
        """Send what was waiting: all, if the running cost now fits (more was allowed, or exact usage is lower); else
        what came before the first event that does not fit, and not the last choice's end."""
        running, allowed = self.meter.running_nano, self.allowance_nano
        over = allowed is not None and running > allowed
        self.blocked = over or (self._reached(running) and not self.ended)
        out: list[bytes] = []
        pending, self._pending = self._pending, []
        for place, item in enumerate(pending):
            if self.blocked and (item.last or (allowed is not None and item.running_nano > allowed)):
                self._pending = pending[place:]
                break
            self._emit(item, out)
        return b"".join(out)

    def _events(self, frame: Frame) -> list[Event]:
        events = self._reader.whole(frame.data or b"") if self.unstreamed else self._reader.read(frame)
        if not self.opened:
            date(events, self._created_s)
        return events

    def _take(self, frame: Frame, events: list[Event], out: list[bytes]) -> None:
        seen, ends = 0, False
        if self.heard is not None:
            self.heard.take(events)
        for event in events:
            if isinstance(event, Said | Thought | CallPiece):
                seen += pieces(event.text)
                if isinstance(event, CallPiece) and (kept := self._calls.get((event.choice, event.index))) is not None:
                    kept.append(event.text)
            elif isinstance(event, CallBegins):
                seen += pieces(event.name) or 1
                self._calls[event.choice, event.index] = []
                if event.custom:
                    self._customs.add((event.choice, event.index))
            elif isinstance(event, CallEnds):
                self._ended_calls.add((event.choice, event.index))
            elif isinstance(event, Finished):
                self._finished[event.choice] = event
                ends = True
            elif isinstance(event, Ran):
                self.meter.ran(event.tool)
            elif isinstance(event, HandedOver):
                self.meter.handed_over()
            elif isinstance(event, Failed):
                self.failed = event
                self.broken = "the provider reported an error"
            elif isinstance(event, Done):
                self.done = ends = True
        if self._folded is not None and self._same and any(isinstance(event, _TOLD) for event in events):
            self._told.append(frame.data or b"")
        self.meter.add(seen)
        if seen and self._request.choices > 1:
            self._begun.update(e.choice for e in events if isinstance(e, Said | Thought | CallBegins | CallPiece))
        for event in events:
            if isinstance(event, Used):
                if self._reader.served is not None:
                    self.meter.serve(self._reader.served)
                self.meter.report(event.usage, final=event.final or self.ended)
        if self.done and not self.ended and self.broken is None:
            self._end_open()
        if self.broken is not None:
            return
        running = self.meter.running_nano
        growing = seen > 0 or not self.ended
        if growing and self.allowance_nano is not None and running > self.allowance_nano:
            self.blocked = True
        last = ends and (self.ended or self.done)
        item = _Item(frame, [event for event in events if not isinstance(event, _OURS)], seen, ends, last, running)
        if self.blocked:
            self._pending.append(item)
        else:
            self._emit(item, out)
        if growing and not self.ended and self._reached(running):
            self.blocked = True

    def _end_open(self) -> None:
        """The mark of the end has come: choices without a finish reason get that which the mark stands for; half a call
        breaks the stream."""
        begun = self._begun if self._request.choices > 1 else {0} if self.meter.pieces else set()
        limit = self._request.output_limit if self._clamp is None else self._clamp
        exact = self.meter.exact and self._request.choices == 1 and limit is not None
        limited = exact and self.meter.output_tokens >= (limit or 0)
        for choice in begun - self._finished.keys():
            reason = reason_of(self._arguments(choice), limited=limited)
            if reason is None:
                self.broken = HALF_A_CALL
                return
            self._finished[choice] = Finished(reason, choice)

    def _arguments(self, choice: int) -> list[str]:
        """Of each of a choice's calls: "{}" where its provider said that it is whole, "" where it is free text."""
        calls = [call for call in self._calls if call[0] == choice]
        return [
            "{}" if call in self._ended_calls else "" if call in self._customs else "".join(self._calls[call])
            for call in calls
        ]

    def _emit(self, item: _Item, out: list[bytes]) -> None:
        # What other choices say passes by an end that is not the last.
        if item.ends or (self._held and (not item.events or any(held.last for held in self._held))):
            self._hold(item, out)
            return
        if not self.opened:
            self.opened = bool(item.pieces) or any(isinstance(event, Extra) for event in item.events)
            if not self.opened:
                self._preamble.append(item)
                return
        if self._clamp is not None and item.events and all(isinstance(event, CallEnds) for event in item.events):
            self._ending.append(item)  # the provider ends a call that our clamp broke off just like a whole one
            return
        self._flush(out)
        self._pass(item, out)

    def _hold(self, item: _Item, out: list[bytes]) -> None:
        """The end has come: what is said in the same breath goes on, the frame waits. Where nothing was said, all
        of it waits: the end may be none."""
        says = self.opened or item.pieces > 0
        self.opened = True
        whole = self._clamp is None or not any(isinstance(event, _CALL) for event in item.events)
        if says and not self._same and item.events and not self._ending and whole:
            self._flush(out)
            self._pass(item, out)
            item = item._replace(events=[])
        self._held.append(item)

    def _flush(self, out: list[bytes]) -> None:
        """Send what waited for the next event."""
        waited = (*self._preamble, *self._ending)
        self._preamble, self._ending = [], []
        for item in waited:
            self._pass(item, out)

    def _pass(self, item: _Item, out: list[bytes]) -> None:
        for event in item.events:
            if isinstance(event, CallBegins | CallPiece):
                self._said.add((event.choice, event.index))
            elif isinstance(event, CallEnds):
                self._said.discard((event.choice, event.index))
        if self._folded is not None:
            self._folded += item.events
        elif self._same and not self.unstreamed:
            out.append(self._writer.passed(item.frame, item.events))
        elif item.events:
            out.append(self._writer.write(item.events))

    def _reached(self, running_nano: int) -> bool:
        return self.kill_nano is not None and running_nano >= self.kill_nano

    def end_complete(self, cost_nano: int | None) -> bytes:
        """The ordinary end: what was held back, the finish reasons, usage with cost."""
        out: list[bytes] = []
        self._flush(out)
        frames: list[Frame] = []
        for item in (*self._held, *self._pending):
            if self._same and not self.unstreamed and self._folded is None:
                frames.append(item.frame)
            else:
                self._pass(item, out)
        self._said.clear()
        return b"".join([*out, self._writer.complete(list(self._finished.values()), self._counts(cost_nano), frames)])

    def end_cut(self, error: BursarError, cost_nano: int | None) -> bytes:
        """The cut: the error that nobody retries."""
        return self._opening() + self._said_with_ends() + self._writer.cut(error, self._counts(cost_nano))

    def end_cut_softly(self, cut: bytes, cost_nano: int | None) -> bytes:
        """The opt-in cut: as if the output limit had been reached."""
        return self._opening() + self._said_with_ends() + self._writer.cut_softly(cut, self._counts(cost_nano))

    def end_broken(self, error: BursarError) -> bytes:
        """A dead upstream: an honest error, in the provider's words where it has said some."""
        if self.failed is not None:
            error = UpstreamError(self.failed.message)
        return self._opening() + self._said_with_ends() + self._writer.broken(error)

    def folded(self, cost_nano: int | None, cut: bytes | None) -> bytes:
        """The whole reply, for a call that was streamed upstream only so that it could be metered."""
        if cut is None:
            out: list[bytes] = []
            self._flush(out)
            for item in (*self._held, *self._pending):
                self._pass(item, out)
        counts = self._counts(cost_nano)
        if self._same and self.unstreamed and cut is None:
            return self._client.with_cost(self._request, self._told[0], counts)
        events: list[Event] = [*(self._folded or []), *self._finished.values(), Done()]
        return self._client.whole(self._request, events, counts, cut, self._told)

    def _opening(self) -> bytes:
        out: list[bytes] = []
        preamble, self._preamble = self._preamble, []
        for item in preamble:
            self._pass(item, out)
        return b"".join(out)

    def _said_with_ends(self) -> bytes:
        """The text that came in one frame with an end, as Gemini's does, which waits as it came: it is paid for."""
        if not self._same or self._client.name != GEMINI or self.unstreamed or self._folded is not None:
            return b""
        said = [event for item in self._held for event in item.events if item.pieces and isinstance(event, _TEXT)]
        return self._writer.write(said) if said else b""

    def _counts(self, cost_nano: int | None) -> Counts:
        counts = counts_of(self.meter, cost_nano)
        counts.left_nano = self.left_nano
        return counts


def date(events: list[Event], created_s: int) -> None:
    """Say when the reply was made (Unix time) where its provider does not."""
    for event in events:
        if isinstance(event, Begin) and not event.created:
            event.created = created_s


def counts_of(meter: Meter, cost_nano: int | None) -> Counts:
    """What the client is told of usage: the provider's own figures, or the meter's estimate."""
    if meter.exact and meter.usage is not None:
        return Counts(meter.usage, exact=True, cost_nano=cost_nano)
    given = meter.usage.input if meter.usage is not None else meter.input_tokens
    return Counts(Usage(given, meter.output_tokens), exact=False, cost_nano=cost_nano)
