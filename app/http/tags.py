"""What a call is for, in its client's own words: kept with its record, so that spending can be told apart by it."""

from __future__ import annotations

from app.core.errors import BadRequest
from app.http.header_text import meant

HEADER = "x-bursar-tags"
MOST = 16
MAX_CHARS = 64


def tags_of(header: str) -> tuple[str, ...]:
    """The tags in the header, each once. Raises BadRequest."""
    found = tuple(dict.fromkeys(tag for part in meant(header).split(",") if (tag := part.strip())))
    if len(found) > MOST or not all(len(tag) <= MAX_CHARS and tag.isprintable() for tag in found):
        raise BadRequest(
            f"The header X-Bursar-Tags must be a list of at most {MOST} printable tags of {MAX_CHARS} characters.",
            param="X-Bursar-Tags",
        )
    return found
