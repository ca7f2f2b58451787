"""The machine: who runs on which core, and what a process tree has used. Linux only: it reads /proc."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_KIB_PER_MIB = 1024
PROC = Path("/proc")
PACKAGES = ("uvloop", "uvicorn", "httptools", "aiohttp", "msgspec", "redis")


def cores() -> tuple[int, int]:
    """The core for what is measured and the one for everything else: the same where only one may be used.

    Two threads of one physical core slow each other down, so the second is another core where there is one.
    """
    if not PROC.joinpath("self/stat").exists() or not hasattr(os, "sched_getaffinity"):
        raise SystemExit("the benchmark needs Linux: it measures CPU from /proc")
    usable = sorted(os.sched_getaffinity(0))
    first = usable[0]
    siblings = _siblings(first)
    others = [core for core in usable[1:] if core not in siblings] or usable[1:] or usable
    return first, others[0]


def _siblings(core: int) -> set[int]:
    try:
        text = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list").read_text()
    except OSError:
        return {core}
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """This process, and all that it starts meanwhile, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_s(pid: int) -> float:
    """User and system time of a process and its living descendants; it moves in steps of a clock tick (10 ms)."""
    total = 0
    for member in _tree(pid):
        with contextlib.suppress(OSError):
            # The command's name may hold spaces and brackets; the numbers come after its last one (proc(5)).
            fields = (PROC / str(member) / "stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS_PER_S


def rss_mb(pid: int) -> float:
    """Resident memory of a process and its living descendants; shared pages count in each."""
    return _rss_mb(_tree(pid))


def own_rss_mb(pid: int) -> float:
    """Resident memory of a process alone."""
    return _rss_mb({pid})


def _rss_mb(pids: set[int]) -> float:
    kib = 0
    for member in pids:
        with contextlib.suppress(OSError):
            lines = (PROC / str(member) / "status").read_text().splitlines()
            kib += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return round(kib / _KIB_PER_MIB, 1)


def _tree(pid: int) -> set[int]:
    found, waiting = {pid}, [pid]
    while waiting:
        for listed in PROC.glob(f"{waiting.pop()}/task/*/children"):
            with contextlib.suppress(OSError):
                children = {int(child) for child in listed.read_text().split()} - found
                found |= children
                waiting += children
    return found


def how_taken(store: str) -> dict[str, str]:
    """What a reader must know to judge the figures. The date is the reader's to add."""
    first, second = cores()
    load = os.getloadavg()[0]
    beside = "stub, load generator and Redis" if store == "redis" else "stub and load generator"
    one = "everything on one core: latencies hold the stub's and the load generator's work too"
    return {
        "CPU": f"{_cpu_model()}, {os.cpu_count()} cores seen, {len(os.sched_getaffinity(0))} usable",
        "cores": one if first == second else f"gateway on core {first}; {beside} on core {second}",
        "system": f"Linux {platform.release()}, Python {platform.python_version()} ({sys.implementation.name})",
        "packages": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES),
        "busy before": f"load average {load:.2f}{' (others are at work: repeat when it is quiet)' if load > 1 else ''}",
    }


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in (PROC / "cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
