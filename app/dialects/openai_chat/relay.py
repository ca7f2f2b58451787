"""The stream of one attempt, without I/O: upstream frames in, client bytes out, metered in passing.

Frames that need no change are forwarded as they came. What is held back: everything before the first
real event (so that a fallback is still possible), the usage chunk and `[DONE]` (the call settles first),
and a finish reason that our own clamp may have caused, with all that follows it. Endings are shared WIRE.md's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from app.core.errors import BursarError
from app.core.heard import Heard
from app.core.mend import readable
from app.core.meter import Meter, stopped_near
from app.core.money import Usage, usd_text
from app.core.sse import Frame, sse_event
from app.core.types import StreamEvent
from app.dialects.base import BadEvent
from app.dialects.openai_chat.chunks import (
    choices_in,
    counts_one_choice,
    one_line,
    said_and_finish,
    usage_members,
    with_counts,
    with_finishes,
    without_usage,
)
from app.dialects.openai_chat.decode import decode_event, summed
from app.dialects.openai_chat.errors import error_body, error_object, stream_error_object
from app.dialects.openai_chat.finishes import FAILED, OWN, is_failure, own_word
from app.dialects.openai_chat.fold import Folder
from app.dialects.openai_chat.render import object_bytes
from app.dialects.unended import HALF_A_CALL, reason_of

DONE = b"data: [DONE]\n\n"
FAILURE = b'{"message":"%b"}' % FAILED.encode()
_encode = msgspec.json.encode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_EMPTY_CHOICES = msgspec.Raw(b"[]")
NOTHING_SAID: Mapping[str, object] = {"delta": {}}


class _Item(NamedTuple):
    """One frame on its way to the client, with what it holds: pieces, finish reasons, a part of a tool call; and the
    running cost with it."""

    raw: bytes
    data: bytes
    pieces: int
    finished: dict[int, str]
    in_tool: bool
    running_nano: int


class ChatRelay:
    """State of one stream. The owner sets `allowance_nano` (how far the running cost may go) and reads the flags:

    `opened`: a first real event is there. `blocked`: the next event would pass the allowance, or the cost has
    reached `kill_nano`; raise the allowance and `resume`, or end. `clamped`: the upstream stopped at our clamp.
    `left_nano`: what the end is to say is left (None: nothing).
    `in_tool`: the client has a part of a tool call, and not yet its end. `ended`: all choices finished.
    `done`: `[DONE]` was seen. `broken`: why the stream cannot be trusted, if so; `error`: what the provider said.
    `limit_tokens`: the client's own output limit. `read`, `nothing`: how a chunk is read, and how one says nothing.
    """

    def __init__(
        self,
        meter: Meter,
        *,
        choices: int,
        show_usage: bool,
        clamp_tokens: int | None,
        limit_tokens: int | None = None,
        folder: Folder | None = None,
        read: Callable[[bytes, Heard | None], StreamEvent] = decode_event,
        nothing: Mapping[str, object] = NOTHING_SAID,
    ) -> None:
        self.meter = meter
        self.allowance_nano: int | None = None
        self.kill_nano: int | None = None
        self.left_nano: int | None = None
        self.opened = self.blocked = self.done = self.in_tool = False
        self.broken: str | None = None
        self.error: bytes | None = None
        self.heard: Heard | None = None
        self.finished: dict[int, str] = {}
        self._choices = choices
        self._show_usage = show_usage
        self._clamp = clamp_tokens
        self._limit = limit_tokens if clamp_tokens is None else clamp_tokens
        self._folder = folder
        self._read, self._nothing = read, nothing
        self._begun: set[int] = set()  # where there are several
        self._preamble: list[_Item] = []
        self._pending: list[_Item] = []
        self._held: list[_Item] = []
        self._told: dict[int, str] = {}
        self._tool_data: list[bytes] = []
        self._alone: list[Usage] = []
        self._early: tuple[Usage, bytes] | None = None
        self._usage_data: bytes | None = None
        self._last_data: bytes | None = None

    @property
    def ended(self) -> bool:
        """Every choice has its finish reason."""
        return len(self.finished) >= self._choices

    @property
    def whole(self) -> bool:
        """As `ended`: whoever answers with fewer choices than were asked for says `[DONE]`."""
        return self.ended

    @property
    def came(self) -> int:
        """How many choices have an end."""
        return len(self.finished)

    @property
    def hollow(self) -> bool:
        """`[DONE]` came where nothing was said."""
        return self.done and not self.finished and not self.meter.pieces

    @property
    def clamped(self) -> bool:
        """Our clamp, not the model and not the client's own limit, ended a choice."""
        if not self._held or self._clamp is None or not stopped_near(self.meter, self._clamp):
            return False
        if any("length" in item.finished.values() for item in self._held):
            return True
        # vLLM says `tool_calls` even where the limit ended the call half-way.
        calls = Folder()
        for data in (*self._tool_data, *(item.data for item in self._held)):
            calls.add(data)
        return calls.half_a_call

    def feed(self, frames: list[Frame]) -> bytes:
        """Take the frames of one read; the bytes to send on now."""
        out: list[bytes] = []
        for frame in frames:
            raw, data = frame.raw, frame.data
            if self.done or self.broken is not None:
                break
            word = data if data is None else data.strip()
            if word == b"[DONE]":
                self.done = True
                if self._early is not None and not self.meter.exact:
                    self._accept(*self._early)
                if not self.ended:
                    self._end_open(out)
            elif word:
                self._take(raw, one_line(word), out)
            elif data is None and self.opened and not self.blocked and self._folder is None:
                out.append(raw)
        return b"".join(out)

    def resume(self) -> bytes:
        """Send what was waiting: all, if the running cost now fits (more was allowed, or exact usage is lower); else
        what came before the first event that does not fit, and not the last choice's end."""
        running, allowed = self.meter.running_nano, self.allowance_nano
        reached = self.kill_nano is not None and running >= self.kill_nano
        self.blocked = (allowed is not None and running > allowed) or (reached and not self.ended)
        out: list[bytes] = []
        pending, self._pending = self._pending, []
        for place, item in enumerate(pending):
            if self.blocked and (
                self._all_told(item.finished) or (allowed is not None and item.running_nano > allowed)
            ):
                self._pending = pending[place:]
                break
            self._emit(item, out)
        return b"".join(out)

    def _take(self, raw: bytes, data: bytes, out: list[bytes]) -> None:
        try:
            event = self._read(data, self.heard)
        except BadEvent:
            if (mended := readable(data)) is not None:
                self._take(sse_event(mended), mended, out)
            else:
                self.broken = "an event is not a chat completion chunk"
            return
        meter = self.meter
        meter.add(event.pieces)
        if event.pieces and self._choices > 1:
            self._begun.update(choices_in(data))
        if event.finished:
            if not OWN.issuperset(event.finished.values()):
                if any(map(is_failure, event.finished.values())):
                    event.error = event.error or FAILURE
                event.finished = {index: own_word(word) for index, word in event.finished.items()}
                data = with_finishes(data, event.finished)
                raw = sse_event(data)
            self.finished.update(event.finished)
        if event.served is not None:
            meter.serve(event.served)
        if event.usage is not None:
            raw, data = self._take_usage(event.usage, raw, data, alone=not event.has_choices)
        if event.error is not None:
            self.error = stream_error_object(event.error)
            self.broken = "the provider reported an error"
            return
        running = meter.running_nano
        growing = event.pieces > 0 or len(self.finished) < self._choices
        if growing and self.allowance_nano is not None and running > self.allowance_nano:
            self.blocked = True
        held = self._held or self._preamble or self._folder is not None
        plain = self.opened and not (held or event.finished or event.in_tool)
        if plain and raw and not self.blocked:  # many in mid-stream: nothing is held, and it changes no state
            if event.pieces or self._last_data is None:
                self._last_data = data
            out.append(raw)
        elif raw:
            item = _Item(raw, data, event.pieces, event.finished, event.in_tool, running)
            if self.blocked:
                self._pending.append(item)
            else:
                self._emit(item, out)
        if growing and self.kill_nano is not None and running >= self.kill_nano and not self.ended:
            self.blocked = True

    def _end_open(self, out: list[bytes]) -> None:
        """`[DONE]` has come: choices without a finish reason get that which the mark stands for; half a call breaks the
        stream."""
        alone: set[int] = {0} if self.meter.pieces else set()
        begun = alone if self._choices == 1 else self._begun
        calls = Folder()
        waiting = (*self._preamble, *self._held, *self._pending)
        for data in (*self._tool_data, *(item.data for item in waiting)):
            calls.add(data)
        exact = self.meter.exact and self._choices == 1 and self._limit is not None
        limited = exact and self.meter.output_tokens >= (self._limit or 0)
        for choice in sorted(begun - self.finished.keys()):
            reason = reason_of(calls.arguments(choice), limited=limited)
            if reason is None:
                self.broken = HALF_A_CALL
                return
            self.finished[choice] = reason
            ending = {"index": choice, **self._nothing, "logprobs": None, "finish_reason": reason}
            data = object_bytes({**self._envelope(), "choices": msgspec.Raw(_encode([ending]))})
            item = _Item(sse_event(data), data, 0, {choice: reason}, False, self.meter.running_nano)
            if self.blocked:
                self._pending.append(item)
            else:
                self._emit(item, out)

    def _emit(self, item: _Item, out: list[bytes]) -> None:
        if self._held and self._all_told({}):
            self._held.append(item)  # it came after the end: it stays after it
            return
        if item.finished and self._may_be_ours(item):
            if item.pieces:
                said, data = said_and_finish(item.data)
                self._emit(_Item(sse_event(said), said, item.pieces, {}, item.in_tool, item.running_nano), out)
                item = _Item(sse_event(data), data, 0, item.finished, False, item.running_nano)
            self._held.append(item)
            self.opened = True
            return
        if not self.opened:
            self.opened = bool(item.pieces or item.finished)
            if not self.opened:
                self._preamble.append(item)
                return
        if self._preamble:
            out += self._opening()
        self._pass(item, out)

    def _all_told(self, more: Mapping[int, str]) -> bool:
        """Whether, with these, the ends of all choices were passed on or are held."""
        return len(self._told) + sum(len(held.finished) for held in self._held) + len(more) >= self._choices

    def _may_be_ours(self, item: _Item) -> bool:
        """Our clamp may have caused this finish: `length`, or any word for the end of a tool call."""
        if self._clamp is None:
            return False
        return self.in_tool or item.in_tool or "length" in item.finished.values()

    def _take_usage(self, usage: Usage, raw: bytes, data: bytes, *, alone: bool) -> tuple[bytes, bytes]:
        """A usage-only chunk is kept for the end; usage merged into another chunk is moved there."""
        if self._choices == 1:
            data = self._accept(usage, data, final=alone or self.ended)
        else:
            # A report may count one choice only: llama.cpp sends one for each, vLLM's continuous ones are such.
            if alone:
                self._alone.append(usage)
            if alone and self.ended:
                data = self._accept(usage, data)
            elif not counts_one_choice(data):
                self._early = usage, data
        if self._folder is not None:
            return raw, data
        if alone:
            return b"", b""
        rest = without_usage(data)
        return (raw, data) if rest is None else (sse_event(rest), rest)

    def _accept(self, usage: Usage, data: bytes, *, final: bool = True) -> bytes:
        if len(self._alone) > 1:
            usage = summed(self._alone)
        if self.meter.report(usage, final=final):
            self._usage_data = with_counts(data, self._counts()) if len(self._alone) > 1 else data
            return self._usage_data
        if self.meter.summed:
            self._usage_data = with_counts(data, self._counts())
        return data

    def _pass(self, item: _Item, out: list[bytes]) -> None:
        if item.pieces or self._last_data is None:
            self._last_data = item.data
        if item.in_tool:
            self.in_tool = True
            self._tool_data.append(item.data)
        if item.finished:
            self._told.update(item.finished)
            self.in_tool = self.in_tool and len(self._told) < self._choices
        if self._folder is not None:
            self._folder.add(item.data)
        else:
            out.append(item.raw)

    def _opening(self) -> list[bytes]:
        out: list[bytes] = []
        preamble, self._preamble = self._preamble, []
        for item in preamble:
            self._pass(item, out)
        return out

    def end_complete(self, cost_nano: int | None) -> bytes:
        """The ordinary end: what was held back, usage with cost for those who asked, `[DONE]`."""
        out = self._opening()
        for item in (*self._held, *self._pending):
            self._pass(item, out)
        return b"".join([*out, self._usage_chunk(cost_nano), DONE])

    def end_cut(self, error: BursarError, cost_nano: int | None) -> bytes:
        """The cut: usage for those who asked, the error object, `[DONE]`; no finish reason."""
        return b"".join([*self._opening(), self._usage_chunk(cost_nano), sse_event(error_body(error)), DONE])

    def end_cut_softly(self, cut: bytes, cost_nano: int | None) -> bytes:
        """The opt-in cut: finish reason `length` on every open choice, with what happened under `bursar`."""
        opening, chunk = self._opening(), self._envelope()
        cut_choices: list[dict[str, object]] = [
            {"index": index, **self._nothing, "logprobs": None, "finish_reason": "length"}
            for index in range(self._choices)
            if index not in self._told
        ]
        chunk["choices"] = msgspec.Raw(_encode(cut_choices))
        chunk["bursar"] = msgspec.Raw(b'{"cut":' + cut + b"}")
        return b"".join([*opening, sse_event(object_bytes(chunk)), self._usage_chunk(cost_nano), DONE])

    def end_broken(self, error: BursarError) -> bytes:
        """A dead upstream: an error event (its own, where it sent one), and no `[DONE]`, so that nobody takes it for
        the end."""
        return b"".join([*self._opening(), sse_event(b'{"error":' + (self.error or error_object(error)) + b"}")])

    def folded(self, cost_nano: int | None, cut: bytes | None) -> bytes:
        """The whole reply, for a call that was streamed upstream only so that it could be metered."""
        assert self._folder is not None
        if cut is None:
            self.end_complete(None)  # hands the last frames to the folder
        counts: dict[str, object] = dict(self._counts())
        if not self.meter.exact:
            counts["estimated"] = True
        return self._folder.body(usage=counts, cost_nano=cost_nano, finish=None if cut is None else "length", cut=cut)

    def _envelope(self) -> dict[str, msgspec.Raw]:
        members = _members.decode(self._last_data or self._usage_data or b"{}")
        kept: dict[str, msgspec.Raw] = {
            k: members[k] for k in ("id", "object", "created", "model", "system_fingerprint") if k in members
        }
        kept.setdefault("object", msgspec.Raw(b'"chat.completion.chunk"'))
        return kept

    def _usage_chunk(self, cost_nano: int | None) -> bytes:
        if not self._show_usage:
            return b""
        if self._usage_data is not None and self.meter.exact:
            members = _members.decode(self._usage_data)
            usage = usage_members(members) or self._counts()
        else:
            members, usage = self._envelope(), self._counts()
            usage["estimated"] = msgspec.Raw(b"true")
        members["choices"] = _EMPTY_CHOICES
        usage["cost"] = msgspec.Raw(b"null" if cost_nano is None else usd_text(cost_nano).encode())
        if self.left_nano is not None:
            usage["remaining"] = msgspec.Raw(usd_text(self.left_nano).encode())
        members["usage"] = msgspec.Raw(object_bytes(usage))
        return sse_event(object_bytes(members))

    def _counts(self) -> dict[str, msgspec.Raw]:
        meter = self.meter
        given = meter.usage.input if meter.usage is not None else meter.input_tokens
        out = meter.output_tokens
        counts = {"prompt_tokens": given, "completion_tokens": out, "total_tokens": given + out}
        return {name: msgspec.Raw(b"%d" % count) for name, count in counts.items()}
