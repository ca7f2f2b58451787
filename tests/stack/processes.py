"""One program of the stack as a process: started, looked at, stopped, with a log of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.commands.serve import free_port

READY_S = 120.0
STOP_S = 60.0


@dataclass
class Program:
    """How to run it; `ready` says whether it serves, `again` that it is started anew when it dies."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    ready: Callable[[], bool]
    again: bool = False
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, without waiting. A session of its own: a terminal's Ctrl-C is for the one who started it all."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Block until it serves; RuntimeError with the end of its log when it does not come to that."""
        until = time.monotonic() + READY_S
        while not self.ready():
            if self.code is not None or time.monotonic() > until:
                end = self.log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.name} does not serve ({self.log}):\n{end}")
            time.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self, timeout_s: float = STOP_S) -> int:
        """Its exit code, once it has ended."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def stop(self, timeout_s: float = STOP_S) -> None:
        """End it in order; by force when that takes too long."""
        self.signal(signal.SIGTERM)
        if self._process is None:
            return
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def fetch(url: str) -> bytes:
    """The body of a GET on loopback, past any proxy of the environment; OSError where the answer is not a good one."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=5) as response:
        body: bytes = response.read()
    return body


def answers(url: str) -> bool:
    """True when a GET of this URL is answered well."""
    try:
        fetch(url)
    except OSError:
        return False
    return True


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on, all different."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without settings of a gateway, and these."""
    return {**{k: v for k, v in os.environ.items() if not k.startswith("BURSAR_")}, **extra}
