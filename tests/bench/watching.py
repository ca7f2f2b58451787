"""`python -m tests.bench.watching`: what one moment of the dashboard's "Now" costs a gateway, and one viewer of it.

Streams that say nothing are held open through `bursar serve` (one worker), and so many viewers read
`/dashboard/api/live`. CPU is user + system time of the gateway's process alone, all its threads (from /proc, in
nanoseconds). A moment is what one viewer adds to nobody watching; a viewer, what each of the others adds to one. On
Redis a second gateway holds as many streams, so that its word is read too. What a gateway's look at Redis costs, once
a second while nobody watches, is measured apart, in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.stores.words_redis import RedisWords
from tests.bench.machine import PROC
from tests.http.live import SAY, Served, contract
from tests.redis_server import shared_server
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Gate, Script, words

US = 1e6
ASK = json.dumps({"model": "small", "messages": SAY, "stream": True})
LOOKS = 2_000
QUIET: dict[str, Any] = {"learn": False, "traces_compact": False, "log_level": "error"}


def cpu_s(pid: int) -> float:
    """User and system time of all threads that a process has."""
    return sum(int(file.read_text().split()[0]) for file in PROC.glob(f"{pid}/task/*/schedstat")) / 1e9


@contextlib.contextmanager
def watching(gateway: Served, viewers: int) -> Iterator[list[http.client.HTTPResponse]]:
    """So many read the moments; each has had its first. Nothing reads on: a moment fits into a socket's buffer."""
    connections, answers = [gateway.connect() for _ in range(viewers)], []
    for connection in connections:
        connection.request("GET", "/dashboard/api/live")
        answers.append(connection.getresponse())
        next_moment(answers[-1])
    yield answers
    for connection in connections:
        connection.close()


def next_moment(answer: http.client.HTTPResponse) -> bytes:
    """The data of the next moment."""
    while not (line := answer.readline()).startswith(b"data: "):
        assert line, "the stream ended"
    return line


def rate(gateway: Served, viewers: int, seconds: float) -> tuple[float, int]:
    """CPU seconds per second while so many watch, and the bytes of a moment."""
    with watching(gateway, viewers) as answers:
        size = 0
        began, used = time.perf_counter(), cpu_s(gateway.process.pid)
        while (took := time.perf_counter() - began) < seconds:
            for answer in answers:
                size = len(next_moment(answer))
            if not answers:
                time.sleep(seconds - took)
        return (cpu_s(gateway.process.pid) - used) / took, size


def measure(gateway: Served, viewers: int, seconds: float, reps: int) -> str:
    """One line: medians of the differences, in turns; a moment comes once a second."""
    moments, each, size = [], [], 0
    for _ in range(reps):
        nobody, _ = rate(gateway, 0, seconds)
        one, size = rate(gateway, 1, seconds)
        many, _ = rate(gateway, viewers, seconds)
        moments.append((one - nobody) * US)
        each.append((many - one) / (viewers - 1) * US)
    low, high = min(moments), max(moments)
    return (
        f"a moment {statistics.median(moments):,.0f} us ({low:,.0f} to {high:,.0f}), "
        f"each further viewer {statistics.median(each):,.0f} us, {size / 1000:,.1f} kB"
    )


async def look_us(url: str) -> float:
    """CPU of one look at Redis while nobody watches, the client's side."""
    words_ = RedisWords(url, namespace="looks")
    await words_.watched()
    began = time.process_time()
    for _ in range(LOOKS):
        await words_.watched()
    used = time.process_time() - began
    await words_.close()
    return used / LOOKS * US


def hold(gateway: Served, streams: int) -> list[http.client.HTTPConnection]:
    """So many streams under way; their upstream says nothing."""
    connections = [gateway.connect() for _ in range(streams)]
    for number, connection in enumerate(connections):
        headers = {"content-type": "application/json", "x-bursar-task-id": f"t{number}"}
        connection.request("POST", "/v1/chat/completions", ASK, headers)
    return connections


def warm(gateway: Served, all_calls: int) -> None:
    """Everything that is made once is made, and every call has come."""
    with watching(gateway, 1) as (answer,):
        while json.loads(next_moment(answer)[6:])["in_flight"] != all_calls:
            pass


def run(store: str, streams: int, chosen: argparse.Namespace) -> None:
    """One setting, measured and printed."""
    shared: dict[str, Any] = {}
    if store == "redis":
        shared = {"redis_url": shared_server().url, "redis_namespace": f"w{streams}"}
    script = Script.of(words("word"), gate=Gate())
    with (
        tempfile.TemporaryDirectory() as folder,
        ScriptedUpstream(script) as upstream,
        contextlib.ExitStack() as running,
    ):
        gateways = []
        for number in range(2 if store == "redis" else 1):
            home = Path(folder) / str(number)
            home.mkdir()
            gateways.append(running.enter_context(Served(contract(upstream), home, **QUIET, **shared)))
        calls = [call for gateway in gateways for call in hold(gateway, streams)]
        warm(gateways[0], len(calls))
        told = measure(gateways[0], chosen.viewers, chosen.seconds, chosen.reps)
        print(f"{store}, {len(gateways)} gateway(s), {streams} streams on each: {told}", flush=True)
        for call in calls:
            call.close()


def main() -> None:
    """Measure all settings."""
    asked = argparse.ArgumentParser(prog="python -m tests.bench.watching", description=__doc__)
    asked.add_argument("--viewers", type=int, default=16)
    asked.add_argument("--seconds", type=float, default=10.0, help="of each of the three states of a round")
    asked.add_argument("--reps", type=int, default=5)
    asked.add_argument("--streams", type=int, nargs="*", default=[0, 100])
    chosen = asked.parse_args()
    for store in ("sqlite", "redis"):
        for streams in chosen.streams:
            run(store, streams, chosen)
    print(f"one look at Redis while nobody watches: {asyncio.run(look_us(shared_server().url)):,.0f} us")


if __name__ == "__main__":
    main()
