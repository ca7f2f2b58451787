"""Processes tell each other what they have under way, while somebody watches: a gateway's workers, and gateways."""

from __future__ import annotations

import asyncio
import http.client
import json
import secrets
import time
from pathlib import Path
from typing import Any

import msgspec

from app.http.dashboard.now import gateways, host_and_port, this_gateway, worst
from app.http.dashboard.others import Others, Told
from tests.conftest import Served
from tests.http import live
from tests.http.live import SAY, LiveGateway, Streaming, contract
from tests.redis_server import shared_server
from tests.upstream import PATIENCE_S, ScriptedUpstream
from tests.upstream_script import Gate, Script, Wait, text


class Store:
    """Words of others, and what this one told."""

    def __init__(self, *heard: bytes, watched: bool = True) -> None:
        self._heard = list(heard)
        self._watched = watched
        self.told: asyncio.Queue[bytes] = asyncio.Queue()
        self.asked = 0
        self.closed = False

    async def watched(self) -> bool:
        self.asked += 1
        return self._watched

    async def tell(self, word: bytes) -> None:
        self.told.put_nowait(word)

    async def heard(self, *, watching: bool = True) -> list[bytes]:
        return self._heard

    async def close(self) -> None:
        self.closed = True


WORD = Told("g1", "one:8080", False, 7, [{"age_s": 1.0}], [])


async def test_nothing_is_told_while_nobody_watches() -> None:
    store = Store(watched=False)
    made = []
    task = asyncio.get_running_loop().create_task(Others(store, lambda: made.append(1) or WORD).run())  # type: ignore[func-returns-value]
    async with asyncio.timeout(PATIENCE_S):
        while not store.asked:
            await asyncio.sleep(0)
    task.cancel()
    assert (store.told.qsize(), made) == (0, [])


async def test_who_is_watched_tells_and_what_cannot_be_read_is_left_out() -> None:
    store = Store(msgspec.json.encode(WORD), b"{broken", b'{"count": 3, "calls": []}')
    others = Others(store, lambda: WORD)
    task = asyncio.get_running_loop().create_task(others.run())
    assert msgspec.json.decode(await asyncio.wait_for(store.told.get(), PATIENCE_S), type=Told) == WORD
    task.cancel()
    assert await others.heard() == [WORD]
    await others.close()
    assert store.closed


async def test_a_process_alone_has_nobody_to_tell() -> None:
    others = Others(None, lambda: WORD)
    await asyncio.wait_for(others.run(), 1)
    assert await others.heard() == []
    await others.close()


def test_gateways_are_the_sums_of_their_workers() -> None:
    told = [
        Told("b", "two:8080", False, 1, [], []),
        Told("a", "one:8080", False, 2, [], []),
        Told("a", "one:8080", True, 3, [], []),
    ]
    assert gateways(told) == [
        {"id": "a", "name": "one:8080", "workers": 2, "in_flight": 5, "draining": True},
        {"id": "b", "name": "two:8080", "workers": 1, "in_flight": 1, "draining": False},
    ]


def test_a_gateway_is_told_apart_by_what_its_workers_share(tmp_path: Path) -> None:
    assert this_gateway(8080, tmp_path) == this_gateway(8080, tmp_path)
    alone = this_gateway(8080, None)
    assert alone != this_gateway(8080, None)
    assert alone.name.endswith(":8080")
    assert not this_gateway(0, None).name.endswith(":0")


def circuit(model: str, state: str, again_s: float | None = None) -> dict[str, Any]:
    return {"model": model, "provider": "p", "state": state, "failures": 3, "again_s": again_s}


def test_a_circuit_is_shown_as_where_it_is_worst() -> None:
    own = [circuit("a", "closed"), circuit("b", "half_open"), circuit("c", "closed")]
    told = [
        Told("g1", "one", False, 0, [], [own[1]]),
        Told("g2", "two", False, 0, [], [circuit("b", "open", 4.0), circuit("unknown here", "open", 1.0)]),
        Told("g3", "three", False, 0, [], [circuit("b", "open", 9.0), circuit("c", "half_open")]),
    ]
    shown = {one["model"]: (one["state"], one["again_s"], one["processes"]) for one in worst(own, told)}
    assert shown == {"a": ("closed", None, 0), "b": ("open", 9.0, 3), "c": ("half_open", None, 1)}
    assert [one["model"] for one in worst(own, told)] == ["b", "c", "a"]
    assert own[1]["state"] == "half_open", "what it was made of has changed"


def held_at(gate: Gate) -> Script:
    """Each stream begins at once, and goes on when the gate is open."""
    return Script.of([text("word"), Wait(gate), text(" and an end")])


def test_a_page_shows_the_calls_of_all_workers(tmp_path: Path) -> None:
    gate = Gate()
    with ScriptedUpstream(held_at(gate)) as upstream:
        policy = tmp_path / "policy.yaml"
        policy.write_text(contract(upstream))
        served = Served("--policy", str(policy), "--workers", "2", cwd=tmp_path)
        streams = []
        try:
            host, port = served.address
            for _ in range(8):
                streams.append(http.client.HTTPConnection(host, port, timeout=20))
                body = {"model": "small", "messages": SAY, "stream": True}
                streams[-1].request(
                    "POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"}
                )
            moment = awaited(host, port, (2, 8, 8))
            (gateway,) = moment["gateways"]
            assert (gateway["workers"], gateway["in_flight"]) == (2, 8)
        finally:
            gate.open()
            for stream in streams:
                stream.close()
            served.process.terminate()
            served.process.wait(PATIENCE_S)


def test_a_page_shows_the_calls_of_all_gateways_that_share_redis(tmp_path: Path) -> None:
    """Two gateways, the second with two workers: whoever is asked shows the calls of all three processes."""
    shared: dict[str, Any] = {"redis_url": shared_server().url, "redis_namespace": f"t{secrets.token_hex(6)}"}
    gate = Gate()
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    with ScriptedUpstream(held_at(gate)) as upstream:
        policy = contract(upstream)
        with (
            live.Served(policy, folders[0], **shared) as first,
            live.Served(policy, folders[1], workers=2, **shared) as second,
        ):
            streams: list[Streaming] = []
            try:
                asked_of = [first] * 3 + [second] * 4
                streams += [one.stream("small", {"x-bursar-task-id": f"at {one.port}"}) for one in asked_of]
                for asked in (first, second):
                    moment = awaited("127.0.0.1", asked.port, (3, 7, 7))
                    shown = {(host_and_port(one.port), f"at {one.port}"): n for one, n in ((first, 3), (second, 4))}
                    found: dict[tuple[str, str], int] = {}
                    for call in moment["calls"]:
                        found[call["gateway"], call["task_id"]] = found.get((call["gateway"], call["task_id"]), 0) + 1
                    assert found == shown
                    sums = {one["name"]: (one["workers"], one["in_flight"]) for one in moment["gateways"]}
                    assert sums == {host_and_port(first.port): (1, 3), host_and_port(second.port): (2, 4)}
            finally:
                gate.open()
                for stream in streams:
                    stream.rest()


def test_a_circuit_that_another_gateway_opened_is_seen_here(tmp_path: Path) -> None:
    shared = {"redis_url": shared_server().url, "redis_namespace": f"t{secrets.token_hex(6)}"}
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    with (
        ScriptedUpstream(Script(status=500)) as broken,
        LiveGateway(contract(broken), folders[0], **shared) as first,
        LiveGateway(contract(broken), folders[1], **shared) as second,
    ):
        for _ in range(3):
            assert first.chat().status >= 500
        connection = http.client.HTTPConnection("127.0.0.1", second.port, timeout=20)
        connection.request("GET", "/dashboard/api/live")
        answer = connection.getresponse()
        end = time.monotonic() + 20
        while (small := next(c for c in next_moment(answer)["circuits"] if c["model"] == "small"))["state"] == "closed":
            assert time.monotonic() < end, small
        assert small["processes"] in (1, 2)  # the second has heard of it, or is about to
        connection.close()


def awaited(host: str, port: int, told: tuple[int, int, int]) -> dict[str, Any]:
    """A moment with so many workers, calls, and calls shown."""
    connection = http.client.HTTPConnection(host, port, timeout=20)
    connection.request("GET", "/dashboard/api/live")
    answer = connection.getresponse()
    end = time.monotonic() + 20
    while True:
        moment = next_moment(answer)
        if (moment["workers"], moment["in_flight"], len(moment["calls"])) == told:
            connection.close()
            return moment
        assert time.monotonic() < end, moment


def next_moment(answer: http.client.HTTPResponse) -> dict[str, Any]:
    while not (line := answer.readline()).startswith(b"data: "):
        assert line, "the stream ended"
    found: dict[str, Any] = json.loads(line[6:])
    return found
