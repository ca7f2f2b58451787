"""Encrypted reasoning that this account cannot read: asked once more without it, and paid for once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, Live, policy, read
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script

CODE = {"message": "The encrypted content gAAA... could not be verified.", "code": "invalid_encrypted_content"}
REFUSAL = Script(
    status=400,
    body=json.dumps({"error": {"type": "invalid_request_error", "param": None, **CODE}}).encode(),
    headers={"content-type": "application/json"},
)
ANSWER = Script(
    body=json.dumps(
        {
            "id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "m",
            "output": [
                {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant",
                 "content": [{"type": "output_text", "text": "Done.", "annotations": []}]}
            ],
            "usage": {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9},
        }
    ).encode(),
    headers={"content-type": "application/json"},
)  # fmt: skip
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
SAID: list[dict[str, Any]] = [
    {"role": "user", "content": "hi"},
    {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "up"},
]


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture
async def live(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[Live]:
    upstream.requests.clear()
    providers = {"a": {"dialect": "openai_responses"}}
    async with Live(tmp_path, policy({"a": upstream}, providers=providers)) as running:
        yield running


async def ask(live: Live, items: list[dict[str, Any]]) -> Any:
    body = {"model": "a", "input": items, "max_output_tokens": 50, "metadata": {"task_id": "t"}}
    async with live.client.session.post(f"{live.url}/v1/responses", json=body) as response:
        return await read(response)


async def test_it_is_asked_again_without_them(live: Live, upstream: ScriptedUpstream) -> None:
    upstream.source = [REFUSAL, ANSWER]
    answer = await ask(live, [SAID[0], THOUGHT, *SAID[1:]])
    assert (answer.status, answer.json["output"][0]["content"][0]["text"]) == (200, "Done.")
    first, second = upstream.requests
    assert first.body["input"] == [SAID[0], THOUGHT, *SAID[1:]]
    assert second.body["input"] == SAID
    assert {**first.body, "input": 0} == {**second.body, "input": 0}
    task = await live.task("t")
    assert (round(task["spent_usd"] * 10**9), task["calls"]) == (7 * INPUT_NANO + 2 * OUTPUT_NANO, 1)


async def test_once(live: Live, upstream: ScriptedUpstream) -> None:
    upstream.source = REFUSAL
    answer = await ask(live, [THOUGHT, *SAID])
    assert (answer.status, answer.error_code) == (400, "invalid_encrypted_content")
    assert len(upstream.requests) == 2


async def test_what_has_none_is_not_asked_again(live: Live, upstream: ScriptedUpstream) -> None:
    upstream.source = REFUSAL
    assert (await ask(live, SAID)).status == 400
    assert len(upstream.requests) == 1
