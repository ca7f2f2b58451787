"""A real gateway on a loopback port, in the test's own event loop or as a process, with a small client for it.

    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await live.chat(model="small", stream=True, max_cost_usd=0.001)
        assert answer.error_code == "budget_exceeded"

Leaving the `async with` checks that nothing leaked: no call under way, no reservation held, no hold left, no
exception that nobody retrieved.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import uvicorn
from pydantic import SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from app.commands.serve import free_port
from app.commands.server import KEEP_ALIVE_S
from app.core.budget import Balance
from app.gateway.services import Services
from app.main import Gateway
from app.settings import Settings
from tests import collector
from tests.readers import reading
from tests.upstream import PATIENCE_S, ScriptedUpstream
from tests.upstream_script import ListPrice

PRICE = ListPrice("0.001", "0.002")
"""What the scripted models cost: $1 and $2 a million tokens, so 1,000 and 2,000 nano-dollars a token."""
INPUT_NANO, OUTPUT_NANO = 1_000, 2_000
FEW = 10
PROMPT = [{"role": "user", "content": "Tell me a story."}]


def usd(nano: int) -> float:
    """Nano-dollars as dollars, for bodies and policies."""
    return nano / 10**9


def model(provider: str, **fields: Any) -> dict[str, Any]:
    """A model of the policy at PRICE, without a cap of its own unless one is given."""
    return {
        "provider": provider,
        "upstream_model": "m",
        "tier": 1,
        "pricing": {"input_per_1k": float(PRICE.input_per_1k), "output_per_1k": float(PRICE.output_per_1k)},
        "budgets": {"max_cost_usd": 0},
        **fields,
    }


def policy(upstreams: Mapping[str, ScriptedUpstream | str], **fields: Any) -> dict[str, Any]:
    """A policy with one provider and one model (of the same name) per upstream; `auto` asks them in order.

    `fields` are laid over it; in `models`, `providers` they are laid over the single entries.
    """
    names = list(upstreams)
    urls = {name: up if isinstance(up, str) else up.url for name, up in upstreams.items()}
    made: dict[str, Any] = {
        "version": 1,
        "providers": {name: {"base_url": url} for name, url in urls.items()},
        "models": {name: model(name) for name in names},
        "routes": {
            "auto": {
                "candidates": names[:1],
                "fallback": names[1:],
                "adequacy": 0,
                "retries": {"attempts": 1, "base_secs": 0.01, "max_wait_secs": 0.2},
            }
        },
        "ledger": {"contention_wait_secs": 5},
    }
    for part in ("providers", "models", "routes"):
        for name, entry in fields.pop(part, {}).items():
            made[part][name] = {**made[part].get(name, {}), **entry}
    return {**made, **fields}


@dataclass(slots=True)
class Answer:
    """One reply, read to its end (or as far as it came)."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    broken: bool = False
    """The connection died before the reply was complete."""

    @property
    def json(self) -> Any:
        """The body of a reply that is not a stream."""
        return json.loads(self.body)

    @property
    def data(self) -> list[str]:
        """The data of every event of a stream."""
        return [block[6:] for block in self.body.decode().split("\n\n") if block.startswith("data: ")]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON events of a stream."""
        return [json.loads(data) for data in self.data if data != "[DONE]"]

    @property
    def done(self) -> bool:
        """True when the stream ended in exactly one [DONE], and that was last."""
        return self.data.count("[DONE]") == 1 and self.data[-1] == "[DONE]"

    @property
    def error(self) -> dict[str, Any] | None:
        """The error object: of the reply, or of the stream."""
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            found = [event["error"] for event in self.events if "error" in event]
            assert len(found) <= 1
            return found[0] if found else None
        error: dict[str, Any] | None = self.json.get("error")
        return error

    @property
    def error_code(self) -> str | None:
        """The error's code."""
        return None if self.error is None else self.error["code"]

    @property
    def text(self) -> str:
        """What all choices said."""
        said = [c["delta"].get("content") or "" for event in self.events for c in event.get("choices", ())]
        return "".join(said)

    @property
    def finishes(self) -> list[str]:
        """The finish reasons, in order."""
        choices = [c for event in self.events for c in event.get("choices", ())]
        return [c["finish_reason"] for c in choices if c.get("finish_reason") is not None]

    @property
    def usage(self) -> dict[str, Any] | None:
        """The usage of the stream's last chunk that has one, or of the reply."""
        if not self.headers.get("content-type", "").startswith("text/event-stream"):
            usage: dict[str, Any] | None = self.json.get("usage")
            return usage
        return next((event["usage"] for event in reversed(self.events) if event.get("usage")), None)

    @property
    def request_id(self) -> str:
        """The gateway's name for the call."""
        return self.headers["x-bursar-request-id"]


@dataclass(slots=True)
class Client:
    """Asks a gateway at `url`."""

    url: str
    session: aiohttp.ClientSession

    @contextlib.asynccontextmanager
    async def open(
        self,
        *,
        headers: Mapping[str, str] | None = None,
        task: str | None = None,
        path: str = "/v1/chat/completions",
        **body: Any,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A reply whose head has come; leaving closes the connection, whatever has been read."""
        sent = {**(headers or {}), **({} if task is None else {"x-bursar-task-id": task})}
        response = await self.session.post(
            self.url + path, json={"model": "a", "messages": PROMPT, **body}, headers=sent
        )
        try:
            yield response
        finally:
            response.close()

    async def chat(self, **asked: Any) -> Answer:
        """Ask and read all there is."""
        async with self.open(**asked) as response:
            return await read(response)

    async def get(self, path: str, **headers: str) -> Any:
        """A JSON reply to a GET, which must be 200."""
        async with self.session.get(self.url + path, headers=headers) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def status(self, path: str) -> int:
        """The status of a GET."""
        async with self.session.get(self.url + path) as response:
            return response.status

    async def task(self, task: str) -> dict[str, Any]:
        """A task's money."""
        found: dict[str, Any] = await self.get(f"/v1/tasks/{task}")
        return found

    async def decision(self, request_id: str) -> dict[str, Any]:
        """The record of a call, as soon as it is written."""
        found: dict[str, Any] = await until(lambda: self._decision(request_id))
        return found

    async def _decision(self, request_id: str) -> dict[str, Any] | None:
        async with self.session.get(f"{self.url}/v1/decisions/{request_id}") as response:
            return await response.json() if response.status == 200 else None

    async def metric(self, name: str, label: str = "") -> float:
        """The sum of a metric's samples, of those with this label (`name="value"`)."""
        async with self.session.get(self.url + "/metrics") as response:
            lines = (await response.text()).splitlines()
        return sum(
            float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0] == name and label in line
        )


async def read(response: aiohttp.ClientResponse) -> Answer:
    """A reply to its end."""
    parts, broken = [], False
    try:
        while part := await response.content.readany():
            parts.append(part)
    except aiohttp.ClientError:
        broken = True
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status, headers, b"".join(parts), broken)


async def until(condition: Callable[[], Any], timeout_s: float = PATIENCE_S) -> Any:
    """Wait until the (sync or async) condition holds; what it gave."""
    give_up = time.monotonic() + timeout_s
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < give_up, "waited in vain"
        await asyncio.sleep(0.005)


class PromptServer(uvicorn.Server):
    """uvicorn without its looks at the clock ten times a second: it stops when told."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()

    async def main_loop(self) -> None:
        """Serve until told to stop."""
        await self.on_tick(0)
        await self._told.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close everything, once clients' closed connections are seen to be closed."""
        for server in self.servers:
            server.close()
        for _ in range(100):
            if not self.server_state.connections:
                break
            await asyncio.sleep(0)
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self.lifespan.shutdown()

    def stop(self) -> None:
        """Stop."""
        self._told.set()


class GivenSettings(Settings):
    """Settings that are given whole: to look each up in the environment, too, takes longer than to open the ledger."""

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: object, **__: object
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given, alone."""
        return (init_settings,)


@dataclass
class Live:
    """A gateway in this event loop. `namespace` and `data_dir` decide who shares its ledger."""

    folder: Path
    policy: dict[str, Any]
    redis_url: str | None = None
    namespace: str = field(default_factory=lambda: f"t{secrets.token_hex(6)}")
    settings: dict[str, Any] = field(default_factory=dict)
    may_hold: bool = False
    """Reservations may be left (the ledger has died)."""
    through: Callable[[Any], Any] | None = None
    """Puts something between the server and the gateway."""

    async def __aenter__(self) -> Self:
        self._unretrieved: list[str] = []
        asyncio.get_running_loop().set_exception_handler(self._note)
        collector.before_gateway()
        self.gateway = Gateway(make_settings(self.folder, self.policy, self.redis_url, self.namespace, self.settings))
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            self.gateway if self.through is None else self.through(self.gateway),
            interface="asgi3",
            http="app.http.wire:WireProtocol",
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            log_level="warning",
            backlog=1024,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=3,
        )
        self._server = PromptServer(config)
        self._serving = asyncio.create_task(self._server._serve(sockets=[self._socket]))
        await until(lambda: self._server.started or self._serving.done())
        assert self._server.started, "the gateway did not start"
        self._reading = reading(asyncio.get_running_loop(), self._ledger_owes)
        self._reading.__enter__()
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        self.client = Client(self.url, self._session)
        return self

    def _ledger_owes(self) -> bool:
        """Whether it has not answered one of a few calls; of many, it always owes one an answer."""
        calls: list[Any] = self.services.calls.under_way() if self.gateway.services is not None else []
        return len(calls) <= FEW and any(getattr(c.purse, "_flush", None) is not None for c in calls)

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._unretrieved.append(f"{context.get('message')}: {context.get('exception')!r}")

    @property
    def services(self) -> Services:
        """What the gateway's calls share."""
        assert self.gateway.services is not None
        return self.gateway.services

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        await self._session.close()
        try:
            if error is None:
                await self.idle()
                if not self.may_hold:
                    assert await self.held() == {}, "reservations were left"
        finally:
            self._reading.__exit__(None, None, None)
            self._server.stop()
            await self._serving
            collector.gateway_ended()
        gc.collect()
        await asyncio.sleep(0)
        asyncio.get_running_loop().set_exception_handler(None)
        if error is None:
            assert not self._unretrieved, self._unretrieved

    async def idle(self, timeout_s: float = PATIENCE_S) -> None:
        """Wait until no call is under way."""
        await until(lambda: not len(self.services.calls), timeout_s)

    @property
    def held_up(self) -> bool:
        """Whether a client does not read, so that what is sent to it waits."""
        return any(c.flow.write_paused for c in self._server.server_state.connections)  # type: ignore[union-attr]

    @property
    def unread_bytes(self) -> int:
        """What has come from the upstreams and was not taken yet."""
        return sum(connection.size for connection in self.services.upstreams._pool._everyone)  # type: ignore[attr-defined]

    async def balances(self) -> dict[str, Balance]:
        """Every scope of the ledger."""
        return dict(await self.services.ledger.budgets.scopes("", 10_000))

    async def balance(self, scope: str) -> Balance:
        """One scope of the ledger; "task:T" is short for the open gateway's task T."""
        name = scope.replace("task:", "task:-:", 1)
        return (await self.balances())[name]

    async def held(self) -> dict[str, int]:
        """What is reserved, by scope; nothing where nothing is."""
        return {name: b.held_nano for name, b in (await self.balances()).items() if b.held_nano}

    # Short forms of what nearly every test does.

    async def chat(self, **asked: Any) -> Answer:
        """See Client."""
        return await self.client.chat(**asked)

    async def task(self, task: str) -> dict[str, Any]:
        """See Client."""
        return await self.client.task(task)

    async def attempts(self, answer: Answer) -> list[dict[str, Any]]:
        """The attempts of a call, as recorded."""
        record = await self.client.decision(answer.request_id)
        attempts: list[dict[str, Any]] = record["attempts"]
        return attempts


def make_settings(
    folder: Path, policy: Mapping[str, Any], redis_url: str | None, namespace: str, more: Mapping[str, Any]
) -> Settings:
    """Settings with this policy on disk and the heuristic to decide; the ledger is in `folder`, or on Redis."""
    return GivenSettings(
        policy=write_policy(folder, policy),
        data_dir=folder / "data",
        redis_url=None if redis_url is None else SecretStr(redis_url),
        redis_namespace=namespace,
        **{"drain_s": 1.0, "router_weights": folder / "no-weights", **more},
    )


def write_policy(folder: Path, policy: Mapping[str, Any]) -> Path:
    """The policy as a file of its own: JSON is YAML."""
    path = folder / f"policy-{secrets.token_hex(4)}.yaml"
    path.write_text(json.dumps(policy, indent=1))
    return path


class Killable:
    """A gateway as a process of its own, to be killed. Its lease is `lease_s`, so that its death shows soon."""

    def __init__(
        self, folder: Path, policy: Mapping[str, Any], *, redis_url: str | None, namespace: str, lease_s: float = 1.0
    ) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.policy_path = write_policy(folder, policy)
        environment = {
            **os.environ,
            "BURSAR_POLICY": str(self.policy_path),
            "BURSAR_DATA_DIR": str(folder / "data"),
            "BURSAR_REDIS_NAMESPACE": namespace,
            **({} if redis_url is None else {"BURSAR_REDIS_URL": redis_url}),
        }
        root = Path(__file__).resolve().parents[2]
        command = [sys.executable, "-m", "tests.gateway.child", str(self._port), str(lease_s)]
        self._log = (folder / f"gateway-{self._port}.log").open("wb")
        self._process = subprocess.Popen(command, env=environment, cwd=root, stdout=self._log, stderr=self._log)

    async def ready(self) -> None:
        """Wait until it serves."""

        def connects() -> bool:
            assert self._process.poll() is None, "the gateway's process ended"
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self._port)) == 0

        await until(connects, PATIENCE_S)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it as a crash would."""
        if self._process.poll() is None:
            self._process.send_signal(how)
        self._process.wait(PATIENCE_S)
        self._log.close()

    async def __aenter__(self) -> Self:
        try:
            await self.ready()
        except BaseException:
            self.kill()
            raise
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        self.kill()
