"""`bursar run`: a program under a cap. The program is an agent that goes through the gateway, as one task."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

from app.aside import BURSAR
from app.commands.agents import KEY_VARIABLE, NO_KEY, Way, outfit_for
from app.commands.ending import Refused, ending
from app.commands.policy import read_settings
from app.commands.serve import free_port
from app.commands.terminal import complain

ASK_S = 5.0
START_S = 60.0
LOOK_EVERY_S = 1.0
SETTLE_LOOK_S = 0.05
PR_SET_PDEATHSIG = 1
"""Linux' word for a signal that comes when the parent is gone (https://man7.org/linux/man-pages/man2/prctl.2.html)."""
NOT_FOUND = 127
"""What a shell exits with where there is no such program."""
_open = build_opener(ProxyHandler({})).open
"""The gateway is near: a proxy of the environment's is for others."""


class Gateway:
    """A gateway, as this command sees it."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url.rstrip("/")
        self._headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status and JSON (None where there is none). Raises OSError where nobody answers."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.url + path, data, self._headers, method=method)  # noqa: S310  (the operator's own URL)
        try:
            with _open(request, timeout=ASK_S) as reply:
                return reply.status, _json(reply.read())
        except HTTPError as error:
            return error.code, _json(error.read())

    def alive(self) -> bool:
        """True when a gateway answers there."""
        try:
            return self.ask("GET", "/readyz")[0] == 200
        except (OSError, URLError):
            return False

    def task(self, task_id: str) -> dict[str, Any] | None:
        """The task's money as it stands; None where it has not begun, or nobody answers."""
        try:
            status, found = self.ask("GET", f"/v1/tasks/{quote(task_id, safe='')}?speed=false")
        except (OSError, URLError):
            return None
        return found if status == 200 and isinstance(found, dict) else None


@ending()
def run(command: list[str], *, cap: float | None, task: str | None, url: str | None, model: str) -> int:
    """Run the program; its exit code, or 1 or 2 where it was not run."""
    task = task or f"run-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    program = shutil.which(command[0])
    if program is None:
        complain(f"there is no program {command[0]!r} on the PATH")
        return NOT_FOUND
    key = os.environ.get(KEY_VARIABLE) or None
    with _on_signals(_leave), _gateway(url, key) as gateway:
        if cap is not None:
            _set_cap(gateway, task, cap)
        return _run(gateway, program, command, task, key, model)


@contextlib.contextmanager
def _on_signals(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Meanwhile the signals that would end this command by themselves, and leave what it has started, go to this."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _leave(number: int, _: object) -> None:
    """Leave in order: a gateway that was started here ends, too."""
    raise SystemExit(128 + number)


def _leave_with(parent: int) -> None:
    """This process is to end in order when its parent is gone, however that ended: `kill -9` tells nobody else."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


@contextlib.contextmanager
def _gateway(url: str | None, key: str | None) -> Iterator[Gateway]:
    """The gateway that runs, or one for as long as the program does. Raises Refused."""
    settings = read_settings()
    gateway = Gateway(url or f"http://{settings.host}:{settings.port}", key)
    if gateway.alive():
        yield gateway
        return
    if url is not None:
        raise Refused(f"no gateway answers at {url}; is `bursar serve` running?")
    port = free_port()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with (settings.data_dir / "run.log").open("ab") as log:
        served = subprocess.Popen(  # noqa: S603  (ourselves)
            [sys.executable, *BURSAR, "serve", "--host", "127.0.0.1", "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=partial(_leave_with, os.getpid()) if sys.platform == "linux" else None,  # noqa: PLW1509
        )
    try:
        gateway = Gateway(f"http://127.0.0.1:{port}", key)
        give_up = time.monotonic() + START_S
        while not gateway.alive():
            if served.poll() is not None or time.monotonic() > give_up:
                raise Refused(f"no gateway could be started; its log says why: {settings.data_dir / 'run.log'}")
            time.sleep(0.05)
        yield gateway
    finally:
        served.terminate()
        served.wait()


def _set_cap(gateway: Gateway, task: str, cap: float) -> None:
    status, answer = gateway.ask("PATCH", f"/v1/tasks/{quote(task, safe='')}", {"max_cost_usd": cap})
    if status != 200:
        message = answer.get("error", {}).get("message") if isinstance(answer, dict) else None
        hint = f" Put your key into {KEY_VARIABLE}." if status == 401 else ""
        raise Refused(f"the gateway did not take the cap: {message or status}{hint}")


def _run(gateway: Gateway, program: str, command: list[str], task: str, key: str | None, model: str) -> int:
    with tempfile.TemporaryDirectory(prefix="bursar-run-") as folder:
        base, words = f"{gateway.url}/t/{quote(task, safe='')}", tuple(command[1:])
        way = Way(base, key or NO_KEY, model, Path(folder), words)
        outfit = outfit_for(program, way)
        environment = {**outfit.over(os.environ), "BURSAR_TASK_ID": task}
        code = _wait_for([program, *outfit.arguments, *outfit.words], environment, gateway, task)
    for line in receipt(task, settled(gateway, task)):
        print(line, file=sys.stderr)
    return code if code >= 0 else 128 - code


def _wait_for(command: list[str], environment: dict[str, str], gateway: Gateway, task: str) -> int:
    """Start the program; its exit code (-N: it died of signal N). Signals are its affair from its first moment on."""
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, _: object) -> None:
        if child is None:
            early.append(number)
        else:
            child.send_signal(number)

    with _on_signals(pass_on):
        child = subprocess.Popen(command, env=environment)  # noqa: S603  (asked for)
        for number in early:
            child.send_signal(number)
        ended = threading.Event()
        status = threading.Thread(target=_show, args=(gateway, task, ended), daemon=True)
        status.start()
        # Ctrl-C reaches the program too, which decides what to do with it.
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return child.wait()
        finally:
            signal.signal(signal.SIGINT, previous)
            ended.set()
            status.join(ASK_S + LOOK_EVERY_S)


def settled(gateway: Gateway, task: str) -> dict[str, Any] | None:
    """The task's money once nothing is under way: the gateway hears a moment later that a client has left."""
    give_up = time.monotonic() + ASK_S
    while (found := gateway.task(task)) is not None and found["reserved_usd"] and time.monotonic() < give_up:
        time.sleep(SETTLE_LOOK_S)
    return found


def _show(gateway: Gateway, task: str, ended: threading.Event) -> None:
    """The running cost in the terminal's title: the one line that no program's screen is drawn over."""
    try:
        terminal = open("/dev/tty", "w")  # noqa: SIM115  (closed below)
    except OSError:
        return
    with terminal:
        while not ended.wait(LOOK_EVERY_S):
            found = gateway.task(task)
            if found is not None:
                terminal.write(f"\033]2;{status_line(found)}\007")
                terminal.flush()
        terminal.write("\033]2;\007")


def status_line(task: dict[str, Any]) -> str:
    """One line: what was spent, of how much, in how many calls."""
    limit = task.get("limit_usd")
    of = "" if limit is None else f" of ${limit:g}"
    return f"bursar: ${task['spent_usd'] + task['reserved_usd']:.4f}{of}, {task['calls']} calls"


def receipt(task_id: str, task: dict[str, Any] | None) -> list[str]:
    """What the program cost, for people."""
    if task is None:
        return ["", f"bursar: task {task_id}: nothing was asked of the gateway"]
    limit, killed = task.get("limit_usd"), task.get("cost_killed_at_usd")
    lines = ["", f"bursar: task {task_id}"]
    lines.append(f"  spent   ${task['spent_usd']:.6f}" + (f" of ${limit:.6f}" if limit is not None else ""))
    lines.append(f"  calls   {task['calls']}")
    lines += [f"  model   {name}: ${part['spent_usd']:.6f}" for name, part in task.get("models", {}).items()]
    if killed is not None:
        lines.append(f"  cut     the cap was reached at ${killed:.6f}")
    return lines


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None
