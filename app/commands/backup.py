"""`bursar backup`: a copy of the data folder that is whole, while gateways write to it.

Copying the files alone would not do: what was spent last is in a log beside the ledger, and both must be of one moment.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

from app.commands.ending import ending
from app.commands.policy import read_settings
from app.commands.terminal import complain, say

PASSING = ("replays.sqlite", "cache.sqlite")
"""Replies for who repeats a request: good for a while."""
BUSY_S = 10.0


@ending()
def backup(out: Path) -> int:
    """Copy the data folder of the environment into an empty or new folder; the exit code."""
    settings = read_settings()
    data = settings.data_dir
    if not data.is_dir():
        complain(f"there is no data at {data}; BURSAR_DATA_DIR says where to look")
        return 1
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        complain(f"{out} exists already and is not empty; name a new folder")
        return 2
    try:
        copied = _copy(data, out)
    except (OSError, sqlite3.Error) as error:
        complain(f"{data} could not be copied whole, so do not use {out}: {error}")
        return 1
    say(f"{out}: {', '.join(copied) or 'nothing was there'}")
    if settings.redis_url is not None:
        complain("note: the ledger and the latest traces are in Redis, and not in this copy")
    if settings.traces_url is not None:
        complain("note: traces in Parquet are at BURSAR_TRACES_URL, and not in this copy")
    return 0


def _copy(data: Path, out: Path) -> list[str]:
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    copied = []
    for path in sorted(data.glob("*.sqlite")):
        if path.name not in PASSING:
            _copy_database(path, out / path.name)
            copied.append(path.name)
    for path in sorted(data.glob("policies.jsonl")):
        shutil.copy2(path, out / path.name)
        copied.append(path.name)
    traces = data / "traces"
    if traces.is_dir():
        _copy_traces(traces, out / "traces")
        copied.append("traces")
    return copied


def _copy_database(path: Path, copy: Path) -> None:
    """As it is at one moment; writers are not kept waiting (https://www.sqlite.org/backup.html)."""
    copy.touch(mode=0o600)
    with (
        contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_S)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)


def _copy_traces(traces: Path, copy: Path) -> None:
    """Marks first, then segments, then Parquet: a segment that is compacted meanwhile is there unmarked, beside its
    parts, and then it is what counts; one that was marked has its parts already."""
    copy.mkdir(mode=0o700)
    for pattern in ("*.done", "*.jsonl"):
        for path in sorted(traces.glob(pattern)):
            with contextlib.suppress(FileNotFoundError):  # compacted and removed meanwhile: it is in Parquet
                shutil.copy2(path, copy / path.name)
    for day in sorted((traces / "parquet").glob("day=*")):
        parts = copy / "parquet" / day.name
        parts.mkdir(parents=True)
        with contextlib.suppress(FileNotFoundError):  # a day that is too old by now
            for path in sorted(day.glob("*.parquet")):
                shutil.copy2(path, parts / path.name)
