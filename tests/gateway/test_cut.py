"""A cut in the middle of a stream: the contract of shared WIRE.md, on every kind of cap."""

from __future__ import annotations

import asyncio
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.live import OUTPUT_NANO, PRICE, Answer, Live, policy, usd
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Gate, Script, tool, words

CAP_NANO = 200_000
STORY = words(" ".join(f"w{n}" for n in range(500)))
SECRET = "sk-bursar-test"
KEYS = [{"name": "ci", "sha256": hashlib.sha256(SECRET.encode()).hexdigest()}]
TEAM_KEYS = [{**KEYS[0], "team": "t"}]

CAPS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "request body": ({}, {"max_cost_usd": usd(CAP_NANO)}, "request"),
    "request header": ({}, {"headers": {"x-bursar-max-cost-usd": str(usd(CAP_NANO))}}, "request"),
    "policy's request": ({"caps": {"request": {"max_cost_usd": usd(CAP_NANO)}}}, {}, "request"),
    "policy's task": ({"caps": {"task": {"max_cost_usd": usd(CAP_NANO)}}}, {}, "task"),
    "client's task": ({}, {"headers": {"x-bursar-task-max-cost-usd": str(usd(CAP_NANO))}}, "task"),
    "model": ({"models": {"a": {"budgets": {"max_cost_usd": usd(CAP_NANO)}}}}, {}, "model"),
    "key's day": (
        {"caps": {"key": {"day": {"max_cost_usd": usd(CAP_NANO)}}}, "keys": KEYS},
        {"headers": {"authorization": f"Bearer {SECRET}"}},
        "key",
    ),
    "team total": (
        {"caps": {"team": {"total": {"max_cost_usd": usd(CAP_NANO)}}}, "teams": {"t": {}}, "keys": TEAM_KEYS},
        {"headers": {"authorization": f"Bearer {SECRET}"}},
        "team",
    ),
    "user's month": (
        {"caps": {"user": {"month": {"max_cost_usd": usd(CAP_NANO)}}}},
        {"headers": {"x-bursar-user": "ann"}},
        "user",
    ),
    "global month": ({"caps": {"global": {"month": {"max_cost_usd": usd(CAP_NANO)}}}}, {}, "global"),
}
CLOSES_TASK = {"task", "model", "user", "key", "team", "global"}


def assert_cut(answer: Answer) -> None:
    """The ending of a cut stream."""
    assert answer.status == 200
    assert answer.error is not None
    assert answer.error["type"] == "insufficient_quota"
    assert answer.error["code"] == "budget_exceeded"
    assert answer.error["param"] is None
    assert not re.search(r"\d", answer.error["message"])
    assert answer.finishes == []
    assert answer.done
    assert "error" in answer.events[-1]


def assert_denied(answer: Answer, scope: str) -> None:
    """A denial before the stream."""
    assert answer.status == 402
    assert answer.error_code == "budget_exceeded"
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-bursar-scope"].split("_")[0] == scope
    assert {"x-bursar-limit-usd", "x-bursar-spent-usd", "x-bursar-remaining-usd"} <= answer.headers.keys()
    assert "retry-after" not in answer.headers
    assert answer.error is not None
    assert not re.search(r"\d", answer.error["message"])


async def in_step(live: Live, gate: Gate, **asked: Any) -> Answer:
    """A stream of events without a role chunk, each let go when the one before it has arrived: one event, one read."""
    gate.release()
    let_go, body = 1, b""
    async with live.client.open(**asked) as response:
        async for part in response.content.iter_any():
            body += part
            if body.count(b"\n\n") >= let_go:
                let_go += 1
                gate.release()
        return Answer(response.status, {name.lower(): value for name, value in response.headers.items()}, body)


@pytest.mark.parametrize("cap", CAPS)
async def test_cut_in_mid_text(tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None, cap: str) -> None:
    more, asked, scope = CAPS[cap]
    usage = (ledger_url is None) == ("'" in cap)  # asked for in every other case, on either ledger
    gate = Gate()
    # It ignores the clamp, so that only the meter can stop it.
    upstream.source = Script.of(STORY, obeys_limit=False, gate=gate, role_chunk=False)
    asked = {**asked, "task": "t1", "stream": True, "stream_options": {"include_usage": usage}}
    async with Live(tmp_path, policy({"a": upstream}, **more), ledger_url) as live:
        answer = await in_step(live, gate, **asked)
        assert_cut(answer)
        await upstream.until(lambda u: u.requests[0].client_gone)
        gate.open()  # only now: a busy machine would let all of it through before it hears of the cut
        (settled,) = {b.spent_nano for name, b in (await live.balances()).items()}
        assert CAP_NANO <= settled <= CAP_NANO + OUTPUT_NANO
        assert answer.text.split()[0] == "w0"
        if usage:
            assert answer.usage is not None
            assert answer.usage["cost"] == pytest.approx(usd(settled))
            assert answer.events[-2]["choices"] == []
        else:
            assert answer.usage is None
        for stream in (True, False):
            again = await live.chat(**{**asked, "stream": stream})
            if scope in CLOSES_TASK:
                assert_denied(again, scope)
                assert len(upstream.requests) == 1
        if scope in CLOSES_TASK:
            key = asked.get("headers", {})
            task = await live.client.get("/v1/tasks/t1", **{k: v for k, v in key.items() if k == "authorization"})
            part = task["models"]["a"] if scope == "model" else task
            assert part["exhausted"] == (scope in ("task", "model"))
            if scope in ("task", "model"):
                assert part["cost_killed_at_usd"] == pytest.approx(usd(settled))
            assert task["calls"] == 1
            assert task["reserved_usd"] == 0


SOFT: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "policy": ({"on_cut": "length"}, {}),
    "route": ({"routes": {"auto": {"on_cut": "length"}}}, {}),
    "header": ({}, {"x-bursar-on-cut": "length"}),
}
CALL = [tool(id="call_1", name="bash"), *(tool(f'"{n}",') for n in range(400))]


@pytest.mark.parametrize("soft", [None, *SOFT])
async def test_a_cut_inside_a_tool_call_is_an_error_even_where_a_soft_one_was_asked_for(
    tmp_path: Path, upstream: ScriptedUpstream, soft: str | None
) -> None:
    upstream.source = Script.of(words("Let me see."), CALL, obeys_limit=False, delay_s=0.0005)
    more, headers = SOFT[soft] if soft else ({}, {})
    async with Live(tmp_path, policy({"a": upstream}, **more)) as live:
        answer = await live.chat(model="auto", stream=True, max_cost_usd=usd(CAP_NANO), headers=headers)
        assert_cut(answer)
        record = await live.client.decision(answer.request_id)
        assert record["cut"]["in_tool_call"] is True
        assert record["outcome"] == "cost_killed"


@pytest.mark.parametrize("soft", SOFT)
async def test_a_soft_cut_in_text_ends_in_length_and_says_what_happened(
    tmp_path: Path, upstream: ScriptedUpstream, soft: str
) -> None:
    upstream.source = Script.of(STORY, obeys_limit=False, delay_s=0.0005)
    more, headers = SOFT[soft]
    async with Live(tmp_path, policy({"a": upstream}, **more)) as live:
        options = {"include_usage": True}
        answer = await live.chat(
            model="auto", stream=True, stream_options=options, max_cost_usd=usd(CAP_NANO), headers=headers
        )
        assert answer.error is None
        assert answer.finishes == ["length"]
        assert answer.done
        (cut,) = [event["bursar"]["cut"] for event in answer.events if "bursar" in event]
        assert cut["scope"] == "request"
        assert answer.usage is not None
        assert cut["killed_at_usd"] == pytest.approx(answer.usage["cost"])
        await upstream.until(lambda u: u.requests[0].client_gone)


async def test_the_client_can_take_the_policys_soft_cut_back(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(STORY, obeys_limit=False, delay_s=0.0005)
    async with Live(tmp_path, policy({"a": upstream}, on_cut="length")) as live:
        answer = await live.chat(stream=True, max_cost_usd=usd(CAP_NANO), headers={"x-bursar-on-cut": "error"})
        assert_cut(answer)


async def test_the_upstream_is_stopped_at_the_event_that_reaches_the_cap(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    """Piece by piece: what was billed is what was let through, and is what is settled, within one event."""
    gate = Gate()
    upstream.source = Script.of(STORY, obeys_limit=False, gate=gate, role_chunk=False, input_tokens=10)
    async with Live(tmp_path, policy({"a": upstream})) as live:
        assert_cut(await in_step(live, gate, stream=True, task="t1", max_cost_usd=usd(CAP_NANO)))
        await upstream.until(lambda u: u.requests[0].client_gone)
        balance = await live.balance("task:t1")
        assert upstream.bill(PRICE) <= balance.spent_nano <= CAP_NANO + OUTPUT_NANO


async def test_a_cut_is_recorded_once_and_counting_goes_on(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    gates = [Gate(), Gate()]
    upstream.source = [Script.of(STORY, obeys_limit=False, gate=gate, role_chunk=False) for gate in gates]
    async with Live(tmp_path, policy({"a": upstream})) as live:
        recorded: list[int] = []
        for gate, cap in zip(gates, (CAP_NANO, 2 * CAP_NANO), strict=True):
            headers = {"x-bursar-task-max-cost-usd": str(usd(cap))}
            assert_cut(await in_step(live, gate, stream=True, task="t1", headers=headers))
            balance = await live.balance("task:t1")
            assert balance.exhausted
            assert balance.spent_nano >= cap
            assert balance.killed_at_nano is not None
            recorded.append(balance.killed_at_nano)
        assert recorded[0] == recorded[1] < 2 * CAP_NANO


async def test_a_cut_does_not_close_a_task_whose_money_others_hold(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None
) -> None:
    """A plain call holds most of the cap, and will give most of it back."""
    gate = Gate()
    upstream.source = [
        Script.of(words("Not much."), gate=gate, input_tokens=10),
        Script.of(STORY, obeys_limit=False, delay_s=0.0005),
        Script.of(words("And they lived.")),
    ]
    caps = {"task": {"max_cost_usd": usd(3 * CAP_NANO)}}
    async with Live(tmp_path, policy({"a": upstream}, caps=caps), ledger_url) as live:
        holder = asyncio.ensure_future(live.chat(task="t1", max_tokens=200))
        await upstream.until(lambda u: u.requests)
        assert_cut(await live.chat(stream=True, task="t1"))
        assert not (await live.balance("task:t1")).exhausted
        gate.open()
        assert (await holder).status == 200
        answer = await live.chat(stream=True, task="t1")
        assert (answer.text, answer.finishes) == ("And they lived.", ["stop"])


async def test_a_raised_cap_opens_the_task_again(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = [Script.of(STORY, obeys_limit=False, delay_s=0.0005), Script.of(words("And they lived."))]
    async with Live(tmp_path, policy({"a": upstream})) as live:
        low, high = ({"x-bursar-task-max-cost-usd": str(usd(cap))} for cap in (CAP_NANO, 3 * CAP_NANO))
        assert_cut(await live.chat(stream=True, task="t1", headers=low))
        assert_denied(await live.chat(stream=True, task="t1"), "task")
        answer = await live.chat(stream=True, task="t1", headers=high)
        assert (answer.text, answer.finishes) == ("And they lived.", ["stop"])


async def test_a_call_without_a_task_is_a_task_of_its_own(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    gates = [Gate(), Gate()]
    upstream.source = [Script.of(STORY, obeys_limit=False, gate=gate, role_chunk=False) for gate in gates]
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_cost_usd": usd(CAP_NANO)}})) as live:
        for gate in gates:  # the second has a cap of its own
            answer = await in_step(live, gate, stream=True)
            assert_cut(answer)
            await live.client.decision(answer.request_id)
            task = await live.task(answer.request_id)
            assert task["exhausted"] is True
            assert task["limit_usd"] == usd(CAP_NANO)
            assert task["cost_killed_at_usd"] == task["spent_usd"] >= usd(CAP_NANO)
