"""End users of an application that has one key for them all: how the ledger and the records name them. Pure.

A person's id is personal data, and none of the gateway's business: what is kept is a hash of it, salted by the house's
own salt. Who asks for a user's spending names the user, and is answered by the same hash.
"""

from __future__ import annotations

import hashlib

DIGEST_BYTES = 16
"""Whatever a ledger may hold: no two users are ever taken for one."""


def user_hash(user: str, salt: bytes) -> str:
    """A user's name in the ledger and in records: 32 hexadecimal digits."""
    named = user.encode("utf-8", "replace")
    return hashlib.blake2b(named, digest_size=DIGEST_BYTES, key=salt, person=b"end user").hexdigest()
