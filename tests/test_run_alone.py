"""`bursar run` where no gateway runs, where it is told to end, and what the terminal shows meanwhile."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.commands.run import Gateway, _wait_for, settled
from tests.conftest import ROOT
from tests.http.live import until
from tests.upstream import PATIENCE_S, ScriptedUpstream
from tests.upstream_script import HANG, Script, words

ASK = """
import json, os, sys, urllib.request
body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
reply = urllib.request.urlopen(urllib.request.Request(url, body, {"content-type": "application/json"}))
"""
LEAVES = f"{ASK}\nreply.read(100)\nos._exit(3)\n"
"""It leaves in mid-stream, as a program that is killed does."""
STUBBORN = f"""{ASK}
import signal
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
reply.read(100)
print("begun", os.environ["OPENAI_BASE_URL"], flush=True)
while not told:
    signal.pause()
print("it goes on", flush=True)
sys.exit(5)
"""
"""It takes a signal for a word, and ends in its own way."""


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(Script.of(words("One two three"), HANG, input_tokens=10)) as running:
        yield running


@pytest.fixture
def environment(upstream: ScriptedUpstream, tmp_path: Path) -> dict[str, str]:
    """Of a command that finds no gateway, and a policy for its own."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(f"""
version: 1
providers: {{a: {{base_url: "{upstream.url}"}}}}
models: {{m: {{provider: a, pricing: {{input_per_1k: 0.001, output_per_1k: 0.002}}, budgets: {{max_cost_usd: 0}}}}}}
routes: {{auto: {{candidates: [m], adequacy: 0}}}}
""")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
    said = {"BURSAR_POLICY": str(policy), "BURSAR_DATA_DIR": str(tmp_path / "data"), "BURSAR_PORT": str(port)}
    return {**os.environ, **said, "PYTHONPATH": str(ROOT), "BURSAR_DRAIN_S": "1"}


def command(program: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "app.cli",
        "run",
        "--cap",
        "0.5",
        "--task",
        "job",
        "--",
        sys.executable,
        "-c",
        program,
    ]


def answers(port: int) -> bool:
    """Whether anybody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_program_that_breaks_off_gets_a_gateway_and_a_receipt(
    environment: dict[str, str], upstream: ScriptedUpstream
) -> None:
    done = subprocess.run(
        command(LEAVES), env=environment, check=False, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 3, done.stderr
    spent = re.search(r"spent +\$([\d.]+) of \$0.500000", done.stderr)
    assert spent is not None, done.stderr
    assert float(spent[1]) >= (upstream.requests[0].tokens.input + 3 * 2) * 1e-6
    assert upstream.requests[0].client_gone


def test_the_receipt_waits_for_what_is_still_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [{"reserved_usd": 0.02, "spent_usd": 0.0}, {"reserved_usd": 0.0, "spent_usd": 0.01}]
    gateway = Gateway("http://127.0.0.1:9", None)
    monkeypatch.setattr(Gateway, "task", lambda *_: seen.pop(0))
    assert settled(gateway, "job") == {"reserved_usd": 0.0, "spent_usd": 0.01}
    monkeypatch.setattr(Gateway, "task", lambda *_: None)
    assert settled(gateway, "job") is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_the_programs_and_leaves_no_gateway(environment: dict[str, str], number: signal.Signals) -> None:
    program = STUBBORN.replace("SIGTERM", number.name)
    running = subprocess.Popen(
        command(program), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert running.stdout is not None
        port = int(running.stdout.readline().split(":")[-1].split("/")[0])
        assert answers(port)
        running.send_signal(number)
        out, err = running.communicate(timeout=PATIENCE_S)
    finally:
        running.kill()
    assert (running.returncode, out) == (5, "it goes on\n"), err
    assert "task job" in err
    assert not answers(port)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells a process that its parent is gone")
def test_killed_it_leaves_no_gateway(environment: dict[str, str]) -> None:
    program = f'{ASK}\nprint("begun", os.environ["OPENAI_BASE_URL"], flush=True)\nreply.read()\n'
    running = subprocess.Popen(command(program), env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        port = int(running.stdout.readline().split(":")[-1].split("/")[0])
        assert answers(port)
    finally:
        running.kill()
    assert running.wait(PATIENCE_S) == -signal.SIGKILL
    assert running.stdout.read() == "", "the program ends with its stream"
    until(lambda: not answers(port))


def test_a_signal_while_the_program_begins_is_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = subprocess.Popen

    def interrupted(argv: list[str], **more: Any) -> subprocess.Popen[bytes]:
        os.kill(os.getpid(), signal.SIGTERM)
        return begin(argv, **more)

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    asleep = [sys.executable, "-c", "import signal\nsignal.pause()"]
    assert _wait_for(asleep, dict(os.environ), Gateway("http://127.0.0.1:9", None), "job") == -signal.SIGTERM


def test_told_to_end_while_its_gateway_begins_it_leaves_none(environment: dict[str, str], tmp_path: Path) -> None:
    running = subprocess.Popen(command("raise SystemExit(9)"), env=environment, stderr=subprocess.PIPE)

    def children() -> list[str]:
        """Gateways that this command has started, by what Linux says of them."""
        found = subprocess.run(
            ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(running.pid)], check=False, capture_output=True, text=True
        ).stdout
        return [line.split()[0] for line in found.splitlines() if "--port" in line]

    try:
        until(children)
        (gateway,) = children()
        running.send_signal(signal.SIGTERM)
        assert running.wait(PATIENCE_S) == 128 + signal.SIGTERM
    finally:
        running.kill()
    assert not Path("/proc", gateway).exists()


def test_the_terminals_title_shows_the_cost_so_far(environment: dict[str, str]) -> None:
    pid, terminal = pty.fork()
    if not pid:
        argv = command(STUBBORN)
        os.execve(argv[0], argv, environment)
    shown = b""
    titles = re.compile(rb"\033\]2;bursar: \$0\.\d{4} of \$0\.5, 1 calls\007")
    try:
        while not titles.search(shown):
            shown += os.read(terminal, 65_536)
        os.kill(pid, signal.SIGTERM)
        while piece := _read(terminal):
            shown += piece
    finally:
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 5
    assert b"\033]2;\007" in shown, "the title is taken back"
    assert shown.rindex(b"bursar: task job") > shown.rindex(b"it goes on")


def _read(terminal: int) -> bytes:
    """What a terminal shows next; nothing where nobody holds it any more."""
    try:
        return os.read(terminal, 65_536)
    except OSError:
        return b""
