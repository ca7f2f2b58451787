"""A Gemini model that failed to call a tool: other dialects have no word for it, and `stop` ends an agent's turn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.events import FAILED_CALLS
from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, Live, policy
from tests.upstream import ScriptedUpstream
from tests.upstream_script import Script, words


@pytest.fixture
def second() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


HI = [{"role": "user", "content": "Hi"}]
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HI},
    "/v1/messages": {"messages": HI, "max_tokens": 50},
    "/v1/responses": {"input": "Hi"},
}
SSE = {"content-type": "text/event-stream"}
COST_NANO = 7 * INPUT_NANO + 5 * OUTPUT_NANO


def failing(word: str, said: str, *, stream: bool) -> Script:
    """A reply of Gemini's that ends so."""
    parts = [{"text": said}] if said else []
    counts = {"promptTokenCount": 7, "candidatesTokenCount": 5, "totalTokenCount": 12}
    ended = {"content": {"role": "model", "parts": parts}, "finishReason": word, "index": 0}
    data = json.dumps({"candidates": [ended], "usageMetadata": counts, "modelVersion": "g"}).encode()
    if stream and said:  # the end comes after the text has been sent on
        first = json.dumps({"candidates": [{"content": ended.pop("content"), "index": 0}]}).encode()
        last = json.dumps({"candidates": [ended], "usageMetadata": counts}).encode()
        return Script(body=b"data: %b\n\ndata: %b\n\n" % (first, last), headers=SSE)
    return Script(body=b"data: %b\n\n" % data, headers=SSE) if stream else Script.replay(data, "application/json")


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("said", ["", "I call it."])
async def test_it_goes_on_elsewhere_or_is_an_error(
    tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream, path: str, stream: bool, said: str
) -> None:
    upstream.source = failing("MALFORMED_FUNCTION_CALL", said, stream=stream)
    second.source = Script.of(words("One two three."))
    rules = policy(
        {"a": upstream.url.removesuffix("/v1") + "/v1beta", "b": second}, providers={"a": {"dialect": "gemini"}}
    )
    async with Live(tmp_path, rules) as live:
        answer = await live.chat(path=path, **{"messages": None, "model": "auto", "stream": stream, **ASKED[path]})
        told = answer.body.decode()
        first, *others = (await live.client.decision(answer.request_id))["attempts"]
        assert (first["outcome"], round(first["cost_usd"] * 10**9)) == ("api_error", COST_NANO)
        if stream and said:
            assert (others, answer.status) == ([], 200)
            assert "error" in told
            assert not any(word in told for word in ('"stop"', "end_turn", "response.completed", "[DONE]"))
        else:
            assert [attempt["outcome"] for attempt in others] == ["completed"]
            assert "three." in told


@pytest.mark.parametrize("word", sorted(FAILED_CALLS))
async def test_geminis_own_clients_are_told_its_word(tmp_path: Path, upstream: ScriptedUpstream, word: str) -> None:
    upstream.source = failing(word.upper(), "", stream=False)
    rules = policy({"a": upstream.url.removesuffix("/v1") + "/v1beta"}, providers={"a": {"dialect": "gemini"}})
    async with Live(tmp_path, rules) as live:
        asked = {"contents": [{"parts": [{"text": "Hi"}]}]}
        async with live.client.session.post(f"{live.url}/v1beta/models/a:generateContent", json=asked) as response:
            assert (await response.json())["candidates"][0]["finishReason"] == word.upper()
