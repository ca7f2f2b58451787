"""Clients' keys: made here, shown once, and kept as a SHA-256 only."""

from __future__ import annotations

import hashlib
import secrets

PREFIX = "sk-bursar-"
RANDOM_BYTES = 32


def hash_key(secret: str) -> str:
    """The SHA-256 of a key as 64 hex digits: what the policy lists and what a request is looked up by.

    A plain digest is enough because a key is 256 bits of chance, not a password.
    """
    return hashlib.sha256(secret.encode()).hexdigest()


def new_key() -> tuple[str, str]:
    """A fresh key and its SHA-256; the key itself is not kept anywhere."""
    secret = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    return secret, hash_key(secret)
