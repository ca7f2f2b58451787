"""Which calls a model in quarantine gets all the same, so that it can be seen to have recovered. Pure."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

PROBE_SHARE: Final = 0.05
"""Of the calls that it would have had."""


def probes(unit: str) -> bool:
    """Whether a unit of traffic (a task, or a call without one) probes: the same on every gateway."""
    digest = blake2b(unit.encode("utf-8", "surrogatepass"), digest_size=8, key=b"probe").digest()
    return int.from_bytes(digest, "big") < PROBE_SHARE * 2**64
