"""What a provider searched for is billed beside its tokens: read in each dialect, priced by policy or catalogue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, Live, policy, read
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script

SEARCH_NANO = 10_000_000
TOKENS_NANO = 100 * INPUT_NANO + 20 * OUTPUT_NANO
MESSAGES = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "Found."}],
    "usage": {"input_tokens": 100, "output_tokens": 20, "server_tool_use": {"web_search_requests": 2}},
}  # fmt: skip
RESPONSES = {
    "id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "m",
    "output": [
        {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "a"}},
        {"id": "ws_2", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "b"}},
        {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant",
         "content": [{"type": "output_text", "text": "Found.", "annotations": []}]},
    ],
    "usage": {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120},
}  # fmt: skip


def grounded(model: str) -> dict[str, Any]:
    found = {"webSearchQueries": ["a", "b"], "searchEntryPoint": {"renderedContent": "<p>"}}
    content = {"parts": [{"text": "Found."}], "role": "model"}
    return {
        "candidates": [{"content": content, "finishReason": "STOP", "index": 0, "groundingMetadata": found}],
        "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 20, "totalTokenCount": 120},
        "modelVersion": model, "responseId": "r",
    }  # fmt: skip


HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
CASES = {
    "anthropic": (MESSAGES, 2, "/v1/messages", {"messages": HI, "max_tokens": 50}),
    "openai_responses": (RESPONSES, 2, "/v1/responses", {"input": "hi"}),
    "gemini": (
        grounded("gemini-3.1-pro"), 2, "/v1beta/models/m:generateContent",
        {"contents": [{"parts": [{"text": "hi"}]}]},
    ),
    "gemini-2.5": (
        grounded("gemini-2.5-pro"), 1, "/v1beta/models/m:generateContent",
        {"contents": [{"parts": [{"text": "hi"}]}]},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("declared", [True, False], ids=["priced", "unpriced"])
async def test_searches_are_charged(upstream: ScriptedUpstream, tmp_path: Path, case: str, declared: bool) -> None:
    reply, searches, path, body = CASES[case]
    upstream.source = Script(body=json.dumps(reply).encode(), headers={"content-type": "application/json"})
    pricing = {"input_per_1k": 0.001, "output_per_1k": 0.002, **({"search_per_query": 0.01} if declared else {})}
    spec = policy(
        {"m": upstream}, models={"m": {"pricing": pricing}}, providers={"m": {"dialect": case.partition("-")[0]}}
    )
    async with Live(tmp_path, spec) as live:
        headers = {"x-bursar-task-id": "t"}
        async with live.client.session.post(live.url + path, json={"model": "m", **body}, headers=headers) as response:
            answer = await read(response)
        assert answer.status == 200, answer.body
        spent = round((await live.task("t"))["spent_usd"] * 10**9)
        assert spent == TOKENS_NANO + (searches * SEARCH_NANO if declared else 0)
        (attempt,) = await live.attempts(answer)
        assert attempt["provenance"] == ("metered" if declared else "estimated")
