"""What a call measures of its speed, and of what ended it. Bounds are one-sided: a busy machine is only slower."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.core.heard import WRITING_TOOLS
from app.core.types import Outcome
from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, Answer, Live, policy, usd
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Pause, Script, hidden, reasoning, text, tool, words

PAUSE = Pause(0.15)
LEAST_MS = 50.0


async def timings(live: Live, answer: Answer) -> dict[str, Any]:
    record = await live.client.decision(answer.request_id)
    found: dict[str, Any] = record["timings"]
    return found


def tools(*names: str) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in names]


async def test_the_first_text_is_an_attempt_and_a_thought_is_none(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(reasoning("hm"), PAUSE, text("Hello"), PAUSE, text(" there"))
    async with Live(tmp_path, policy({"a": upstream})) as live:
        seen = await timings(live, await live.chat(stream=True))
        assert seen["first_attempt_ms"] - seen["ttft_ms"] > LEAST_MS
        assert seen["duration_ms"] - seen["first_attempt_ms"] > LEAST_MS
        assert seen["success_ms"] == -1


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_a_tool_that_reads_is_no_attempt_and_one_that_writes_is(
    tmp_path: Path, upstream: ScriptedUpstream, stream: bool
) -> None:
    reads = tool('{"path":"a"}', id="c1", name="read_file")
    edits = tool('{"path":"a"}', id="c2", name="Edit", index=1)
    asked = {"stream": stream, "tools": tools("read_file", "Edit")}
    async with Live(tmp_path, policy({"a": upstream})) as live:
        upstream.source = Script.of(reads)
        assert (await timings(live, await live.chat(**asked)))["first_attempt_ms"] is None
        upstream.source = Script.of(reads, PAUSE, edits)
        seen = await timings(live, await live.chat(**asked))
        if stream:
            assert seen["first_attempt_ms"] - seen["ttft_ms"] > LEAST_MS
        else:
            assert seen["first_attempt_ms"] == seen["ttft_ms"]


async def test_the_policy_says_which_tools_write(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(tool("{}", id="c1", name="Bash"))
    async with Live(tmp_path, policy({"a": upstream}, writing_tools=["bash"])) as live:
        assert (await timings(live, await live.chat(stream=True, tools=tools("Bash"))))["first_attempt_ms"] > 0
    assert "bash" not in WRITING_TOOLS


async def test_a_folded_reply_has_its_firsts_when_the_client_does(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(text("one"), PAUSE, text(" two"))
    async with Live(tmp_path, policy({"a": upstream})) as live:
        seen = await timings(live, await live.chat(max_cost_usd=0.01))
        assert seen["first_attempt_ms"] == seen["ttft_ms"] > LEAST_MS


async def test_tokens_per_second_count_from_the_first_token(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words("one two three four five six"), delay_s=0.02, opening=[Pause(0.3)])
    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await live.chat(stream=True)
        seen = await timings(live, answer)
        assert LEAST_MS < seen["generation_ms"] < seen["duration_ms"] - 250
        assert seen["tokens_per_sec"] == pytest.approx(6 / seen["generation_ms"] * 1000, rel=0.01)


@pytest.mark.parametrize("pieces", [[hidden(100), text("Yes")], [text("all at once")]], ids=["hidden", "one-event"])
async def test_what_was_generated_unseen_counts_from_the_asking(
    tmp_path: Path, upstream: ScriptedUpstream, pieces: Any
) -> None:
    upstream.source = Script.of(pieces, opening=[PAUSE])
    async with Live(tmp_path, policy({"a": upstream})) as live:
        seen = await timings(live, await live.chat(stream=True))
        assert seen["generation_ms"] > LEAST_MS


async def test_a_whole_reply_was_generated_since_it_was_asked_for(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words("one two three"), delay_s=0.03)
    async with Live(tmp_path, policy({"a": upstream})) as live:
        seen = await timings(live, await live.chat(max_tokens=10))
        assert LEAST_MS < seen["generation_ms"] <= seen["duration_ms"]
        assert seen["tokens_per_sec"] > 0


async def test_what_a_task_had_spent_when_it_was_cut_and_when_it_was_denied(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None
) -> None:
    upstream.source = Script.of(words(" ".join(["w"] * 400)), delay_s=0.0005)
    rules = policy({"a": upstream}, caps={"task": {"max_cost_usd": usd(60 * OUTPUT_NANO)}})
    async with Live(tmp_path, rules, ledger_url) as live:
        upstream.source = Script.of(words("short"))
        first = await live.chat(task="t", stream=True)
        assert (await live.client.decision(first.request_id))["cost_killed_at_usd"] is None
        upstream.source = Script.of(words(" ".join(["w"] * 400)), delay_s=0.0005)
        cut = await live.client.decision((await live.chat(task="t", stream=True)).request_id)
        assert cut["outcome"] == Outcome.COST_KILLED
        task = await live.task("t")
        assert cut["cost_killed_at_usd"] == task["cost_killed_at_usd"] == task["spent_usd"] > cut["cost_usd"]
        denied = await live.client.decision((await live.chat(task="t", stream=True)).request_id)
        assert (denied["outcome"], denied["cost_killed_at_usd"]) == (Outcome.DENIED, task["spent_usd"])


async def test_steps_are_numbered_across_a_tasks_calls(
    tmp_path: Path, upstream: ScriptedUpstream, ledger_url: str | None
) -> None:
    async with Live(tmp_path, policy({"a": upstream}), ledger_url) as live:
        steps = []
        for task in ("t", "t", "u", None):
            record = await live.client.decision((await live.chat(task=task)).request_id)
            steps.append(record["task_step"])
        assert steps == [1, 2, 1, None]


async def test_other_limits_kill_for_no_money(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    async with Live(tmp_path, policy({"a": upstream}, caps={"task": {"max_calls": 1}})) as live:
        await live.chat(task="t")
        no = await live.client.decision((await live.chat(task="t")).request_id)
        assert (no["outcome"], no["cost_killed_at_usd"]) == (Outcome.STEP_EXHAUSTED, None)


async def test_sound_is_paid_at_its_own_rate_and_held_only_for_calls_that_may_have_it(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    pricing = {"input_per_1k": 0.001, "output_per_1k": 0.002, "audio_output_per_1k": 0.02}
    upstream.source = Script.of(
        words("la la la"),
        usage_override={"completion_tokens": 10, "completion_tokens_details": {"audio_tokens": 8}},
        input_tokens=10,
    )
    async with Live(tmp_path, policy({"a": upstream}, models={"a": {"pricing": pricing}})) as live:
        said = await live.client.decision((await live.chat(task="t", max_tokens=100)).request_id)
        sung = await live.chat(task="t", max_tokens=100, modalities=["text", "audio"])
        held = [r["attempts"][0]["budget"]["held_usd"] for r in (said, await live.client.decision(sung.request_id))]
        assert held[1] > 5 * held[0]
        assert sung.json["usage"]["cost"] == pytest.approx(10 * 1e-6 + 2 * 2e-6 + 8 * 2e-5)


async def test_usage_that_counts_each_chunk_alone_is_billed_in_whole(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    def event(**more: Any) -> bytes:
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", **more}
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"

    said = [
        event(
            choices=[{"index": 0, "delta": {"content": f" w{n}"}, "finish_reason": None if n < 9 else "stop"}],
            usage={"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11},
        )
        for n in range(10)
    ]
    upstream.source = Script.replay(b"".join(said) + b"data: [DONE]\n\n")
    async with Live(tmp_path, policy({"a": upstream})) as live:
        answer = await live.chat(stream=True, task="t", stream_options={"include_usage": True})
        assert answer.usage is not None
        assert (answer.usage["prompt_tokens"], answer.usage["completion_tokens"]) == (10, 10)
        assert (await live.balance("task:t")).spent_nano == 10 * INPUT_NANO + 10 * OUTPUT_NANO
