"""Server-sent events without I/O: bytes in, frames out, whatever the segmentation.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
(lines end in LF, CRLF or CR; a blank line ends an event; a leading colon is a comment; one leading
byte order mark is ignored; what is no UTF-8 is read as U+FFFD). Each frame else keeps its bytes as they came, so
that a relay can forward what it has merely looked at.
"""

from __future__ import annotations

import re

import msgspec

from app.core.mend import in_utf8
from app.core.raw import BOM

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""One event may be this large (an image or audio delta in base64); beyond it the upstream is broken."""

_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_CR, _LF = b"\r\n"
"""As numbers: whether bytes are in bytes is only looked for after an error has been made, since they are no number."""


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One block of the stream: its bytes with the blank line, and its joined `data` (None: a comment,
    or fields only)."""

    raw: bytes
    data: bytes | None


class SseOverflow(ValueError):
    """An event grew past MAX_EVENT_BYTES."""


class SseParser:
    """Cuts a byte stream into frames. Feed it reads in any segmentation; `close` at the end."""

    __slots__ = ("_rest", "_started")

    def __init__(self) -> None:
        self._rest = b""
        self._started = False

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that this read completes, in order. Raises SseOverflow."""
        buffer = self._rest + data if self._rest else data
        if not self._started:
            if len(buffer) < 3 and BOM.startswith(buffer):
                self._rest = buffer
                return []
            self._started = True
            buffer = buffer.removeprefix(BOM)
        if _CR in buffer:
            return self._feed_any_line_end(buffer)
        blocks = buffer.split(b"\n\n")
        rest, frames = blocks.pop(), []
        if rest or self._rest:
            self._keep(rest)
        for block in blocks:
            if block.startswith(b"data: ") and _LF not in block:
                frames.append(Frame(block + b"\n\n", block[6:]))
            elif block.strip(b"\n"):
                frames.append(Frame(block + b"\n\n", _data_of(block)))
        return frames if buffer.isascii() else list(map(_in_utf8, frames))

    def _feed_any_line_end(self, buffer: bytes) -> list[Frame]:
        frames, start = [], 0
        # A CR at the very end may be half of a CRLF: it is decided by the next read.
        limit = len(buffer) - 1 if buffer.endswith(b"\r") else len(buffer)
        for match in _BLANK_LINE.finditer(buffer, 0, limit):
            block = buffer[start : match.start()]
            if block.strip(b"\r\n"):
                frames.append(Frame(buffer[start : match.end()], _data_of(block)))
            start = match.end()
        self._keep(buffer[start:])
        return frames if buffer.isascii() else list(map(_in_utf8, frames))

    def close(self) -> list[Frame]:
        """The last block, where the stream ended without its blank line (some servers do)."""
        rest, self._rest = self._rest, b""
        block = rest.strip(b"\r\n")
        return [_in_utf8(Frame(block + b"\n\n", _data_of(block)))] if block else []

    def _keep(self, rest: bytes) -> None:
        if len(rest) > MAX_EVENT_BYTES:
            raise SseOverflow("an event of the upstream's stream is larger than 16 MiB")
        self._rest = rest


def _in_utf8(frame: Frame) -> Frame:
    raw = in_utf8(frame.raw)
    return frame if raw is frame.raw else Frame(raw, _data_of(raw))


def _data_of(block: bytes) -> bytes | None:
    found = []
    for line in _LINE_END.split(block):
        if line.startswith(b"data:"):
            found.append(line[6:] if line.startswith(b"data: ") else line[5:])
        elif line == b"data":
            found.append(b"")
    return b"\n".join(found) if found else None


def is_stream(body: bytes) -> bool:
    """Whether this is a stream rather than JSON or a text, whatever it is called: by its first field or comment."""
    return body.removeprefix(BOM).lstrip().startswith((b"data:", b"event:", b"id:", b"retry:", b":"))


def sse_event(data: bytes) -> bytes:
    """One `data:` event on the wire; `data` must hold no line end."""
    return b"data: " + data + b"\n\n"
