"""What all tests share: an environment without the operator's settings and keys, and gateways as processes."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from app.commands.serve import free_port as find_free_port
from app.stores import prices
from tests import certificates, collector, temporary, worker_deaths

ROOT = Path(__file__).resolve().parent.parent
STEERING = ("BURSAR_", "OPENAI_", "ANTHROPIC_", "PROMETHEUS_MULTIPROC_DIR")
STOP_S = 60.0

# No test passes or fails by time. What hypothesis sets where CI is in the environment stays in force.
settings.register_profile("untimed", settings(), deadline=None)
settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """No test may spend the operator's money, nor find the operator's settings where it expects the defaults."""
    for name in [name for name in os.environ if name.startswith(STEERING) or name.endswith("_API_KEY")]:
        del os.environ[name]
    # On small matrices BLAS's threads wait for one another more than they work: twice the CPU beside other workers.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    temporary.in_memory()
    worker_deaths.register(config)
    certificates.read_once()
    collector.rests()
    _log_plainly()
    # Each gateway reads 3 MB of prices, and never changes them.
    prices.load_bundled = functools.cache(prices.load_bundled)


def _log_plainly() -> None:
    """As structlog does unasked, but for tracebacks in colours and with all variables: one takes 100 ms."""
    structlog.reset_defaults()
    *others, _ = structlog.get_config()["processors"]
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*others, plain])


def pytest_collection_finish() -> None:
    """All tests are imported."""
    collector.works()


@pytest.fixture(autouse=True, scope="module")
def _what_a_module_leaves_stays() -> Iterator[None]:
    """Not to be walked again for each test of the next."""
    yield
    collector.keep()


@pytest.fixture(autouse=True)
def _logging_is_as_it_was() -> Iterator[None]:
    """A command that runs in a test's own process sends all that is logged to what stands for its stderr: closed by
    the time that another test's gateway, or thread, has something to say."""
    yield
    _log_plainly()


class Served:
    """`bursar serve` as a process of its own; `url` is its base URL, once it has greeted."""

    def __init__(self, *options: str, cwd: Path, env: dict[str, str] | None = None, under: Sequence[str] = ()) -> None:
        self.log = cwd / "serve.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*under, sys.executable, "-m", "app.cli", "serve", "--port", "0", *options],
                cwd=cwd,
                env={**os.environ, "PYTHONPATH": str(ROOT), "BURSAR_DATA_DIR": str(cwd / "data"), **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.greeting = ""

    @property
    def url(self) -> str:
        """The base URL in the greeting, which comes as soon as the gateway serves."""
        while " serves http" not in self.greeting:
            line = self._line()
            assert line, f"the gateway ended: {self.log.read_text()}"
        line = next(line for line in self.greeting.splitlines() if " serves http" in line)
        return line.rpartition(" ")[2]

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, _, port = self.url.removeprefix("http://").removesuffix("/v1").rpartition(":")
        return host, int(port)

    def rest_of_greeting(self) -> str:
        """The whole greeting; its last line speaks of /metrics."""
        while "/metrics" not in self.greeting:
            assert self._line(), f"the gateway ended: {self.log.read_text()}"
        return self.greeting

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit code."""
        self.process.send_signal(signum)
        return self.process.wait(STOP_S)

    def close(self) -> None:
        """End it for sure."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.greeting += line
        return line


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Starts gateways in an empty folder: `serve("--policy", str(path), env={...})`; they end with the test."""
    with contextlib.ExitStack() as running:

        def start(*options: str, env: dict[str, str] | None = None, under: Sequence[str] = ()) -> Served:
            served = Served(*options, cwd=tmp_path, env=env, under=under)
            running.callback(served.close)
            return served

        yield start


@pytest.fixture
def free_port() -> int:
    """A port on loopback that nobody listens on."""
    return find_free_port()
