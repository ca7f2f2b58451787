"""Nobody is let in before the embedded model answers: the first call of whoever can connect is served."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from uvicorn.supervisors import multiprocess

from app import local_model
from app.commands import server
from app.commands.server import DrainingServer, bound_socket
from app.settings import Settings
from tests.conftest import Served
from tests.gateway.live import until
from tests.http.live import until as wait_until

MANY_TURNS = 1_000
needs_model = pytest.mark.skipif(
    local_model.why_missing() is not None, reason=f"no local model: {local_model.why_missing()}"
)


def lets_in(address: tuple[str, int]) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(address) == 0


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An app that is never asked."""


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with contextlib.closing(bound_socket("127.0.0.1", 0)) as bound:
        yield bound


@contextlib.asynccontextmanager
async def serving(sock: socket.socket, first: threading.Event | None) -> AsyncIterator[DrainingServer]:
    config = uvicorn.Config(nothing, interface="asgi3", lifespan="off", log_config=None, log_level="warning")
    begun = DrainingServer(config, first)
    task = asyncio.create_task(begun._serve([sock]))
    yield begun
    begun.should_exit = True
    await task


async def test_it_listens_once_the_model_has_come_up(sock: socket.socket) -> None:
    first = threading.Event()
    async with serving(sock, first) as begun:
        for _ in range(MANY_TURNS):
            await asyncio.sleep(0)
        assert not begun.started
        assert not lets_in(sock.getsockname())
        first.set()
        await until(lambda: begun.started)
        assert lets_in(sock.getsockname())


async def test_without_a_model_it_waits_for_nothing(sock: socket.socket) -> None:
    async with serving(sock, None) as begun:
        await until(lambda: begun.started)
        assert lets_in(sock.getsockname())


async def test_a_model_that_hangs_is_not_waited_for_for_ever(
    sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "FIRST_WITHIN_S", 0.05)
    async with serving(sock, threading.Event()) as begun:
        await until(lambda: begun.started)
        assert lets_in(sock.getsockname())


async def test_told_to_stop_it_waits_no_longer(sock: socket.socket) -> None:
    address = sock.getsockname()
    async with serving(sock, threading.Event()):
        pass  # leaving tells it to stop, and returns only when it has
    assert not lets_in(address)


def test_workers_are_started_once_the_model_has_come_up(sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    first = threading.Event()
    seen: list[bool] = []

    class Workers:
        processes = ()

        def __init__(self, *_: object) -> None:
            seen.append(first.is_set())

        def run(self) -> None:
            """Serve nobody."""

    monkeypatch.setattr(server, "_Workers", Workers)
    monkeypatch.setattr(multiprocess, "Process", multiprocess.Process)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    threading.Timer(0.05, first.set).start()
    assert server.run(Settings(workers=2), sock, first) == 0
    assert seen == [True]


@needs_model
def test_the_first_call_of_whoever_gets_in_is_answered(serve: Callable[..., Served], free_port: int) -> None:
    serve("--port", str(free_port))  # the last --port counts
    wait_until(lambda: lets_in(("127.0.0.1", free_port)), 60)
    say = {"model": "auto", "max_tokens": 4, "messages": [{"role": "user", "content": "Say hello."}]}
    answer = httpx.post(f"http://127.0.0.1:{free_port}/v1/chat/completions", json=say, timeout=60, trust_env=False)
    assert answer.status_code == 200
    assert answer.json()["model"] == "smollm2"
