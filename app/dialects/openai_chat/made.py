"""Ids that a client must see and its upstream did not give: made of what is known, so that they are always the same."""

from __future__ import annotations

from hashlib import blake2b


def made_id(prefix: str, *parts: object) -> str:
    """An id of 24 hexadecimal digits behind the prefix."""
    return f"{prefix}_{blake2b('/'.join(map(str, parts)).encode(), digest_size=12).hexdigest()}"
