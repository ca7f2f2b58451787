"""The policy's text in force, for the other workers of this gateway: one that begins anew serves what they serve,
whatever the files hold by then."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

from app.stores.policy_yaml import Source

NAME = "policy-in-force.json"

log = structlog.get_logger()
_texts = msgspec.json.Decoder(list[tuple[str, bytes]])


class KeptText:
    """In a folder that only this gateway's workers share, and that goes with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> tuple[Source, ...] | None:
        """What the others serve; None where nobody has served yet."""
        try:
            texts = _texts.decode((self._folder / NAME).read_bytes())
        except (OSError, msgspec.MsgspecError):
            return None
        return tuple(Source(file, data) for file, data in texts) or None

    def write(self, sources: Sequence[Source]) -> None:
        """This is in force now: rarely another, so that it can be written at once. Never raises."""
        try:
            file, aside = tempfile.mkstemp(dir=self._folder)
            with os.fdopen(file, "wb") as out:
                out.write(msgspec.json.encode([(source.file, source.data) for source in sources]))
            os.replace(aside, self._folder / NAME)
        except OSError as error:
            log.warning("the policy in force could not be kept for other workers", error=str(error))
