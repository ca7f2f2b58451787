"""Compressed bodies: read, refused by name, and never larger than a plain one may be."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from app.core.errors import BadRequest, BursarError, TooLarge, UnsupportedEncoding
from app.http.encodings import decoded
from tests.http.live import SAY, LiveGateway
from tests.upstream import ScriptedUpstream

BODY = json.dumps({"model": "small", "messages": SAY}).encode()
ZIPPED = gzip.compress(BODY, mtime=0)
NOTHING = gzip.compress(b"", mtime=0)


@pytest.mark.parametrize(
    ("encoding", "sent"),
    [
        ("gzip", ZIPPED),
        ("x-gzip", ZIPPED),
        (" GZIP ", ZIPPED),
        ("gzip", gzip.compress(BODY[:9], mtime=0) + gzip.compress(BODY[9:], mtime=0)),
        ("gzip", ZIPPED + bytes(512)),
        ("deflate", zlib.compress(BODY)),
        ("identity", BODY),
        ("", BODY),
    ],
)
def test_what_python_reads_is_read(
    gateway: LiveGateway, upstream: ScriptedUpstream, encoding: str, sent: bytes
) -> None:
    assert decoded(encoding, sent, len(BODY)) == BODY
    answer = gateway.ask("POST", "/v1/chat/completions", sent, {"content-encoding": encoding})
    assert answer.status == 200
    assert upstream.requests[-1].body["messages"] == SAY
    assert "content-encoding" not in {name.lower() for name in upstream.requests[-1].headers}


@pytest.mark.parametrize(
    ("encoding", "sent", "error"),
    [
        ("br", b"\x0b\x02\x80abc\x03", UnsupportedEncoding),
        ("zstd", b"\x28\xb5\x2f\xfd", UnsupportedEncoding),
        ("gzip, gzip", gzip.compress(ZIPPED, mtime=0), UnsupportedEncoding),
        ("gzip", BODY, BadRequest),
        ("gzip", ZIPPED[:-9], BadRequest),
        ("gzip", b"", BadRequest),
        ("gzip", ZIPPED + b"more", BadRequest),
        ("gzip", ZIPPED + bytes(9) + b"more", BadRequest),
        ("gzip", ZIPPED + ZIPPED[:-9], BadRequest),
        ("gzip", gzip.compress(b"a" * 900, mtime=0) * 2, TooLarge),
        ("gzip", gzip.compress(b"a" * 10**6, mtime=0), TooLarge),
    ],
)
def test_what_cannot_be_read_says_so(
    gateway: LiveGateway, encoding: str, sent: bytes, error: type[BursarError]
) -> None:
    with pytest.raises(error):
        decoded(encoding, sent, 1000)
    if error is not TooLarge:
        answer = gateway.ask("POST", "/v1/chat/completions", sent, {"content-encoding": encoding})
        assert (answer.status, answer.error["code"]) == (error.status, error.code)


def test_members_without_end_are_refused() -> None:
    """Read one by one from the whole body they would keep all others waiting for half an hour."""
    with pytest.raises(BadRequest):
        decoded("gzip", NOTHING * 200_000, 1000)


def test_many_members_are_read() -> None:
    body = bytes(range(256)) * 1_000
    members = b"".join(gzip.compress(body[at : at + 1_000], mtime=0) for at in range(0, len(body), 1_000))
    assert decoded("gzip", members, len(body)) == body
    assert decoded("gzip", gzip.compress(body, 0, mtime=0) + NOTHING, len(body)) == body
