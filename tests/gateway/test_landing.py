"""A task near its cap lands: a tighter output limit, a cheaper candidate, a note, and a word to the client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.live import OUTPUT_NANO, PROMPT, Live, policy, usd
from tests.gateway.test_tool_loops import LOOP, OPENING, TOOLS
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, tool, words

SHORT = Script.of(words("one two"), input_tokens=10)
LONG = Script.of(words(" ".join(f"w{n}" for n in range(300))), input_tokens=10)
CAP_NANO = 1000 * OUTPUT_NANO
DEARER = {"input_per_1k": 0.002, "output_per_1k": 0.004}


def landing(upstream: ScriptedUpstream, /, *, cap_nano: int = CAP_NANO, **rules: Any) -> dict[str, Any]:
    task = {"max_cost_usd": usd(cap_nano)}
    return policy({"a": upstream}, caps={"task": task}, landing={"at": 0.5, "min_output_tokens": 16, **rules})


async def spend(live: Live, upstream: ScriptedUpstream, tokens: int, task: str = "t") -> None:
    """Have a task use this much."""
    upstream.source = Script.of(words(" ".join(["w"] * tokens)), input_tokens=10)
    assert (await live.chat(task=task, stream=True)).status == 200
    await live.idle()


async def test_far_from_its_cap_nothing_changes(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    async with Live(tmp_path, landing(upstream, note=True)) as live:
        await spend(live, upstream, 100)
        upstream.source = SHORT
        answer = await live.chat(task="t", stream=True, stream_options={"include_usage": True}, max_tokens=50)
        assert "x-bursar-landing" not in answer.headers
        assert upstream.requests[-1].body["messages"] == PROMPT
        assert upstream.requests[-1].body["max_tokens"] == 50
        assert answer.usage is not None
        assert "remaining" not in answer.usage
        record = await live.client.decision(answer.request_id)
        assert record["landing"] is None


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_near_it_a_call_may_take_a_share_of_what_is_left_and_the_task_goes_on(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None, stream: bool
) -> None:
    async with Live(tmp_path, landing(upstream), ledger_url) as live:
        await spend(live, upstream, 600)
        left_nano = CAP_NANO - (await live.balance("task:t")).spent_nano
        upstream.source = LONG
        answer = await live.chat(task="t", stream=stream, max_tokens=250)
        assert answer.status == 200
        assert answer.headers["x-bursar-landing"].startswith("budget; used=0.6")
        clamp = upstream.requests[-1].body["max_tokens"]
        assert 16 < clamp <= left_nano // 2 // OUTPUT_NANO
        finishes = answer.finishes if stream else [answer.json["choices"][0]["finish_reason"]]
        assert (answer.error_code, finishes) == (None, ["length"])
        record = await live.client.decision(answer.request_id)
        assert record["outcome"] == "completed"
        assert record["landing"] == {
            "limit": "budget", "used_share": record["landing"]["used_share"], "noted": False, "clamped": True,
        }  # fmt: skip
        assert "finish" not in record["seen"]
        upstream.source = SHORT
        assert (await live.chat(task="t", stream=True)).text == "one two"
        assert not (await live.balance("task:t")).exhausted


async def test_half_a_call_that_landing_broke_off_is_a_cut_and_never_a_finish(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    call = [tool('{"a":"', id="c1", name="look"), *(tool("x") for _ in range(300)), tool('"}')]
    async with Live(tmp_path, landing(upstream)) as live:
        await spend(live, upstream, 600)
        upstream.source = Script.of(call, input_tokens=10)
        answer = await live.chat(task="t", stream=True, tools=TOOLS)
        assert (answer.error_code, answer.finishes) == ("budget_exceeded", [])


async def test_the_cap_itself_still_binds(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    rules = landing(upstream, min_output_tokens=4096)
    async with Live(tmp_path, rules) as live:
        await spend(live, upstream, 900)
        upstream.source = LONG
        answer = await live.chat(task="t", stream=True)
        assert answer.error_code == "budget_exceeded"
        balance = await live.balance("task:t")
        assert balance.spent_nano <= CAP_NANO + OUTPUT_NANO


async def test_tokens_of_a_free_model_land_too(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    free = {"a": {"pricing": {"input_per_1k": 0, "output_per_1k": 0}}}
    made = policy(
        {"a": upstream},
        caps={"task": {"max_tokens": 1000}},
        models=free,
        landing={"at": 0.5, "min_output_tokens": 16, "note": True},
    )
    async with Live(tmp_path, made) as live:
        await spend(live, upstream, 600)
        upstream.source = LONG
        answer = await live.chat(task="t", stream=True)
        assert answer.finishes == ["length"]
        assert upstream.requests[-1].body["max_tokens"] <= 200
        assert "limit of tokens" in upstream.requests[-1].body["messages"][-1]["content"]


async def test_the_model_is_told_at_the_end_and_the_client_what_is_left(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    async with Live(tmp_path, landing(upstream, note=True)) as live:
        await spend(live, upstream, 600)
        upstream.source = SHORT
        answer = await live.chat(task="t", stream=True, stream_options={"include_usage": True})
        sent = upstream.requests[-1].body["messages"]
        assert sent[:-1] == PROMPT[:-1]
        assert sent[-1]["content"].startswith(PROMPT[-1]["content"] + "\n\n[Note from the system")
        assert "60% of the task's cost cap is used" in sent[-1]["content"]
        task = await live.task("t")
        assert answer.usage is not None
        assert answer.usage["remaining"] == task["remaining_usd"]
        assert (await live.client.decision(answer.request_id))["landing"]["noted"]


async def test_other_dialects_are_told_in_their_own_words(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    async with Live(tmp_path, landing(upstream, note=True)) as live:
        await spend(live, upstream, 600)
        upstream.source = SHORT
        body = {"model": "a", "max_tokens": 50, "messages": [{"role": "user", "content": "Go"}], "stream": True}
        headers = {"x-bursar-task-id": "t"}
        async with live.client.session.post(live.url + "/v1/messages", json=body, headers=headers) as reply:
            events = [json.loads(line[6:]) for line in (await reply.text()).splitlines() if line.startswith("data: ")]
        (ending,) = [event for event in events if event["type"] == "message_delta"]
        assert ending["usage"]["remaining"] == (await live.task("t"))["remaining_usd"]
        assert "[Note from the system" in json.dumps(upstream.requests[-1].body["messages"][-1])


@pytest.mark.parametrize("cheaper", [True, False])
async def test_the_next_step_may_go_to_a_cheaper_candidate(
    tmp_path: Path, upstream: ScriptedUpstream, cheaper: bool
) -> None:
    async with Live(tmp_path, ladder(upstream, cheaper=cheaper)) as live:
        assert (await live.chat(model="auto", task="t", stream=True)).headers["x-bursar-model"] == "large"
        await spend(live, upstream, 600)
        upstream.source = SHORT
        answer = await live.chat(model="auto", task="t", stream=True)
        assert answer.headers["x-bursar-model"] == ("small" if cheaper else "large")
        assert (await live.chat(model="auto", task="other", stream=True)).headers["x-bursar-model"] == "large"


def ladder(upstream: ScriptedUpstream, **rules: Any) -> dict[str, Any]:
    """A route that asks for the best within a price, and has a cheaper one that is adequate for everything."""
    made = policy(
        {"a": upstream, "small": upstream, "large": upstream},
        caps={"task": {"max_cost_usd": usd(CAP_NANO)}},
        models={"large": {"pricing": DEARER, "tier": 4}},
        landing={"at": 0.5, "min_output_tokens": 16, **rules},
    )
    made["routes"]["auto"] |= {
        "candidates": ["small", "large"], "fallback": [], "objective": "quality", "max_expected_cost_usd": 1,
        "adequacy": 0.01,
    }  # fmt: skip
    return made


async def test_never_below_adequacy_unless_the_policy_says_so(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    for adequacy, chosen in ((None, "large"), (0.0, "small")):
        made = ladder(upstream, **({} if adequacy is None else {"adequacy": adequacy}))
        made["routes"]["auto"]["adequacy"] = 0.999
        async with Live(tmp_path, made) as live:
            task = f"t{adequacy}"
            await spend(live, upstream, 600, task)
            upstream.source = SHORT
            answer = await live.chat(model="auto", task=task, stream=True)
            assert answer.headers["x-bursar-model"] == chosen


@pytest.mark.parametrize("may_switch", [False, True])
async def test_an_open_tool_loop_keeps_its_model_unless_the_policy_says_so(
    tmp_path: Path, upstream: ScriptedUpstream, may_switch: bool
) -> None:
    async with Live(tmp_path, ladder(upstream, switch_in_tool_loop=may_switch)) as live:
        upstream.source = Script.of(tool("{}", id="call_1", name="look"), input_tokens=10)
        opened = await live.chat(model="auto", messages=OPENING, tools=TOOLS, task="t", stream=True)
        assert opened.headers["x-bursar-model"] == "large"
        await spend(live, upstream, 600)
        upstream.source = SHORT
        answer = await live.chat(model="auto", messages=LOOP, tools=TOOLS, task="t", stream=True)
        assert answer.headers["x-bursar-model"] == ("small" if may_switch else "large")


async def test_a_routes_rules_stand_in_place_of_the_policys(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    made = landing(upstream, note=True)
    made["routes"]["auto"]["landing"] = {"at": 0.99}
    async with Live(tmp_path, made) as live:
        await spend(live, upstream, 600)
        upstream.source = SHORT
        assert "x-bursar-landing" not in (await live.chat(model="auto", task="t", stream=True)).headers
        assert "x-bursar-landing" in (await live.chat(model="a", task="t", stream=True)).headers


async def test_a_task_below_lands_with_the_one_above(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    async with Live(tmp_path, landing(upstream)) as live:
        await spend(live, upstream, 600, "root")
        upstream.source = SHORT
        below = {"x-bursar-parent-task-id": "root"}
        answer = await live.chat(task="child", stream=True, headers=below)
        assert answer.headers["x-bursar-landing"].startswith("budget; used=0.6")
