"""`bursar serve`: settings, policy, embedded model, server, greeting; each checked before the next begins."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
from importlib.util import find_spec
from pathlib import Path

from app import local_model
from app.commands.ending import Refused, ending
from app.commands.greeting import greet_when_ready
from app.commands.policy import read_catalogue, read_policy, read_settings
from app.commands.server import allow_many_files, bound_socket, missing_parts, run
from app.commands.terminal import complain, install_with
from app.core.policy import Policy
from app.http.auth import is_loopback
from app.logs import configure_logging
from app.model_keeper import ModelKeeper, embedded_port
from app.settings import Settings, misspelt

LOCAL_PORT = "BURSAR_LOCAL_PORT"
TRIES = 20
PORTS = range(20_000, 32_000)
"""Below what kernels give to connections (Linux from 32,768 on): no connection takes one before its server does."""


@ending()
def serve(*, policy: Path | None, host: str | None, port: int | None, workers: int | None) -> int:
    """Serve until told to stop; the exit code: 0 stopped, 1 could not go on, 2 wrong settings or policy."""
    # Workers read the environment, so what was said on the command line goes there.
    for name, value in (("POLICY", policy), ("HOST", host), ("PORT", port), ("WORKERS", workers)):
        if value is not None:
            os.environ[f"BURSAR_{name}"] = str(value)
    settings = read_settings()
    for name, meant in misspelt(os.environ).items():
        complain(f"note: {name} is not a setting; did you mean {meant}?")
    if missing := missing_parts():
        raise Refused(f"{', '.join(missing)} is not installed, and without it the gateway would be far slower")
    if settings.otel and find_spec("opentelemetry.exporter") is None:
        raise Refused(f"BURSAR_OTEL is set, and OpenTelemetry is not installed: {install_with('otel')}")
    if not os.environ.get(LOCAL_PORT):
        os.environ[LOCAL_PORT] = str(free_port())
    checked = _servable(read_policy(settings.policy, read_catalogue()), settings)
    _make_data_folder(settings)
    try:
        sock = bound_socket(settings.host, settings.port)
    except socket.gaierror:
        complain(f"cannot listen on {settings.host}: no address of that name (an IPv6 address goes without brackets)")
        return 1
    except OSError as error:
        complain(f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; --port names another")
        return 1
    configure_logging(settings)
    return _serve(settings, checked, sock)


def _servable(policy: Policy, settings: Settings) -> Policy:
    if policy.open_access and not is_loopback(settings.host):
        from app.main import NO_KEYS  # noqa: PLC0415  (the parent of workers does without the gateway)

        raise Refused(f"{settings.policy}: {NO_KEYS} (--host {settings.host}; bursar keys new NAME)")
    return policy


def _make_data_folder(settings: Settings) -> None:
    """Refused where the ledger could not be kept there."""
    if settings.redis_url is not None:
        return
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        problem = None if os.access(settings.data_dir, os.W_OK) else "it cannot be written to"
    except OSError as error:
        problem = error.strerror
    if problem is not None:
        raise Refused(f"BURSAR_DATA_DIR: {settings.data_dir.absolute()} cannot be used: {problem}")


def _serve(settings: Settings, policy: Policy, sock: socket.socket) -> int:
    signal.signal(signal.SIGTERM, _stop)
    allow_many_files()
    keeper, note = _start_model(policy, settings)
    address = sock.getsockname()
    give_up = greet_when_ready((address[0], address[1]), settings, policy, keeper, note)
    try:
        return run(settings, sock, None if keeper is None else keeper.settled)
    except KeyboardInterrupt:
        return 0
    finally:
        give_up()
        if keeper is not None:
            keeper.stop()


def _stop(*_: object) -> None:
    """SIGTERM before and after uvicorn handles it: leave in order, the model and folders with us."""
    raise SystemExit(0)


def _start_model(policy: Policy, settings: Settings) -> tuple[ModelKeeper | None, str | None]:
    """The embedded model, on its way, where the policy asks for it; and what the greeting says about it."""
    port = embedded_port(policy)
    if port is None:
        return None, None
    if missing := local_model.why_missing():
        return None, f"the local model is off: {missing}"
    keeper = ModelKeeper(port, settings.data_dir)
    keeper.start()
    return keeper, None


def free_port() -> int:
    """A port of loopback that is free, and stays so until somebody asks for it by its number. Raises OSError."""
    for number in (*secrets.SystemRandom().sample(PORTS, TRIES), 0):
        with contextlib.closing(socket.socket()) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", number))
            port: int = probe.getsockname()[1]
            return port
    raise OSError("no port of this machine is free")
