"""Which policies were in force, since when, and what each changed: a line of JSON each, beside the ledger."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

log = structlog.get_logger()

KEPT = 200
MAX_BYTES = 512 * 1024
MAX_CHANGES = 100


class Entry(msgspec.Struct, frozen=True):
    """A policy that came into force at `at_s` (Unix time); `changes` as `diff_policies` tells them, none at a start."""

    at_s: float
    version: str
    changes: tuple[str, ...] = ()


class PolicyHistory:
    """Written by every process that takes a policy into force; the same word of several workers is one entry."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: Entry | None = None

    def note(self, version: str, changes: Sequence[str], now_s: float) -> None:
        """One line is written; a policy is swapped rarely enough for that to be done at once. Never raises."""
        entry = Entry(now_s, version, tuple(changes[:MAX_CHANGES]))
        if self._last is not None and _same(self._last, entry):
            return
        self._last = entry
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._path.is_file() and self._path.stat().st_size > MAX_BYTES:
                self._shorten()
            with os.fdopen(os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as file:
                file.write(msgspec.json.encode(entry) + b"\n")
        except OSError as error:
            log.warning("the policy's history could not be written", error=str(error))

    def recent(self, limit: int = KEPT) -> list[Entry]:
        """The latest first."""
        found: list[Entry] = []
        with contextlib.suppress(FileNotFoundError):
            for line in self._path.read_bytes().splitlines():
                with contextlib.suppress(msgspec.MsgspecError):
                    entry = msgspec.json.decode(line, type=Entry)
                    if not found or not _same(found[-1], entry):
                        found.append(entry)
        return found[: -limit - 1 : -1]

    def _shorten(self) -> None:
        kept = b"".join(msgspec.json.encode(entry) + b"\n" for entry in reversed(self.recent()))
        aside = self._path.with_suffix(f".{os.getpid()}.tmp")
        aside.write_bytes(kept)
        aside.replace(self._path)


def _same(one: Entry, other: Entry) -> bool:
    """Workers tell the same swap; one that starts again tells no change of the version that it finds."""
    return one.version == other.version and (one.changes == other.changes or not other.changes)
