"""The policy in force: one pointer, swapped whole when its files change and the new text is good.

A bad edit changes nothing: every problem is logged with file and line, `last_error` holds them, and
the hooks let the gateway raise a gauge. A request that took `current` keeps what it took.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import structlog
from watchfiles import Change, awatch

from app.core.policy import Policy
from app.stores.file_lock import lock_for_writer
from app.stores.policy_diff import diff_policies
from app.stores.policy_file import build_policy
from app.stores.policy_kept import KeptText
from app.stores.policy_yaml import SUFFIXES, PolicyError, Problem, Source, read_sources
from app.stores.prices import PriceBook

SETTLE_MS = 100
"""An edit is read once the files have been quiet this long: editors write, rename and chmod in bursts."""
SETTLE_AT_MOST_MS = 1_000
LOOK_EVERY_S = 5.0
"""Looked at this often in any case: network file systems and replaced folders send no events."""
LOGGED_PROBLEMS = 20

OnSwap = Callable[[Policy, Policy, list[str]], None]
OnError = Callable[[tuple[Problem, ...]], None]

log = structlog.get_logger()


class StaleEdit(Exception):
    """The policy is another one than the one that was edited, or its files hold an edit that is not in force."""


class _Ended(asyncio.Event):
    """Set when `stop` is; cancelling a watch sets its event, which must not stop the rest of the process."""

    def __init__(self, stop: asyncio.Event) -> None:
        super().__init__()
        self._stop = stop

    def is_set(self) -> bool:
        return super().is_set() or self._stop.is_set()


class Policies:
    """Keeps a policy current. `accept` may refuse a good policy with a reason (the gateway's own conditions); `check`,
    which may take its time, an edited one that would replace another. `kept`: what other workers of this gateway have
    in force, which is what this one begins with."""

    def __init__(
        self,
        path: Path,
        book: PriceBook,
        *,
        env: Mapping[str, str],
        kept: KeptText | None = None,
        accept: Callable[[Policy], str | None] | None = None,
        check: Callable[[Policy, Policy], Awaitable[str | None]] | None = None,
        on_swap: OnSwap | None = None,
        on_error: OnError | None = None,
    ) -> None:
        """Read the policy now; PolicyError if it cannot be used, CatalogueError without a price catalogue.

        The hooks run on the event loop, `on_swap(old, new, changes)` after the swap; an error that was
        mended without a change swaps too, with no changes.
        """
        self.path = path.absolute()
        self.book = book
        self.last_error: tuple[Problem, ...] = ()
        self._env = env
        self._accept = accept
        self._check = check
        self._on_swap = on_swap
        self._on_error = on_error
        self._lock = asyncio.Lock()
        self._kept = kept
        before = None if kept is None else kept.read()
        self._seen = self._good = before or read_sources(self.path)
        self._current = self._accepted(self._build(self._good))
        if before is None:
            self._keep()

    @property
    def current(self) -> Policy:
        """The policy in force; take it once a request."""
        return self._current

    @property
    def sources(self) -> tuple[Source, ...]:
        """The text in force, file by file."""
        return self._good

    def draft(self, file: str, data: bytes) -> Policy:
        """The policy that it would be with this text in the place of one of its files. Raises PolicyError."""
        return self._accepted(self._build(self.with_text(file, data)))

    async def write(self, file: str, data: bytes, base: str) -> Policy:
        """Write a file anew and take it into force, if it is good and nothing has changed since version `base`.

        Raises PolicyError, StaleEdit or OSError; nothing has changed then (but for what others wrote at this moment).
        """
        async with self._lock:
            if self._current.version != base or self._seen != self._good:
                raise StaleEdit
            return await self._write(file, data)

    async def edit(self, file: str, change: Callable[[bytes], bytes]) -> Policy:
        """Write a file anew by what stands in it at this moment, with no other process of this machine beside, and take
        it into force.

        Raises what `change` does, PolicyError, OSError, or StaleEdit where the files hold an edit that cannot be in
        force; nothing has changed then.
        """
        async with self._lock, alone_in(self.path):
            self._seen = await asyncio.to_thread(read_sources, self.path)
            if self._seen != self._good and not await self._adopt(self._seen):
                raise StaleEdit
            self.with_text(file, b"")  # it is one of them
            return await self._write(file, change(next(s.data for s in self._good if s.file == file)))

    async def _write(self, file: str, data: bytes) -> Policy:
        await self._checked(await asyncio.to_thread(self.draft, file, data))
        written = self.with_text(file, data)
        if await asyncio.to_thread(read_sources, self.path) != self._good:
            raise StaleEdit  # another process, or a hand, was at it while this was made and checked
        await asyncio.to_thread(replace_file, Path(file), data)
        self._seen = await asyncio.to_thread(read_sources, self.path)
        if not await self._adopt(self._seen, checked=self._seen == written):
            raise PolicyError(self.last_error)
        return self._current

    def with_text(self, file: str, data: bytes) -> tuple[Source, ...]:
        """The text in force with this in the place of one of its files. Raises PolicyError."""
        if all(source.file != file for source in self._good):
            raise PolicyError([Problem(file, 1, 1, "", "is no file of this policy")])
        return tuple(Source(file, data) if source.file == file else source for source in self._good)

    async def reload(self) -> bool:
        """Read the files again; True when they are good and in force, False when the old policy stays."""
        async with self._lock:
            try:
                self._seen = await asyncio.to_thread(read_sources, self.path)
            except PolicyError as error:
                self._seen = ()
                return self._reject(error.problems)
            return await self._adopt(self._seen)

    async def recompile(self) -> bool:
        """Compile the text in force again, for new prices; the files are not read."""
        async with self._lock:
            return await self._adopt(self._good)

    async def watch(self, stop: asyncio.Event) -> None:
        """Follow the files until `stop` is set: edits, renames over them, symlinks swapped (Kubernetes)."""
        ended = _Ended(stop)
        while not ended.is_set():
            failed = ""
            try:
                await self._watch_folders(ended)
            except* (OSError, RuntimeError) as errors:
                failed = type(errors.exceptions[0]).__name__
            if failed:
                log.warning(
                    "the policy's files cannot be watched and are looked at instead",
                    reason=failed,
                    looking_every_s=LOOK_EVERY_S,
                )
                await self._look()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), LOOK_EVERY_S)

    async def _watch_folders(self, ended: _Ended) -> None:
        """Watch the folders that the files are in now; returns when those have become others."""
        folders = self._folders()
        changes = awatch(
            *sorted(folders),
            watch_filter=self._concerns,
            debounce=SETTLE_AT_MOST_MS,
            step=SETTLE_MS,
            stop_event=ended,
            rust_timeout=int(LOOK_EVERY_S * 1000),
            yield_on_timeout=True,
            recursive=False,
        )
        async with contextlib.aclosing(changes), asyncio.TaskGroup() as group:
            # It begins when awatch first waits, and so watches: nobody would see at once what was edited before that.
            looked = group.create_task(self._look())
            async for _ in changes:
                await looked
                await self._look()
                if self._folders() != folders:
                    return

    def _folders(self) -> set[Path]:
        real = self.path.resolve()
        folders = {self.path.parent, real.parent}
        if real.is_dir():
            folders |= {self.path, real}
        return {folder for folder in folders if folder.is_dir()}

    def _concerns(self, _: Change, changed: str) -> bool:
        """Whether an event may be about the policy: Kubernetes swaps a link whose name begins with two dots."""
        name = Path(changed).name
        return name.startswith("..") or name.endswith(SUFFIXES) or name in (self.path.name, self.path.resolve().name)

    async def _look(self) -> None:
        """Reload if what the files hold is not what was last read, good or bad."""
        try:
            sources = await asyncio.to_thread(read_sources, self.path)
        except PolicyError as error:
            if error.problems != self.last_error:
                await self.reload()
        else:
            if sources != self._seen:
                await self.reload()

    def _keep(self) -> None:
        if self._kept is not None:
            self._kept.write(self._good)

    def _build(self, sources: Sequence[Source]) -> Policy:
        return build_policy(sources, source=str(self.path), env=self._env, catalogue=self.book.current)

    def _accepted(self, policy: Policy) -> Policy:
        self._refuse(self._accept(policy) if self._accept else None)
        return policy

    async def _checked(self, policy: Policy) -> None:
        """Raises PolicyError where it must not take the place of the one in force."""
        if self._check is not None:
            self._refuse(await self._check(self._current, policy))

    def _refuse(self, reason: str | None) -> None:
        if reason is not None:
            raise PolicyError([Problem(str(self.path), 1, 1, "", reason)])

    async def _adopt(self, sources: tuple[Source, ...], *, checked: bool = False) -> bool:
        """Take this text into force, if it is good. `checked`: `check` has nothing against it."""
        try:
            new = self._accepted(await asyncio.to_thread(self._build, sources))
            if sources != self._good and not checked:
                await self._checked(new)
        except PolicyError as error:
            return self._reject(error.problems)
        except Exception as error:
            # A defect of ours: the file changes nothing then either, and the next edit is looked at like any other.
            log.error(
                "the policy could not be read because of a defect", kind=type(error).__name__, at=_place_of(error)
            )
            return self._reject((Problem(str(self.path), 1, 1, "", "cannot be compiled: a defect of the gateway's"),))
        old, mended = self._current, bool(self.last_error) and sources == self._seen
        if sources != self._good:
            self._good = sources
            self._keep()
        if sources == self._seen:
            self.last_error = ()
        changes = diff_policies(old, new)
        self._current = new
        if changes or mended or old.version != new.version:
            log.info("a policy is in force", old=old.version, new=new.version, changes=changes)
            for warning in new.warnings:
                if warning not in old.warnings:
                    log.warning("the policy has a weak point", warning=warning)
            if self._on_swap is not None:
                self._on_swap(old, new, changes)
        return True

    def _reject(self, problems: tuple[Problem, ...]) -> bool:
        self.last_error = problems
        for problem in problems[:LOGGED_PROBLEMS]:
            log.error(
                "the policy on disk has an error",
                file=problem.file,
                line=problem.line,
                column=problem.column,
                where=problem.where,
                problem=problem.message,
            )
        log.error("the policy before stays in force", version=self._current.version, problems=len(problems))
        if self._on_error is not None:
            self._on_error(problems)
        return False


@contextlib.asynccontextmanager
async def alone_in(folder: Path) -> AsyncIterator[None]:
    """While no other process edits files of this folder in this way. Raises OSError."""
    file = os.open(folder, os.O_RDONLY)
    try:
        await asyncio.to_thread(lock_for_writer, file)
        yield
    finally:
        os.close(file)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that every reader sees the old text or the new; its mode stays. Raises OSError."""
    real = path.resolve()
    mode = real.stat().st_mode & 0o777
    file, aside = tempfile.mkstemp(prefix=f".{real.name}.", suffix=".tmp", dir=real.parent)
    try:
        with os.fdopen(file, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(aside, mode)
        os.replace(aside, real)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise


def _place_of(error: BaseException) -> str:
    """Where it was raised; its message may hold what the file holds."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"
