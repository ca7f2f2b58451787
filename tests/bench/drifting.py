"""The loop's guards on live gateways, told by their own metrics and commands. Synthetic, and said to be.

    python -m tests.bench.drifting [--json FILE] [--seed 0]

Two gateways and `bursar learn` on one Redis; scripted upstreams; of each model and kind of work a hidden success rate
(`RATES`, made up); a verifier's word on every call through `POST /v1/feedback`, of ten keys, three in ten of them late.

* `fall`: one model falls at one kind of work, while the learner and then a gateway are killed (-9) and started again:
  when is it kept from it by both gateways, where do its calls go, when is it back after it has recovered.
* `rollback`: a house of one key, whose verifier was broken while no learner ran, and a snapshot that was learned from
  its words is in force: is it taken back. (Where there are several keys the guard does not believe such words.)
* `lies`: where calls go beside one of ten keys that turns every word round, and where all keys are honest.
* `replay`: what `bursar replay` says that other policies would have come to, against the hidden rates; what it refuses.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.commands.serve import free_port
from tests.bench.learning import ADEQUACY, KINDS, MODELS, RATES, wilson
from tests.bench.learning import requests as texts
from tests.conftest import ROOT
from tests.http.live import environment
from tests.redis_server import RedisServer
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, words

KEYS = tuple(f"key-{n}" for n in range(10))
SMALL = "house-small"
FALLEN = "writing"
FELL_TO = 0.45
LATE_SHARE, LATEST = 0.3, 60
"""Of the words, and calls that come in between at most."""
PAUSE_S = 0.02
"""Between two calls: a learner that was killed leads for ten seconds more, and meanwhile nothing is learned."""
MOST = 3_000
"""Calls after which what was waited for is taken not to come."""

POLICY = """\
version: 1
providers:
  up: {{base_url: "{url}"}}
models:
{models}
routes:
  auto: {{candidates: [{names}], adequacy: {adequacy}{explore}}}
keys:
{keys}
"""


def policy(url: str, *, names: tuple[str, ...] = tuple(MODELS), adequacy: float = ADEQUACY, explore: str = "") -> str:
    """A route over these models, for all keys."""
    models = "\n".join(
        f"  {model}: {{provider: up, tier: {tier}, pricing: {{input_per_1k: {given}, output_per_1k: {out}}}}}"
        for model, (tier, given, out) in MODELS.items()
    )
    keys = "\n".join(f"  - {{name: {key}, sha256: {hashlib.sha256(key.encode()).hexdigest()}}}" for key in KEYS)
    return POLICY.format(
        url=url, models=models, names=", ".join(names), adequacy=adequacy, explore=explore, keys=keys
    )  # fmt: skip


@dataclass
class House:
    """Gateways and learners as processes, one client, and what it has yet to say. `rate` is the hidden success of a
    model at a kind of work; `lies` turns words round, by the key that speaks."""

    env: dict[str, str]
    seed: int
    rate: Callable[[str, str], float]
    kinds: tuple[str, ...]
    lies: Callable[[str], bool] = lambda _: False
    gateways: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    learner: subprocess.Popen[bytes] | None = None
    calls: int = 0
    failed: int = 0
    keys: tuple[str, ...] = KEYS
    pause_s: float = PAUSE_S
    learner_log: Path | None = None
    waiting: list[tuple[int, str, dict[str, str]]] = field(default_factory=list)
    served: list[tuple[str, str, bool]] = field(default_factory=list)
    links: dict[int, http.client.HTTPConnection] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.asked = iter(texts(100_000, self.seed))

    def start(self, *arguments: str, log: Path | None = None) -> subprocess.Popen[bytes]:
        into = None if log is None else log.open("ab")
        return subprocess.Popen(
            [sys.executable, "-m", "app.cli", *arguments],
            env=self.env,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=into,
        )

    def serve(self, port: int = 0) -> int:
        port = port or free_port()
        self.gateways[port] = self.start("serve", "--port", str(port))
        return port

    def learn(self) -> None:
        self.learner = self.start("learn", "--every", "0.1", log=self.learner_log)

    def ready(self) -> None:
        end = time.monotonic() + 90
        for port in self.gateways:
            while True:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    if self.ask(port, "GET", "/readyz")[0] == 200:
                        break
                assert time.monotonic() < end
                time.sleep(0.1)

    def ask(self, port: int, method: str, path: str, body: object = None, key: str = KEYS[0]) -> tuple[int, Any, Any]:
        """Status, headers in lower case, and what came, JSON where it is."""
        link = self.links.get(port) or http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.links[port] = link
        headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
        try:
            link.request(method, path, None if body is None else json.dumps(body), headers)
            response = link.getresponse()
            raw = response.read()
        except (OSError, http.client.HTTPException):
            link.close()
            del self.links[port]
            raise
        named = {name.lower(): value for name, value in response.getheaders()}
        return response.status, named, json.loads(raw) if raw[:1] in b"{[" else raw.decode()

    def call(self) -> None:
        """One call to one of the gateways, and what is due to be said."""
        kind, text = next(one for one in self.asked if one[0] in self.kinds)
        key, ports = self.keys[self.calls % len(self.keys)], list(self.gateways)
        self.calls += 1
        asked = {"model": "auto", "messages": [{"role": "user", "content": text}], "max_tokens": 150}
        luck, late, delay = self.dice.random(), self.dice.random() < LATE_SHARE, self.dice.randrange(1, LATEST)
        try:
            status, headers, _ = self.ask(ports[self.calls % len(ports)], "POST", "/v1/chat/completions", asked, key)
        except (OSError, http.client.HTTPException):
            self.failed += 1
            return
        assert status == 200, headers
        model = headers["x-bursar-model"]
        good = luck < self.rate(model, kind)
        self.served.append((kind, model, good))
        said = {
            "request_id": headers["x-bursar-request-id"],
            "outcome": "success" if good != self.lies(key) else "failure", "source": "verifier",
        }  # fmt: skip
        self.waiting.append((self.calls + (delay if late else 0), key, said))
        self.speak()

    def speak(self, *, everything: bool = False) -> None:
        """Say what is due; what could not be said is said later."""
        due = [one for one in self.waiting if everything or one[0] <= self.calls]
        self.waiting = [one for one in self.waiting if one not in due]
        for when, key, said in due:
            ports = list(self.gateways)
            try:
                status, _, _ = self.ask(ports[when % len(ports)], "POST", "/v1/feedback", said, key)
            except (OSError, http.client.HTTPException):
                status = 0
            if status != 200:
                self.waiting.append((self.calls + 20, key, said))

    def until(self, done: Callable[[], bool], most: int = MOST, every: int = 10) -> int:
        """Calls until something is so; -1: it did not come to be."""
        for number in range(1, most + 1):
            self.call()
            time.sleep(self.pause_s)
            if number % every == 0 and done():
                return number
        return -1

    def metric(self, line: str) -> list[float]:
        """The value of a series at each gateway, 0 where there is none."""
        found = []
        for port in self.gateways:
            shown = self.ask(port, "GET", "/metrics")[2]
            values = (float(row.rpartition(" ")[2]) for row in shown.splitlines() if row.startswith(line))
            found.append(next(values, 0.0))
        return found

    def told(self, *arguments: str) -> Any:
        """What a command prints as JSON."""
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", *arguments, "--json"], env=self.env, cwd=ROOT, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        return json.loads(done.stdout) if done.stdout else done.stderr

    def kill(self, process: subprocess.Popen[bytes] | None) -> None:
        assert process is not None
        process.kill()
        process.wait()

    def stop(self) -> None:
        running = [one for one in (*self.gateways.values(), self.learner) if one is not None and one.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                self.kill(process)

    def share(self, since: int, kind: str) -> dict[str, float]:
        """Where calls of a kind went since, and how many succeeded."""
        mine = [(model, good) for what, model, good in self.served[since:] if what == kind]
        where = Counter(model for model, _ in mine)
        return {
            "calls": len(mine), "success": round(sum(good for _, good in mine) / max(len(mine), 1), 3),
            **{model: round(count / len(mine), 3) for model, count in where.items()},
        }  # fmt: skip


@contextlib.contextmanager
def house(seed: int, rate: Callable[[str, str], float], kinds: tuple[str, ...], **more: Any) -> Iterator[House]:
    """Two gateways and a learner on a Redis of their own."""
    explore = more.pop("explore", "")
    with (
        tempfile.TemporaryDirectory() as folder, RedisServer() as redis,
        ScriptedUpstream(Script.of(words("word " * 40))) as upstream,
    ):  # fmt: skip
        path = Path(folder) / "policy.yaml"
        path.write_text(policy(upstream.url, explore=explore))
        env = environment(
            BURSAR_REDIS_URL=redis.url, BURSAR_DATA_DIR=str(Path(folder) / "data"), BURSAR_POLICY=str(path),
            BURSAR_SNAPSHOT_LABELS="50", BURSAR_TRACES_COMPACT="false", BURSAR_LOG_LEVEL="warning",
        )  # fmt: skip
        made = House(env, seed, rate, kinds, learner_log=Path(folder) / "learner.log", **more)
        try:
            made.serve()
            made.serve()
            made.learn()
            made.ready()
            yield made
        finally:
            made.stop()


def hidden(model: str, kind: str) -> float:
    return RATES[model][KINDS.index(kind)]


def fall(seed: int) -> dict[str, Any]:
    """A model falls and recovers, with kills in between."""
    down = [False]

    def rate(model: str, kind: str) -> float:
        return FELL_TO if down[0] and (model, kind) == (SMALL, FALLEN) else hidden(model, kind)

    series = f'bursar_quarantine_drop{{cause="model",model="{SMALL}",task_type="{FALLEN}"}}'
    with house(seed, rate, (FALLEN, "translation")) as it:
        found: dict[str, Any] = {"to_first_snapshot": it.until(lambda: min(it.metric("bursar_router_snapshot ")) > 0)}
        it.until(lambda: False, 900)
        found["healthy"] = {kind: it.share(-600, kind) for kind in it.kinds}
        down[0], began = True, len(it.served)
        it.until(lambda: False, 30)
        it.kill(it.learner)
        it.until(lambda: False, 20)
        it.learn()
        port = next(iter(it.gateways))
        it.kill(it.gateways[port])
        it.until(lambda: False, 20)
        it.serve(port)
        it.ready()
        waited = it.until(lambda: min(it.metric(series)) > 0)
        found["calls_to_quarantine"] = waited if waited < 0 else waited + 70
        found["labels_of_the_cell"] = sum((k, m) == (FALLEN, SMALL) for k, m, _ in it.served[began:])
        found["while_it_was_not_known"] = it.share(began, FALLEN)
        found["quarantine"] = it.told("router", "quarantine")
        at = len(it.served)
        it.until(lambda: False, 400)
        it.kill(it.learner)
        it.learn()
        found["in_quarantine"] = {kind: it.share(at, kind) for kind in it.kinds}
        down[0] = False
        found["calls_to_recovery"] = it.until(lambda: max(it.metric(series)) == 0)
        at = len(it.served)
        it.until(lambda: False, 400)
        found["back"] = it.share(at, FALLEN)
        found["calls"], found["answered_by_none"] = it.calls, it.failed
    return found


def rollback(seed: int) -> dict[str, Any]:
    """A verifier was broken, and is mended."""
    broken = [False]
    with house(seed, hidden, (FALLEN, "translation"), lies=lambda _: broken[0]) as it:
        it.keys, it.pause_s = KEYS[:1], 0.06
        it.until(lambda: False, 120)
        it.kill(it.learner)
        before, broken[0] = it.metric("bursar_router_snapshot ")[0], True
        it.until(lambda: False, 190)
        it.speak(everything=True)
        broken[0], at = False, it.calls
        it.learn()
        it.until(lambda: it.metric("bursar_router_snapshot ")[0] > before, every=5)
        found: dict[str, Any] = {"calls_to_a_bad_snapshot": it.calls - at}

        def back() -> bool:
            told = it.told("router", "list")
            return any(one["status"] == "rolled_back" and one["number"] > before for one in told)

        found["calls_to_rollback"] = it.until(back, 400, every=20)
        it.until(lambda: False, 300)
        found["list"] = [
            {name: one[name] for name in ("number", "status", "labels", "why")} for one in it.told("router", "list")
        ]
        found["after"] = {kind: it.share(-300, kind) for kind in it.kinds}
        found["quarantine"] = it.told("router", "quarantine")
    return found


EXPLORE = ", explore: {share: 0.3, max_usd_per_day: 5}"


def lies(seed: int, calls: int = 1_500) -> dict[str, Any]:
    """The same calls with and without a liar: where they go in the end."""
    found: dict[str, Any] = {}
    for name, liar in (("honest", ""), ("one key of ten lies", KEYS[3])):
        with house(seed, hidden, KINDS, lies=lambda key, liar=liar: key == liar, explore=EXPLORE) as it:
            it.until(lambda: False, calls)
            it.speak(everything=True)
            at = len(it.served)
            it.until(lambda: False, 500)
            found[name] = {kind: it.share(at, kind) for kind in KINDS}
            good = sum(good for _, _, good in it.served[at:])
            found[name]["success"] = (good / 500, *wilson(good, 500))
    return found


def replayed(seed: int, calls: int = 1_500) -> dict[str, Any]:
    """What replay says of other policies, and what is true."""
    found: dict[str, Any] = {}
    with house(seed, hidden, KINDS, explore=EXPLORE) as it:
        it.until(lambda: False, calls)
        it.until(lambda: not it.waiting, 300)
        time.sleep(2.0)  # the last traces are on their way
        url = Path(it.env["BURSAR_POLICY"]).read_text().partition('base_url: "')[2].partition('"')[0]
        kinds = [kind for kind, _, _ in it.served]
        for name, names, adequacy in (
            ("always the cheapest", tuple(MODELS), 0.0),
            ("never the cheapest", ("house-mid", "house-large"), 0.0),
        ):
            path = Path(it.env["BURSAR_DATA_DIR"]) / "other.yaml"
            path.write_text(policy(url, names=names, adequacy=adequacy))
            told = it.told("replay", "--policy", str(path), "--since", "all")
            group = told["all"] if isinstance(told, dict) else {"refusal": told}
            truth = sum(hidden(names[0], kind) for kind in kinds) / len(kinds)
            found[name] = {"truth": round(truth, 4), "told": group}
    return found


PARTS = {"fall": fall, "rollback": rollback, "lies": lies, "replay": replayed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = {}
    for name in given.parts or PARTS:
        found[name] = PARTS[name](given.seed)
        print(f"SYNTHETIC success rates, seed {given.seed}: {name}\n{json.dumps(found[name], indent=1)}", flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
