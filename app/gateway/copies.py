"""One model at several providers: in which order a call asks them. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from app.core.policy import Candidate


def in_turn(candidate: Candidate, unit: str, available: Callable[[str], bool]) -> list[Candidate]:
    """The copies of a candidate, itself where it has none. Units are spread evenly, and each keeps its copy, whose
    prompt cache knows it, for as long as that is up (rendezvous hashing: Thaler and Ravishankar, 1998,
    https://doi.org/10.1109/90.663936). Copies whose circuit is open are left out, unless all are."""
    if not candidate.copies:
        return [candidate]
    up = [copy for copy in candidate.copies if available(copy.circuit)] or list(candidate.copies)
    return sorted(up, key=lambda copy: hashlib.blake2b(f"{unit}\0{copy.circuit}".encode(), digest_size=8).digest())
