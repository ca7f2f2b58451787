"""What the five agent programs really sent (tests/agents/recorded), sent again to a real gateway.

`make test-agents` runs the programs themselves and writes the recordings; here each request of theirs, in their order,
meets an upstream of their own dialect and of another, and must be answered as the program was answered then: to the
shape of the last bytes, and by shared WIRE.md's contract, which is spelled out here a second time.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.agents.stage import (
    MAKE,
    NAMES,
    NATIVE,
    OUT_OF_BUDGET,
    cap,
    endless,
    gateways,
    other_than,
    works,
)
from tests.agents.tape import RECORDED, Tape, ending_of
from tests.gateway.live import PRICE, Answer, Live, read
from tests.upstream import ScriptedUpstream

SESSIONS = {"claude": "x-claude-code-session-id", "codex": "session-id", "opencode": "x-session-id"}
"""The programs that say by themselves which calls belong together."""
UUID_LIKE = 16


@dataclass
class Stage:
    """A gateway before an upstream of some dialect, and a program's recording."""

    name: str
    dialect: str
    live: Live
    upstream: ScriptedUpstream
    recorded: dict[str, Any]

    async def replay(self, scenario: str, task: str = "job", *, named: bool = True) -> list[Answer]:
        """Send what the program sent, one after the other. `named`: with the task in the path."""
        self.upstream.requests.clear()
        answers = []
        for step in self.recorded["scenarios"][scenario]:
            asked = self.recorded["requests"][step["request"]]
            path = asked["path"].replace("/t/{task}", f"/t/{task}" if named else "")
            url = f"{self.live.url}{path}" + (f"?{asked['query']}" if asked["query"] else "")
            body = json.dumps(asked["body"]).encode()
            async with self.live.client.session.post(url, data=body, headers=asked["headers"]) as response:
                answers.append(await read(response))
        return answers

    def same_endings(self, scenario: str, answers: list[Answer]) -> None:
        """Each answer ended as the program saw it end."""
        steps = self.recorded["scenarios"][scenario]
        for step, answer in zip(steps, answers, strict=True):
            assert ending_of(answer.status, answer.headers, answer.body) == step["ending"]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["native", "other"])
async def stage(
    request: pytest.FixtureRequest, name: str, upstream: ScriptedUpstream, tmp_path: Path
) -> AsyncIterator[Stage]:
    dialect = NATIVE[name] if request.param == "native" else other_than(NATIVE[name])
    recorded = json.loads((RECORDED / f"{name}.json").read_text())
    async with gateways(upstream, dialect, tmp_path) as live:
        yield Stage(name, NATIVE[name], live, upstream, recorded)


def blocks_of(answer: Answer) -> list[str]:
    return answer.body.decode().rstrip("\r\n").replace("\r\n", "\n").split("\n\n")


def events_of(answer: Answer) -> list[dict[str, Any]]:
    """The JSON of every block of a stream."""
    datas = [block.rpartition("data: ")[2] for block in blocks_of(answer)]
    return [json.loads(data) for data in datas if data != "[DONE]"]


def arguments_of(dialect: str, events: list[dict[str, Any]]) -> str:
    """The arguments of the calls in a stream, put together as this dialect's clients do."""
    if dialect == "openai_chat":
        deltas = [choice["delta"] for event in events for choice in event["choices"]]
        return "".join(call["function"]["arguments"] for delta in deltas for call in delta.get("tool_calls", ()))
    if dialect == "openai_responses":
        kinds = ("response.function_call_arguments.delta", "response.custom_tool_call_input.delta")
        return "".join(event["delta"] for event in events if event["type"] in kinds)
    if dialect == "anthropic":
        return "".join(event["delta"].get("partial_json", "") for event in events if "delta" in event)
    parts = [part for event in events for found in event["candidates"] for part in found["content"].get("parts", ())]
    return "".join(json.dumps(part["functionCall"]["args"]) for part in parts if "functionCall" in part)


async def test_a_task_of_two_turns(stage: Stage) -> None:
    stage.upstream.source = works(stage.name)
    answers = await stage.replay("two_turns")
    stage.same_endings("two_turns", answers)
    streams = [events_of(answer) for answer in answers if "event-stream" in answer.headers["content-type"]]
    called = [found for events in streams if (found := arguments_of(stage.dialect, events))]
    assert len(called) == 1
    assert MAKE in called[0]
    task = await stage.live.client.task("job")
    assert task["calls"] == len(stage.upstream.requests) == len(answers)
    assert round(task["spent_usd"] * 10**9) == stage.upstream.bill(PRICE)


async def test_what_is_recorded_is_what_was_answered(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    tape = Tape()
    async with gateways(upstream, "openai_chat", tmp_path, tape.before) as live:
        answer = await live.chat(model="m", stream=True)
    (kept,) = tape.exchanges
    assert (kept.status, kept.answer) == (200, answer.body)
    assert kept.answered["x-bursar-request-id"] == answer.request_id


async def test_calls_that_name_no_task_are_one_all_the_same(stage: Stage) -> None:
    if stage.name not in SESSIONS:
        pytest.skip(f"{stage.name} says nothing of itself in this dialect")
    stage.upstream.source = works(stage.name)
    answers = await stage.replay("two_turns", named=False)
    sent = {asked["headers"][SESSIONS[stage.name]] for asked in stage.recorded["requests"]}
    (session,) = sent
    assert len(session) >= UUID_LIKE
    task = await stage.live.client.task(session)
    assert task["calls"] == len(answers)
    assert round(task["spent_usd"] * 10**9) == stage.upstream.bill(PRICE)


@pytest.mark.parametrize("where", ["text", "tool"])
async def test_a_cut_in_the_middle(stage: Stage, where: str) -> None:
    scenario = f"cut_in_{where}"
    # Enough for the input, however highly it is estimated, and for some hundreds of words.
    longest = max(len(json.dumps(asked["body"])) for asked in stage.recorded["requests"])
    cap_usd = 0.0006 + longest / 2 * 0.000001
    await cap(stage.live, cap_usd)
    stage.upstream.source = endless(stage.name, where, span=20, delay_s=0.002)
    answers = await stage.replay(scenario)
    stage.same_endings(scenario, answers)
    place = next(i for i, answer in enumerate(answers) if OUT_OF_BUDGET.encode() in answer.body)
    if answers[place].status == 200:
        is_cut(stage.dialect, answers[place], where)
    else:
        # Half a call is kept back toward Gemini's clients, so that nothing had been sent yet.
        assert (stage.dialect, where) == ("gemini", "tool")
        is_denied(stage.dialect, answers[place])
    assert len(stage.upstream.requests) == place + 1, "asked again after the cut"
    for later in answers[place + 1 :]:
        is_denied(stage.dialect, later)
    task = await stage.live.client.task("job")
    assert task["cost_killed_at_usd"] is not None
    if answers[place].status == 200:  # else the far gateway, too, kept the call back, and its model went on
        assert 0.9 * cap_usd < task["spent_usd"] < 1.3 * cap_usd
    assert task["reserved_usd"] == 0


async def test_a_denial_before_the_call(stage: Stage) -> None:
    await cap(stage.live, 0.000001)
    answers = await stage.replay("denied")
    stage.same_endings("denied", answers)
    for answer in answers:
        is_denied(stage.dialect, answer)
    assert not stage.upstream.requests


CHAT_ERROR = {"type": "insufficient_quota", "param": None, "code": "budget_exceeded"}


def error_of(dialect: str, message: str) -> dict[str, Any]:
    """The error of a cut and of a denial, by shared WIRE.md."""
    if dialect == "anthropic":
        return {"type": "error", "error": {"type": "billing_error", "message": message}}
    if dialect == "gemini":
        return {"error": {"code": 402, "message": message, "status": "FAILED_PRECONDITION"}}
    return {"error": {"message": message, **CHAT_ERROR}}


def message_in(body: str) -> str:
    """The error's message in a body, free of what makes programs try again."""
    message: str = json.loads(body)["error"]["message"]
    assert OUT_OF_BUDGET in message
    assert not any(sign.isdigit() for sign in message)
    return message


def is_denied(dialect: str, answer: Answer) -> None:
    """A refusal that no program answers with a second try."""
    assert answer.status == (400 if dialect == "openai_responses" else 402)
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers
    assert json.loads(answer.body) == error_of(dialect, message_in(answer.body.decode()))


def is_cut(dialect: str, answer: Answer, where: str) -> None:
    """The end of a stream that was stopped, and no sign of an end that would let half a call be executed."""
    blocks, said = blocks_of(answer), answer.body.decode()
    if dialect == "openai_chat":
        assert blocks[-1] == "data: [DONE]"
        error = blocks[-2].removeprefix("data: ")
        assert json.loads(error) == error_of(dialect, message_in(error))
        usage = json.loads(blocks[-3].removeprefix("data: "))
        assert (usage["choices"], usage["usage"]["completion_tokens"] > 0) == ([], True)
        chunks = [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]
        assert not [c for chunk in chunks for c in chunk["choices"] if c.get("finish_reason")]
    elif dialect == "openai_responses":
        assert blocks[-1].startswith("event: response.failed\ndata: ")
        failed = events_of(answer)[-1]["response"]
        assert (failed["status"], failed["error"]["code"]) == ("failed", "invalid_prompt")
        assert OUT_OF_BUDGET in failed["error"]["message"]
        assert failed["usage"]["output_tokens"] > 0
        done = [event["item"]["type"] for event in events_of(answer) if event["type"] == "response.output_item.done"]
        assert not [kind for kind in done if "call" in kind]
        assert "response.completed" not in said
    elif dialect == "anthropic":
        mark, _, error = blocks[-1].partition("\ndata: ")
        assert mark == "event: error"
        assert json.loads(error) == error_of(dialect, message_in(error))
        assert "message_stop" not in said
        assert "message_delta" not in said
    else:
        assert json.loads(blocks[-1]) == error_of(dialect, message_in(blocks[-1]))
        assert "finishReason" not in said
        assert "functionCall" not in said
    assert (where == "tool") is ("call_1" in said)
