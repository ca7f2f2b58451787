"""What is measured: the stub itself, the gateway with everything on, and others' gateways at a URL."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from app.commands.serve import free_port
from tests.bench.canned import KEY, ROUTE, chat_body, chat_request
from tests.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[2]
CHAT = "/v1/chat/completions"
READY_WITHIN_S = 60.0
STOP_WITHIN_S = 15.0


@dataclass(frozen=True, slots=True)
class System:
    """Someone who answers chat completions. Without a `pid` only its latency can be measured."""

    name: str
    host: str
    port: int
    path: str = CHAT
    pid: int | None = None
    ready_s: float | None = None


def peer(text: str) -> System:
    """`NAME=URL`, the URL being what its clients take for OPENAI_BASE_URL. ValueError if it is not that."""
    name, _, url = text.partition("=")
    parts = urlsplit(url)
    if not name or parts.scheme != "http" or not parts.hostname:
        raise ValueError("a peer is NAME=http://HOST:PORT/v1")
    return System(name, parts.hostname, parts.port or 80, parts.path.rstrip("/") + "/chat/completions")


def policy_text(upstream_url: str, *, candidates: int = 3) -> str:
    """A policy with everything on: a key, caps in every scope (too large to be reached), priced candidates."""
    names = [f"m{number}" for number in range(1, candidates + 1)]
    providers = [f"  p{i}: {{base_url: {upstream_url!r}, api_key: none}}" for i in range(1, min(candidates, 3) + 1)]
    models = [
        f"  {name}: {{provider: p{i % 3 + 1 if candidates >= 3 else 1}, upstream_model: bench-{i}, tier: {1 + i % 5},"
        f" pricing: {{input_per_1k: {(i + 1) / 10_000:.4f}, output_per_1k: {(i + 1) / 2_500:.4f}}},"
        " budgets: {max_cost_usd: 1000}}"
        for i, name in enumerate(names)
    ]
    windows = "{day: {max_cost_usd: 1000000}, month: {max_cost_usd: 1000000}}"
    return "\n".join(
        [
            "version: 1",
            "providers:",
            *providers,
            "models:",
            *models,
            "routes:",
            f"  {ROUTE}: {{candidates: [{', '.join(names)}], fallback: [{names[-1]}]}}",
            f"caps: {{request: {{max_cost_usd: 10}}, task: {{max_cost_usd: 1000}}, key: {windows}, global: {windows}}}",
            "keys:",
            f"  - {{name: bench, sha256: {hashlib.sha256(KEY.encode()).hexdigest()!r}}}",
            "",
        ]
    )


@contextlib.contextmanager
def running_stub(port: int = 0) -> Iterator[System]:
    """The stub as a process, on the core of whoever starts it."""
    command = [sys.executable, "-m", "tests.bench.stub", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line.strip().isdigit():
            raise SystemExit(f"the stub could not listen on port {port}")
        yield System("direct", "127.0.0.1", int(line))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def running_store(kind: str) -> Iterator[str | None]:
    """The URL of a Redis of its own, or None for SQLite."""
    if kind == "sqlite":
        yield None
        return
    with RedisServer() as server:
        yield server.url


@contextlib.contextmanager
def running_gateway(stub: System, redis_url: str | None, core: int) -> Iterator[System]:
    """Bursar as its users run it, one worker, in a folder of its own, pinned to a core."""
    with tempfile.TemporaryDirectory(prefix="bursar-bench-") as folder_name:
        folder = Path(folder_name)
        (folder / "policy.yaml").write_text(policy_text(f"http://127.0.0.1:{stub.port}/v1"))
        port = free_port()
        began_s = time.monotonic()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "serve", "--policy", "policy.yaml", "--port", str(port)],
                cwd=folder,
                env=_environment(folder, redis_url),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            os.sched_setaffinity(process.pid, {core})
            gateway = System("bursar", "127.0.0.1", port, pid=process.pid)
            if not _wait_ready(gateway, process):
                raise SystemExit(f"the gateway did not become ready:\n{(folder / 'log').read_text()[-3000:]}")
            yield System("bursar", "127.0.0.1", port, pid=process.pid, ready_s=round(time.monotonic() - began_s, 2))
        finally:
            process.terminate()
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _environment(folder: Path, redis_url: str | None) -> dict[str, str]:
    """The operator's own settings and keys have no place here."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BURSAR_", "PROMETHEUS_"))}
    own = {"PYTHONPATH": str(ROOT), "BURSAR_DATA_DIR": str(folder / "data")}
    return {**kept, **own, **({} if redis_url is None else {"BURSAR_REDIS_URL": redis_url})}


def _wait_ready(system: System, process: subprocess.Popen[bytes]) -> bool:
    give_up_s = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < give_up_s and process.poll() is None:
        if answers(system):
            return True
        time.sleep(0.01)
    return False


def answers(system: System) -> bool:
    """Whether a chat completion succeeds now."""
    body = chat_body(prompt_bytes=500, stream=False, pace_ms=None)
    try:
        with socket.create_connection((system.host, system.port), timeout=10) as connection:
            connection.sendall(chat_request(f"{system.host}:{system.port}", system.path, body))
            return connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False
