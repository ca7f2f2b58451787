"""Text in headers: some clients send UTF-8, others Latin-1, as which servers read all of it."""

from __future__ import annotations

WHITE_SPACE = " \t"


def meant(value: str) -> str:
    """A header's text as its client meant it, so that a name is the same one in a header, a path or a body: without the
    white space around it, some of which servers leave (https://www.rfc-editor.org/rfc/rfc9110#section-5.5)."""
    value = value.strip(WHITE_SPACE)
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value
