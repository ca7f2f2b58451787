"""Bodies that a client has compressed: those that Python itself can read are read, for the rest it is told to send them
plain (https://www.rfc-editor.org/rfc/rfc9110#name-415-unsupported-media-type)."""

from __future__ import annotations

import zlib

from app.core.errors import BadRequest, TooLarge, UnsupportedEncoding

_ANY_HEADER = 32 + zlib.MAX_WBITS
"""zlib's word for: a header of gzip's or of zlib's, whichever comes."""
MOST_MEMBERS = 1_000
"""32 MB in the blocks of 64 KB of which bgzip makes members are 500."""
PIECE_BYTES = 64 * 1024
"""zlib copies what is left behind a member: of a whole body, for each of many small ones, that would take hours."""


def decoded(encoding: str, body: bytes, max_bytes: int) -> bytes:
    """The body as it was before this `Content-Encoding`. Raises UnsupportedEncoding, TooLarge for one that grows past
    `max_bytes`, BadRequest for one that is not what it says."""
    word = encoding.strip().lower()
    if word in ("", "identity"):
        return body
    if word not in ("gzip", "x-gzip", "deflate"):
        raise UnsupportedEncoding(
            "The body is compressed in a way that is not read here: send it plain, or as gzip.",
            headers={"accept-encoding": "gzip, deflate"},
        )
    parts: list[bytes] = []
    size = at = 0
    view = memoryview(body)
    for _ in range(MOST_MEMBERS):  # of gzip there may be several, one after the other (RFC 1952, section 2.2)
        inflating = zlib.decompressobj(_ANY_HEADER)
        while not inflating.eof:
            piece = view[at : at + PIECE_BYTES]
            try:
                found = inflating.decompress(piece, max_bytes + 1 - size)
            except zlib.error:
                raise _not_so() from None
            parts.append(found)
            size += len(found)
            if size > max_bytes:
                raise TooLarge("The body is larger than this gateway accepts.", headers={"connection": "close"})
            at += len(piece) - len(inflating.unused_data)
            if not piece:
                raise _not_so()
        if at == len(body):
            return b"".join(parts)
        if body[at] == 0:  # what fills a block up
            if body.count(0, at) < len(body) - at:
                break
            return b"".join(parts)
    raise _not_so()


def _not_so() -> BadRequest:
    return BadRequest("The body is not compressed as its Content-Encoding says.")
