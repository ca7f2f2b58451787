"""A request that goes to another model than its client had in mind: what that one would refuse is not asked of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.live import OUTPUT_NANO, PROMPT, Answer, Live, policy, read, usd
from tests.upstream import ScriptedUpstream
from tests.upstream_reply import Received
from tests.upstream_script import Script, tool, words

MOST = 64_000
MESSAGE = Script(
    body=json.dumps(
        {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None,
            "content": [{"type": "text", "text": "Hi."}], "stop_reason": "max_tokens",
            "usage": {"input_tokens": 7, "output_tokens": MOST},
        }
    ).encode(),
    headers={"content-type": "application/json"},
)  # fmt: skip


async def ask(live: Live, path: str, **body: Any) -> Answer:
    async with live.client.session.post(live.url + path, json={"messages": PROMPT, **body}) as response:
        return await read(response)


@pytest.mark.parametrize(
    ("asked", "limit", "sent"),
    [("auto", 128_000, MOST), ("auto", MOST - 1, MOST - 1), ("claude-haiku-4-5", 128_000, 128_000)],
)
async def test_no_more_is_asked_than_the_model_can_say(
    upstream: ScriptedUpstream, tmp_path: Path, asked: str, limit: int, sent: int
) -> None:
    upstream.source, upstream.requests[:] = MESSAGE, []
    models = {"a": {"upstream_model": "claude-haiku-4-5", "max_output_tokens": MOST}}
    aliases = {"claude-haiku-4-5": "a"}
    world = policy({"a": upstream}, providers={"a": {"dialect": "anthropic"}}, models=models, aliases=aliases)
    async with Live(tmp_path, world) as live:
        answer = await ask(live, "/v1/messages", model=asked, max_tokens=limit)
        attempts = await live.attempts(answer)
    assert upstream.requests[0].body["max_tokens"] == sent
    # The model itself ended there: that is no cut.
    assert (answer.status, answer.json["stop_reason"]) == (200, "max_tokens")
    assert (attempts[0]["outcome"], attempts[0]["clamp_tokens"]) == ("completed", None)


async def test_a_cap_that_pays_for_less_is_the_tighter_one(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.source, upstream.requests[:] = Script.of(words("One two.")), []
    models = {"a": {"upstream_model": "gpt-4o", "max_output_tokens": 16_384}}
    async with Live(tmp_path, policy({"a": upstream}, models=models)) as live:
        for cap in (None, usd(100 * OUTPUT_NANO)):
            await live.chat(model="auto", stream=True, max_tokens=128_000, max_cost_usd=cap)
    first, second = [request.body["max_tokens"] for request in upstream.requests]
    assert first == 16_384
    assert second < 100


async def test_what_a_route_leads_to_is_asked_in_words_that_it_takes(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.source, upstream.requests[:] = Script.of(words("One two.")), []
    asked = {"max_tokens": 50, "temperature": 0.1, "reasoning_effort": "minimal", "seed": 7}
    async with Live(tmp_path, policy({"a": upstream}, models={"a": {"upstream_model": "gpt-5.4"}})) as live:
        assert (await live.chat(model="auto", stream=True, **asked)).text == "One two."
    body = upstream.requests[0].body
    assert {name: body.get(name) for name in ("max_tokens", "temperature")} == {"max_tokens": None, "temperature": None}
    assert (body["max_completion_tokens"], body["reasoning_effort"], body["seed"]) == (50, "low", 7)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_tool_with_a_long_name_is_called_by_it(
    upstream: ScriptedUpstream, tmp_path: Path, stream: bool
) -> None:
    name = "mcp__plugin_atlassian-mcp-remote_atlassian__getJiraProjectIssueTypesMetadata"
    offered = {"name": name, "input_schema": {"type": "object"}}

    def called(request: Received) -> Script:
        function = request.body["tools"][0]["function"]["name"]
        return Script.of(tool("{}", id="call_1", name=function)) if len(function) <= 64 else Script.failure(400)

    upstream.source, upstream.requests[:] = called, []
    use = {"type": "tool_use", "id": "call_1", "name": name, "input": {}}
    results = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "none"}]}
    async with Live(tmp_path, policy({"a": upstream})) as live:
        asked: dict[str, Any] = {"model": "a", "max_tokens": 99, "tools": [offered], "stream": stream}
        answer = await ask(live, "/v1/messages", **asked)
        turns = [*PROMPT, {"role": "assistant", "content": [use]}, results]
        await ask(live, "/v1/messages", **asked, messages=turns)
    assert f'"name":"{name}"'.encode() in answer.body
    first, second = [request.body for request in upstream.requests]
    assert second["messages"][1]["tool_calls"][0]["function"]["name"] == first["tools"][0]["function"]["name"]
