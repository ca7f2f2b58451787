"""Records of finished calls that wait to be written: first as what makes them, then as JSON.

Records are made many at once, a moment after their calls have ended: one after another finds code and tables in the
processor's caches, where a record made in its call's own time has to fetch them (docs/speed.md).
"""

from __future__ import annotations

import itertools

import msgspec
import structlog

from app.stores import traces
from app.stores.traces import Lost, Make, Record, is_of_task

log = structlog.get_logger()


class Waiting:
    """Bounded: beyond MAX_PENDING new ones are dropped. All but `written` and `lose` is for the event loop only.
    `dropped`: how many were lost, for that, or because they could not be made or written."""

    def __init__(self, lost: Lost) -> None:
        self._unmade: dict[str, Make] = {}
        self.lines: dict[str, bytes] = {}
        self.dropped = 0
        self._lost = lost

    def __len__(self) -> int:
        return len(self._unmade) + len(self.lines)

    def add(self, request_id: str, make: Make) -> bool:
        """Take a record in; False where too many wait."""
        if len(self) >= traces.MAX_PENDING:
            if not self.dropped:
                log.error("traces are written too slowly: some are dropped", waiting=len(self))
            self.lose(1)
            return False
        self._unmade[request_id] = make
        return True

    def make(self, most: int = traces.MAX_PENDING) -> list[tuple[str, bytes]]:
        """Make what is not made yet, the oldest first; the new lines, without line ends."""
        made: list[tuple[str, bytes]] = []
        for request_id in list(itertools.islice(self._unmade, most)):
            if (line := self._line(request_id, self._unmade.pop(request_id))) is None:
                self.lose(1)
            else:
                made.append((request_id, line))
        self.lines.update(made)
        return made

    def lose(self, count: int) -> None:
        """Count records that nobody will ever read; may be called from another thread."""
        self.dropped += count
        self._lost(count)

    def give_up(self) -> None:
        """Nothing is written any more: what still waits is lost."""
        if left := len(self):
            log.error("traces could not be written before the end, and are lost", lost=left)
            self._unmade.clear()
            self.lines.clear()
            self.lose(left)

    def written(self, request_id: str) -> None:
        """It waits no more; may be called from another thread."""
        self.lines.pop(request_id, None)

    def get(self, request_id: str) -> Record | None:
        """A record that waits, as it will be read once it is written."""
        line = self.lines.get(request_id)
        if line is None and (make := self._unmade.get(request_id)) is not None:
            line = self._line(request_id, make)
        return None if line is None else decoded(line)

    def of_task(self, key: str, task_id: str) -> dict[str, Record]:
        """Those of a task that wait, by their ids."""
        needle, found = task_needle(task_id), {}
        unmade = (self._line(request_id, make) for request_id, make in self._unmade.items())
        for line in [*self.lines.values(), *unmade]:
            if line is not None and needle in line and is_of_task(record := decoded(line), key, task_id):
                found[record["request_id"]] = record
        return found

    def _line(self, request_id: str, make: Make) -> bytes | None:
        try:
            return msgspec.json.encode(make())
        except Exception:  # whatever is wrong with one, the others are written
            log.exception("a record could not be made", request_id=request_id)
            return None


def decoded(line: bytes) -> Record:
    """A record that was written as JSON."""
    record: Record = msgspec.json.decode(line)
    return record


def task_needle(task_id: str) -> bytes:
    """What stands in every record of this task, and seldom in another's."""
    return b'"task_id":' + msgspec.json.encode(task_id)
