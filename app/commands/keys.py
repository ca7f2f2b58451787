"""`bursar keys`: make a client's key."""

from __future__ import annotations

import re

from app.commands.terminal import complain, say
from app.stores.keys import new_key
from app.stores.policy_types import NAME_PATTERN


def new(name: str, *, admin: bool) -> int:
    """Print a fresh key and the policy's line for it; the exit code."""
    if not re.fullmatch(NAME_PATTERN, name):
        complain("A key's name starts with a letter or digit and goes on with letters, digits, `.`, `_` or `-`.")
        return 2
    secret, sha256 = new_key()
    say(f"The key of {name}, shown this once and kept nowhere:")
    say()
    say(f"  {secret}")
    say()
    say("Put this line into the policy; the gateway takes it into force within a second:")
    say()
    say("keys:")
    say(f'  - {{name: "{name}", sha256: "{sha256}"{", admin: true" if admin else ""}}}')
    return 0
