"""`bursar keys`: make a client's key."""

from __future__ import annotations

import re
import time

from app.commands.terminal import complain, say
from app.stores.keys import new_key
from app.stores.policy_types import NAME_PATTERN, epoch_s


def new(name: str, *, admin: bool, judges: bool, probes: bool, team: str | None, expires: str | None) -> int:
    """Print a fresh key and the policy's line for it; the exit code."""
    for what, given in (("key", name), ("team", team)):
        if given is not None and not re.fullmatch(NAME_PATTERN, given):
            complain(
                f"the name of a {what} starts with a letter or digit and goes on with letters, digits, `.`, `_` or `-`"
            )
            return 2
    if judges and (admin or probes or team is not None):
        complain("--judges: such a key makes no calls, so that it goes without --admin, --probes and --team")
        return 2
    try:
        passed = expires is not None and epoch_s(expires) <= time.time()
    except ValueError:
        complain("--expires: must be a day or a time, such as 2026-12-31 or 2026-12-31T18:00Z")
        return 2
    if passed:
        complain(f"--expires: {expires} has passed already")
        return 2
    secret, sha256 = new_key()
    say(f"The key of {name}, shown this once and kept nowhere:")
    say()
    say(f"  {secret}")
    say()
    say("Put this line into the policy; it is in force within a second:")
    say()
    say("keys:")
    more = "".join(
        f', {what}: "{given}"' for what, given in (("team", team), ("expires", expires)) if given is not None
    )
    more += ", admin: true" if admin else ", judges: true" if judges else ""
    more += ", probes: true" if probes else ""
    say(f'  - {{name: "{name}", sha256: "{sha256}"{more}}}')
    return 0
