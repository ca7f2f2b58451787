"""JSON as it came (`msgspec.Raw`, or text): what is not there, what says nothing, how reading fails. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

ABSENT: Final = msgspec.Raw()
"""A member that was not sent: no bytes, so it is false."""
NULL: Final = b"null"
BOM: Final = b"\xef\xbb\xbf"
"""A byte order mark, which may stand before a text and is none of it."""
NO_ERROR: Final = frozenset((b"", NULL, b"false", b'""', b"{}"))
"""What servers write as an `error` where there is none."""
NO_ARGUMENTS: Final = msgspec.Raw(b'{"type":"object","properties":{}}')
"""The schema of a function that takes none."""
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What decoding raises: for no JSON or another shape, for what is no UTF-8, for what is nested too deeply."""


def is_whole(text: str) -> bool:
    """Whether this is one JSON value, none of it missing."""
    try:
        msgspec.json.decode(text)
    except UNREADABLE:
        return False
    return True
