"""Keeps the embedded model running beside the gateway: starts it, starts it again when it dies, ends it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from app import local_model
from app.core.policy import Policy

LOG_NAME = "local-model.log"
MAX_LOG_BYTES = 1_000_000
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
STOP_S = 2.0

log = structlog.get_logger()


def embedded_port(policy: Policy) -> int | None:
    """The port at which the policy's providers expect the embedded model; None where no provider is embedded."""
    for provider in policy.providers.values():
        if provider.embedded == local_model.NAME:
            return urlsplit(provider.base_url).port
    return None


class ModelKeeper:
    """One model process, kept by a thread. `ready` is set while it answers, `settled` once the first start came
    to an end, good or bad."""

    def __init__(self, port: int, data_dir: Path, *, first_backoff_s: float = FIRST_BACKOFF_S) -> None:
        self.port = port
        self.log_path = data_dir.absolute() / LOG_NAME
        self.ready = threading.Event()
        self.settled = threading.Event()
        self._first_backoff_s = first_backoff_s
        self._stop = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        # The kernel ends the model with the *thread* that started it, so one thread has to live as long as it.
        self._thread = threading.Thread(target=self._keep, name="local-model", daemon=True)

    @property
    def pid(self) -> int | None:
        """The process id of the model now, for tests and for `ps`."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Begin to load the model and return at once."""
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def stop(self) -> None:
        """End the model."""
        self._stop.set()
        process = self._process
        if process is not None and process.stdin is not None:
            process.stdin.close()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join(STOP_S)

    def _keep(self) -> None:
        backoff_s = self._first_backoff_s
        while not self._stop.is_set():
            answered = self._run_once()
            if self._stop.is_set():
                return
            backoff_s = self._first_backoff_s if answered else min(backoff_s * 2, MAX_BACKOFF_S)
            log.warning("the local model ended and starts again", after_s=backoff_s, log=str(self.log_path))
            self._stop.wait(backoff_s)

    def _run_once(self) -> bool:
        """Run the model until it ends; True when it had come so far as to answer."""
        process = self._process = self._spawn()
        if self._stop.is_set() and process.stdin is not None:
            process.stdin.close()
        assert process.stdout is not None
        answered = process.stdout.readline() == local_model.READY
        if answered:
            self.ready.set()
        self.settled.set()
        process.wait()
        self.ready.clear()
        process.stdout.close()
        return answered

    def _spawn(self) -> subprocess.Popen[bytes]:
        if self.log_path.exists() and self.log_path.stat().st_size > MAX_LOG_BYTES:
            self.log_path.unlink()
        script = str(Path(local_model.__file__).resolve())
        command = [sys.executable, "-P", script, "--port", str(self.port), "--parent", str(os.getpid())]
        with self.log_path.open("ab") as log_file:
            # A session of its own: what a terminal sends to the gateway's group is not meant for the model.
            return subprocess.Popen(  # noqa: S603  (our own interpreter, script and numbers)
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log_file, start_new_session=True
            )
