"""What `bursar probe` keeps between runs, and of a run that is under way, so that a kill at any moment costs nothing.

The state is one small JSON file, replaced whole. Beside it, while a run lasts, stands its journal: a line for each
answer before anything is said of it, and one when it was said. A run that was killed goes on from there. No word of an
answer is in either.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

import msgspec

from app.commands.ending import Refused
from app.stores.file_lock import try_lock

FORMAT: Final = 1
GOES_ON_S: Final = 6 * 3600.0
"""A run that was broken off so long ago is over: the next begins anew."""


class Round(msgspec.Struct):
    """One model's answers in a run: `right` by the names of probes; what those that were asked cost, None unknown."""

    run: str
    at_s: float
    right: dict[str, bool] = {}
    cost_nano: int | None = 0


class Kept(msgspec.Struct):
    """Of one model: the run that others are compared with, and the latest."""

    base: Round
    last: Round


class State(msgspec.Struct):
    """`models`: by name. `untold`: words that could not be said yet, by their calls' names: right, or not."""

    format: int = FORMAT
    models: dict[str, Kept] = {}
    untold: dict[str, bool] = {}


class Begun(msgspec.Struct, tag="begun", frozen=True):
    """A run: what it asks, of whom, for how much at most."""

    run: str
    at_s: float
    probes: str
    route: str
    models: list[str]
    most_nano: int


class Answered(msgspec.Struct, tag="answered", frozen=True):
    """One answer: the call, the model, the probe's name; whether it was `right`, None where that is not the model's
    doing (`why`); the kind of work by the file, or else as it was `sorted`; its cost, None unknown."""

    call: str
    model: str
    probe: str
    right: bool | None
    work: str
    cost_nano: int | None
    sorted: str = ""
    why: str = ""


class Told(msgspec.Struct, tag="told", frozen=True):
    """What came of a call was said to the gateway."""

    call: str


_lines = msgspec.json.Decoder(Begun | Answered | Told)


@dataclass
class Journal:
    """A run under way. `answers` by model and probe; `told`: calls of which it was said."""

    begun: Begun
    file: IO[bytes] = field(repr=False)
    answers: dict[tuple[str, str], Answered] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)

    def note(self, line: Begun | Answered | Told) -> None:
        """Write a line, and remember it. What is written here survives this process, however it ends."""
        self.file.write(msgspec.json.encode(line) + b"\n")
        self.file.flush()
        self._take(line)

    def _take(self, line: Begun | Answered | Told) -> None:
        if isinstance(line, Answered):
            self.answers[line.model, line.probe] = line
        elif isinstance(line, Told):
            self.told.add(line.call)

    @property
    def untold(self) -> dict[str, bool]:
        """What is yet to be said, by calls."""
        found = {one.call: one.right for one in self.answers.values() if one.right is not None}
        return {call: right for call, right in found.items() if call not in self.told}

    @classmethod
    def read(cls, file: IO[bytes]) -> Journal | None:
        """The run that a file tells of; None where it tells of none. A line that was cut off is passed over."""
        found: Journal | None = None
        for raw in file:
            with contextlib.suppress(msgspec.DecodeError):
                line = _lines.decode(raw)
                if isinstance(line, Begun):
                    found = cls(line, file)
                elif found is not None:
                    found._take(line)
        return found


class Store:
    """The files of one set of probes. Raises Refused where they cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path, self._journal = path, path.with_name(path.name + ".run")

    @contextlib.contextmanager
    def run(self, same: Callable[[Begun], bool], new: Begun) -> Iterator[tuple[State, Journal]]:
        """The state, and the journal: of the run that was broken off a while ago, if it is the same, else of a new one.
        What one that is over leaves unsaid is in the state. Nobody else has either at the same time."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._journal.open("ab+") as file:
                if not try_lock(file.fileno()):
                    raise Refused(f"another run is under way ({self._journal})")
                file.seek(0)
                state, journal = self.state(), Journal.read(file)
                if journal is None or not self._goes_on(state, journal, same):
                    if journal is not None:
                        state.untold |= journal.untold
                        self.keep(state)
                    file.truncate(0)
                    journal = Journal(new, file)
                    journal.note(new)
                elif file.tell() and not _ends_whole(file):
                    file.write(b"\n")
                yield state, journal
        except OSError as error:
            raise Refused(f"{error}; --state says where else to keep what is known of the last run") from None

    def _goes_on(self, state: State, journal: Journal, same: Callable[[Begun], bool]) -> bool:
        begun = journal.begun
        if any(kept.last.run == begun.run for kept in state.models.values()):
            return False  # it was reported, and killed while it took its journal away
        return same(begun) and 0.0 <= time.time() - begun.at_s <= GOES_ON_S

    def state(self) -> State:
        """What is known of earlier runs. Raises Refused."""
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=State)
        except FileNotFoundError:
            return State()
        except (msgspec.DecodeError, OSError) as error:
            raise Refused(f"{self._path} is not what an earlier run has left: {error}") from None
        if found.format != FORMAT:
            raise Refused(f"{self._path} was left by another version; without it, this run is the first")
        return found

    def keep(self, state: State) -> None:
        """Replace the state."""
        aside = self._path.with_name(self._path.name + ".new")
        with aside.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(state), indent=1))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self._path)

    def ended(self, journal: Journal) -> None:
        """The run is over, and in the state."""
        journal.file.truncate(0)


def new_run(probes: str, route: str, models: list[str], most_nano: int) -> Begun:
    """A run that begins now."""
    at_s = time.time()
    name = f"probe-{time.strftime('%Y%m%d-%H%M%S', time.gmtime(at_s))}-{secrets.token_hex(3)}"
    return Begun(name, at_s, probes, route, models, most_nano)


def _ends_whole(file: IO[bytes]) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
