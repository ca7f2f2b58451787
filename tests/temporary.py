"""Where tests keep their files: in memory, where there is room.

A gateway's ledger is synced to its disk at each write, and tests start thousands of gateways: on a disk most of their
time is spent waiting for it. Whoever sets TMPDIR has chosen otherwise.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")
ROOM_BYTES = 1024**3
"""Both there and in the machine's memory; a whole run of the tests takes less than a tenth of it."""


def in_memory(folder: Path = MEMORY, meminfo: Path = Path("/proc/meminfo")) -> bool:
    """Send the temporary files of this process and its children there, if it has room and lets programs be run."""
    if "TMPDIR" in os.environ or not _fits(folder, meminfo):
        return False
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    return True


def _fits(folder: Path, meminfo: Path) -> bool:
    try:
        found = os.statvfs(folder)
        lines = meminfo.read_text().splitlines()
    except OSError:
        return False
    available_kib = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), 0)
    runs = not found.f_flag & os.ST_NOEXEC and os.access(folder, os.W_OK)
    return runs and min(found.f_bavail * found.f_frsize, available_kib * 1024) >= ROOM_BYTES
