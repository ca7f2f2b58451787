"""The metrics of several workers: prometheus_client's files, one of each kind a process, read as one page.

A process that is gone leaves its counts behind: they are added to one file of the gone, so that a gateway whose
workers die and come back keeps a bounded number of files, and its counters never fall.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from app.stores.file_lock import lock_for_readers, lock_for_writer

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
GONE = "gone"
_ADDED_UP = ("counter", "histogram")


def several_workers() -> bool:
    """True where this process is one of the workers of a gateway."""
    return FOLDER in os.environ


def exposition(registry: CollectorRegistry) -> bytes:
    """The metrics as text: this process's registry, or those of all workers where there are several."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        return generate_latest(registry)
    together = CollectorRegistry()
    MultiProcessCollector(together, folder)  # type: ignore[no-untyped-call]
    with _locked(Path(folder), writing=False):
        return generate_latest(together)


def bury(folder: Path, pid: int) -> None:
    """Forget the gauges of a process that is gone, and add what it counted to what the gone have counted."""
    with _locked(folder, writing=True):
        mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
        for kind in _ADDED_UP:
            left = folder / f"{kind}_{pid}.db"
            if left.exists():
                _add(left, folder / f"{kind}_{GONE}.db")
                left.unlink()


def _add(left: Path, total: Path) -> None:
    """Buckets are stored one by one, so adding by key holds for histograms too."""
    sums: dict[str, float] = defaultdict(float)
    for file in (total, left):
        if file.exists():
            for key, value, _, _ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
                sums[key] += value
    aside = total.with_suffix(".aside")
    aside.unlink(missing_ok=True)
    written = MmapedDict(str(aside))  # type: ignore[no-untyped-call]
    for key, value in sums.items():
        written.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    written.close()  # type: ignore[no-untyped-call]
    aside.replace(total)


@contextlib.contextmanager
def _locked(folder: Path, *, writing: bool) -> Iterator[None]:
    """Nobody reads while counts move from one file to another: they would be seen twice, or not at all."""
    with (folder / "lock").open("ab") as file:
        (lock_for_writer if writing else lock_for_readers)(file.fileno())
        yield
