"""The house's salt, which hashes of requests are made with: so that who adds a provider, or changes a secret, does not
make all requests new to the learner."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from app.gateway.services import Services
from app.stores.snapshots import Snapshots, SnapshotsUnavailable

FIRST_LOOK_S: Final = 1.0
"""A gateway that begins waits no longer for what it can be told later."""
AGAIN_S: Final = 5.0


async def salt_of(snapshots: Snapshots) -> bytes | None:
    """It, or None where the store does not answer soon."""
    with contextlib.suppress(SnapshotsUnavailable, TimeoutError):
        async with asyncio.timeout(FIRST_LOOK_S):
            return await snapshots.salt()
    return None


async def keep_asking(services: Services, snapshots: Snapshots) -> None:
    """Ask for it until it is known; meanwhile hashes are salted by the policy's secrets."""
    while services.salt is None:
        await asyncio.sleep(AGAIN_S)
        services.salt = await salt_of(snapshots)
