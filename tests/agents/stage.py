"""What a program meets: a scripted model that gives it its own tool call, behind a far gateway for each dialect.

The programs' tests and the replays of what they sent share this, so that both see the same endings.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from tests.gateway.live import Live, policy
from tests.upstream import ScriptedUpstream
from tests.upstream_reply import Received
from tests.upstream_script import Delta, Piece, Script, text, tool, words

PATHS = {"openai_chat": "/v1", "openai_responses": "/v1", "anthropic": "/v1", "gemini": "/v1beta"}
NAMES = ("claude", "codex", "gemini", "opencode", "pi")
NATIVE = {
    "claude": "anthropic",
    "codex": "openai_responses",
    "gemini": "gemini",
    "opencode": "openai_chat",
    "pi": "openai_chat",
}
"""The dialect that each speaks."""
PROMPT = "Make a file made.txt that says hello, then say that you are done."
MAKE = "echo hello > made.txt"
FIRST = "echo first > first.txt"
OUT_OF_BUDGET = "out of budget"
ENDLESS = 15_000
"""Tokens: more than any cap here pays for."""
Answers = Callable[[Received], Script]


def other_than(dialect: str) -> str:
    """An upstream's dialect that is not the program's own."""
    return "anthropic" if dialect != "anthropic" else "openai_chat"


@contextlib.asynccontextmanager
async def gateways(
    upstream: ScriptedUpstream, dialect: str, folder: Path, through: Callable[[Any], Any] | None = None
) -> AsyncIterator[Live]:
    """A gateway whose one model is asked in `dialect`; `through` may stand between it and its clients."""
    for part in ("far", "near"):
        (folder / part).mkdir()
    async with Live(folder / "far", policy({"m": upstream})) as far:
        near = policy(
            {"m": far.url},
            providers={"m": {"dialect": dialect, "base_url": far.url + PATHS[dialect]}},
            models={"m": {"upstream_model": "m"}},
            unknown_model="auto",
        )
        async with Live(folder / "near", near, through=through) as live:
            yield live


def call_of(name: str, command: str) -> tuple[str, str]:
    """The tool by which this program runs a shell command, and its arguments; codex takes JavaScript."""
    if name == "codex":
        return "exec", f"const r = await tools.exec_command({{cmd: {json.dumps(command)}}}); text(r);"
    made = {"claude": "Bash", "gemini": "run_shell_command"}.get(name, "bash")
    said = {"description": "make a file"} if name != "pi" else {}
    return made, json.dumps({"command": command, **said})


def offers(received: Received, wanted: str) -> str | None:
    """How this request offers a tool: function or custom; None where it does not (a title, a router's question)."""
    for offered in received.body.get("tools", ()):
        if offered.get(offered["type"], {}).get("name") == wanted:
            return str(offered["type"])
    return None


def calls(received: Received, name: str, parts: int = 3, command: str = MAKE, index: int = 0) -> list[Piece]:
    """The model calls the program's tool, its arguments in several pieces; `index`: which of its calls this is."""
    wanted, arguments = call_of(name, command)
    kind = offers(received, wanted)
    assert kind is not None
    said = json.dumps({"input": arguments}) if kind == "function" and name == "codex" else arguments
    size, id_ = -(-len(said) // parts), f"call_{index + 1}"
    pieces = [said[start : start + size] for start in range(0, len(said), size)]
    if kind == "custom":
        opening = {"index": index, "id": id_, "type": "custom", "custom": {"name": wanted, "input": ""}}
        more = [{"index": index, "custom": {"input": piece}} for piece in pieces]
        return [Delta({"tool_calls": [delta]}) for delta in (opening, *more)]
    return [tool(id=id_, name=wanted, index=index), *(tool(piece, index=index) for piece in pieces)]


def works(name: str) -> Answers:
    """The model makes the file by a tool call, and then says that it is done."""

    def answer(received: Received) -> Script:
        if offers(received, call_of(name, MAKE)[0]) is None:
            return Script.of(words("A title"))
        if any(message["role"] == "tool" for message in received.body["messages"]):
            return Script.of(words("The file is made, all done."))
        return Script.of(text("I make it. "), calls(received, name))

    return answer


def endless(name: str, where: str, *, span: int = 1, delay_s: float = 0.0001) -> Answers:
    """The model goes on and on: in its text, or inside of the arguments of a call, be it the only one or the second;
    `span` tokens to an event."""

    def answer(received: Received) -> Script:
        if offers(received, call_of(name, MAKE)[0]) is None:
            return Script.of(words("A title"))
        if where == "text":
            # Numbers, for gemini-cli stops at repetition.
            said = [" ".join(map(str, range(start, start + span))) + " " for start in range(0, ENDLESS, span)]
            return Script.of([text(piece, tokens=span) for piece in said], delay_s=delay_s, obeys_limit=False)
        first = calls(received, name, command=FIRST) if where == "second" else []
        pieces = calls(received, name, parts=2, index=min(len(first), 1))
        filler = [_filler(pieces[0], span)] * (ENDLESS // span)
        return Script.of(first, pieces[:2], filler, pieces[2:], delay_s=delay_s, obeys_limit=False)

    return answer


def _filler(opening: Piece, span: int) -> Piece:
    """More space inside of a call's arguments."""
    assert isinstance(opening, Delta)
    (call,) = opening.delta["tool_calls"]
    if call["type"] == "custom":
        return Delta({"tool_calls": [{"index": call["index"], "custom": {"input": " \n" * span}}]}, span)
    return tool(" \n" * span, tokens=span, index=call["index"])


def first_turn_usd(name: str, upstream: ScriptedUpstream, price: Any) -> float:
    """What the input of the first turn that may call tools costs, with the side calls before it, in dollars."""
    asked = next(r for r in upstream.requests if offers(r, call_of(name, MAKE)[0]))
    before = [r for r in upstream.requests if r.index < asked.index]
    return (sum(r.tokens.bill(price) for r in before) + asked.tokens.input * 1_000) / 10**9


async def cap(live: Live, usd: float, task: str = "job") -> None:
    """Set the task's cap, as `bursar run --cap` does."""
    async with live.client.session.patch(f"{live.url}/v1/tasks/{task}", json={"max_cost_usd": usd}) as answer:
        assert answer.status == 200, await answer.text()
