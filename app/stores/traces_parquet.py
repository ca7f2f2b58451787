"""Traces at rest: Parquet files by day under a URL, `day=2026-11-20/part-NAME.SHAPE.parquet`.

A part is there whole or not at all, and its name says what was compacted into it: done again, it replaces itself. SHAPE
says which columns it has.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from app.stores.file_lock import lock_for_readers, try_lock
from app.stores.traces_schema import SHAPE

SUFFIX = ".parquet"
MAKING = ".making"
"""A folder, on the same disk, for files that are not complete; readers of Parquet pass over names with a dot."""
STALE_S = 6 * 3600.0
_LOCK = ".reading.lock"
_MAGIC = b"PAR1"
_END = b"size" + _MAGIC
"""https://parquet.apache.org/docs/file-format/: how a file begins, and how it ends."""
_PART = re.compile(r"day=(\d{4}-\d\d-\d\d)/part-([\w-]+)(?:\.([0-9a-f]{8}))?\.parquet")
_WHOLE_PUTS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "memory"}
"""File systems on which a file that is put becomes visible whole, or not at all."""


class TracesError(Exception):
    """Traces cannot be written or read; the message says why, and holds no secret."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file: where it is, which day's records it holds, from what (`name`) it was made, and of which shape it is
    ("": not known)."""

    path: str
    day: dt.date
    name: str
    shape: str


class ParquetFolder:
    """The parts under one URL; any that fsspec knows, where the package for it is installed."""

    def __init__(self, url: str) -> None:
        """Raises TracesError for a URL that cannot be used. Nothing is read or made yet."""
        try:
            self.fs, root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise TracesError(f"BURSAR_TRACES_URL needs a package that is not installed: {error}") from None
        except Exception as error:  # whatever a file system makes of its URL and options; it may quote them
            raise TracesError(f"BURSAR_TRACES_URL cannot be used ({type(error).__name__})") from None
        self.root = str(root).rstrip("/")
        self.local = isinstance(self.fs, LocalFileSystem)
        self._locks = self.local and os.name != "nt"  # there a file that is open cannot be removed

    @contextlib.contextmanager
    def making(self) -> Iterator[Path]:
        """A local folder for files on their way here; it is removed at the end."""
        base = None
        if self.local:
            base = Path(self.root, MAKING)
            base.mkdir(mode=0o700, parents=True, exist_ok=True)
            _remove_stale(base)
        with tempfile.TemporaryDirectory(dir=base, prefix="bursar-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def publish(self, made: Path, day: dt.date, name: str) -> None:
        """Let a complete local file of this version's shape be the part of this day and name; durable on return. Raises
        TracesError."""
        folder = f"{self.root}/day={day.isoformat()}"
        path = f"{folder}/part-{name}.{SHAPE}{SUFFIX}"
        with told("written"):
            if self.local:
                _move_durably(made, Path(path))
            elif _WHOLE_PUTS & _protocols(self.fs):
                self.fs.put_file(str(made), path)
            else:
                self.fs.makedirs(folder, exist_ok=True)
                self.fs.put_file(str(made), f"{folder}/.part-{name}")
                self.fs.mv(f"{folder}/.part-{name}", path)
            self._remove_twins(folder, name)

    def _remove_twins(self, folder: str, name: str) -> None:
        """The same records as another version wrote them before it was killed."""
        self.fs.invalidate_cache()
        for other in self.fs.ls(folder, detail=False):
            part = self._part(other)
            if part is not None and part.name == name and part.shape != SHAPE:
                self.fs.rm(part.path)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Meanwhile no part of a local folder goes for its age: parts are opened when a question comes to them."""
        file = None
        if self._locks:
            with contextlib.suppress(OSError):  # not there yet, or not ours to write
                file = os.open(Path(self.root, _LOCK), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if file is not None:
                lock_for_readers(file)
            yield
        finally:
            if file is not None:
                os.close(file)

    def is_whole(self, part: Part) -> bool:
        """Whether a part begins and ends as Parquet does; of one that is not here it is taken to be so."""
        if not self.local:
            return True
        try:
            with open(part.path, "rb") as file:
                begins = file.read(len(_MAGIC))
                file.seek(-len(_END), os.SEEK_END)
                return begins == _MAGIC and file.read().endswith(_MAGIC)
        except OSError:
            return False

    def parts(self) -> list[Part]:
        """All parts, oldest day first. Raises TracesError."""
        with told("listed"):
            self.fs.invalidate_cache()
            paths = sorted(self.fs.find(self.root))
        return [part for path in paths if (part := self._part(path)) is not None]

    def _part(self, path: str) -> Part | None:
        """What a path under the root names; None for what is no part."""
        found = _PART.fullmatch(path[len(self.root) + 1 :])
        return None if found is None else Part(path, dt.date.fromisoformat(found[1]), found[2], found[3] or "")

    def expire(self, before: dt.date) -> int:
        """Remove the parts of earlier days; how many. While questions are being answered from a local folder it is left
        to the next time. Raises TracesError."""
        old = [part for part in self.parts() if part.day < before]
        if not old or not self._locks:
            return self._remove(old)
        with told("removed"), open(Path(self.root, _LOCK), "ab") as file:
            return self._remove(old) if try_lock(file.fileno()) else 0

    def _remove(self, old: list[Part]) -> int:
        with told("removed"):
            for part in old:
                self.fs.rm(part.path)
            if self.local:
                for day in {Path(part.path).parent for part in old}:
                    with contextlib.suppress(OSError):
                        day.rmdir()
        return len(old)

    def url(self, part: Part) -> str:
        """The part as DuckDB is told of it."""
        return part.path if self.local else self.fs.unstrip_protocol(part.path)


@contextlib.contextmanager
def told(verb: str) -> Iterator[None]:
    """Any failure of a file system, as a TracesError."""
    try:
        yield
    except FileNotFoundError as error:
        raise TracesError(f"traces could not be {verb}: not found: {error.filename or 'the folder'}") from error
    except Exception as error:  # each file system has errors of its own
        raise TracesError(f"traces could not be {verb}: {type(error).__name__}: {error}") from error


def _protocols(fs: Any) -> set[str]:
    return {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)


def _move_durably(made: Path, path: Path) -> None:
    """Move within a disk, so that not even a power cut leaves half a file."""
    new = not path.parent.is_dir()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(made, 0o600)
    _sync(made)
    os.replace(made, path)
    if os.name != "nt":  # where folders cannot be opened
        _sync(path.parent)
        if new:
            _sync(path.parent.parent)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _remove_stale(base: Path) -> None:
    """What processes that were killed left behind."""
    for folder in base.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > STALE_S:
                for file in folder.iterdir():
                    file.unlink()
                folder.rmdir()
