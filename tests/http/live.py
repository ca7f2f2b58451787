"""A real gateway for tests: `app.main.Gateway` under uvicorn on a loopback port, in a thread of its own.

with ScriptedUpstream() as upstream, LiveGateway(contract(upstream), tmp_path) as gateway:
    answer = gateway.chat(model="auto")
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import uvicorn

from app.commands.serve import free_port
from app.commands.server import KEEP_ALIVE_S, DrainingServer
from app.main import Gateway
from tests import collector
from tests.gateway.live import GivenSettings, PromptServer
from tests.stores.policy_texts import CONTRACT
from tests.upstream import PATIENCE_S, ScriptedUpstream

T = TypeVar("T")
TURNS = 100
"""Of the event loop, in which connections close that have nothing to send."""
SAY = [{"role": "user", "content": "Say hello."}]


def contract(upstream: ScriptedUpstream, other: ScriptedUpstream | None = None) -> str:
    """The issue's policy as it stands, its two providers being these."""
    second = upstream if other is None else other
    return CONTRACT.replace("http://127.0.0.1:9001/v1", upstream.url).replace("http://127.0.0.1:9002/v1", second.url)


def sha256(secret: str) -> str:
    """A key as policies hold it."""
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object, its shape checked."""
        assert self.headers["content-type"].startswith("application/json")
        said: dict[str, Any] = self.json
        assert set(said) == {"error"}
        assert set(said["error"]) >= {"message", "type", "param", "code"}
        error: dict[str, Any] = said["error"]
        return error

    @property
    def events(self) -> list[Any]:
        """The events of a stream, decoded; the text [DONE] for the last."""
        blocks = self.body.decode().split("\n\n")
        assert blocks[-1] == ""
        datas = [block.removeprefix("data: ") for block in blocks[:-1]]
        return [data if data == "[DONE]" else json.loads(data) for data in datas]

    @property
    def text(self) -> str:
        """What the first choice said in a stream."""
        chunks = [event for event in self.events if event != "[DONE]" and event.get("choices")]
        return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


class Streaming:
    """An answer whose body is read event by event."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self.response = response
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self._connection = connection

    def event(self) -> bytes:
        """The data of the next event; b"" at the end."""
        line = self.response.readline()
        self.response.readline()
        return line.removeprefix(b"data: ").rstrip(b"\n")

    def rest(self) -> Answer:
        """Everything that is still to come."""
        body = self.response.read()
        self._connection.close()
        return Answer(self.status, self.headers, body)

    def leave(self) -> None:
        """Close the connection in mid-stream."""
        self.response.close()
        self._connection.close()


class LiveGateway:
    """One gateway process's worth, serving while the `with` block runs."""

    def __init__(self, policy: str, folder: Path, **settings: Any) -> None:
        self.policy_path = folder / "policy.yaml"
        self.policy_path.write_text(policy)
        self.data_dir = folder / "data"
        # Without weights the heuristic decides: what these tests see does not change with the next training.
        fixed = {"drain_s": 1.0, "router_weights": folder / "no-weights"}
        collector.before_gateway()
        self.gateway = Gateway(GivenSettings(policy=self._policy(), data_dir=self.data_dir, **{**fixed, **settings}))
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            self.gateway,
            interface="asgi3",
            http="app.http.wire:WireProtocol",
            loop="uvloop",
            ws="none",
            lifespan="on",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            log_config=None,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=2,
        )
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="gateway", daemon=True)

    def _policy(self) -> Path:
        return self.policy_path

    @property
    def url(self) -> str:
        """The base URL for an SDK."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._server.ready.wait(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.end()
        self._thread.join(PATIENCE_S)
        collector.gateway_ended()
        self._socket.close()
        assert not self._thread.is_alive()

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float = PATIENCE_S) -> T:
        """Await on the gateway's own loop."""
        loop = self._server.loop
        assert loop is not None
        waiting: Future[T] = asyncio.run_coroutine_threadsafe(work, loop)
        return waiting.result(timeout_s)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request over a connection of its own; a body that is not bytes is sent as JSON."""
        return self.stream(method, path, body, headers).rest()

    def stream(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Streaming:
        """As `ask`, returning as soon as the answer's head is there."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data, {"content-type": "application/json", **(headers or {})})
        return Streaming(connection, connection.getresponse())

    def chat(self, headers: Mapping[str, str] | None = None, path: str = "/v1/chat/completions", **body: Any) -> Answer:
        """One chat call, to `small` saying SAY where nothing else is said."""
        return self.ask("POST", path, {"model": "small", "messages": SAY, **body}, headers)

    def decision(self, answer: Answer, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The record of the call that this answered."""
        found = self.ask("GET", f"/v1/decisions/{answer.headers['x-request-id']}", headers=headers)
        assert found.status == 200
        record: dict[str, Any] = found.json
        return record

    def metrics(self) -> str:
        """The metrics page."""
        return self.ask("GET", "/metrics").body.decode()

    def edit_policy(self, text: str) -> None:
        """Write the policy as editors do: aside, then renamed over."""
        aside = self.policy_path.with_suffix(".tmp")
        aside.write_text(text)
        aside.replace(self.policy_path)

    def until(self, true: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
        """Wait for something that nothing announces."""
        until(true, timeout_s)


def until(true: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Wait for something that nothing announces."""
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


class _AtOnce(PromptServer):
    """uvicorn without its pauses, also where it ends, unless something is still being sent then."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close everything."""
        for connection in list(self.server_state.connections):
            connection.shutdown()
        for _ in range(TURNS):
            if not self.server_state.connections and not self.server_state.tasks:
                return await super().shutdown(sockets)
            await asyncio.sleep(0)
        return await uvicorn.Server.shutdown(self, sockets)


class _Server(DrainingServer, _AtOnce):
    """The gateway's own server, that says when it is ready."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self.loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.ready.set()

    def end(self) -> None:
        """Stop, said by any thread."""
        self.should_exit = True
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.stop)


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without what would steer a gateway or an SDK."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BURSAR_", "OPENAI_"))}
    return {**kept, **extra}


class Served:
    """`bursar serve` as a process of its own, ready inside the `with` block and gone after it."""

    def __init__(self, policy: str, folder: Path, drain_s: float = 20.0, **settings: object) -> None:
        self.folder = folder
        said = {"drain_s": drain_s, **settings}
        named = {name if name.isupper() else f"BURSAR_{name.upper()}": str(value) for name, value in said.items()}
        (folder / "policy.yaml").write_text(policy)
        self.port = free_port()
        options = ["--policy", str(folder / "policy.yaml"), "--port", str(self.port)]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "serve", *options],
                env=environment(BURSAR_DATA_DIR=str(folder / "data"), **named),
                cwd=Path(__file__).parents[2],
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Self:
        end = time.monotonic() + PATIENCE_S
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                raise AssertionError((self.folder / "log").read_text())
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self.get("/readyz")[0] == 200
        return False

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET over a connection of its own."""
        with contextlib.closing(self.connect()) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()

    def workers(self) -> list[int]:
        """The process ids of its workers, as Linux knows them."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def stream_on(self, worker: int, model: str, headers: Mapping[str, str]) -> Streaming:
        """As `stream`, taken by that worker."""
        with self._alone(worker):
            return self.stream(model, headers)

    def get_on(self, worker: int, path: str) -> bytes:
        """The body of a GET that this worker answered."""
        with self._alone(worker):
            return self.get(path)[1]

    @contextlib.contextmanager
    def _alone(self, worker: int) -> Iterator[None]:
        """The others are kept from taking anything."""
        others = [pid for number, pid in enumerate(self.workers()) if number != worker]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)

    def connect(self) -> http.client.HTTPConnection:
        """A connection of its own."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def stream(self, model: str, headers: Mapping[str, str]) -> Streaming:
        """A streamed chat call, begun."""
        connection = self.connect()
        body = json.dumps({"model": model, "messages": SAY, "stream": True})
        connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json", **headers})
        return Streaming(connection, connection.getresponse())
