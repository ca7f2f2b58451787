"""Workers tell each other what they have under way, while somebody watches."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import time
from pathlib import Path
from typing import Any

from app.http.dashboard import others as module
from app.http.dashboard.others import Others, Told
from tests.conftest import Served
from tests.http.live import SAY, contract
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Gate, Script, words


async def test_nothing_is_written_while_nobody_watches(tmp_path: Path) -> None:
    others = Others(tmp_path, lambda: Told(1, []))
    task = asyncio.get_running_loop().create_task(others.run())
    await asyncio.sleep(0.05)
    task.cancel()
    assert list(tmp_path.iterdir()) == []


async def test_the_other_workers_words_are_heard_and_old_ones_forgotten(tmp_path: Path) -> None:
    others = Others(tmp_path, lambda: Told(7, []))
    assert await others.heard() == []
    task = asyncio.get_running_loop().create_task(others.run())
    own = tmp_path / f"dashboard-calls-{os.getpid()}.json"
    while not own.exists():
        await asyncio.sleep(0.01)
    task.cancel()
    assert await others.heard() == [], "its own word is not another's"
    other, gone = tmp_path / "dashboard-calls-1.json", tmp_path / "dashboard-calls-2.json"
    for file, count in ((other, 3), (gone, 4)):
        file.write_bytes(b'{"count": %d, "calls": [{"age_s": 1.0}]}' % count)
    old = time.time() - module.FRESH_S - 1
    os.utime(gone, (old, old))
    (tmp_path / "dashboard-calls-3.json").write_bytes(b"{broken")
    assert await others.heard() == [Told(3, [{"age_s": 1.0}])]
    assert not gone.exists()


async def test_a_gateway_without_workers_writes_nothing() -> None:
    others = Others(None, lambda: Told(1, []))
    await asyncio.wait_for(others.run(), 1)
    assert await others.heard() == []


def test_a_page_shows_the_calls_of_all_workers(tmp_path: Path) -> None:
    gate = Gate()
    with ScriptedUpstream(Script.of(words("word " * 50), gate=gate)) as upstream:
        policy = tmp_path / "policy.yaml"
        policy.write_text(contract(upstream))
        served = Served("--policy", str(policy), "--workers", "2", cwd=tmp_path)
        streams = []
        try:
            host, port = served.address
            gate.release(20)  # too few for any of them to end
            for _ in range(8):
                streams.append(http.client.HTTPConnection(host, port, timeout=20))
                body = {"model": "small", "messages": SAY, "stream": True}
                streams[-1].request(
                    "POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"}
                )
            live = http.client.HTTPConnection(host, port, timeout=20)
            live.request("GET", "/dashboard/api/live")
            answer = live.getresponse()
            end = time.monotonic() + 20
            while True:
                moment = next_moment(answer)
                if (moment["workers"], moment["in_flight"], len(moment["calls"])) == (2, 8, 8):
                    break
                assert time.monotonic() < end, moment
            live.close()
        finally:
            gate.open()
            for stream in streams:
                stream.close()
            served.process.terminate()
            served.process.wait(20)


def next_moment(answer: http.client.HTTPResponse) -> dict[str, Any]:
    while not (line := answer.readline()).startswith(b"data: "):
        assert line, "the stream ended"
    found: dict[str, Any] = json.loads(line[6:])
    return found
