"""JSON that is none by the letter, made JSON: what clients and servers written in JavaScript, Python and .NET send. For
when something could not be read, never before. Pure.

Halves of characters (`\\ud83d` alone) come of texts that were cut by UTF-16 units; nothing can encode them, so they
become U+FFFD, as in a browser (https://tc39.es/ecma262/#sec-string.prototype.towellformed). A byte order mark may be
ignored (RFC 8259, section 8.1). `NaN` and `Infinity` are Python's, and null in JavaScript; so are numbers that are too
large for it, which JSON has, and few can hold.
"""

from __future__ import annotations

import math
import re

from app.core.raw import BOM

_HIGH, _LOW = rb"u[dD][89abAB][0-9a-fA-F]{2}", rb"u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPE = re.compile(rb"\\(?:\\(?:\\\\)*+|%b\\%b|(%b|%b))" % (_HIGH, _LOW, _HIGH, _LOW))
"""Backslashes that are escaped, a whole character, or half of one, in a group; read from left to right."""
_LARGE = rb"(?<![\w.+-])-?(?:\d++(?:\.\d++)?[eE]\+?\d{3}\d*+|\d{200}\d*+(?:\.\d++)?(?:[eE][+-]?\d++)?+)"
_TOKEN = re.compile(
    rb'"(?:[^"\\]++|\\.)*+"?|(?=[-IN\d])(?:-?\bInfinity\b|\bNaN\b|%b)' % _LARGE,
    re.DOTALL,
)
"""A string, up to the end where nothing closes it: what is cut off must not be looked through again from each quote; or
a number that may be too large. All others are passed over: a reply may hold millions, while everybody waits."""


def in_utf8(data: bytes) -> bytes:
    """The same bytes where they are UTF-8, as nearly all are; else with U+FFFD for what is none, as browsers
    read it (https://encoding.spec.whatwg.org/#utf-8-decode): models that speak in bytes may break a character."""
    if data.isascii():
        return data
    try:
        data.decode()
    except UnicodeDecodeError:
        return data.decode(errors="replace").encode()
    return data


def well_formed(data: bytes) -> bytes | None:
    """The JSON without a byte order mark and with whole characters only; None where that changes nothing, or cannot
    do: JSON begins with one such mark at the most."""
    mended = _ESCAPE.sub(lambda found: found[0] if found[1] is None else rb"\ufffd", data.removeprefix(BOM))
    return None if mended == data or mended.startswith(BOM) else mended


def readable(data: bytes) -> bytes | None:
    """The same, and with null for numbers that JSON has not; None where that changes nothing."""
    mended = _TOKEN.sub(_finite, well_formed(data) or data)
    return None if mended == data else mended


def _finite(found: re.Match[bytes]) -> bytes:
    token = found[0]
    return token if token[:1] == b'"' or math.isfinite(float(token)) else b"null"
