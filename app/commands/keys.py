"""`bursar keys`: make a client's key."""

from __future__ import annotations

import re

from app.commands.terminal import complain, say
from app.stores.keys import new_key
from app.stores.policy_types import NAME_PATTERN


def new(name: str, *, admin: bool, team: str | None) -> int:
    """Print a fresh key and the policy's line for it; the exit code."""
    for what, given in (("key", name), ("team", team)):
        if given is not None and not re.fullmatch(NAME_PATTERN, given):
            complain(
                f"A {what}'s name starts with a letter or digit and goes on with letters, digits, `.`, `_` or `-`."
            )
            return 2
    secret, sha256 = new_key()
    say(f"The key of {name}, shown this once and kept nowhere:")
    say()
    say(f"  {secret}")
    say()
    say("Put this line into the policy; the gateway takes it into force within a second:")
    say()
    say("keys:")
    more = (f', team: "{team}"' if team is not None else "") + (", admin: true" if admin else "")
    say(f'  - {{name: "{name}", sha256: "{sha256}"{more}}}')
    return 0
