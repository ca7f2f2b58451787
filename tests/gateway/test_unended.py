"""Answers that say less of their end than was asked: no finish reason before `[DONE]`, fewer choices than `n`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, Live, policy, usd
from tests.upstream import ScriptedUpstream
from tests.upstream_script import END, Delta, Event, Raw, Script, text, tool

CAPS = {"task": {"max_cost_usd": 0.1}}
DONE = Raw(b"data: [DONE]\n\n")
CALL = tool('{"cmd":"ls"}', id="c1", name="bash", tokens=5)


@pytest.mark.parametrize(("said", "reason"), [(text("Hi", 5), "stop"), (CALL, "tool_calls")])
async def test_done_without_a_reason_is_an_end(
    tmp_path: Path, upstream: ScriptedUpstream, said: Delta, reason: str
) -> None:
    usage = Event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}})
    upstream.source = Script.of(said, usage, DONE, END)
    async with Live(tmp_path, policy({"a": upstream}, caps=CAPS)) as live:
        answer = await live.chat(task="t1", stream=True, stream_options={"include_usage": True})
        assert (answer.error, answer.finishes, answer.done) == (None, [reason], True)
        assert answer.usage is not None
        assert answer.usage["cost"] == usd(7 * INPUT_NANO + 5 * OUTPUT_NANO)
        record = await live.client.decision(answer.request_id)
        assert (record["outcome"], record["attempts"][0]["provenance"]) == ("completed", "metered")


@pytest.mark.parametrize("stream", [True, False])
async def test_fewer_choices_than_asked_for_are_whole_and_noted(
    tmp_path: Path, upstream: ScriptedUpstream, stream: bool
) -> None:
    """There are servers that do not know `n`: their clients get what there is, and operators can see it."""
    two = [{"index": i, "delta": {"content": "Hi"}, "finish_reason": "stop"} for i in (0, 1)]
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    if stream:
        upstream.source = Script.of(Event({"choices": two}), Event({"choices": [], "usage": usage}), DONE, END)
    else:
        said = [{"index": c["index"], "message": c["delta"], "finish_reason": "stop"} for c in two]
        upstream.source = Script(body=json.dumps({"choices": said, "usage": usage}).encode())
    async with Live(tmp_path, policy({"a": upstream}, caps=CAPS)) as live:
        answer = await live.chat(task="t1", n=3, stream=stream, max_tokens=9)
        assert answer.status == 200
        record = await live.client.decision(answer.request_id)
        assert (record["outcome"], record["attempts"][0]["choices"]) == ("completed", 2)
        assert record["cost_usd"] == usd(7 * INPUT_NANO + 2 * OUTPUT_NANO)
        full = await live.chat(task="t1", n=2, stream=stream, max_tokens=9)
        assert "choices" not in (await live.client.decision(full.request_id))["attempts"][0]
