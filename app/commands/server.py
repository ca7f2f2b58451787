"""uvicorn as the gateway runs it: drains before it closes anything, alone or as several worker processes."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator
from importlib.util import find_spec
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import multiprocess

from app.commands.terminal import complain
from app.settings import Settings
from app.stores.file_lock import try_lock
from app.stores.policy_yaml import PolicyError

if TYPE_CHECKING:
    from app.main import Gateway

APP = "app.main:app_from_env"
BACKLOG = 2048
KEEP_ALIVE_S = 75
"""Longer than clients and balancers keep idle connections, so that it is they who close: no reset, no retry."""
LAST_WORDS_S = 5
"""What slow clients get for their last bytes, after all calls have ended."""
WORKER_SILENT_S = 30
FIRST_WITHIN_S = 30.0
"""How long nobody is let in for the sake of the embedded model; then the gateway serves without it."""
LOOK_EVERY_S = 0.1
"""How soon it is seen that the gateway is to stop meanwhile."""
MOST_FILES = 65_536
METRICS, OWNED = "bursar-metrics-", "owned"
LOOP = "asyncio" if sys.platform == "win32" else "uvloop"


def missing_parts() -> list[str]:
    """Packages without which uvicorn would fall back, in silence, to something far slower."""
    needed = ["httptools"] if LOOP == "asyncio" else ["httptools", "uvloop"]
    return [name for name in needed if find_spec(name) is None]


def allow_many_files() -> None:
    """Let this process and its workers have as many files open as the system grants: each stream takes two, and where
    nobody says otherwise 1,024 are allowed (on macOS 256)."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415  (not on Windows)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS grants fewer than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket bound to the address, not yet listening, so that nobody connects before the gateway is ready."""
    family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, proto)
    try:
        if os.name != "nt":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def run(settings: Settings, sock: socket.socket, first: threading.Event | None = None) -> int:
    """Serve until told to stop; the exit code. SystemExit from a handler of SIGTERM passes through.

    Nobody can connect before `first` is set: whoever gets in finds all of it up.
    """
    config = uvicorn.Config(
        APP,
        factory=True,
        interface="asgi3",
        http="app.http.wire:WireProtocol",
        loop=LOOP,
        ws="none",
        lifespan="on",
        backlog=BACKLOG,
        workers=settings.workers,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing here asks who the client is, and the rewriting costs every request
        log_config=None,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=LAST_WORDS_S,
        timeout_worker_healthcheck=WORKER_SILENT_S,
    )
    return _run_workers(config, sock, first) if settings.workers > 1 else _run_alone(config, sock, first)


class DrainingServer(uvicorn.Server):
    """Ends calls as the gateway does, up to its own limit, before uvicorn cancels tasks and closes connections.

    uvicorn would cancel first and shut the lifespan down last: streams would break off without a word.
    It listens once `first` is set, or after FIRST_WITHIN_S.
    """

    def __init__(self, config: uvicorn.Config, first: threading.Event | None = None) -> None:
        super().__init__(config)
        self._first = first

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for `first`, unless told to stop meanwhile; then begin."""
        until_s = time.monotonic() + FIRST_WITHIN_S
        while not (self._first is None or self._first.is_set() or self.should_exit or time.monotonic() > until_s):
            await asyncio.to_thread(self._first.wait, LOOK_EVERY_S)
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Fail readiness while serving on, stop accepting, drain, close. A second Ctrl-C ends calls at once, by a word
        to each client, and settles them; a third closes over everything."""
        await self._unless_forced(self._give_notice())
        for listener in (*self.servers, *(sockets or ())):  # workers listen on a copy of theirs
            listener.close()
        await self._unless_forced(self._drain())
        if self.force_exit:
            self.force_exit = False
            await self._unless_forced(self._drain(0))
        await super().shutdown(sockets)

    async def _unless_forced(self, step: Coroutine[Any, Any, None]) -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(step)
            while not (task.done() or self.force_exit):
                await asyncio.wait({task}, timeout=0.1)
            task.cancel()

    async def _give_notice(self) -> None:
        """New connections are welcome until balancers have seen that `/readyz` fails."""
        gateway = self._gateway()
        if gateway is not None and gateway.services is not None:
            gateway.services.calls.leaving = True
            await asyncio.sleep(gateway.settings.drain_notice_s)

    async def _drain(self, limit_s: float | None = None) -> None:
        gateway = self._gateway()
        if gateway is None or gateway.services is None:
            return
        calls, most_s = gateway.services.calls, gateway.settings.drain_s if limit_s is None else limit_s
        if most_s and len(calls) and signal.SIGINT in self._captured_signals:
            complain(f"Calls under way: {len(calls)}. They may finish for {most_s:g} s; Ctrl-C again ends them now.")
        await calls.drain(most_s)

    def _gateway(self) -> Gateway | None:
        from app.main import Gateway  # noqa: PLC0415  (loaded by now; the parent of workers never loads it)

        app = self.config.loaded_app
        return app if isinstance(app, Gateway) else None


def _run_alone(config: uvicorn.Config, sock: socket.socket, first: threading.Event | None) -> int:
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        # A closed terminal ends it in order, too. (Workers are replaced at SIGHUP, one after the other.)
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    server = DrainingServer(config, first)
    try:
        with _policy_told():
            server.run([sock])
    except SystemExit as stop:
        return 1 if stop.code == STARTUP_FAILURE else 0
    return 0


@contextlib.contextmanager
def _policy_told() -> Iterator[None]:
    """While a gateway is made: a policy that was good when the command looked at it, and was edited since, is told in
    its lines. Raises SystemExit then."""
    try:
        yield
    except PolicyError as error:
        complain(str(error))
        raise SystemExit(STARTUP_FAILURE) from None


class _Worker(multiprocess.Process):
    """One worker: a draining server that leaves when its parent is gone."""

    def ping(self, timeout: float = WORKER_SILENT_S) -> bool:
        """Whether it answers in time. One that ends meanwhile is known at once: uvicorn would wait for the whole time,
        in which nobody serves in its place, and a gateway that cannot start does not say so."""
        try:
            self.parent_conn.send(b"ping")
            if self.parent_conn not in wait([self.parent_conn, self.process.sentinel], timeout):
                return False
            self.parent_conn.recv()
        except (OSError, EOFError):
            return False
        return True

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        if sys.platform != "win32":  # a terminal that is closed tells workers, too; they end when their parent says so
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        # uvloop closes no files for the programs it starts: they would keep the port after this process is gone.
        for sock in sockets or ():
            sock.set_inheritable(False)
        threading.Thread(target=_leave_with_parent, name="parent", daemon=True).start()
        with _policy_told():
            super().target(sockets)

    @property
    def server(self) -> uvicorn.Server:
        if self._server is None:
            self._server = DrainingServer(self.config)
        return self._server


def _leave_with_parent() -> None:
    """Orphans would keep the port and serve unseen after the parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


class _Workers(multiprocess.Multiprocess):
    """uvicorn's manager of workers, that also keeps the metrics of those that are gone."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], metrics: Path) -> None:
        super().__init__(config, sockets)
        self._metrics = metrics
        self._known: set[int] = set()

    def keep_subprocess_alive(self) -> None:
        """Called twice a second."""
        from app.gateway.metrics_files import bury  # noqa: PLC0415  (needs the folder to be set)

        super().keep_subprocess_alive()
        running = {process.pid for process in self.processes if process.pid is not None}
        for pid in self._known - running:
            bury(self._metrics, pid)
        self._known = running

    def terminate_all(self) -> None:
        """Let go of the port with the workers: while this process held it, connections would wait for nobody."""
        for sock in self.sockets:
            sock.close()
        super().terminate_all()


@contextlib.contextmanager
def _metrics_folder() -> Iterator[Path]:
    """Where the workers' metrics are. Folders that killed gateways left behind go: nobody has their `OWNED` locked."""
    for left in Path(tempfile.gettempdir()).glob(f"{METRICS}*/{OWNED}"):
        with contextlib.suppress(OSError), left.open("rb+") as file:
            if try_lock(file.fileno()):
                shutil.rmtree(left.parent, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=METRICS, ignore_cleanup_errors=True) as made:
        begun = Path(made, "begun")
        with begun.open("wb") as file:
            try_lock(file.fileno())
            begun.rename(begun.with_name(OWNED))  # only now: it was never there unlocked
            yield Path(made)


def _run_workers(config: uvicorn.Config, sock: socket.socket, first: threading.Event | None) -> int:
    if first is not None:
        first.wait(FIRST_WITHIN_S)
    # uvicorn makes its workers by this name, in four places; it offers no other way to say what a worker is.
    multiprocess.Process = _Worker  # type: ignore[misc]
    with _metrics_folder() as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        workers = _Workers(config, [sock], folder)
        workers.run()
    return 1 if any(process.exitcode == STARTUP_FAILURE for process in workers.processes) else 0
