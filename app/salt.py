"""The house's salt, which hashes of requests are made with: so that who adds a provider, or changes a secret, does not
make all requests new to the learner."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from app.gateway.services import Services
from app.stores.snapshots import Snapshots, SnapshotsUnavailable

LONGEST_S: Final = 1.0
"""A gateway that begins waits no longer for it."""
AGAIN_S: Final = 5.0


async def know_salt(services: Services, snapshots: Snapshots) -> None:
    """Ask for it once; while it is not known hashes are salted by the policy's secrets."""
    with contextlib.suppress(SnapshotsUnavailable, TimeoutError):
        async with asyncio.timeout(LONGEST_S):
            services.salt = await snapshots.salt()


async def keep_asking(services: Services, snapshots: Snapshots) -> None:
    """Until it is known."""
    while services.salt is None:
        await asyncio.sleep(AGAIN_S)
        await know_salt(services, snapshots)
