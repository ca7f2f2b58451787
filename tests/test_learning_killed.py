"""Learners and gateways killed and restarted with Redis in between: nothing is lost, nothing counted twice."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from pydantic import SecretStr

from app.learner.pack import unpack_learner
from app.learner.step import Learner
from app.learner.worker import Checkpoint
from app.settings import SHIPPED_WEIGHTS, Settings
from app.stores.opening import make_outcomes, make_snapshots
from app.stores.traces_stream import TraceStream
from routers.learned import load
from tests.conftest import ROOT
from tests.http.live import contract, environment
from tests.redis_server import shared_server
from tests.upstream import ScriptedUpstream

ASK = [{"role": "user", "content": "Write a short poem about the sea."}]
READY_S = 60.0
KILLS = 3


class House:
    """Gateways and learners as processes, on one Redis."""

    def __init__(self, folder: Path, upstream: ScriptedUpstream) -> None:
        self.namespace = f"killed-{secrets.token_hex(4)}"
        (folder / "policy.yaml").write_text(contract(upstream))
        self.env = environment(
            BURSAR_REDIS_URL=shared_server().url, BURSAR_REDIS_NAMESPACE=self.namespace,
            BURSAR_DATA_DIR=str(folder / "data"), BURSAR_POLICY=str(folder / "policy.yaml"),
            BURSAR_SNAPSHOT_LABELS="15", BURSAR_TRACES_COMPACT="false", BURSAR_LOG_LEVEL="warning",
        )  # fmt: skip
        self.settings = Settings(redis_url=SecretStr(shared_server().url), redis_namespace=self.namespace)
        self.gateways: dict[int, subprocess.Popen[bytes]] = {}
        self.learners: list[subprocess.Popen[bytes]] = []
        self.said: dict[str, str] = {}
        self.tasks: set[str] = set()

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "app.cli", *arguments], env=self.env, cwd=ROOT)

    def serve(self, port: int = 0) -> int:
        if not port:
            with contextlib.closing(socket.socket()) as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
        self.gateways[port] = self.start("serve", "--port", str(port))
        return port

    def learn(self) -> None:
        self.learners.append(self.start("learn", "--every", "0.05"))

    def ready(self) -> None:
        end = time.monotonic() + READY_S
        for port in self.gateways:
            while self.ask(port, "GET", "/readyz", None)[0] != 200:
                assert time.monotonic() < end
                time.sleep(0.05)

    def ask(self, port: int, method: str, path: str, body: object, task_id: str | None = None) -> tuple[int, str]:
        """The status and the request's id; 0 where nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        of_task = {} if task_id is None else {"x-bursar-task-id": task_id}
        try:
            connection.request(method, path, json.dumps(body), {"content-type": "application/json", **of_task})
            response = connection.getresponse()
            response.read()
            return response.status, response.headers.get("x-bursar-request-id", "")
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def traffic(self, count: int) -> None:
        """Calls to either gateway, and what was said of them; what was answered 200 was stored."""
        for number in range(count):
            ports = list(self.gateways)
            status, request_id = self.ask(ports[number % 2], "POST", "/v1/chat/completions", call())
            if status != 200:
                continue
            outcome = "failure" if number % 3 == 0 else "success"
            word = {"request_id": request_id, "outcome": outcome, "source": "verifier"}
            if self.ask(ports[(number + 1) % 2], "POST", "/v1/feedback", word)[0] == 200:
                self.said[request_id] = outcome

    def task(self, name: str, number: int) -> None:
        """A task of three calls of one model, of which only its outcome is said."""
        ports = list(self.gateways)
        body = {**call(), "model": ("small", "large")[number % 2]}
        for place in range(3):
            assert self.ask(ports[place % len(ports)], "POST", "/v1/chat/completions", body, name)[0] == 200
        word = {"task_id": name, "outcome": "failure" if number % 4 == 0 else "success", "source": "program"}
        assert self.ask(ports[0], "POST", "/v1/feedback", word)[0] == 200
        self.tasks.add(name)

    def leader(self) -> subprocess.Popen[bytes]:
        """The learner that leads now, once one that lives does."""
        end = time.monotonic() + READY_S
        while time.monotonic() < end:
            found = shared_server().command("KEYS", f"*{self.namespace}*leader*").split()
            name = next((word for word in found if self.namespace.encode() in word), None)
            owner = b"" if name is None else shared_server().command("GET", name.decode())
            for learner in self.learners:
                if learner.poll() is None and f":{learner.pid}:".encode() in owner:
                    return learner
            time.sleep(0.05)
        raise AssertionError("nobody leads")

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()

    def stop(self) -> None:
        """Everything that still runs, in order."""
        for process in (*self.gateways.values(), *self.learners):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in (*self.gateways.values(), *self.learners):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill(process)

    def read_the_rest(self) -> None:
        """The lease of a dead learner runs out; whoever comes then reads what is left."""
        end = time.monotonic() + READY_S
        while True:
            done = subprocess.run(
                [sys.executable, "-m", "app.cli", "learn", "--once"], env=self.env, cwd=ROOT, capture_output=True,
                text=True, check=True,
            )  # fmt: skip
            if "another learner" not in done.stdout:
                return
            assert time.monotonic() < end
            time.sleep(1.0)

    async def state(self) -> Learner:
        snapshots = make_snapshots(self.settings)
        _, saved = await snapshots.load()
        await snapshots.close()
        assert saved is not None
        return unpack_learner(msgspec.msgpack.decode(saved, type=Checkpoint).learner, load(SHIPPED_WEIGHTS))

    async def everything(self) -> Learner:
        """A learner that was never killed, given all that is on record at once."""
        stream = TraceStream(shared_server().url, namespace=self.namespace)
        _, ids = await stream.latest(100_000)
        records = [msgspec.json.decode(body) for body in await stream.bodies(ids)]
        await stream.close()
        outcomes = make_outcomes(self.settings)
        words = [word for _, word in await outcomes.since(0, 100_000)]
        await outcomes.close()
        learner = Learner(load(SHIPPED_WEIGHTS))
        learner.saw(records)
        learner.said(words)
        learner.step(time.time())
        return learner


def call() -> dict[str, object]:
    return {"model": "auto", "messages": ASK, "max_tokens": 20}


def test_learners_and_gateways_are_killed_and_go_on(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream:
        house = House(tmp_path, upstream)
        try:
            first, second = house.serve(), house.serve()
            house.learn()
            house.ready()
            house.traffic(40)
            house.kill(house.learners[0])
            house.traffic(20)
            house.learn()
            house.learn()
            house.kill(house.gateways[first])
            house.traffic(20)
            house.serve(first)
            house.ready()
            house.traffic(30)
            house.kill(house.learners[1])
            house.kill(house.gateways[second])
            house.serve(second)
            house.ready()
            house.traffic(40)
        finally:
            house.stop()
    house.read_the_rest()
    kept, whole = asyncio.run(house.state()), asyncio.run(house.everything())
    assert set(kept.lessons) == set(whole.lessons)
    assert set(kept.lessons) >= set(house.said)
    labelled = {name for name, lesson in kept.lessons.items() if lesson.labels}
    assert labelled == {name for name, lesson in whole.lessons.items() if lesson.labels} >= set(house.said)
    for name in labelled:
        assert len(kept.lessons[name].sites) == (0 if name in kept.held else 1)
    assert set(kept.held) == set(whole.held)
    for name, own in whole.belief.own.items():
        assert kept.belief.own[name].labels == pytest.approx(own.labels, rel=0.05)
        demand = kept.lessons[next(iter(house.said))].demand
        for learner in (kept, whole):
            assert learner.probability(learner.belief, name, demand) == pytest.approx(
                whole.probability(whole.belief, name, demand), abs=0.02
            )


def test_of_three_learners_the_leader_is_killed_again_and_again(tmp_path: Path) -> None:
    """At moments drawn at random, while calls and feedback go on. The belief is that of one learner that read all in
    order; and without what its lessons say that they taught, it is where it began: to a millionth, nothing is in it
    that no lesson holds, and no lesson is in it twice."""
    rng, killed = random.Random(7), set[int]()
    with ScriptedUpstream() as upstream:
        house = House(tmp_path, upstream)
        try:
            house.serve()
            house.serve()
            for _ in range(3):
                house.learn()
            house.ready()
            number = 0
            for _ in range(KILLS):
                leader = house.leader()
                at = rng.randrange(4, 20)
                for step in range(24):
                    house.task(f"task-{number}", number)
                    house.traffic(2)
                    number += 1
                    if step == at:
                        house.kill(leader)
                        killed.add(leader.pid)
                        house.learn()
            assert house.leader().pid not in killed
        finally:
            house.stop()
    house.read_the_rest()
    kept, whole = asyncio.run(house.state()), asyncio.run(house.everything())
    assert len(killed) == KILLS
    assert set(kept.lessons) == set(whole.lessons) >= set(house.said)
    assert len(kept.lessons) == 5 * number
    assert {name: lesson.told for name, lesson in kept.lessons.items()} == {
        name: lesson.told for name, lesson in whole.lessons.items()
    }
    of_tasks = [lesson for lesson in kept.lessons.values() if lesson.call.task_id in house.tasks]
    assert len(of_tasks) == 3 * number
    assert all(lesson.told for lesson in of_tasks)
    for name, lesson in kept.lessons.items():
        assert len(lesson.sites) == (0 if name in kept.held else 1)
    # A call is held out by its task only where it was known to be one of several when its word was first heard.
    assert len(set(kept.held) ^ set(whole.held)) < 0.1 * len(kept.lessons)
    demand = kept.lessons[next(iter(house.said))].demand
    for name, own in whole.belief.own.items():
        assert kept.belief.own[name].labels == pytest.approx(own.labels, rel=0.15)
        p = kept.probability(kept.belief, name, demand)
        assert p == pytest.approx(whole.probability(whole.belief, name, demand), abs=0.02)
    untaught = kept.without(*kept.lessons.values())
    assert np.allclose(untaught.mean, 0.0, atol=1e-6)
    assert np.allclose(untaught.cov, kept.prior.start().cov, atol=1e-6)
    assert {name: own.labels for name, own in untaught.own.items()} == pytest.approx(
        dict.fromkeys(untaught.own, 0.0), abs=1e-6
    )
