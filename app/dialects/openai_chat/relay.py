"""The stream of one attempt, without I/O: upstream frames in, client bytes out, metered in passing.

Frames that need no change are forwarded as they came. What is held back: everything before the first
real event (so that a fallback is still possible), the usage chunk and `[DONE]` (the call settles first),
and a finish reason `length` that our own clamp may have caused. Endings are shared WIRE.md's.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from app.core.meter import Meter
from app.core.money import usd_text
from app.core.sse import Frame, sse_event
from app.core.types import StreamEvent
from app.dialects.openai_chat.decode import BadEvent, decode_event
from app.dialects.openai_chat.fold import Folder
from app.dialects.openai_chat.render import object_bytes

DONE = b"data: [DONE]\n\n"
_encode = msgspec.json.encode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_EMPTY_CHOICES = msgspec.Raw(b"[]")


class _Item(NamedTuple):
    """One frame on its way to the client; `at_limit`: a choice ends with `length` in it."""

    raw: bytes
    data: bytes
    pieces: int
    at_limit: bool


class ChatRelay:
    """State of one stream. The owner sets `allowance_nano` (how far the running cost may go) and reads the flags:

    `opened`: a first real event is there. `blocked`: the next event would pass the allowance, or the cost has
    reached `kill_nano`; raise the allowance and `resume`, or end. `clamped`: the upstream stopped at our clamp.
    `ended`: all choices finished. `done`: `[DONE]` was seen. `broken`: why the stream cannot be trusted, if so.
    """

    def __init__(
        self, meter: Meter, *, choices: int, show_usage: bool, clamp_tokens: int | None, folder: Folder | None = None
    ) -> None:
        self.meter = meter
        self.allowance_nano: int | None = None
        self.kill_nano: int | None = None
        self.opened = self.blocked = self.done = False
        self.in_tool = False
        self.broken: str | None = None
        self.error: bytes | None = None
        self.finished: dict[int, str] = {}
        self._choices = choices
        self._show_usage = show_usage
        self._clamp = clamp_tokens
        self._folder = folder
        self._preamble: list[_Item] = []
        self._pending: list[_Item] = []
        self._held_finish: list[_Item] = []
        self._usage_data: bytes | None = None
        self._last_data = b"{}"

    @property
    def ended(self) -> bool:
        """Every choice has its finish reason."""
        return len(self.finished) >= self._choices

    @property
    def clamped(self) -> bool:
        """Our clamp, not the model and not the client's own limit, ended a choice."""
        if not self._held_finish:
            return False
        limit = (self._clamp or 0) * self._choices
        # The model's own window may end a choice earlier; exact usage tells the two apart.
        return not self.meter.exact or self.meter.output_tokens >= limit or self._choices > 1

    def feed(self, frames: list[Frame]) -> bytes:
        """Take the frames of one read; the bytes to send on now."""
        out: list[bytes] = []
        for raw, data in frames:
            if data is None:
                if self.opened and not self.blocked and self._folder is None:
                    out.append(raw)
            elif data.strip() == b"[DONE]":
                self.done = True
            elif not self.done and self.broken is None:
                self._take(raw, data, out)
        return b"".join(out)

    def resume(self) -> bytes:
        """Send what was waiting, if the running cost now fits (more was allowed, or exact usage is lower)."""
        running = self.meter.running_nano
        over = self.allowance_nano is not None and running > self.allowance_nano
        if over or (self._reached(running) and not self.ended):
            return b""
        self.blocked = False
        out: list[bytes] = []
        pending, self._pending = self._pending, []
        for item in pending:
            self._emit(item, out)
        return b"".join(out)

    def _take(self, raw: bytes, data: bytes, out: list[bytes]) -> None:
        try:
            event = decode_event(data)
        except BadEvent:
            self.broken = "an event is not a chat completion chunk"
            return
        if event.error is not None:
            self.error = event.error
            self.broken = "the provider reported an error"
            return
        meter = self.meter
        meter.add(event.pieces)
        if event.usage is not None:
            meter.report(event.usage)
            raw, data = self._take_usage(event, raw, data)
        if event.in_tool:
            self.in_tool = True
        at_limit = False
        if event.finished:
            self.finished.update(event.finished)
            at_limit = "length" in event.finished.values()
            # Half a call must never look like a whole one: a call that ran into a limit stays open.
            self.in_tool = self.in_tool and (at_limit or not self.ended)
        if not raw:
            return
        item = _Item(raw, data, event.pieces, at_limit)
        if self.blocked or (
            event.pieces and self.allowance_nano is not None and meter.running_nano > self.allowance_nano
        ):
            self.blocked = True
            self._pending.append(item)
            return
        self._emit(item, out)
        if event.pieces and self._reached(meter.running_nano) and not self.ended:
            self.blocked = True

    def _emit(self, item: _Item, out: list[bytes]) -> None:
        if item.at_limit and self._clamp is not None:
            self._held_finish.append(item)
            self.opened = True
            return
        if not self.opened:
            self.opened = bool(item.pieces or self.finished)
            if not self.opened:
                self._preamble.append(item)
                return
            self._flush_preamble(out)
        self._pass(item, out)

    def _reached(self, running_nano: int) -> bool:
        return self.kill_nano is not None and running_nano >= self.kill_nano

    def _take_usage(self, event: StreamEvent, raw: bytes, data: bytes) -> tuple[bytes, bytes]:
        """A usage-only chunk is kept for the end; usage merged into another chunk is moved there."""
        self._usage_data = data
        if self._folder is not None:
            return raw, data
        if not event.has_choices:
            return b"", b""
        members = _members.decode(data)
        members.pop("usage", None)
        data = object_bytes(members)
        return sse_event(data), data

    def _flush_preamble(self, out: list[bytes]) -> None:
        preamble, self._preamble = self._preamble, []
        for item in preamble:
            self._pass(item, out)

    def _pass(self, item: _Item, out: list[bytes]) -> None:
        self._last_data = item.data
        if self._folder is not None:
            self._folder.add(item.data)
        else:
            out.append(item.raw)

    def end_complete(self, cost_nano: int | None) -> bytes:
        """The ordinary end: what was held back, usage with cost for those who asked, `[DONE]`."""
        out: list[bytes] = []
        self._flush_preamble(out)
        for item in (*self._held_finish, *self._pending):
            self._pass(item, out)
        return b"".join([*out, self._usage_chunk(cost_nano), DONE])

    def end_cut(self, error_object: bytes, cost_nano: int | None) -> bytes:
        """The cut: usage for those who asked, the error object, `[DONE]`; no finish reason."""
        out: list[bytes] = []
        self._flush_preamble(out)
        return b"".join([*out, self._usage_chunk(cost_nano), sse_event(b'{"error":' + error_object + b"}"), DONE])

    def end_cut_softly(self, cut: bytes, cost_nano: int | None) -> bytes:
        """The opt-in cut: finish reason `length` on every open choice, with what happened under `bursar`."""
        out: list[bytes] = []
        self._flush_preamble(out)
        chunk = self._envelope()
        told = {index for index, why in self.finished.items() if why != "length" or not self._held_finish}
        cut_choices: list[dict[str, object]] = [
            {"index": index, "delta": {}, "logprobs": None, "finish_reason": "length"}
            for index in range(self._choices)
            if index not in told
        ]
        chunk["choices"] = msgspec.Raw(_encode(cut_choices))
        chunk["bursar"] = msgspec.Raw(b'{"cut":' + cut + b"}")
        return b"".join([*out, sse_event(object_bytes(chunk)), self._usage_chunk(cost_nano), DONE])

    def end_broken(self, error_object: bytes) -> bytes:
        """A dead upstream: an error event, and no `[DONE]`, so that nobody takes it for the end."""
        out: list[bytes] = []
        self._flush_preamble(out)
        return b"".join([*out, sse_event(b'{"error":' + error_object + b"}")])

    def _envelope(self) -> dict[str, msgspec.Raw]:
        members = _members.decode(self._last_data if self._last_data != b"{}" else self._usage_data or b"{}")
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
            usage = _members.decode(members["usage"]) if "usage" in members else self._usage_members()
        else:
            members, usage = self._envelope(), self._usage_members()
            usage["estimated"] = msgspec.Raw(b"true")
        members["choices"] = _EMPTY_CHOICES
        usage["cost"] = msgspec.Raw(b"null" if cost_nano is None else usd_text(cost_nano).encode())
        members["usage"] = msgspec.Raw(object_bytes(usage))
        return sse_event(object_bytes(members))

    def _usage_members(self) -> dict[str, msgspec.Raw]:
        meter = self.meter
        given = meter.usage.input if meter.usage is not None else meter.input_tokens
        counts = {
            "prompt_tokens": given,
            "completion_tokens": meter.output_tokens,
            "total_tokens": given + meter.output_tokens,
        }
        return {name: msgspec.Raw(b"%d" % count) for name, count in counts.items()}
