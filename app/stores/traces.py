"""Finished calls: appended off the hot path, bounded, read by id for `GET /v1/decisions/{request_id}`.

Two stores take them: files of JSON lines (`traces_files`), and Redis (`traces_redis`) where it is shared. From there
`traces_compact` brings them into Parquet files (`traces_parquet`), where `traces_query` finds them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

MAX_PENDING = 20_000
"""Records waiting to be written; beyond it new ones are dropped and counted: memory stays bounded."""
FLUSH_EVERY_S = 0.01
"""Small batches: what writes them shares the interpreter with the event loop."""
SEEN_AFTER_S = 0.05
"""Another process has surely written what it had after this long."""
MAX_SEARCHED_BYTES = 128 * 1024 * 1024
"""What is looked through for the calls of one task: about 60,000 records, the latest."""
KEEP_DAYS = 7
"""How long a single record can be read by its id."""

Record = dict[str, Any]
"""What msgspec writes as JSON: among its values are `Raw`s and Structs; its first member is `request_id`."""
Make = Callable[[], Record]
"""Makes a record, now or in a moment: what it is made of changes no more."""


Lost = Callable[[int], object]
"""Told how many records were just lost; in any thread."""


def is_of_task(record: Record, key: str, task_id: str) -> bool:
    """True for a record of this task: what looks like its name may stand elsewhere in a record."""
    return record.get("task_id") == task_id and record.get("key") == key


_REQUEST_ID = re.compile(r"req_([0-9a-f]{11})[0-9a-f]{16}")


def arrived_ms(request_id: str) -> int | None:
    """When a request came, by its id, in ms of Unix time; None for what is no id."""
    found = _REQUEST_ID.fullmatch(request_id)
    return None if found is None else int(found[1], 16)


class Traces(Protocol):
    """Where records go."""

    async def start(self) -> None:
        """Open the store."""

    def append(self, request_id: str, make: Make) -> None:
        """Keep a record; never blocks, never raises."""

    async def get(self, request_id: str) -> Record | None:
        """The record of a call, also when it has only just ended; None if unknown or expired."""

    async def of_task(self, key: str, task_id: str, began_s: float) -> tuple[list[Record], bool]:
        """The records of a task's calls, in no order, which began at `began_s` (Unix time) or later; False with them
        where there is more than was looked through, and the earliest may be missing."""

    async def due(self) -> bool:
        """True where records wait to be compacted, and it is for the caller to see to it now."""

    async def close(self) -> None:
        """Write what is waiting."""
