"""Ten thousand small requests leave a gateway as large as it was."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.http.live import SAY, Served
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, text

WARM_UP, REQUESTS, CONNECTIONS = 2_000, 10_000, 4
GROWTH_BYTES = 10 * 1024 * 1024
STATM = Path("/proc/self/statm")


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def send(port: int, count: int) -> None:
    """So many chat calls over one connection, every second one streamed, of 50 tasks and a few that fail."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        for i in range(count):
            body = {"model": "m" if i % 10 else f"unknown-{i}", "messages": SAY, "stream": i % 2 == 0, "max_tokens": 9}
            data = json.dumps(body).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-bursar-task-id: t{i % 50}\r\n"
            client.sendall(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
            got = client.recv(65536)
            while not (got.endswith((b"}", b"\r\n0\r\n\r\n"))):
                got += client.recv(65536)
            assert got.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 404 "))


def hammer(port: int, count: int) -> None:
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for sender in [pool.submit(send, port, count // CONNECTIONS) for _ in range(CONNECTIONS)]:
            sender.result()


@pytest.mark.skipif(not STATM.exists(), reason="needs /proc")
def test_memory_is_flat(tmp_path: Path) -> None:
    with ScriptedUpstream(Script.of(text("ok"))) as upstream:
        policy = f"""
version: 1
providers: {{p: {{base_url: "{upstream.url}"}}}}
models: {{m: {{provider: p, pricing: {{input_per_1k: 0.0001, output_per_1k: 0.0001}}}}}}
"""
        with Served(policy, tmp_path) as served:
            hammer(served.port, WARM_UP)
            before = resident_bytes(served.process.pid)
            hammer(served.port, REQUESTS)
            after = resident_bytes(served.process.pid)
            assert len(upstream.requests) >= (WARM_UP + REQUESTS) * 8 // 10
    assert after - before < GROWTH_BYTES, f"{before} -> {after}"
    assert after < 150 * 1024 * 1024
