"""Workers of a gateway, and gateways under one ledger, learn of each other of a provider that fails."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.health import FAILURES_TO_OPEN, Circuit
from tests.gateway.live import Live, policy
from tests.gateway.live import until as until_so
from tests.http.live import Served, until
from tests.redis_server import RedisServer, shared_server
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, words


@pytest.fixture
def dead() -> Iterator[ScriptedUpstream]:
    """It says for how long, so that however slow the machine is, its circuit stays open."""
    with ScriptedUpstream(Script.failure(503, "down", headers={"retry-after": "100"})) as live:
        yield live


@pytest.fixture
def good() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(Script.of(words("Well."))) as live:
        yield live


def test_one_workers_failures_open_the_others_circuit(
    dead: ScriptedUpstream, good: ScriptedUpstream, tmp_path: Path
) -> None:
    spec = f"""
version: 1
providers: {{dead: {{base_url: "{dead.url}"}}, good: {{base_url: "{good.url}"}}}}
models: {{a: {{provider: dead, pricing: free}}, b: {{provider: good, pricing: free}}}}
routes: {{auto: {{candidates: [a], fallback: [b], retries: {{attempts: 0}}}}}}
"""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with Served(spec, tmp_path, workers=2, TMPDIR=temporary) as served:
        assert served.stream_on(0, "auto", {}).rest().text == "Well."
        assert len(dead.requests) == 1
        # Whoever has a circuit that is not closed says so; the second has it of the first alone.
        until(lambda: all("a" in word["open"] for word in told(temporary)) and len(told(temporary)) == 2)
        assert served.stream_on(1, "auto", {}).rest().text == "Well."
        assert len(dead.requests) == 1


def told(folder: Path) -> list[dict[str, dict[str, object]]]:
    return [json.loads(file.read_bytes()) for file in folder.rglob("circuits-*.json")]


def spec_of(dead: ScriptedUpstream, good: ScriptedUpstream) -> dict[str, object]:
    made = policy({"a": dead, "b": good})
    made["routes"] = {"auto": {"candidates": ["a"], "fallback": ["b"], "retries": {"attempts": 0}}}
    return made


async def test_gateways_that_share_a_ledger(dead: ScriptedUpstream, good: ScriptedUpstream, tmp_path: Path) -> None:
    url, namespace = shared_server().url, f"t{secrets.token_hex(6)}"
    spec, now = spec_of(dead, good), asyncio.get_running_loop().time
    for number in "123":
        (tmp_path / number).mkdir()
    async with (
        Live(tmp_path / "1", spec, url, namespace) as one,
        Live(tmp_path / "2", spec, url, namespace) as other,
        Live(tmp_path / "3", spec, url, f"{namespace}-else") as stranger,
    ):
        assert (await one.chat(model="auto")).status == 200
        await until_so(lambda: other.services.health.of("a").state(now()) is Circuit.OPEN)
        assert (await other.chat(model="auto")).status == 200
        assert len(dead.requests) == 1
        assert other.services.health.of("a").adopted
        assert stranger.services.health.of("a").state(now()) is Circuit.CLOSED
        # It works again, and where it opened the time has come to see whether it does: the other hears of that.
        dead.source = Script.of(words("Back."))
        one.services.health.of("a").open_until_s = one.services.health.of("a").hold_until_s = now()
        assert (await one.chat(model="auto", stream=True)).text == "Back."
        await until_so(lambda: other.services.health.of("a").state(now()) is Circuit.CLOSED)
        assert len(dead.requests) == 2


async def test_a_store_that_has_died_changes_nothing(
    dead: ScriptedUpstream, good: ScriptedUpstream, tmp_path: Path
) -> None:
    """But for what the policy says of a ledger that does not answer."""
    dead.source = Script.failure(500, "down")
    with RedisServer() as server:
        spec = spec_of(dead, good) | {"ledger": {"on_failure": "open", "open_allowance_usd": 1}}
        async with Live(tmp_path, spec, server.url, may_hold=True) as live:
            server.stop()
            for _ in range(FAILURES_TO_OPEN + 1):
                assert (await live.chat(model="auto")).status == 200
            assert len(dead.requests) == FAILURES_TO_OPEN
