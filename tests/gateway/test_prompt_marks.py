"""A prompt is marked for the provider's cache only where all that the cache takes is paid for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.live import Live, policy, read
from tests.gateway.test_thoughts import refusal
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script

WRITTEN, READ, FRESH, SAID = 4_000, 30_000, 10, 5
ANSWER = Script(
    body=json.dumps(
        {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5",
            "content": [{"type": "text", "text": "Done."}], "stop_reason": "end_turn", "stop_sequence": None,
            "usage": {"input_tokens": FRESH, "cache_creation_input_tokens": WRITTEN, "cache_read_input_tokens": READ,
                      "output_tokens": SAID},
        }
    ).encode(),
    headers={"content-type": "application/json"},
)  # fmt: skip
PLAIN = {"input_per_1k": 0.003, "output_per_1k": 0.015}
CACHED = {**PLAIN, "cache_read_per_1k": 0.0003, "cache_write_per_1k": 0.00375}
BODY = {
    "model": "a",
    "messages": [{"role": "system", "content": "You are"}, {"role": "user", "content": "go"}],
    "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
    "max_tokens": 50,
}


@pytest.mark.parametrize(("pricing", "marks"), [(PLAIN, 0), (CACHED, 3), ("free", 3)])
async def test_marks_follow_the_price(tmp_path: Path, pricing: Any, marks: int) -> None:
    with ScriptedUpstream(ANSWER) as upstream:
        models = {"a": {"upstream_model": "claude-sonnet-5", "pricing": pricing}}
        made = policy({"a": upstream}, providers={"a": {"dialect": "anthropic"}}, models=models)
        async with Live(tmp_path, made) as live:
            path = f"{live.url}/v1/chat/completions"
            answer = await read(await live.client.session.post(path, json=BODY))
    assert answer.status == 200
    assert json.dumps(upstream.requests[0].body).count('"cache_control"') == marks
    if pricing == CACHED:
        nano = FRESH * 3_000 + WRITTEN * 3_750 + READ * 300 + SAID * 15_000
        assert answer.json["usage"]["cost"] == pytest.approx(nano / 1e9)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(
    "message",
    [
        "tools.0.cache_control: Extra inputs are not permitted",
        "You invoked an unsupported model or your request did not allow prompt caching. See the documentation.",
    ],
)
async def test_marks_that_a_provider_refuses_are_left_out(tmp_path: Path, message: str, own: bool) -> None:
    content = [{"type": "text", "text": "go", **({"cache_control": {"type": "ephemeral"}} if own else {})}]
    body = {**BODY, "messages": [{"role": "user", "content": content}]}
    with ScriptedUpstream([refusal(message), ANSWER]) as upstream:
        models = {"a": {"upstream_model": "claude-sonnet-5", "pricing": CACHED}}
        made = policy({"a": upstream}, providers={"a": {"dialect": "anthropic"}}, models=models)
        async with Live(tmp_path, made) as live:
            path = f"{live.url}/v1/chat/completions"
            assert (await read(await live.client.session.post(path, json=body))).status == 200
            upstream.source = refusal(message)
            assert (await read(await live.client.session.post(path, json=body))).status == 400
    marks = [json.dumps(request.body).count('"cache_control"') for request in upstream.requests]
    assert marks == [1 if own else 2, 0, 0]
