"""How a worker of pytest-xdist died, told with the test that it died in: xdist itself says no more than that it did.

A worker writes the stacks of a fatal signal to a file of its own. The main process takes the exit status and the peak
of memory from the kernel, and asks it whether it has killed something for want of memory meanwhile.

The test that the first worker of a run died in is run once more, for its death may be the doing of the machine, a
library or the interpreter; all that is known of it is told at the end. Whatever tests do to their worker comes again: a
second death is a failure.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import tempfile
import time
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

import pytest

ENDS_WITHIN_S = 10.0
LAST = 8
DUMPS = "bursar_dumps"


class Worker:
    """In a worker: the stacks of all threads go to a file when it crashes."""

    def __init__(self, folder: str, name: str) -> None:
        self._dump = Path(folder, name).open("wb")  # noqa: SIM115  (open until the process ends)

    def pytest_sessionstart(self) -> None:
        """pytest has set up its own by now, which this replaces."""
        faulthandler.enable(self._dump)


class Deaths:
    """In the main process: what is known of workers, and tells it with the failure of the test that one died in."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bursar-workers-")
        self._began_with = killed_for_memory()
        self._last: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=LAST))
        self._told: dict[str, str] = {}
        self._forgiven = ""

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """A worker is about to be started."""
        node.workerinput[DUMPS] = self._folder.name

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A part of a test is over."""
        if report.when == "teardown" and (node := getattr(report, "node", None)) is not None:
            self._last[node.gateway.id].append(report.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """A worker has ended; in order where there is no error."""
        if error:
            name = node.gateway.id
            how = how_it_ended(node.gateway._io.popen.pid)
            memory = f"killed for want of memory since the start, by the kernel: {self._killed()}"
            last = "\n  ".join(["it had run, last:", *self._last[name]])
            self._told[name] = "\n".join([f"{name}: {error}: {how}", memory, last, self._stacks(name)])

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: Any, sched: Any) -> None:
        """The test that it died in is about to be reported as failed."""
        report.longrepr = f"{report.longrepr}\n{self._told.get(report.node.gateway.id, '')}"
        if not self._forgiven:
            self._forgiven = report.longrepr
            report.outcome = "run again"
            sched.mark_test_pending(crashitem)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """All has run."""
        if self._forgiven:
            terminalreporter.section("a worker died, and its test was run again", red=True)
            terminalreporter.write_line(self._forgiven)

    def pytest_unconfigure(self) -> None:
        """All is over."""
        self._folder.cleanup()

    def _stacks(self, name: str) -> str:
        dump = Path(self._folder.name, name)
        return dump.read_text(errors="replace") if dump.exists() else ""

    def _killed(self) -> str:
        return "unknown" if self._began_with is None else str((killed_for_memory() or 0) - self._began_with)


def register(config: pytest.Config) -> None:
    """The part of this that the process needs; nothing without workers."""
    given: dict[str, Any] | None = getattr(config, "workerinput", None)
    if given is not None and DUMPS in given:
        config.pluginmanager.register(Worker(given[DUMPS], given["workerid"]))
    elif given is None and config.getoption("numprocesses", None):
        config.pluginmanager.register(Deaths())


def how_it_ended(pid: int) -> str:
    """The exit status of a child that is ending, and the peak of its memory."""
    until = time.monotonic() + ENDS_WITHIN_S
    try:
        while not (ended := os.wait4(pid, os.WNOHANG))[0]:
            if time.monotonic() > until:
                return "its process still runs, though it says nothing"
            time.sleep(0.05)
    except ChildProcessError:
        return "its exit status was taken by somebody else"
    _, status, used = ended
    code = os.waitstatus_to_exitcode(status)
    died = f"it was killed by {signal.Signals(-code).name}" if code < 0 else f"it left with exit code {code}"
    return f"{died}, its peak of memory was {used.ru_maxrss // 1024} MiB"


def killed_for_memory() -> int | None:
    """How many processes the kernel has killed since it began, or None where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
