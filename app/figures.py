"""What a dashboard asks of traces, answered by a process beside the gateway that stays for as long as it is asked."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

from app.aside import ATTENTIVE, BURSAR, end, environment, lower_priority, run_aside
from app.http.dashboard.ask import FiguresUnavailable, Question
from app.settings import Settings
from app.stores.policy_yaml import Source

log = structlog.get_logger()

FIGURES = ("-P", "-m", "app.commands.figures")
LONGEST_S, REPLAY_S = 30.0, 180.0
MAX_ANSWER_BYTES = 16 * 2**20
MAX_WAITING = 16


class Figures:
    """Answers what the dashboard asks of traces, one question at a time, by a process that stays while it is asked."""

    def __init__(self, settings: Settings, *, longest_s: float = LONGEST_S) -> None:
        self._settings = settings
        self._longest_s = longest_s
        self._one = asyncio.Lock()
        self._waiting = 0
        self._process: Process | None = None

    async def __call__(self, question: Question) -> bytes:
        """The answer as JSON. Raises FiguresUnavailable."""
        if self._waiting >= MAX_WAITING:
            raise FiguresUnavailable("Too many questions are waiting.")
        self._waiting += 1
        try:
            async with self._one:
                return await self._answer(msgspec.json.encode(question) + b"\n")
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """End the process."""
        if self._process is not None:
            await end(self._process)

    async def _answer(self, question: bytes) -> bytes:
        try:
            async with asyncio.timeout(self._longest_s):
                # It ends by itself when idle, perhaps just now: then a new one is asked.
                line = await self._asked(question) or await self._asked(question)
            said = msgspec.json.decode(line, type=_Said)
        except TimeoutError:
            raise FiguresUnavailable(f"The traces could not be read within {self._longest_s:.0f} s.") from None
        except (OSError, ValueError) as error:
            log.warning("figures could not be read from traces", error=f"{type(error).__name__}: {error}")
            raise FiguresUnavailable("The traces could not be read; the gateway's log says why.") from None
        if said.error is not None:
            log.warning("figures could not be read from traces", error=said.error)
            raise FiguresUnavailable("The traces could not be read; the gateway's log says why.")
        return bytes(said.answer)

    async def _asked(self, question: bytes) -> bytes:
        """A line; b"" where the process has ended."""
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *FIGURES,
                env=environment(self._settings),
                stdin=PIPE,
                stdout=PIPE,
                limit=MAX_ANSWER_BYTES,
            )
            lower_priority(process, ATTENTIVE)
        assert process.stdin is not None
        assert process.stdout is not None
        done = False
        try:
            process.stdin.write(question)
            with contextlib.suppress(ConnectionError):
                await process.stdin.drain()
            line = await process.stdout.readline()
            done = line.endswith(b"\n")
            return line if done else b""
        finally:
            if not done:
                await end(process)


class _Said(msgspec.Struct):
    answer: msgspec.Raw = msgspec.Raw(b"null")
    error: str | None = None


class Rehearsals:
    """What a draft of the policy would have come to on recorded traffic: `bursar replay` aside, one at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._one = asyncio.Lock()

    async def __call__(self, sources: Sequence[Source], since: str) -> bytes:
        """The replay as JSON, also where it estimates nothing and says why. Raises FiguresUnavailable."""
        if self._one.locked():
            raise FiguresUnavailable("Another replay is under way.")
        async with self._one:
            with tempfile.TemporaryDirectory(prefix="bursar-") as folder:  # its files are for this user only
                await asyncio.to_thread(_lay_down, Path(folder), sources)
                command = (*BURSAR, "replay", "--policy", folder, "--since", since, "--json")
                try:
                    said = await run_aside(self._settings, command, limit_s=REPLAY_S, keep=True, good=(0, 1))
                except TimeoutError:
                    raise FiguresUnavailable(f"The replay took longer than {REPLAY_S:.0f} s.") from None
                except OSError as error:
                    log.warning("a draft could not be replayed", error=str(error))
                    raise FiguresUnavailable("The replay failed; the gateway's log says why.") from None
        if not said.strip():
            raise FiguresUnavailable("The traces could not be read; the gateway's log says why.")
        return said


def _lay_down(folder: Path, sources: Sequence[Source]) -> None:
    for number, source in enumerate(sources):
        (folder / f"{number:03d}.yaml").write_bytes(source.data)
