"""`bursar serve` that cannot: each reason is told in plain lines, with its exit code."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from app.stores.keys import hash_key
from tests.conftest import ROOT
from tests.stores.policy_texts import CONTRACT

WITHIN_S = 60.0


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(CONTRACT)
    return path


def refused(tmp_path: Path, *options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", "serve", *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "BURSAR_LOCAL_PORT": "1", **(env or {})},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )


def test_without_keys_it_serves_on_loopback_only(tmp_path: Path, policy: Path) -> None:
    done = refused(tmp_path, "--policy", str(policy), "--host", "0.0.0.0")
    assert done.returncode == 2
    assert "sets no keys" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_policy_is_not_served(tmp_path: Path, policy: Path) -> None:
    policy.write_text(CONTRACT.replace("task: {max_cost_usd: 1.00}", "task: {max_cost: 1.00}"))
    done = refused(tmp_path, env={"BURSAR_POLICY": str(policy)})
    assert done.returncode == 2
    assert f"{policy}:13:" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_policy_that_becomes_bad_while_it_is_started_is_told_in_a_line(
    tmp_path: Path, policy: Path, workers: str
) -> None:
    """What the command looked at was good, and what is served is read once more: here a pipe gives it only once."""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=(policy.read_text(),), daemon=True)
    writer.start()
    done = refused(tmp_path, "--policy", str(tmp_path / "pipe"), "--port", "0", "--workers", workers)
    writer.join(WITHIN_S)
    assert done.returncode == 1
    assert "pipe:1:1: is not a file" in done.stderr
    assert "Traceback" not in done.stderr


def test_workers_that_cannot_start_end_the_gateway_as_soon_as_they_do(tmp_path: Path, policy: Path) -> None:
    (tmp_path / "data" / "ledger.sqlite").mkdir(parents=True)
    done = refused(
        tmp_path,
        "--policy",
        str(policy),
        "--port",
        "0",
        "--workers",
        "2",
        env={"BURSAR_DATA_DIR": str(tmp_path / "data")},
    )
    assert done.returncode == 1
    assert "the gateway cannot run" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_without_a_machine_is_refused(tmp_path: Path, policy: Path) -> None:
    keyed = f'keys: [{{name: k, sha256: "{hash_key("k")}"}}]'
    policy.write_text(re.sub(r"keys: \[\].*", keyed, policy.read_text()))
    done = refused(tmp_path, "--policy", str(policy), "--host", "[::1]")
    assert done.returncode == 1
    assert "without brackets" in done.stderr


def test_wrong_settings_are_named_and_not_quoted(tmp_path: Path) -> None:
    done = refused(tmp_path, env={"BURSAR_DRAIN_S": "s3cret"})
    assert done.returncode == 2
    assert "BURSAR_DRAIN_S" in done.stderr
    assert "s3cret" not in done.stderr


def test_a_taken_port_is_said_plainly(tmp_path: Path, policy: Path) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        done = refused(tmp_path, "--policy", str(policy), "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "cannot listen on 127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_ledger_that_cannot_be_opened_ends_the_start(tmp_path: Path, policy: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    done = refused(tmp_path, "--policy", str(policy), "--port", "0", env={"BURSAR_DATA_DIR": str(tmp_path / "data")})
    assert done.returncode == 2
    assert done.stderr == f"BURSAR_DATA_DIR: {tmp_path}/data cannot be used: File exists\n"
