"""Snapshots: what the learner has published for gateways to route by, the last few of them; and the learner's own
state.

Two stores keep them: a SQLite file (`snapshots_sqlite`), and Redis (`snapshots_redis`) where they are shared. A
snapshot never changes, and neither does its number. One learner at a time learns (`lead`); what another writes that
still takes itself for it is refused (`Overtaken`), since state and snapshots carry the state's `epoch`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

KEEP_TOLD = 200
"""Entries of the list; of those beyond the last few that are kept only the entry is left."""

LONGEST_LEASE_S = 600.0
"""A lease that ends later than this from now was taken before the clock was set back, and is none."""

SALT_BYTES = 32
KEEP_ASIDE = 3
"""States that a learner could not read."""

Status = Literal["published", "postponed", "refused", "rolled_back", "unreadable"]


class SnapshotsUnavailable(Exception):
    """The store does not answer."""


class Overtaken(Exception):
    """Another learner has written meanwhile, or somebody rolled back: read the state again."""


class NoSnapshot(Exception):
    """There is none of that number, or its content is no longer kept."""


class Trial(msgspec.Struct, frozen=True):
    """How it predicted held-out outcomes: their number, its log loss in nats, that of the one in force before it, and
    the standard error of the difference, and the sum of their weights. None: there were none."""

    labels: int = 0
    loss: float | None = None
    before: float | None = None
    error: float | None = None
    weight: float = 0.0


class Snapshot(msgspec.Struct, frozen=True):
    """What is told of one. `labels` were learned since the one it follows (`parent`, 0: the weights alone); `weights`
    is the version of the learned router that it belongs to; `why`: what became of it; `unheard`: calls since the entry
    before that the learner let go before all their signs had spoken, for there were too many a second. One that is
    postponed has too little to be tried by, one that is refused failed; neither has a body. Of one that is unreadable
    nothing is known but its number."""

    number: int
    created_s: float
    weights: str
    parent: int = 0
    labels: int = 0
    models: int = 0
    trial: Trial = Trial()
    status: Status = "published"
    why: str = ""
    unheard: int = 0


class Head(msgspec.Struct, frozen=True):
    """`current`: the snapshot in force, 0 for none; `moves` rises with every entry and every change, `rollbacks` with
    those that somebody asked for, `epoch` with every write of the state."""

    current: int = 0
    moves: int = 0
    rollbacks: int = 0
    epoch: int = 0


_told = msgspec.msgpack.Decoder(Snapshot)

State = Callable[[int], bytes]
"""The learner's state once the snapshot of this number is in force; it may be called in another thread."""


class Snapshots(Protocol):
    """Where snapshots are. Every method raises SnapshotsUnavailable."""

    async def start(self) -> None:
        """Open the store. Raises OSError or SnapshotsUnavailable where it cannot be used."""

    async def head(self) -> Head:
        """What is in force; cheap, for those who ask every second."""

    async def told(self) -> list[Snapshot]:
        """All that is on record, the latest first."""

    async def body(self, number: int) -> bytes:
        """The content of one. Raises NoSnapshot."""

    async def publish(
        self,
        snapshot: Snapshot,
        body: bytes | None,
        *,
        head: Head,
        keep: int,
        spared: int = 0,
        state: State | None = None,
    ) -> Snapshot:
        """Number and record it; with a body it is in force from now on, and the last `keep` bodies remain, and that of
        `spared`. `state`: the learner's, given that number, is saved with it, or neither is. `head` is what its maker
        believed to be so: Overtaken where its epoch or its rollbacks are not."""

    async def rollback(self, number: int | None) -> Head:
        """Bring an earlier one into force: this one (0: the weights alone), or the one before that which is. Later ones
        are marked. Raises NoSnapshot."""

    async def load(self) -> tuple[Head, bytes | None]:
        """The learner's state as it was last saved, and the head at that moment."""

    async def save(self, state: bytes, *, head: Head) -> Head:
        """Save it. Raises Overtaken where another has saved since, or somebody rolled back."""

    async def set_aside(self, state: bytes) -> None:
        """Keep a learner's state that cannot be read here, beside the one that takes its place: the last few."""

    async def aside(self) -> list[bytes]:
        """What was set aside, the latest first."""

    async def salt(self) -> bytes:
        """What hashes of requests are salted with: SALT_BYTES by chance, made once, the same for all who share this
        store."""

    async def lead(self, owner: str, seconds: float) -> bool:
        """True where `owner` is the one to learn, for so long from now; it asks again before that.
        0: it leads no more."""

    async def close(self) -> None:
        """Close it."""


def told_of(number: int, entry: bytes) -> Snapshot:
    """An entry of the list, as it was stored."""
    try:
        return _told.decode(entry)
    except (msgspec.MsgspecError, ValueError):  # the second where text is no UTF-8
        why = "this entry was written by another version, or damaged"
        return Snapshot(number, 0.0, "", status="unreadable", why=why)


def rolled_back(told: list[Snapshot], head: Head, number: int | None, kept: set[int]) -> tuple[int, list[Snapshot]]:
    """Which one a rollback brings into force, and the entries that it changes. Raises NoSnapshot. Pure."""
    usable = [one.number for one in told if one.status == "published" and one.number in kept]
    if number is None:
        number = max((one for one in usable if one < head.current), default=0)
        if not head.current:
            raise NoSnapshot("no snapshot is in force: there is nothing to go back from")
    elif number and number not in kept:
        raise NoSnapshot(f"there is no snapshot {number}, or its content is no longer kept")
    why = f"rolled back to {number or 'the weights alone'}"
    changed = [
        msgspec.structs.replace(one, status="rolled_back", why=why)
        for one in told
        if one.number > number and one.status == "published"
    ]
    changed += [
        msgspec.structs.replace(one, status="published", why="brought back")
        for one in told
        if one.number == number and one.status == "rolled_back"
    ]
    return number, changed
