"""The clamp: what is sent upstream as the output limit, and what is made of an upstream that obeys it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.core.tokens import Calibration, estimate_input
from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, PRICE, Live, model, policy, usd
from tests.gateway.test_cut import CALL, STORY, assert_cut, assert_denied
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Pause, Script, hidden, text, tool, words

CAP_NANO = 200_000
INPUT_TOKENS = Calibration.fresh().input_tokens(
    estimate_input(len(b'[{"role": "user", "content": "Tell me a story."}]'), 1, 0)
)
AFFORDABLE = (CAP_NANO - INPUT_TOKENS * INPUT_NANO) // OUTPUT_NANO


def sent_limits(upstream: ScriptedUpstream, index: int = 0) -> dict[str, Any]:
    body = upstream.requests[index].body
    return {name: body[name] for name in ("max_tokens", "max_completion_tokens") if name in body}


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({}, {"max_tokens": AFFORDABLE}),
        ({"max_tokens": 10}, {"max_tokens": 10}),
        ({"max_tokens": 5000}, {"max_tokens": AFFORDABLE}),
        ({"max_completion_tokens": 5000}, {"max_completion_tokens": AFFORDABLE}),
        (
            {"max_tokens": 5000, "max_completion_tokens": 4000},
            {"max_tokens": AFFORDABLE, "max_completion_tokens": AFFORDABLE},
        ),
        ({"n": 3}, {"max_tokens": AFFORDABLE // 3}),
    ],
)
async def test_the_limit_sent_upstream_is_what_the_cap_affords(
    tmp_path: Path, upstream: ScriptedUpstream, asked: dict[str, Any], sent: dict[str, int]
) -> None:
    upstream.source = Script.of(words("One two."))
    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await live.chat(stream=True, max_cost_usd=usd(CAP_NANO), **asked)
        assert answer.finishes == ["stop"] * asked.get("n", 1)
        assert sent_limits(upstream) == sent


@pytest.mark.parametrize("usage", ["asked", "merged", "cumulative", "missing"])
@pytest.mark.parametrize("scope", ["request", "task"])
async def test_a_stop_at_our_clamp_is_a_cut(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None, scope: str, usage: Any
) -> None:
    upstream.source = Script.of(STORY, usage=usage)
    caps = {scope: {"max_cost_usd": usd(CAP_NANO)}}
    async with Live(tmp_path, policy({"a": upstream}, caps=caps), ledger_url) as live:
        answer = await live.chat(stream=True, task="t1", max_tokens=400)
        assert_cut(answer)
        balance = await live.balance("task:t1")
        assert upstream.bill(PRICE) <= balance.spent_nano <= CAP_NANO + OUTPUT_NANO
        assert upstream.requests[0].deltas_sent == AFFORDABLE
        if scope == "task":
            assert balance.exhausted
            assert_denied(await live.chat(stream=True, task="t1"), "task")
            assert_denied(await live.chat(task="t1"), "task")
            assert len(upstream.requests) == 1


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("finish", ["auto", "tool_calls", "stop"])
@pytest.mark.parametrize("usage", ["asked", "missing"])
async def test_a_stop_at_our_clamp_inside_a_tool_call_is_an_error(
    tmp_path: Path, upstream: ScriptedUpstream, soft: bool, finish: str, usage: Any
) -> None:
    """vLLM says `tool_calls` where the limit ended the call half-way: no client may run that."""
    upstream.source = Script.of(words("I will."), CALL, finish=finish, usage=usage)
    headers = {"x-bursar-on-cut": "length"} if soft else {}
    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await live.chat(stream=True, max_cost_usd=usd(CAP_NANO), headers=headers)
        assert_cut(answer)
        assert upstream.bill(PRICE) <= CAP_NANO


async def test_a_soft_stop_at_our_clamp_in_text_is_length_with_the_cut_named(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.source = Script.of(STORY)
    async with Live(tmp_path, policy({"a": upstream}, on_cut="length")) as live:
        answer = await live.chat(stream=True, max_cost_usd=usd(CAP_NANO))
        assert (answer.error, answer.finishes, answer.done) == (None, ["length"], True)
        assert [event["bursar"]["cut"]["scope"] for event in answer.events if "bursar" in event] == ["request"]


@pytest.mark.parametrize("stream", [True, False])
async def test_the_clients_own_limit_is_an_ordinary_length(
    tmp_path: Path, upstream: ScriptedUpstream, stream: bool
) -> None:
    upstream.source = Script.of(STORY)
    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await live.chat(stream=stream, max_tokens=20, task="t1", max_cost_usd=usd(CAP_NANO))
        if stream:
            assert (answer.error, answer.finishes, answer.done) == (None, ["length"], True)
        else:
            assert answer.json["choices"][0]["finish_reason"] == "length"
        assert (await live.balance("task:t1")).spent_nano == upstream.bill(PRICE)


async def test_the_clients_own_limit_in_a_tool_call_is_passed_on_as_it_came(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.source = Script.of(CALL)
    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await live.chat(stream=True, max_tokens=20, max_cost_usd=usd(CAP_NANO))
        assert (answer.error, answer.finishes, answer.done) == (None, ["length"], True)


async def test_one_of_several_choices_at_our_clamp_is_a_cut(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words("Short.", choice=0), [text(f" w{n}", choice=1) for n in range(500)])
    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await live.chat(stream=True, n=2, max_cost_usd=usd(CAP_NANO))
        assert answer.error_code == "budget_exceeded"
        assert "length" not in answer.finishes
        assert sent_limits(upstream) == {"max_tokens": AFFORDABLE // 2}
        assert upstream.bill(PRICE) <= CAP_NANO


async def test_hidden_reasoning_stays_under_the_cap_by_the_clamp(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None
) -> None:
    """A meter would see these tokens when they are billed; the clamp stops them before."""
    upstream.source = Script.of(hidden(5000), words("The answer."))
    more = {"models": {"a": model("a", hidden_reasoning=True)}, "caps": {"task": {"max_cost_usd": usd(CAP_NANO)}}}
    async with Live(tmp_path, policy({"a": upstream}, **more), ledger_url) as live:
        answer = await live.chat(stream=True, task="t1")
        # Nothing was sent before the end: the cut is a denial.
        assert answer.status == 402
        assert answer.error_code == "budget_exceeded"
        assert answer.headers["x-should-retry"] == "false"
        assert upstream.bill(PRICE) <= CAP_NANO
        balance = await live.balance("task:t1")
        assert balance.exhausted
        assert balance.spent_nano == upstream.bill(PRICE)
        assert_denied(await live.chat(stream=True, task="t1"), "task")


async def test_an_input_that_alone_passes_the_cap_is_denied(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    async with Live(tmp_path, policy({"a": upstream})) as live:
        for stream in (True, False):
            long = [{"role": "user", "content": "story " * 1000}]
            answer = await live.chat(stream=stream, max_cost_usd=usd(CAP_NANO), messages=long)
            assert_denied(answer, "request")
        assert upstream.requests == []


async def test_a_whole_tool_call_that_ends_at_the_clamp_is_not_lost(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """Its arguments are complete JSON and the model itself says `tool_calls`: a client may run it."""
    upstream.source = Script.of(tool('{"a": 1}', id="c", name="f"))
    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await live.chat(stream=True, max_cost_usd=usd(CAP_NANO))
        assert (answer.error, answer.finishes, answer.done) == (None, ["tool_calls"], True)


@pytest.mark.parametrize("first", range(1, 5))
@pytest.mark.parametrize("second", range(6, 9))
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_within_its_clamp_is_whole_however_it_is_read(
    tmp_path: Path, upstream: ScriptedUpstream, first: int, second: int, stream: bool
) -> None:
    """Another read like its last would pass the cap; the provider, which obeys the clamp, has ended."""
    said = words("a b c d e f g h i j")
    reads = (said[:first], Pause(0.02), said[first:second], Pause(0.02), said[second:], Pause(0.02))
    upstream.source = Script.of(*reads, input_tokens=INPUT_TOKENS * 4 // 5)
    caps = {"task": {"max_cost_usd": usd(INPUT_TOKENS * INPUT_NANO + (len(said) + 2) * OUTPUT_NANO)}}
    async with Live(tmp_path, policy({"a": upstream}, caps=caps)) as live:
        answer = await live.chat(task="t1", stream=stream)
        assert (answer.status, answer.error) == (200, None)
