"""The five agent programs, unmodified, through the gateway: a two-turn task, and every way in which money runs out.

`make test-agents` runs them. The model is scripted: a far gateway in front of it gives it each dialect, so that a
program meets an upstream of its own dialect, and of another, and what it is billed is known to the token.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.agents.programs import NAMES, NATIVE, Ran, call_of, installed, run
from tests.gateway.live import PRICE, Live, policy
from tests.upstream import ScriptedUpstream
from tests.upstream_reply import Received
from tests.upstream_script import Delta, Piece, Script, text, tool, words

PATHS = {"openai_chat": "/v1", "openai_responses": "/v1", "anthropic": "/v1", "gemini": "/v1beta"}
PROMPT = "Make a file made.txt that says hello, then say that you are done."
MAKE = "echo hello > made.txt"
OUT_OF_BUDGET = "out of budget"
ENDLESS = 15_000
"""Tokens: more than any cap here pays for."""


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
    live: Live
    upstream: ScriptedUpstream
    folder: Path

    async def play(self, source: Any, task: str = "job") -> Ran:
        """Run the program on the task while the model says what `source` scripts."""
        self.upstream.source = source
        self.upstream.requests.clear()
        return await run(self.name, f"{self.live.url}/t/{task}", self.folder / task, PROMPT)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def other_than(dialect: str) -> str:
    """An upstream's dialect that is not the program's own."""
    return "anthropic" if dialect != "anthropic" else "openai_chat"


@pytest.fixture(params=["native", "other"])
async def stage(
    request: pytest.FixtureRequest, name: str, upstream: ScriptedUpstream, tmp_path: Path
) -> AsyncIterator[Stage]:
    dialect = NATIVE[name] if request.param == "native" else other_than(NATIVE[name])
    for part in ("far", "near"):
        (tmp_path / part).mkdir()
    async with Live(tmp_path / "far", policy({"m": upstream})) as far:
        near = policy(
            {"m": far.url},
            providers={"m": {"dialect": dialect, "base_url": far.url + PATHS[dialect]}},
            models={"m": {"upstream_model": "m"}},
            unknown_model="auto",
        )
        async with Live(tmp_path / "near", near) as live:
            yield Stage(name, live, upstream, tmp_path)


def offers(received: Received, wanted: str) -> str | None:
    """How this request offers a tool: function or custom; None where it does not (a title, a router's question)."""
    for offered in received.body.get("tools", ()):
        if offered.get(offered["type"], {}).get("name") == wanted:
            return str(offered["type"])
    return None


def calls(received: Received, name: str, parts: int = 3) -> list[Piece]:
    """The model calls the program's tool, its arguments in several pieces."""
    call = call_of(name, MAKE)
    kind = offers(received, call.tool)
    assert kind is not None
    said = call.arguments if kind == "custom" or not call.custom else json.dumps({"input": call.arguments})
    size = -(-len(said) // parts)
    pieces = [said[start : start + size] for start in range(0, len(said), size)]
    if kind == "custom":
        opening = {"index": 0, "id": "call_1", "type": "custom", "custom": {"name": call.tool, "input": ""}}
        more = [{"index": 0, "custom": {"input": piece}} for piece in pieces]
        return [Delta({"tool_calls": [delta]}) for delta in (opening, *more)]
    return [tool(id="call_1", name=call.tool), *(tool(piece) for piece in pieces)]


def has_result(received: Received) -> bool:
    """The conversation holds what came of the call."""
    return any(message["role"] == "tool" for message in received.body["messages"])


def works(name: str) -> Any:
    """The model makes the file by a tool call, and then says that it is done."""

    def answer(received: Received) -> Script:
        if offers(received, call_of(name, MAKE).tool) is None:
            return Script.of(words("A title"))
        if has_result(received):
            return Script.of(words("The file is made, all done."))
        return Script.of(text("I make it. "), calls(received, name))

    return answer


async def test_a_task_of_two_turns(stage: Stage) -> None:
    ran = await stage.play(works(stage.name))
    assert ran.code == 0, ran.shown
    assert (ran.folder / "made.txt").read_text().strip() == "hello", ran.shown
    assert "all done" in ran.shown
    task = await stage.live.client.task("job")
    assert task["calls"] == len(stage.upstream.requests)
    assert round(task["spent_usd"] * 10**9) == stage.upstream.bill(PRICE)


async def cap(stage: Stage, usd: float, task: str = "job") -> None:
    """Set the task's cap, as `bursar run --cap` does."""
    async with stage.live.client.session.patch(
        f"{stage.live.url}/v1/tasks/{task}", json={"max_cost_usd": usd}
    ) as answer:
        assert answer.status == 200, await answer.text()


async def ended_for_money(stage: Stage, ran: Ran, asked: int) -> None:
    """No further call was made upstream, the program left by itself and showed why, nothing half was executed."""
    assert len(stage.upstream.requests) <= asked, [r.body["messages"][-1] for r in stage.upstream.requests]
    assert not (ran.folder / "made.txt").exists()
    assert OUT_OF_BUDGET in ran.shown.lower(), ran.shown
    if stage.name != "pi":
        assert ran.code != 0, ran.shown


async def spent_of_first_turn(stage: Stage) -> float:
    """What the input of the first turn costs, in dollars, measured by a run of its own."""
    await stage.play(works(stage.name), task="measure")
    asked = next(r for r in stage.upstream.requests if offers(r, call_of(stage.name, MAKE).tool))
    before = [r for r in stage.upstream.requests if r.index < asked.index]
    bill = sum(r.tokens.bill(PRICE) for r in before) + asked.tokens.input * 1_000
    return bill / 10**9


@pytest.mark.parametrize("where", ["text", "tool"])
async def test_a_cut_in_the_middle(stage: Stage, where: str) -> None:
    first = await spent_of_first_turn(stage)
    measured = len(stage.upstream.requests)
    # The estimate of the input leans high: with less than this the call would be denied, not cut.
    await cap(stage, 2.2 * first + 0.0006)

    def endless(received: Received) -> Script:
        if offers(received, call_of(stage.name, MAKE).tool) is None:
            return Script.of(words("A title"))
        if where == "text":
            return Script.of(
                words(" ".join(map(str, range(ENDLESS)))), delay_s=0.0001
            )  # gemini-cli stops at repetition
        pieces = calls(received, stage.name, parts=2)
        filler = [_filler(pieces[0]) for _ in range(ENDLESS)]
        return Script.of(pieces[:2], filler, pieces[2:], delay_s=0.0001)

    ran = await stage.play(endless)
    await ended_for_money(stage, ran, measured)
    task = await stage.live.client.task("job")
    assert task["cost_killed_at_usd"] is not None


def _filler(opening: Piece) -> Piece:
    """Another space inside of a call's arguments."""
    assert isinstance(opening, Delta)
    custom = opening.delta["tool_calls"][0]["type"] == "custom"
    return Delta({"tool_calls": [{"index": 0, "custom": {"input": " "}}]}) if custom else tool(" ")


async def test_a_denial_before_the_call(stage: Stage) -> None:
    await cap(stage, 0.000001)
    ran = await stage.play(works(stage.name))
    await ended_for_money(stage, ran, 0)
