"""When an answer began, and how long its output took: the times of one attempt."""

from __future__ import annotations

import time

from app.core.heard import Heard
from app.core.meter import Meter
from app.gateway.attempt_record import AttemptRecord


class Pace:
    """Times of perf_counter, for uvloop's own clock ticks in whole milliseconds. `arrived_s`: when the call came;
    `folds`: the client gets at once what is streamed upstream."""

    __slots__ = ("_arrived_s", "_asked_s", "_began_pieces", "_began_s", "_folds", "_heard", "_meter", "_record")

    def __init__(self, record: AttemptRecord, heard: Heard, meter: Meter, arrived_s: float, *, folds: bool) -> None:
        self._record, self._heard, self._meter = record, heard, meter
        self._arrived_s = arrived_s
        self._folds = folds
        self._asked_s = time.perf_counter()
        self._began_s: float | None = None
        self._began_pieces = 0

    @property
    def awaited(self) -> bool:
        """Whether `note` is still to be called: the answer has not begun, or made no attempt."""
        return self._began_s is None or self._record.first_attempt_s is None

    def first_event(self) -> None:
        """The client sees something now."""
        if self._record.ttft_s is None:
            self._record.ttft_s = time.perf_counter() - self._arrived_s

    def all_at_once(self) -> None:
        """The client sees the whole answer at one moment, which is its first token and its first attempt."""
        self.first_event()
        if self._heard.attempted:
            self._record.first_attempt_s = self._record.ttft_s

    def note(self, *, opened: bool) -> bool:
        """Called after a read: when the answer began, and made its first attempt; True while one is to come."""
        record = self._record
        if self._began_s is None and opened:
            self._began_s, self._began_pieces = time.perf_counter(), self._meter.pieces
        if record.first_attempt_s is None and self._heard.attempted and not self._folds:
            record.first_attempt_s = time.perf_counter() - self._arrived_s
        return self.awaited

    def generation_s(self) -> float:
        """How long the output took: from the first token, where most of it was seen to come after that; else from
        when it was asked for, since it was generated unseen (one read brought it all, or the model thinks hidden)."""
        meter, now_s = self._meter, time.perf_counter()
        seen = 2 * (meter.pieces - self._began_pieces) >= max(meter.pieces, meter.output_tokens)
        return now_s - (self._began_s if self._began_s is not None and seen else self._asked_s)
