"""The five agent programs, unmodified, through the gateway: a two-turn task, and every way in which money runs out.

`make test-agents` runs them. The model is scripted: a far gateway in front of it gives it each dialect, so that a
program meets an upstream of its own dialect, and of another, and what it is billed is known to the token.
`RECORD_AGENTS=1` writes down what they send (tests/agents/recorded), which the quick suite replays.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.agents import stage as scene
from tests.agents.programs import Ran, installed, run, run_by_command
from tests.agents.stage import NAMES, NATIVE, OUT_OF_BUDGET, PROMPT
from tests.agents.tape import Tape, keep
from tests.gateway.live import PRICE, Live
from tests.upstream import ScriptedUpstream

RECORDS = bool(os.environ.get("RECORD_AGENTS"))


@pytest.fixture(scope="session", autouse=True)
def _programs() -> None:
    installed()


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@dataclass
class Stage:
    """A gateway, the scripted model behind it, and a program."""

    name: str
    way: str
    live: Live
    tape: Tape
    upstream: ScriptedUpstream
    folder: Path
    dialect: str | None = None

    async def play(self, source: Any, task: str = "job") -> Ran:
        """Run the program on the task while the model says what `source` scripts."""
        self.upstream.source = source
        self.upstream.requests.clear()
        self.tape.clear()
        url = f"{self.live.url}/t/{task}"
        return await run(self.name, url, self.folder / task, PROMPT, dialect=self.dialect)

    def keep(self, scenario: str) -> None:
        """Write down what was sent, where that is wanted."""
        if RECORDS and self.way == "native":
            keep(self.name, scenario, self.tape, self.folder)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["native", "other"])
async def stage(
    request: pytest.FixtureRequest, name: str, upstream: ScriptedUpstream, tmp_path: Path
) -> AsyncIterator[Stage]:
    way = str(request.param)
    dialect = NATIVE[name] if way == "native" else scene.other_than(NATIVE[name])
    tape = Tape()
    async with scene.gateways(upstream, dialect, tmp_path, tape.before) as live:
        yield Stage(name, way, live, tape, upstream, tmp_path)


@pytest.fixture(params=["openai_responses", "anthropic", "gemini"])
async def pi(request: pytest.FixtureRequest, upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[Stage]:
    """pi in the dialects that are not its own, on an upstream of the same."""
    dialect, tape = str(request.param), Tape()
    async with scene.gateways(upstream, dialect, tmp_path, tape.before) as live:
        yield Stage("pi", dialect, live, tape, upstream, tmp_path, dialect)


async def test_a_task_of_two_turns(stage: Stage) -> None:
    await makes_the_file(stage)
    stage.keep("two_turns")


async def test_pi_works_in_every_dialect(pi: Stage) -> None:
    await makes_the_file(pi)


async def makes_the_file(stage: Stage) -> None:
    ran = await stage.play(scene.works(stage.name))
    assert ran.code == 0, ran.shown
    assert (ran.folder / "made.txt").read_text().strip() == "hello", ran.shown
    assert "all done" in ran.shown
    task = await stage.live.client.task("job")
    assert task["calls"] == len(stage.upstream.requests)
    assert round(task["spent_usd"] * 10**9) == stage.upstream.bill(PRICE)


async def ended_for_money(stage: Stage, ran: Ran, asked: int) -> None:
    """No further call was made upstream, the program left by itself and showed why, nothing half was executed."""
    assert len(stage.upstream.requests) <= asked, [r.body["messages"][-1] for r in stage.upstream.requests]
    assert not (ran.folder / "made.txt").exists()
    assert OUT_OF_BUDGET in ran.shown.lower(), ran.shown
    if stage.name != "pi":
        assert ran.code != 0, ran.shown


WHERE = pytest.mark.parametrize("where", ["text", "tool", "second"])


@WHERE
async def test_a_cut_in_the_middle(stage: Stage, where: str) -> None:
    await is_cut(stage, where)
    if where != "second":
        stage.keep(f"cut_in_{where}")


@WHERE
async def test_pi_is_cut_in_every_dialect(pi: Stage, where: str) -> None:
    await is_cut(pi, where)


async def is_cut(stage: Stage, where: str) -> None:
    await stage.play(scene.works(stage.name), task="measure")
    first = scene.first_turn_usd(stage.name, stage.upstream, PRICE)
    measured = len(stage.upstream.requests)
    # The estimate of the input leans high: with less than this the call would be denied, not cut.
    await scene.cap(stage.live, 2.2 * first + 0.0006)
    ran = await stage.play(scene.endless(stage.name, where))
    await ended_for_money(stage, ran, measured)
    task = await stage.live.client.task("job")
    assert task["cost_killed_at_usd"] is not None


async def test_a_denial_before_the_call(stage: Stage) -> None:
    await is_denied(stage)
    stage.keep("denied")


async def test_pi_is_denied_in_every_dialect(pi: Stage) -> None:
    await is_denied(pi)


async def is_denied(stage: Stage) -> None:
    await scene.cap(stage.live, 0.000001)
    ran = await stage.play(scene.works(stage.name))
    await ended_for_money(stage, ran, 0)


NOBODY = "http://127.0.0.1:9"
PROXIES = {"http_proxy": NOBODY, "HTTP_PROXY": NOBODY, "HTTPS_PROXY": NOBODY}
BEDROCK = {"CLAUDE_CODE_USE_BEDROCK": "1", "AWS_REGION": "us-east-1", "ANTHROPIC_BEDROCK_BASE_URL": NOBODY}
VERTEX = {"GOOGLE_GENAI_USE_VERTEXAI": "true", "GOOGLE_CLOUD_PROJECT": "p", "GOOGLE_CLOUD_LOCATION": "us-central1"}
LEADING_PAST: dict[str, tuple[dict[str, str], str, dict[str, Any]]] = {
    "claude": (BEDROCK | {"ANTHROPIC_AUTH_TOKEN": "x"}, "home/.claude/settings.json",
               {"env": BEDROCK | {"ANTHROPIC_BASE_URL": NOBODY}}),
    "gemini": (VERTEX | {"GOOGLE_API_KEY": "x"}, "home/.gemini/settings.json",
               {"security": {"auth": {"selectedType": "vertex-ai"}}}),
    "opencode": ({}, "work/opencode.json", {"model": "anthropic/claude-sonnet-4-5"}),
}  # fmt: skip
"""What people have set up for themselves, in the environment and in files."""


async def test_nothing_that_is_set_up_already_leads_past_the_gateway(
    name: str, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """No cap binds a program that asks elsewhere."""
    more, path, settings = LEADING_PAST.get(name, ({}, "work/none.json", {}))
    folder = tmp_path / "job"
    (folder / path).parent.mkdir(parents=True)
    (folder / path).write_text(json.dumps(settings))
    upstream.source = scene.works(name)
    upstream.requests.clear()
    async with scene.gateways(upstream, NATIVE[name], tmp_path) as live:
        ran = await run(name, f"{live.url}/t/job", folder, PROMPT, more={**PROXIES, **more})
        assert (ran.folder / "made.txt").exists(), ran.shown
        assert (await live.client.task("job"))["calls"] == len(upstream.requests) >= 2


HARNESSES = {"claude": "claude-code", "gemini": "gemini-cli"}


async def test_each_by_bursar_run(name: str, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.source = scene.works(name)
    upstream.requests.clear()
    async with scene.gateways(upstream, NATIVE[name], tmp_path) as live:
        ran = await run_by_command(name, live.url, tmp_path / "job", PROMPT, task="job", cap_usd=1)
        assert ran.code == 0, ran.shown
        assert (ran.folder / "made.txt").exists(), ran.shown
        task = await live.client.task("job")
        assert task["limits"]["max_cost_usd"]["binding"] == 1
        assert task["speed"]["harness"] == HARNESSES.get(name, name)
        assert f"spent   ${upstream.bill(PRICE) / 10**9:.6f} of $1.000000" in ran.err
        denied = await run_by_command(name, live.url, tmp_path / "poor", PROMPT, task="poor", cap_usd=0.000001)
        assert OUT_OF_BUDGET in denied.shown.lower(), denied.shown
        assert not (denied.folder / "made.txt").exists()


@pytest.mark.parametrize("dialect", ["anthropic", "openai_chat"])
async def test_claude_code_gives_up_its_threads(upstream: ScriptedUpstream, tmp_path: Path, dialect: str) -> None:
    """Its maker switches them on for some accounts and models: then it sends only what is new of a conversation."""
    upstream.source = scene.works("claude")
    upstream.requests.clear()
    tape = Tape()
    async with scene.gateways(upstream, dialect, tmp_path, tape.before) as live:
        ran = await run("claude", f"{live.url}/t/job", tmp_path, PROMPT, more={"CLAUDE_CODE_TETHER_LIVE": "true"})
        assert ran.code == 0, ran.shown
        assert (ran.folder / "made.txt").read_text().strip() == "hello", ran.shown
        asked = [json.loads(one.body) for one in tape.exchanges if one.path.endswith("/messages")]
        assert [body["thread"] for body in asked if "thread" in body], "it would have used one"
        assert (await live.client.task("job"))["calls"] == len(upstream.requests) >= 2
