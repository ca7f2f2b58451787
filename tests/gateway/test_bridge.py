"""Providers that only litellm translates for, scripted over real HTTP: Bedrock's Converse and Cohere's v2 chat.

They are metered, clamped, cut and settled like any other, and litellm is not loaded for anybody else.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.core.money import nano_from_usd
from tests.gateway.foreign import Foreign, Said
from tests.gateway.live import INPUT_NANO, OUTPUT_NANO, PROMPT, Live, policy, read, usd

CREDENTIALS = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "secret", "aws_region_name": "eu-west-1"}
MODEL = "anthropic.claude-3-haiku-20240307-v1:0"
BOTH = pytest.mark.parametrize("model", ["bedrock", "cohere"])
STREAMED = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
MANY = [f" word{number}" for number in range(3000)]


@pytest.fixture
async def foreign() -> AsyncIterator[Foreign]:
    async with Foreign() as serving:
        yield serving


def bridged(foreign: Foreign, **fields: Any) -> dict[str, Any]:
    """A policy with both providers; Bedrock's cancelled streams are taken to be free here, so that cuts are metered."""
    made = policy({"bedrock": foreign.url, "cohere": foreign.url + "/v2/chat"})
    made["providers"] = {
        "bedrock": {
            "dialect": "litellm",
            "base_url": foreign.url,
            "litellm": {"provider": "bedrock", "options": CREDENTIALS},
            "headers": {"x-ours": "yes"},
            "bills_after_cancel": False,
        },
        "cohere": {
            "dialect": "litellm",
            "base_url": foreign.url + "/v2/chat",
            "litellm": {"provider": "cohere_chat"},
            "api_key": "co-key",
        },
        "embedder": {
            "dialect": "litellm",
            "base_url": foreign.url + "/v2/embed",
            "litellm": {"provider": "cohere"},
            "api_key": "co-key",
        },
    }
    made["models"]["bedrock"]["upstream_model"] = MODEL
    made["models"]["cohere"]["upstream_model"] = "command-r"
    made["models"]["embed"] = {
        "provider": "embedder", "upstream_model": "embed-english-v3.0", "embeddings": True,
        "pricing": {"input_per_1k": 0.001, "output_per_1k": 0},
    }  # fmt: skip
    return {**made, **fields}


@pytest.fixture
async def live(foreign: Foreign, tmp_path: Path) -> AsyncIterator[Live]:
    async with Live(tmp_path, bridged(foreign)) as running:
        yield running


async def spent(live: Live, task: str = "t") -> int:
    return nano_from_usd((await live.task(task))["spent_usd"])


@BOTH
@STREAMED
async def test_text(live: Live, foreign: Foreign, model: str, stream: bool) -> None:
    extra = {"stream_options": {"include_usage": True}} if stream else {}
    answer = await live.chat(model=model, task="t", stream=stream, max_tokens=50, temperature=0.5, **extra)
    assert answer.status == 200, answer.body
    said = answer.text if stream else answer.json["choices"][0]["message"]["content"]
    assert said == "Hello from afar."
    assert (answer.finishes if stream else [answer.json["choices"][0]["finish_reason"]]) == ["stop"]
    assert not stream or answer.done
    assert answer.usage is not None
    assert (answer.usage["prompt_tokens"], answer.usage["completion_tokens"]) == (12, 3)
    assert await spent(live) == 12 * INPUT_NANO + 3 * OUTPUT_NANO
    (asked,) = foreign.asked
    if model == "bedrock":
        assert asked.path == f"/model/{MODEL}/converse" + ("-stream" if stream else "")
        assert asked.body["inferenceConfig"] == {"maxTokens": 50, "temperature": 0.5}
        assert asked.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
        assert asked.headers["x-ours"] == "yes"
    else:
        assert (asked.body["max_tokens"], asked.body["messages"]) == (50, PROMPT)
        assert asked.headers["authorization"] == "Bearer co-key"


@BOTH
@STREAMED
async def test_tools(live: Live, foreign: Foreign, model: str, stream: bool) -> None:
    foreign.said = Said(call=("look", ['{"what"', ': "up"}']), finish="tool_calls")
    answer = await live.chat(model=model, stream=stream, tools=TOOLS)
    assert answer.status == 200, answer.body
    if stream:
        deltas = [d for e in answer.events for c in e["choices"] for d in c["delta"].get("tool_calls", ())]
        names = [d["function"]["name"] for d in deltas if d["function"].get("name")]
        found = names, "".join(d["function"].get("arguments", "") for d in deltas)
        assert answer.finishes == ["tool_calls"]
    else:
        (call,) = answer.json["choices"][0]["message"]["tool_calls"]
        found = [call["function"]["name"]], call["function"]["arguments"]
    assert (found[0], json.loads(found[1])) == (["look"], {"what": "up"})
    sent = foreign.asked[0].body
    offered = sent["toolConfig"]["tools"][0]["toolSpec"] if model == "bedrock" else sent["tools"][0]["function"]
    assert offered["name"] == "look"


@BOTH
async def test_the_limit_is_reached(live: Live, foreign: Foreign, model: str) -> None:
    foreign.said = Said(finish="length", tokens=(12, 2))
    answer = await live.chat(model=model, max_tokens=2)
    assert answer.json["choices"][0]["finish_reason"] == "length"


async def test_clients_of_another_dialect(live: Live, foreign: Foreign) -> None:
    asked = {"model": "bedrock", "max_tokens": 20, "messages": PROMPT, "stream": True}
    async with live.client.session.post(f"{live.url}/v1/messages", json=asked) as response:
        answer = await read(response)
    assert b'"text":"Hello"' in answer.body
    assert answer.body.rstrip().endswith(b'data: {"type":"message_stop"}')


@BOTH
async def test_a_cut_cancels_the_provider(live: Live, foreign: Foreign, model: str) -> None:
    foreign.said = Said(words=MANY, delay_s=0.001)
    cap_nano = 200_000 + 100 * OUTPUT_NANO
    answer = await live.chat(model=model, task="t", stream=True, max_cost_usd=usd(cap_nano))
    assert (answer.error_code, answer.done, answer.finishes) == ("budget_exceeded", True, [])
    await foreign.until(lambda: foreign.asked[0].gone)
    assert foreign.asked[0].sent < 500
    assert cap_nano - 10 * OUTPUT_NANO < await spent(live) <= cap_nano + 20 * OUTPUT_NANO
    assert (await live.client.decision(answer.request_id))["cut"]["by"] == "meter"


@BOTH
async def test_a_client_that_leaves_cancels_the_provider(live: Live, foreign: Foreign, model: str) -> None:
    foreign.said = Said(words=MANY, delay_s=0.002)
    async with live.client.open(model=model, task="t", stream=True) as response:
        await response.content.readany()
    await foreign.until(lambda: foreign.asked[0].gone)
    await live.idle()
    assert 0 < await spent(live) < 3000 * OUTPUT_NANO


async def test_the_clamp_is_applied(live: Live, foreign: Foreign) -> None:
    cap_nano = 200_000
    await live.chat(model="bedrock", stream=True, max_cost_usd=usd(cap_nano))
    sent = foreign.asked[0].body["inferenceConfig"]["maxTokens"]
    assert 0 < sent <= cap_nano // OUTPUT_NANO


async def test_what_comes_whole_holds_all_it_may_cost(foreign: Foreign, tmp_path: Path) -> None:
    """Toward a provider whose streams are not used, a client's stream is one reply, and bounded by the clamp alone."""
    spec = bridged(foreign)
    spec["providers"]["cohere"]["litellm"]["streams"] = False
    async with Live(tmp_path, spec) as live:
        answer = await live.chat(model="cohere", stream=True, max_cost_usd=0.0002)
    assert answer.text == "Hello from afar."
    assert "stream" not in foreign.asked[0].body
    assert foreign.asked[0].body["max_tokens"] <= 0.0002 * 10**9 // OUTPUT_NANO


@pytest.fixture
async def vertex(foreign: Foreign, tmp_path: Path) -> AsyncIterator[Live]:
    """Vertex with a service account, for which litellm fetches the token by itself."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    account = {
        "type": "service_account", "project_id": "p", "private_key": pem, "private_key_id": "k", "client_id": "1",
        "client_email": "a@p.iam.gserviceaccount.com", "token_uri": foreign.url + "/token",
    }  # fmt: skip
    options = {"vertex_project": "p", "vertex_location": "eu", "vertex_credentials": json.dumps(account)}
    bridge = {"dialect": "litellm", "litellm": {"provider": "vertex_ai", "options": options}}
    url = foreign.url + "/vertex/gemini-2.5-flash"
    spec = policy({"v": url}, providers={"v": bridge}, models={"v": {"upstream_model": "gemini-2.5-flash"}})
    async with Live(tmp_path, spec) as live:
        yield live


@STREAMED
async def test_vertex_with_a_service_account(foreign: Foreign, vertex: Live, stream: bool) -> None:
    """The cost that litellm makes of its catalogue is not taken for the provider's."""
    answer = await vertex.chat(model="v", task="t", stream=stream, max_tokens=20)
    said = answer.text if stream else answer.json["choices"][0]["message"]["content"]
    assert said == "Hello from afar."
    assert not stream or len({event["id"] for event in answer.events}) == 1
    assert await spent(vertex) == 12 * INPUT_NANO + 3 * OUTPUT_NANO
    assert foreign.asked[0].headers["authorization"] == "Bearer vertex-token"
    assert foreign.asked[0].body["generationConfig"]["max_output_tokens"] == 20


@STREAMED
async def test_vertex_with_tools_and_pictures(foreign: Foreign, vertex: Live, stream: bool) -> None:
    foreign.said = Said(call=("look", ['{"what"', ': "up"}']))
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    asked = [
        {"role": "user", "content": [{"type": "text", "text": "Look."}, picture]},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_0", "type": "function", "function": {"name": "look", "arguments": '{"what": "down"}'}}
        ]},
        {"role": "tool", "tool_call_id": "call_0", "content": "nothing"},
    ]  # fmt: skip
    answer = await vertex.chat(model="v", task="t", stream=stream, messages=asked, tools=TOOLS)
    assert answer.status == 200, answer.body
    if stream:
        calls = [d for e in answer.events for c in e["choices"] for d in c["delta"].get("tool_calls", ())]
        assert answer.finishes == ["tool_calls"]
    else:
        calls = answer.json["choices"][0]["message"]["tool_calls"]
        assert answer.json["choices"][0]["finish_reason"] == "tool_calls"
    arguments = "".join(call["function"].get("arguments") or "" for call in calls)
    assert (calls[0]["function"]["name"], json.loads(arguments)) == ("look", {"what": "up"})
    assert calls[0]["id"]
    sent = foreign.asked[0].body
    (declared,) = sent["tools"][0]["function_declarations"]
    assert declared["name"] == "look"
    first, called, told = sent["contents"]
    assert [p["inline_data"]["data"] for p in first["parts"] if "inline_data" in p] == ["iVBORw0KGgo="]
    assert called["parts"][0]["function_call"] == {"name": "look", "args": {"what": "down"}}
    assert told["parts"][0]["function_response"]["name"] == "look"
    assert await spent(vertex) == 12 * INPUT_NANO + 3 * OUTPUT_NANO


async def test_a_provider_that_reports_nothing_is_estimated(live: Live, foreign: Foreign) -> None:
    foreign.said = Said(reports=False)
    answer = await live.chat(model="bedrock", stream=True, stream_options={"include_usage": True})
    assert answer.done
    (attempt,) = await live.attempts(answer)
    assert attempt["provenance"] == "estimated"


@pytest.mark.parametrize(
    ("status", "told", "code"),
    [
        (400, 400, None),
        (401, 502, "upstream_account"),
        (404, 404, None),
        (429, 429, "rate_limit_exceeded"),
        (500, 502, "upstream_error"),
    ],
)
async def test_errors_are_the_gateways_verdicts(
    live: Live, foreign: Foreign, status: int, told: int, code: str | None
) -> None:
    foreign.said = Said(status=status, error={"message": "No such thing"}, headers={"retry-after": "7"})
    answer = await live.chat(model="bedrock", task="t", stream=True)
    assert (answer.status, answer.error_code) == (told, code)
    assert answer.headers.get("retry-after") == ("7" if status in (429, 500) else None)
    assert b"Traceback" not in answer.body
    assert b"litellm" not in answer.body
    assert await spent(live) == 0
    if status == 400:
        assert answer.error is not None
        assert "No such thing" in answer.error["message"]


async def test_it_goes_on_to_the_next(foreign: Foreign, tmp_path: Path) -> None:
    both = bridged(foreign)
    both["routes"] = {"auto": {"candidates": ["bedrock"], "fallback": ["cohere"], "adequacy": 0}}
    both["providers"]["bedrock"]["base_url"] = "http://127.0.0.1:9"
    async with Live(tmp_path, both) as live:
        answer = await live.chat(model="auto", stream=True)
        assert answer.text == "Hello from afar."
        attempts = await live.attempts(answer)
        assert [a["cost_usd"] for a in attempts[:-1]] == [0] * (len(attempts) - 1)
        assert (attempts[0]["model"], attempts[-1]["model"]) == ("bedrock", "cohere")


@BOTH
async def test_a_provider_that_dies_in_mid_stream_is_an_honest_error(live: Live, foreign: Foreign, model: str) -> None:
    foreign.said = Said(words=["one", " two", " three"], dies_after=2)
    answer = await live.chat(model=model, stream=True)
    assert (answer.text, answer.error_code, answer.finishes) == ("one two", "upstream_error", [])
    assert not answer.done


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"api_base": "http://evil.example"}, "api_base"),
        ({"fallbacks": ["x"]}, "fallbacks"),
        ({"mock_response": "hi"}, "mock_response"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://10.0.0.1/"}}]}
                ]
            },
            "messages",
        ),
    ],
)
async def test_clients_do_not_steer_litellm(live: Live, foreign: Foreign, asked: dict[str, Any], param: str) -> None:
    answer = await live.chat(model="bedrock", **asked)
    assert answer.status == 400
    assert answer.error is not None
    assert answer.error["param"] == param
    assert not foreign.asked


async def test_embeddings(live: Live, foreign: Foreign) -> None:
    async with live.client.session.post(
        f"{live.url}/v1/embeddings", json={"model": "embed", "input": ["a", "b"], "encoding_format": "base64"}
    ) as response:
        found = await response.json()
    assert response.status == 200, found
    assert [row["index"] for row in found["data"]] == [0, 1]
    assert isinstance(found["data"][0]["embedding"], str)
    assert found["usage"]["cost"] == 12 * 1e-6
    assert foreign.asked[0].body["texts"] == ["a", "b"]


async def test_the_loop_goes_on_while_litellm_works(live: Live, foreign: Foreign) -> None:
    """Streams of many words, and beside them a call that must not wait for them."""
    foreign.said = Said(words=MANY[:400])
    slow = [asyncio.create_task(live.chat(model="bedrock", stream=True)) for _ in range(4)]
    await foreign.until(lambda: len(foreign.asked) == 4)
    for _ in range(5):
        assert await live.client.status("/healthz") == 200
    assert [len(answer.finishes) for answer in await asyncio.gather(*slow)] == [1] * 4


async def test_a_slow_reader_holds_the_provider_back(live: Live, foreign: Foreign) -> None:
    foreign.said = Said(words=["x" * 5000] * 4000)
    async with live.client.open(model="bedrock", stream=True) as response:
        await response.content.readany()
        before = -1
        while foreign.asked[0].sent != before:
            before = foreign.asked[0].sent
            await asyncio.sleep(0.3)
        assert before < 4000
    await foreign.until(lambda: foreign.asked[0].gone)


def test_litellm_is_not_loaded_by_serving() -> None:
    code = "import sys, app.main, app.gateway.litellm_bridge; sys.exit('litellm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
