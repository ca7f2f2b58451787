"""Token counts: the provider's own where it has that method, else our estimate; never for money, never waited for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types as gemini_types

from app.http import count
from tests.gateway.live import Live, model, policy
from tests.upstream import ScriptedUpstream
from tests.upstream_script import HANG, Script, words

JSON = {"content-type": "application/json"}
MESSAGES = Script(body=b'{"input_tokens": 4711}', headers=JSON)
CONTENTS = Script(body=b'{"totalTokens": 4711, "cachedContentTokenCount": 1}', headers=JSON)
INPUT = Script(body=b'{"object": "response.input_tokens", "input_tokens": 4711}', headers=JSON)
TOO_DEEP = Script(body=b'{"x": %b, "input_tokens": 4711}' % (b"[" * 100_000 + b"]" * 100_000), headers=JSON)
LOOK: Any = {"type": "function", "name": "look", "strict": False, "parameters": {"type": "object", "properties": {}}}
SAY: Any = [{"role": "user", "content": "How long is this?"}]


@pytest.fixture
async def live(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[Live]:
    names = ("chat", "openai_responses", "anthropic", "gemini")
    both = policy(dict.fromkeys(names, upstream), stored_responses={"ttl_secs": 3600})
    for name in names[1:]:
        both["providers"][name]["dialect"] = name
    async with Live(tmp_path, both) as running:
        yield running


async def messages(live: Live, model: str, **headers: str) -> int:
    sdk = anthropic.AsyncAnthropic(base_url=live.url, api_key="x", max_retries=0, default_headers=headers)
    return (await sdk.messages.count_tokens(model=model, messages=SAY)).input_tokens


async def contents(live: Live, model: str) -> int | None:
    sdk = genai.Client(api_key="x", http_options=gemini_types.HttpOptions(base_url=live.url)).aio
    return (await sdk.models.count_tokens(model=model, contents="How long is this?")).total_tokens


async def responses(live: Live, model: str, **asked: Any) -> int:
    async with openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key="x", max_retries=0) as sdk:
        told = await sdk.responses.input_tokens.count(model=model, **{"input": "How long is this?", **asked})
    assert told.object == "response.input_tokens"
    return told.input_tokens


async def test_the_providers_own(live: Live, upstream: ScriptedUpstream) -> None:
    upstream.source = MESSAGES
    assert await messages(live, "anthropic") == 4711
    upstream.source = CONTENTS
    assert await contents(live, "gemini") == 4711
    upstream.source = INPUT
    other = {"metadata": {"task_id": "t"}, "max_output_tokens": 5, "models": ["chat"], "max_cost_usd": 1}
    assert await responses(live, "openai_responses", tools=[LOOK], extra_body=other) == 4711
    first, second, third = upstream.requests
    assert third.path == "/v1/responses/input_tokens"
    assert third.body == {"model": "m", "input": "How long is this?", "tools": [LOOK]}
    assert (first.path, first.body) == ("/v1/messages/count_tokens", {"model": "m", "messages": SAY})
    assert first.headers["anthropic-version"]
    assert second.path == "/v1/models/m:countTokens"
    assert "contents" in second.body
    assert await live.balances() == {}


async def test_an_estimate_where_the_provider_speaks_something_else(live: Live, upstream: ScriptedUpstream) -> None:
    assert 5 <= await messages(live, "chat") <= 30
    assert await messages(live, "never-heard-of") > 0
    assert 5 <= (await contents(live, "chat") or 0) <= 30
    assert 5 <= await responses(live, "chat") <= 30
    assert not upstream.requests


async def test_a_conversation_that_is_stored_is_counted_whole(live: Live, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.of(words("Six words of an answer, stored."))
    async with openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key="x", max_retries=0) as sdk:
        first = await sdk.responses.create(model="chat", input="word " * 1000)
        with pytest.raises(openai.BadRequestError) as lost:
            await sdk.responses.input_tokens.count(model="chat", previous_response_id="resp_bursar_none")
        assert lost.value.code == "previous_response_not_found"
    assert await responses(live, "chat") < 30
    assert await responses(live, "chat", previous_response_id=first.id) > 900
    upstream.source = INPUT
    upstream.requests.clear()
    assert await responses(live, "openai_responses", previous_response_id=first.id) == 4711
    (asked,) = upstream.requests
    assert "previous_response_id" not in asked.body
    assert [item["role"] for item in asked.body["input"]] == ["user", "assistant", "user"]


async def test_who_has_no_such_method_is_not_asked_again(live: Live, upstream: ScriptedUpstream) -> None:
    upstream.source = Script.failure(404)
    assert 5 <= await messages(live, "anthropic") <= 30
    assert 5 <= await messages(live, "anthropic") <= 30
    assert len(upstream.requests) == 1


async def test_a_model_that_its_provider_does_not_know_keeps_no_other_from_being_counted(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    both = policy({"anthropic": upstream}, models={"gone": model("anthropic", upstream_model="gone")})
    both["providers"]["anthropic"]["dialect"] = "anthropic"
    async with Live(tmp_path, both) as live:
        upstream.source = Script.failure(404)
        assert 5 <= await messages(live, "gone") <= 30
        upstream.source = MESSAGES
        assert await messages(live, "anthropic") == 4711
        assert 5 <= await messages(live, "gone") <= 30
        assert [request.body["model"] for request in upstream.requests] == ["gone", "m"]


@pytest.mark.parametrize(
    "source", [Script.failure(500), Script(body=b"[]", headers=JSON), TOO_DEEP, Script.failure(429)]
)
async def test_a_provider_that_fails_is_passed_over(live: Live, upstream: ScriptedUpstream, source: Script) -> None:
    upstream.source = source
    assert 5 <= await messages(live, "anthropic") <= 30
    upstream.source = MESSAGES
    assert await messages(live, "anthropic") == 4711


async def test_nobody_waits_for_it(live: Live, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count, "ASK_S", 0.2)
    upstream.source = Script(opening=[HANG])
    assert 5 <= await messages(live, "anthropic") <= 30
    await upstream.until(lambda u: u.requests[0].client_gone)


async def test_of_a_task_that_was_cut_nobody_is_asked(live: Live, upstream: ScriptedUpstream) -> None:
    task = {"X-Bursar-Task-Id": "over", "X-Bursar-Task-Max-Cost-Usd": "0.0003"}
    upstream.source = Script.of(words("w " * 2000), obeys_limit=False, delay_s=0.001)
    assert (await live.chat(model="chat", stream=True, headers=task)).error_code == "budget_exceeded"
    assert (await live.task("over"))["cost_killed_at_usd"] is not None
    upstream.source = MESSAGES
    assert 5 <= await messages(live, "anthropic", **task) <= 30
    assert len(upstream.requests) == 1
