"""A model is not changed between a tool call and its result, unless the policy says so or it fails."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest

from app.core.types import ChatRequest, Prompt
from app.gateway.loops import MAX_LOOPS, Loops, loop_of
from app.stores.task_memory_sqlite import SqliteTaskMemory
from tests.gateway.live import Live, policy
from tests.gateway.test_repeats import Away
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, tool, words

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
OPENING = [{"role": "user", "content": "Prove that it halts, analyse the deadlock and refactor the scheduler."}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
LOOP = [
    *OPENING,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "ok"},
]


def request(first: str = "a", **fields: Any) -> ChatRequest:
    return ChatRequest({}, "auto", False, False, 1, None, (), Prompt(first_user=first, tools=1, **fields))


async def test_a_conversation_is_known_by_how_it_began() -> None:
    loops = Loops(Away())
    await loops.note(loop_of(request(), "k", "t"), "large", open_=False)
    assert await loops.model_of(loop_of(request(last_user="more", turns=9), "k", "t")) == "large"
    others = [loop_of(request("b"), "k", "t"), loop_of(request(), "k2", "t"), loop_of(request(), "k", None)]
    assert [await loops.model_of(other) for other in others] == [None] * 3
    assert loop_of(request("\ud800"), "k", "t") != loop_of(request("?"), "k", "t")


async def test_it_forgets_the_oldest() -> None:
    loops = Loops(Away())
    for number in range(MAX_LOOPS + 5):
        await loops.note(b"%d" % number, "m", open_=False)
    assert await loops.model_of(b"4") is None
    assert await loops.model_of(b"5") == "m"


async def test_what_others_noted_beats_what_is_known_here(tmp_path: Path) -> None:
    memories = [SqliteTaskMemory(tmp_path / "tasks.sqlite") for _ in range(2)]
    here, there = map(Loops, memories)
    await here.note(b"loop", "small", open_=False)
    await there.note(b"loop", "large", open_=False)
    assert (await here.model_of(b"loop"), await there.model_of(b"loop")) == ("large", "large")
    await here.note(b"loop", "small", open_=True)  # held to what it knows: no news
    assert await there.model_of(b"loop") == "large"
    for memory in memories:
        await memory.close()


@pytest.mark.parametrize("may_switch", [False, True])
async def test_the_model_of_an_open_loop_answers_it(
    tmp_path: Path, upstream: ScriptedUpstream, may_switch: bool
) -> None:
    """The opening went to the large model; what follows would be chosen anew, and cheaper."""
    upstream.source = Script.of(tool("{}", id="call_1", name="look"))
    dearer = {"input_per_1k": 0.01, "output_per_1k": 0.02}
    made = policy({"small": upstream, "large": upstream}, models={"large": {"pricing": dearer}})
    made["routes"]["auto"] |= {
        "candidates": ["small", "large"], "fallback": [], "switch_in_tool_loop": may_switch,
    }  # fmt: skip
    made["routes"]["hard"] = {"candidates": ["large"], "adequacy": 0}
    async with Live(tmp_path, made) as live:
        await live.chat(model="hard", messages=OPENING, tools=TOOLS, task="t")
        answer = await live.chat(model="auto", messages=LOOP, tools=TOOLS, task="t")
        assert answer.headers["x-bursar-model"] == ("small" if may_switch else "large")
        decision = (await live.client.decision(answer.request_id))["decision"]
        assert ("tool loop" in decision["reason"]) is not may_switch
        # The loop is closed by a new turn of the user.
        answer = await live.chat(model="auto", messages=[*LOOP, *OPENING], tools=TOOLS, task="t")
        assert answer.headers["x-bursar-model"] == "small"


async def test_a_loop_that_another_gateway_served_keeps_its_model(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None
) -> None:
    upstream.source = Script.of(tool("{}", id="call_1", name="look"))
    dearer = {"input_per_1k": 0.01, "output_per_1k": 0.02}
    made = policy({"small": upstream, "large": upstream}, models={"large": {"pricing": dearer}})
    made["routes"]["auto"] |= {"candidates": ["small", "large"], "fallback": []}
    shared = f"t{secrets.token_hex(6)}"
    async with (
        Live(tmp_path, made, ledger_url, namespace=shared) as one,
        Live(tmp_path, made, ledger_url, namespace=shared) as two,
    ):
        for task in ("t", None):
            await one.chat(model="large", messages=OPENING, tools=TOOLS, task=task)
            await one.chat(model="small", messages=[{"role": "user", "content": "Name it."}], task=task)  # a side call
            answer = await two.chat(model="auto", messages=LOOP, tools=TOOLS, task=task)
            assert answer.headers["x-bursar-model"] == "large"
        # A new turn of the user went elsewhere; who knew the loop before must follow.
        await two.chat(model="small", messages=OPENING, tools=TOOLS, task="t")
        answer = await one.chat(model="auto", messages=LOOP, tools=TOOLS, task="t")
        assert answer.headers["x-bursar-model"] == "small"
        unknown = await two.chat(model="auto", messages=LOOP, tools=TOOLS, task="never-seen")
        assert unknown.headers["x-bursar-model"] == "small"


async def test_a_memory_that_breaks_leaks_no_reservation(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise ValueError("a defect")

    async with Live(tmp_path, policy({"a": upstream}), ledger_url) as live:
        monkeypatch.setattr(live.services.loops, "note", broken)
        answer = await live.chat(model="a", messages=OPENING, tools=TOOLS, task="t")
        assert answer.status == 500
        assert upstream.requests == []
        balance = await live.balance("task:t")
        assert (balance.calls, balance.held_nano, balance.spent_nano) == (1, 0, 0)


async def test_a_model_that_fails_in_its_loop_is_followed_by_another(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    with ScriptedUpstream() as failing:
        upstream.source = Script.of(words("Done."))
        failing.source = [Script.of(tool("{}", id="call_1", name="look")), Script.failure(503, "down")]
        made = policy({"large": failing, "small": upstream})
        async with Live(tmp_path, made) as live:
            await live.chat(model="large", messages=OPENING, tools=TOOLS, task="t")
            answer = await live.chat(model="auto", messages=LOOP, tools=TOOLS, task="t")
            assert (answer.status, answer.headers["x-bursar-model"]) == (200, "small")
