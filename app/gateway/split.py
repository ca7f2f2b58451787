"""Which router decides for whom, where a route splits its traffic between several. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from math import inf, log


def assign(shares: Mapping[str, float], route: str, unit: str) -> str:
    """The name that a unit of traffic (a task, or a call without one) falls to, with the probability of its share.

    Weighted rendezvous hashing (https://en.wikipedia.org/wiki/Rendezvous_hashing): each name draws a number for the
    unit, keyed by the name, that is exponential at the rate of its share, and the lowest wins. So it is the same on
    every gateway and after every restart, and when a share changes, units move only between that name and the
    others: with two names, only those that must. Routes draw for themselves, so that two tests on the same tasks are
    independent. Nothing here is secret: a client that chooses its task ids can choose its router.
    """
    message = f"{route}\0{unit}".encode("utf-8", "surrogatepass")
    lowest, winner = inf, ""
    for name, share in shares.items():
        if share <= 0:
            continue
        digest = blake2b(message, digest_size=8, key=name.encode()).digest()
        drawn = -log((int.from_bytes(digest, "big") + 0.5) / 2**64) / share
        if drawn < lowest:
            lowest, winner = drawn, name
    return winner
